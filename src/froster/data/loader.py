"""Batches of a dataset, read by processes while the network computes. One that crashes or hangs
costs the file it had."""

import dataclasses
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from froster.data.dataset import Batch, ClipRequest, Sample, VideoDataset, collate
from froster.utils import pool

AHEAD = 2
"""Batches that wait while the network computes."""


@dataclass(frozen=True)
class _SampleReader:
    """From an item to its `Sample`, whose frames are an array, as these are sent without a copy."""

    source: Callable[[Any], Any]  # a `ReadClip`, or a dataset's `__getitem__`

    def __call__(self, item: Any) -> Iterator[Sample]:
        sample = self.source(item)
        frames = None if sample.frames is None else sample.frames.numpy()
        yield dataclasses.replace(sample, frames=frames)


class _Clips(Sequence[ClipRequest]):
    """The items of an epoch, each made when it is its turn."""

    def __init__(
        self, dataset: VideoDataset, indices: list[int], given_up: str, known: Container[str]
    ) -> None:
        self._dataset, self._indices, self._given_up = dataset, indices, given_up
        self._known = known

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: Any) -> Any:
        clip = self._dataset.clip(self._indices[place])
        error = f"{clip.path}: {self._given_up}"
        return dataclasses.replace(clip, error=error) if error in self._known else clip


def batches(
    dataset: Dataset[Sample],
    order: Iterable[Sequence[int]],
    workers: int = 0,
    *,
    known: Container[str] = (),
    limit: float = pool.SECONDS_OF_SILENCE,
    pin: bool = False,
) -> Generator[Batch, None, None]:
    """The items of each list in `order`, in that order whatever reads them first. With `workers` 0
    in this process.

    What cannot be read is among a batch's errors, as 'file: cause'. `known` are such errors of
    earlier epochs: a file that was waited for in vain is not waited for again. `pin` locks the
    clips in memory, from where a GPU takes them at once.
    """
    if getattr(dataset, "at_hand", False):  # nothing is decoded
        workers = 0
    parts = [list(part) for part in order]
    indices = [index for part in parts for index in part]
    if isinstance(dataset, VideoDataset):
        tasks: Sequence[Any] = _Clips(dataset, indices, pool.silence(limit), known)
        work = _SampleReader(dataset.reader)
    else:
        tasks, work = indices, _SampleReader(dataset.__getitem__)
    window = workers + AHEAD * max(map(len, parts), default=1)
    ends = pool.ends(pool.in_order(pool.run(work, tasks, workers, limit=limit, window=window)))
    made = _batches(parts, ends, tasks, dataset, pin)
    with closing(pool.ahead(made, AHEAD) if workers else made) as ready:
        yield from ready


def _batches(
    parts: list[list[int]],
    ends: Iterator[tuple[int, Any, str]],
    tasks: Sequence[Any],
    dataset: Dataset[Sample],
    pin: bool,
) -> Generator[Batch, None, None]:
    for part in parts:
        samples: list[Sample] = []
        for index in part:
            task, sample, error = next(ends)
            if sample is None:
                label = dataset.label(index)  # type: ignore[attr-defined]
                clip = tasks[task]
                name = clip.path if isinstance(clip, ClipRequest) else f"item {index}"
                sample = Sample(index, None, label, f"{name}: {error}")
            elif sample.frames is not None:
                sample = dataclasses.replace(sample, frames=torch.from_numpy(sample.frames))
            samples.append(sample)
        batch = collate(samples)
        yield batch._replace(frames=batch.frames.pin_memory()) if pin else batch
