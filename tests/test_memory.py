"""`froster train --memory` says within 15 % what the run then needs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

import quick
import templates
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.inference.recognizer import Recognizer, load
from froster.methods import Frozen
from shared_files import World

RUN = """
import json, resource, sys
from froster.cli import main
sys.argv = ["froster", *json.loads(sys.argv[1])]
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
WIDE = VisionConfig(32, 16, 1024, 6, 16), TextConfig(77, 954, 512, 4, 8)
"""Weights are what it needs memory for."""
FINE = VisionConfig(48, 4, 256, 3, 4), TextConfig(77, 954, 128, 2, 2)
"""Activations are."""
RUNS = {
    "wide": (WIDE, ["--batch-size", 4]),
    "wide, adapters, bfloat16": (
        WIDE,
        ["--batch-size", 4, "--method", "lora", "--precision", "bf16"],
    ),
    "wide, no teacher": (WIDE, ["--batch-size", 4, "--distill", "none"]),
    "fine": (FINE, ["--batch-size", 12]),
    "fine, bfloat16": (FINE, ["--batch-size", 16, "--precision", "bf16"]),
    "fine, checkpointing": (FINE, ["--batch-size", 16, "--checkpointing"]),
    "fine, other method": (FINE, ["--batch-size", 8, "--method", "st-adapter"]),
}
QUICK = "wide"


@pytest.fixture
def videos(name: str, tmp_path: Path) -> Path:
    """Two batches an epoch: the second epoch adds the average, more steps add nothing."""
    root, batch = tmp_path / "videos", RUNS[name][1][1]
    world = World("base", batch // 2)
    for i in range(2 * batch):
        world.write(i, root / world.label(i) / f"{i}.mp4")
    return root


def typed_alone(*words: object) -> str:
    """What a process of its own says, and its peak in KiB."""
    done = quick.run(
        [sys.executable, "-c", RUN, json.dumps([str(word) for word in words])],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", templates.VARIABLE: "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="sizes are in other units elsewhere")
@pytest.mark.parametrize(
    "name", [n if n == QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RUNS]
)
def test_what_is_said_is_what_is_needed(name: str, videos: Path, tmp_path: Path) -> None:
    """About 20 s each: a process that counts, and one that trains."""
    (vision, text), asked = RUNS[name]
    nano = load("nano", device="cpu")
    torch.manual_seed(0)
    text = dataclasses.replace(text, vocab=nano.tokenizer.vocab_size)
    clip = CLIP(CLIPConfig(vision, text, 128))
    Recognizer(Frozen().build(clip), nano.tokenizer, nano.config).save(tmp_path / "model")
    how = ["train", "--data", videos, "--model", tmp_path / "model", "--epochs", 2, "--workers", 0]
    how += ["--blend-points", 2]
    how += ["--precision", "fp32"] if "--precision" not in asked else []
    how += [*asked, "--no-look"]
    said = typed_alone(*how, "--out", tmp_path / "no", "--memory")
    assert not (tmp_path / "no").exists()
    counted = float(re.findall(r"about ([\d.]+) GB in this process", said)[0])
    trained = typed_alone(*how, "--out", tmp_path / "run")
    needed = int(re.findall(r"peak (\d+)", trained)[0]) * 1024 / 1e9
    print(f"{name}: counted {counted:.2f} GB, needed {needed:.2f} GB, {counted / needed:.2f}")
    assert counted == pytest.approx(needed, rel=0.15)
