"""`run` and `Popen` as in `subprocess`, for Python programs that import torch and froster: a process
that has imported both forks, so that a start costs a tenth of a second and not three.

What is started has a pid, streams, environment, folder, umask and session of its own, and is killed
like any other. Only what Python reads before the first line (locale, UTF-8 mode) is the parent's, and
the server that forks its reading processes is one for all: who tests these uses `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.forkserver
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

# AdamW imports torch._dynamo, which takes longer than torch itself.
PRELOADED = (
    *("torch", "torch._dynamo", "av", "numpy", "froster.cli", "froster.inference.recognizer"),
    *(
        "froster.inference.batch",
        "froster.training.finish",
        "froster.world.sets",
        "matplotlib.pyplot",
        "templates",
    ),
)
READERS = (
    *("froster.utils.forkserver", "froster.data.loader", "froster.data.inspect"),
    *("froster.data.pack_video", "froster.inference.batch"),
)
"""What reading processes import, whatever they read."""
PIPE, STDOUT = subprocess.PIPE, subprocess.STDOUT


class Popen:
    """Takes `[sys.executable, …]` with `-m module`, `-c code` or a program, and its arguments."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: dict[str, str] | None = None,
        cwd: Any = None,
        umask: int = -1,
        text: bool = False,
        start_new_session: bool = False,
        address: str | None = None,
    ):
        self.args, self.returncode = command, None
        ends: list[Any] = [None, None, None]
        streams = [0, 1, 2]
        for number, given in enumerate((stdin, stdout, stderr)):
            if given == PIPE:
                read, write = os.pipe()
                streams[number], mine = (read, write) if number == 0 else (write, read)
                mode = "w" if number == 0 else "r"
                ends[number] = os.fdopen(mine, mode if text else mode + "b")
            elif given == STDOUT:
                streams[number] = streams[1]
            elif given == subprocess.DEVNULL:
                streams[number] = os.open(os.devnull, os.O_RDWR)
            elif given is not None:
                streams[number] = given if isinstance(given, int) else given.fileno()
        self.stdin, self.stdout, self.stderr = ends
        request = {
            "words": [os.fsdecode(os.fspath(word)) for word in command[1:]],  # type: ignore[call-overload]
            "folder": os.fsdecode(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "umask": umask,
            "new_session": start_new_session,
        }
        self._status = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._status.connect(address or server())
        socket.send_fds(self._status, [json.dumps(request).encode()], streams)
        for number, given in enumerate((stdin, stdout, stderr)):
            if given in (PIPE, subprocess.DEVNULL):
                os.close(streams[number])
        self.pid = int.from_bytes(self._status.recv(4), "big")

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                status = self._status.recv(4)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            assert status, "the process that forks has gone"
            self.returncode = int.from_bytes(status, "big", signed=True)
            self._status.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        end = None if timeout is None else time.monotonic() + timeout
        texts: dict[Any, Any] = {}
        threads = [
            threading.Thread(target=lambda s=stream: texts.update({s: s.read()}), daemon=True)
            for stream in (self.stdout, self.stderr)
            if stream
        ]
        for thread in threads:
            thread.start()
        if self.stdin:
            if input is not None:
                self.stdin.write(input)
            self.stdin.close()
        for thread in threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if end is None else max(0.001, end - time.monotonic()))
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        return texts.get(self.stdout), texts.get(self.stderr)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self._status.close()

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream:
                stream.close()
        self.wait()


def run(
    command: Sequence[object],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess:
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    process = Popen(command, stdin=PIPE if input is not None else subprocess.DEVNULL, **options)
    try:
        out, err = process.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = subprocess.CompletedProcess(list(command), process.wait(), out, err)
    if check:
        done.check_returncode()
    return done


def pasted(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of Python's as a shell reads it."""
    words = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True).stdout
    command = list(map(os.fsdecode, words.split(b"\0")[:-1]))
    return run(command, cwd=folder, capture_output=True, text=True)


PAGELESS = "FROSTER_TEST_NO_PAGE"
"""Where it is set, no page is written at the end of `froster train`, as by the fixture `no_page`."""
ADDRESS = "FROSTER_TEST_SERVER"
"""In the environment of the workers of a session: they share the server of the process above."""


@functools.cache
def server() -> str:
    """The address of the process that forks; it ends with the process that has asked first."""
    if ADDRESS in os.environ:
        return os.environ[ADDRESS]
    address = os.path.join(tempfile.mkdtemp(prefix="quick-"), "server")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(listener.fileno())],
            stdin=PIPE,
            pass_fds=[listener.fileno()],
            env=environment,
        )
    atexit.register(_stop, process, address)
    return address


def _stop(process: subprocess.Popen, address: str) -> None:
    process.communicate()
    shutil.rmtree(os.path.dirname(address), ignore_errors=True)


def _serve(listener: socket.socket) -> None:
    """Forks a process for each connection and sends it the pid, then the exit code, until standard
    input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    readers = multiprocessing.forkserver
    readers.set_forkserver_preload(list(READERS))
    readers.ensure_running()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page that it looks at
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for source in (0, listener, read):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if 0 in ready:
                return
            if read in ready:
                os.read(read, 1 << 16)
                while running:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                    if not pid:
                        break
                    code = os.waitstatus_to_exitcode(status)
                    with running.pop(pid) as client, contextlib.suppress(OSError):
                        client.send(code.to_bytes(4, "big", signed=True))
            if listener in ready:
                client, _ = listener.accept()
                data, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for connection in (listener, client, *running.values()):
                        connection.close()
                    selector.close()
                    os.close(read)
                    os.close(write)
                    os._exit(_run(json.loads(data), streams))
                running[pid] = client
                client.send(pid.to_bytes(4, "big"))
                for stream in streams:
                    os.close(stream)


def _run(request: dict[str, Any], fds: list[int]) -> int:
    """In the forked process: becomes the program and gives its exit code."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    if request["new_session"]:
        os.setsid()
    if request["umask"] >= 0:
        os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # TMPDIR may be another
    # It runs, and is another's child, whose end cannot be waited for.
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    if "COLUMNS" in os.environ:  # read by consoles when they are made, which was before the fork
        progress = importlib.import_module("froster.utils.progress")
        progress.console.width = progress.output.width = int(os.environ["COLUMNS"])
    os.chdir(request["folder"])
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin = TextIOWrapper(os.fdopen(0, "rb", closefd=False), encoding, errors or "strict")
    sys.stdout = TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding, errors or "strict")
    sys.stderr = TextIOWrapper(
        os.fdopen(2, "wb", closefd=False), encoding, "backslashreplace", write_through=True
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    templates = sys.modules["templates"]
    if templates.VARIABLE in os.environ:
        templates.use_few(templates.pytest.MonkeyPatch())
    if PAGELESS in os.environ:
        importlib.import_module("froster.cli.train").write_page = lambda result: None
    code: object = 0
    try:
        words = request["words"]
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], os.getcwd()
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *words[2:]], os.getcwd()
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[0] = words, os.path.dirname(words[0])
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except Exception:
        traceback.print_exc()
    return int(code or 0)  # type: ignore[call-overload]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(socket.socket(fileno=int(sys.argv[2])))
    else:  # a program in the shell: quick.py ADDRESS -m froster …
        process = Popen(sys.argv[1:], address=sys.argv[1])
        signal.signal(signal.SIGTERM, lambda number, _: os.kill(process.pid, number))
        code = process.wait()
        sys.exit(code if code >= 0 else 128 - code)
