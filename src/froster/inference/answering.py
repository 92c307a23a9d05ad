"""Videos that were handed over, of whatever form and number, through a network in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from froster.errors import BatchError, UsageError, VideoError
from froster.inference.inputs import FPS, as_videos, read_all
from froster.utils import pool
from froster.utils.progress import progress, working

if TYPE_CHECKING:
    from froster.inference.embedder import Embedder

T = TypeVar("T")
Answerer = Callable[[Tensor], list[T]]
"""The views of B videos, uint8 (B, V, T, 3, S, S) -> an answer each."""


@dataclass(frozen=True)
class Reading:
    """How videos are read and shown to the network; changes no answer but by `views` and `fps`."""

    views: int | None = None
    fps: float = FPS
    workers: int | None = None
    batch_size: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and not self.batch_size >= 1:
            raise UsageError(f"batch_size is 1 or more, not {self.batch_size!r:.100}")


def answer_each(
    model: Embedder, given: Any, answer: Answerer[T], how: Reading, what: str
) -> tuple[list[T], bool]:
    """The answers to the videos in their order, and whether what was given is one video.

    Raises UsageError on what is no video, VideoError where the one video cannot be read, BatchError
    after the last where some of several cannot.
    """
    videos, one = as_videos(given)
    # One on a CPU, where more are no faster and answers are the same to the bit.
    size = how.batch_size or (8 if model.device.type == "cuda" else 1)
    results: list[T | None] = [None] * len(videos)
    batches = _Batches(answer, size, results)
    reader, workers = model.view_reader(how.views), pool.processes(how.workers, len(videos))
    with progress(quiet=not how.progress) as bars:
        bar = bars.add_task(what, total=len(videos), note="")
        for number, video in enumerate(read_all(videos, reader, workers, how.fps)):
            if video.views is None:
                if one:
                    raise VideoError(video.error)
                batches.errors[number] = video.error
            else:
                batches.add(number, torch.from_numpy(video.views.clips))
            note = f"{len(batches.errors)} failed" if batches.errors else ""
            bars.update(bar, advance=1, note=note)
        batches.flush()
    if batches.errors:
        raise BatchError(list(batches.results), batches.errors)
    return [result for result in batches.results if result is not None], one


@dataclass
class _Batches(Generic[T]):
    """Clips until they are as many as a batch, or others have another number of views."""

    answer: Answerer[T]
    size: int
    results: list[T | None]
    errors: dict[int, str] = field(default_factory=dict)
    waiting: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, number: int, clips: Tensor) -> None:
        if self.waiting and self.waiting[0][1].shape != clips.shape:
            self.flush()
        self.waiting.append((number, clips))
        if len(self.waiting) == self.size:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            answers = self.answer(torch.stack([clips for _, clips in self.waiting]))
            for (number, _), result in zip(self.waiting, answers, strict=True):
                self.results[number] = result
            self.waiting.clear()


@contextmanager
def labels_shown(model: Embedder, shown: bool) -> Iterator[None]:
    """Whether what takes long is said within."""
    before = model.working
    model.working = working if shown else before
    try:
        yield
    finally:
        model.working = before
