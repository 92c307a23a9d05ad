"""One clip, from its file to its label, the model loaded: against transformers' CLIPModel and
XCLIPModel.

All decode the same 8 frames with the same reader, ask for the same labels with one template, and
are measured twice: with labels that the model has not met, and once more with the same labels,
which froster remembers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.clips import UCF, write_clip
from benchmarks.setup import FRAMES, labels, name_of, precisions, scene
from benchmarks.timing import Row, compare, interleave
from froster.encoders.checkpoints import load_clip
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import Frozen
from froster.text.prompts import Prompting
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform

GOALS = {"float32": 1.2, "bfloat16": 3.0}
LABELS = 10
TEMPLATE = "a video of a person {}."


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    from benchmarks.baselines import frame_by_frame, xclip

    stage = scene(toy)
    names = [label.partition(":")[0] for label in labels(LABELS)]
    texts = [TEMPLATE.format(name) for name in names]
    sampling = Sampling("dense", FRAMES)
    config = ModelConfig(Frozen(), sampling, 1, Prompting((TEMPLATE,), "plain"))
    with tempfile.TemporaryDirectory() as folder:
        file = write_clip(Path(folder) / f"clip.{UCF.suffix}", UCF, 0)

        def read() -> torch.Tensor:
            with Video(file) as video:
                frames = video.read(sampling.view_indices(video.timing, 1)[0])
            return inference_transform(frames, stage.image_size)

        contenders = {}
        for dtype in precisions(toy):
            precision = name_of(dtype)
            network = Frozen().build(load_clip(stage.folder)[0])
            model = Recognizer(network, stage.tokenizer, config, precision=precision)  # type: ignore[arg-type]

            def known(model: Recognizer = model) -> list[float]:
                return model.classify(file, names).scores

            def new(model: Recognizer = model) -> list[float]:
                model._cache.clear()  # as a new process
                return model.classify(file, names).scores

            contenders |= {
                f"froster, {precision}": new,
                f"froster, {precision}, labels known": known,
            }
        clip, video_clip = frame_by_frame(stage, torch.float32), xclip(stage, torch.float32, FRAMES)
        contenders["(b) CLIPModel, float32"] = lambda: clip(read(), texts).softmax(-1)
        contenders["(c) XCLIPModel, float32"] = lambda: video_clip(read(), texts).softmax(-1)
        same(contenders["froster, float32"](), contenders["(b) CLIPModel, float32"]().tolist())
        times = interleave(contenders, rounds or 9)
    what = f"classify one clip, {LABELS} labels, end to end"
    rows = []
    for name in contenders:
        precision = name.split(", ")[1]
        for other in ("(b) CLIPModel, float32", "(c) XCLIPModel, float32"):
            if name.startswith("froster"):
                rows.append(compare(what, times, name, other, GOALS[precision]))
    return rows, []


def same(found: list[float], expected: list[float]) -> None:
    best = sorted(expected, reverse=True)
    if any(abs(a - b) > 1e-4 for a, b in zip(found, best, strict=True)):
        raise SystemExit(f"not the same work: {found} and {best}")
