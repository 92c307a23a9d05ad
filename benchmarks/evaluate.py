"""A test of 16 videos in 3 views, in batches of 8 clips, from files: against baselines (a) and (d).

The released code encodes all 29 prompts of every class for every batch, and opens a video once for
each of its views. One turn of it takes many minutes, so there are few turns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.clips import UCF, write_clip
from benchmarks.setup import FRAMES, labels, name_of, precisions, scene
from benchmarks.timing import Row, compare, interleave
from froster.data.dataset import VideoDataset
from froster.data.manifest import Item
from froster.encoders.checkpoints import load_clip
from froster.evaluation.metrics import Scorer, evaluate
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import VCLIP
from froster.video.reader import Video
from froster.video.sampling import Sampling, Timing

GOALS = {"float32": 6.0, "bfloat16": 15.0}
VIEWS, BATCH = 3, 8


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    from benchmarks.baselines import ReleasedEvaluation, one_view

    stage, videos = scene(toy), 2 if toy else 16
    names = labels(4 if toy else 100)
    sampling = Sampling("dense", FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        files = [write_clip(Path(folder) / f"{i}.{UCF.suffix}", UCF, i) for i in range(videos)]
        timings = {file: timing_of(file) for file in files}
        items = [Item(file, names[i % len(names)]) for i, file in enumerate(files)]

        def ours(dtype: torch.dtype) -> Tensor:
            model = models[dtype]
            model._cache.clear()  # as a new process
            dataset = VideoDataset(
                items, names, sampling, stage.image_size, views=VIEWS, train=False
            )
            scorer = Scorer(model.inference, model.class_embeddings(names), model.dtype)
            return evaluate([scorer], dataset, names, batch_size=-(-BATCH // VIEWS))[0].logits

        def theirs() -> Tensor:
            views = [(file, view) for file in files for view in range(VIEWS)]
            logits = []
            for start in range(0, len(views), BATCH):
                clips = [
                    one_view(file, sampling, timings[file], view, VIEWS, stage.image_size)
                    for file, view in views[start : start + BATCH]
                ]
                logits.append(released(torch.stack(clips)))
            return torch.cat(logits).unflatten(0, (len(files), VIEWS)).mean(1)

        models = {
            dtype: Recognizer(
                VCLIP().build(load_clip(stage.folder)[0]),
                stage.tokenizer,
                ModelConfig(VCLIP(), sampling, VIEWS),
                precision=name_of(dtype),  # type: ignore[arg-type]
            )
            for dtype in precisions(toy)
        }
        released = ReleasedEvaluation(stage, names, FRAMES)
        reference = "(a) + (d), float32"
        contenders = {
            f"froster, {name_of(dtype)}": lambda dtype=dtype: ours(dtype) for dtype in models
        }
        contenders[reference] = theirs  # type: ignore[assignment]
        found: dict[str, Tensor] = {}
        times = interleave(
            {
                name: lambda name=name, work=work: found.update({name: work()})
                for name, work in contenders.items()
            },  # type: ignore[misc]
            rounds or 1,
            warmup=0,
        )
    spread = float(found[reference].std())
    apart = {
        name: float((found[name] - found[reference]).abs().max()) / spread
        for name in found
        if name != reference
    }
    if apart["froster, float32"] > 0.02:
        raise SystemExit(f"not the same work: {apart}")
    what = f"evaluate {videos} videos x {VIEWS} views, {len(names)} described classes, from files"
    rows = [
        compare(what, times, name, reference, GOALS[name.split(", ")[1]])
        for name in contenders
        if name != reference
    ]
    notes = [
        f"{name}: logits differ by at most {x:.1e} of their spread." for name, x in apart.items()
    ]
    return rows, notes


def timing_of(file: Path) -> Timing:
    with Video(file) as video:
        return video.timing
