"""Froster as a strictly typed program calls it: checked by mypy, never run."""

from pathlib import Path
from typing import Any, BinaryIO, assert_type

import numpy as np
from PIL.Image import Image
from torch import Tensor

import froster


def asked(
    model: froster.Recognizer,
    path: Path,
    opened: BinaryIO,
    frames: np.ndarray[Any, Any],
    pictures: list[Image],
    paths: list[Path],
    arrays: list[np.ndarray[Any, Any]],
) -> None:
    labels = ["surfing", "skiing"]
    assert_type(model.classify(path, labels), froster.Classification)
    assert_type(model.classify("clip.mp4", labels), froster.Classification)
    assert_type(model.classify(b"", labels), froster.Classification)
    assert_type(model.classify(opened, labels, progress=True), froster.Classification)
    assert_type(model.classify(frames, labels, fps=25), froster.Classification)
    assert_type(model.classify(pictures, labels), froster.Classification)
    assert_type(model.classify(paths, labels), list[froster.Classification])
    assert_type(model.classify(["a.mp4", "b.mp4"], labels), list[froster.Classification])
    assert_type(model.classify([pictures, pictures], labels), list[froster.Classification])
    assert_type(model.classify(arrays, labels), Any)  # frames of one video, or videos
    assert_type(model.embed_video(path), Tensor)
    assert_type(model.embed_video(paths, progress=True), Tensor)
    timeline = model.timeline(path, labels)
    assert_type(timeline, froster.Timeline)
    assert_type(timeline["surfing"], list[froster.Segment])
    assert_type(model.classify(path, labels)["surfing"], float)
    assert_type(dict(model.classify(path, labels)), dict[str, float])


def commands(model: froster.Recognizer, folder: Path) -> None:
    assert_type(froster.load("nano"), froster.Recognizer)
    assert_type(froster.classify(model, folder, ["surfing"], "results.csv"), dict[str, Any])
    assert_type(froster.timeline(model, b"", ["surfing"]), froster.Timeline)
    froster.index(model, folder, "index")
    for hit in froster.search("index", "a boat").hits:
        assert_type(hit.start, float)
    result = froster.train(folder, "runs/first", "nano", novel_fraction=0.3)
    assert result is not None  # as in all processes of torchrun but the first
    assert_type(result.model, froster.Recognizer)
    froster.evaluate(folder, "runs/first")
