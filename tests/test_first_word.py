"""What a person sees first: something, before PyTorch, NumPy or FFmpeg is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared_files import World

pty = pytest.importorskip("pty", reason="terminals are looked at where there are pseudo-terminals")
SCRIPT = """
import sys

class Watch:
    slow = {"torch", "numpy", "av"}

    def find_spec(self, name, path=None, target=None):
        if name in self.slow:
            self.slow.remove(name)
            print("IMPORT", name, file=sys.stderr, flush=True)

sys.meta_path.insert(0, Watch())
from froster.cli import main
main()
"""


def seen(*arguments: object, script: str = SCRIPT) -> tuple[int, str]:
    """The exit code of a command, and all that it shows on a terminal."""
    end, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=other,
        stdout=other,
        stderr=other,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(other)
    parts = []
    while True:
        try:
            part = os.read(end, 4096)
        except OSError:  # Linux says so that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(end)
    return process.wait(), b"".join(parts).decode()


SWALLOWED = """
import os, signal, sys

class Careless:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                raise ImportError("cannot load module more than once per process")

sys.meta_path.insert(0, Careless())
from froster.cli import main
main()
"""


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_ctrl_c_while_pytorch_is_imported_is_one_line(tmp_path: Path, command: str) -> None:
    """NumPy, interrupted in its C code, forgets why and cannot be imported a second time."""
    World("base", 1).write(0, tmp_path / "videos" / "star" / "a.mp4")
    what = ("nano",) if command == "calibrate" else ("--model", "nano")
    code, text = seen(
        command, *what, "--data", tmp_path / "videos", "--out", tmp_path / "x", script=SWALLOWED
    )
    assert code == 130
    assert "froster: stopped" in text and "Traceback" not in text


def test_the_first_word_comes_before_pytorch(tmp_path: Path) -> None:
    clip = World("base", 1).write(0, tmp_path / "a.mp4")
    code, text = seen("classify", clip, "--labels", "a star, a bus", "--model", "nano")
    assert code == 0
    assert 0 <= text.find("starting") < text.find("IMPORT ")
    assert text.find("IMPORT torch") < text.find("a star")


def test_what_is_refused_without_pytorch_does_not_wait_for_it(tmp_path: Path) -> None:
    missing = tmp_path / "none.mp4"
    code, text = seen("classify", missing, "--labels", "a star, a bus", "--model", "nano")
    assert code == 2 and "no such file" in text
    assert "IMPORT torch" not in text


COMMANDS = {
    "timeline": ("CLIP", "--labels", "a, b", "--model", "NOWHERE"),
    "search": ("NOWHERE", "a star"),
    "index": ("CLIP", "--out", "NOWHERE", "--model", "NOWHERE"),
    "watch": ("CLIP", "--labels", "a, b", "--model", "NOWHERE"),
    "serve": ("--model", "NOWHERE", "--port", "0"),
    "evaluate": ("--data", "NOWHERE", "--model", "nano"),
    "teach": ("NOWHERE", "--out", "OUT"),
    "train": ("--data", "NOWHERE", "--out", "OUT"),
    "label": ("NOWHERE", "--port", "0"),
    "calibrate": ("NOWHERE", "--data", "NOWHERE"),
    "blend": ("NOWHERE",),
    "demo": ("--out", "OUT"),
    "doctor": ("CLIP",),
    "pack": ("CLIP", "--out", "OUT"),
    "attend": ("CLIP", "--models", "NOWHERE", "--out", "OUT"),
    "distance": ("ucf101", "k400", "--model", "NOWHERE"),
    "export": ("--out", "OUT", "--model", "NOWHERE"),
    "push": ("NOWHERE", "a/b", "--dry-run"),
    "methods": (),
    "rehearse": (
        *("--tsm", "NOWHERE", "--bit", "NOWHERE", "--bert", "NOWHERE"),
        *("--concepts", "NOWHERE", "--definitions", "NOWHERE", "--out", "OUT"),
    ),
    "reproduce": ("table2", "--world", "--out", "OUT"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_computes_says_a_word_first(command: str, tmp_path: Path) -> None:
    clip = World("base", 1).write(0, tmp_path / "a.mp4")
    places = {"CLIP": clip, "NOWHERE": tmp_path / "nowhere", "OUT": tmp_path / "out"}
    asked = [places.get(word, word) for word in COMMANDS[command]]
    ends_there = SCRIPT.replace("self.slow.remove(name)", "__import__('os')._exit(0)")
    _, text = seen(command, *asked, script=ends_there)
    assert "starting" in text, text
