"""Labelled videos as clips to train on and as views to evaluate: one decode a video, and what
could not be read is always told."""

import difflib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from froster.data.items import Item, in_order, labels_of
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import DataError, VideoError
from froster.video.augment import FROSTER_AUGMENT, Augment, augment
from froster.video.container import unchanged
from froster.video.part import VideoPart
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform


@dataclass(frozen=True)
class Sample:
    """One item of a `VideoDataset`. `frames` is None exactly where `error` says why."""

    index: int  # position in the dataset
    frames: Tensor | None  # uint8: (T, 3, S, S) in training, (views, T, 3, S, S) in evaluation
    label: int
    error: str | None  # 'file: cause'
    damaged: int = 0  # frames that could not be decoded, and for which a neighbour stands in


class Batch(NamedTuple):
    """The B readable samples of a batch, B >= 0, and the list of the others."""

    frames: Tensor  # uint8 (B, ...)
    labels: Tensor  # int64 (B,)
    indices: Tensor  # int64 (B,): positions in the dataset
    errors: list[tuple[int, str]]
    "position in the dataset and 'file: cause' of what could not be read"
    damaged: int = 0
    "frames of the batch that could not be decoded, and for which a neighbour stands in"


@dataclass(frozen=True)
class ClipRequest:
    """One item as it is to be read: all that `ReadClip` does not know yet."""

    path: str
    index: int
    label: int
    epoch: int
    error: str = ""  # why it is not to be opened: 'file: cause'
    span: tuple[float, float] | None = None  # in seconds, where it is a part of the video


@dataclass(frozen=True)
class Views:
    """What was read of a video."""

    clips: np.ndarray  # uint8 (V, T, 3, S, S)
    seconds: float  # length of the whole video, by the times of its frames
    frames: int  # of the whole video
    damaged: int
    "frames of the clips that could not be decoded, and for which a neighbour stands in"


@dataclass(frozen=True)
class ReadViews:
    """From a path to its `Views`: the work of a process that reads for a network."""

    sampling: Sampling
    views: int
    size: int
    how: Preprocessing = CLIP_PREPROCESSING

    def __call__(self, path: str) -> Iterator[Views]:
        """One `Views`. Raises VideoError, also where the file changes meanwhile."""
        with unchanged(path), Video(path) as video:
            clips = self.clips(video)
            views = Views(clips, video.seconds, video.num_frames, video.damaged)
        yield views

    def clips(self, video: Video | VideoPart) -> np.ndarray:
        """uint8 (V, T, 3, S, S), each frame decoded and resized once."""
        frames_at = video.at if isinstance(video, VideoPart) else video.read
        return self.clips_of(frames_at, self.sampling.view_indices(video.timing, self.views))

    def clips_of(
        self, frames_at: Callable[[Sequence[int]], Tensor], views: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """The same, of views (V, T) that were sampled elsewhere, of frames by their index."""
        needed = sorted({frame for view in views for frame in view})
        row = {frame: number for number, frame in enumerate(needed)}
        frames = inference_transform(frames_at(needed), self.size, self.how)
        return frames.numpy()[[[row[frame] for frame in view] for view in views]]


@dataclass(frozen=True)
class ReadClip:
    """From a `ClipRequest` to its `Sample`: how all items of a dataset are read, and small enough
    to send to a process."""

    sampling: Sampling
    size: int
    views: int
    train: bool
    seed: int
    augment: Augment
    how: Preprocessing

    def __call__(self, clip: ClipRequest) -> Sample:
        if clip.error:
            return Sample(clip.index, None, clip.label, clip.error)
        try:
            with Video(clip.path) as video:
                part = video if clip.span is None else VideoPart(video, *clip.span)
                if self.train:
                    rng = random.Random(f"{self.seed}/{clip.epoch}/{clip.index}")
                    indices = self.sampling.train_indices(part.timing, rng)
                    frames = (
                        part.at(indices) if isinstance(part, VideoPart) else video.read(indices)
                    )
                    frames = augment(frames, self.size, rng, self.augment, self.how)
                else:
                    views = ReadViews(self.sampling, self.views, self.size, self.how)
                    frames = torch.from_numpy(views.clips(part))
                return Sample(clip.index, frames, clip.label, None, video.damaged)
        except VideoError as error:
            return Sample(clip.index, None, clip.label, str(error))


class VideoDataset(Dataset[Sample]):
    """Videos with integer labels, the position of their label in `classes`.

    In training an item is a random clip, changed as `augment` says, which depends on `seed`, the
    epoch (`set_epoch`) and its position only, not on worker, rank or order. In evaluation it is the
    `views` clips of the video, from one decode. Frames have the shape that `how` gives them. A
    video that cannot be read gives a Sample with an error. Raises DataError where an item's label
    is not in `classes`, or `classes` are not two or more different names.
    """

    def __init__(
        self,
        items: Sequence[Item],
        classes: Sequence[str],
        sampling: Sampling,
        image_size: int,
        *,
        views: int = 1,
        train: bool,
        seed: int = 0,
        augment: Augment = FROSTER_AUGMENT,
        how: Preprocessing = CLIP_PREPROCESSING,
        draws: int | None = None,
    ) -> None:
        """`draws`: so many different clips of a video, in turn over the epochs."""
        self.items = items
        self.classes = list(classes)
        self._labels = _integer_labels(items, self.classes)
        self.sampling = sampling
        self.views = views
        self.reader = ReadClip(sampling, image_size, views, train, seed, augment, how)
        self._draws = draws
        self.draw = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the random choices those of that epoch."""
        self.draw = epoch if self._draws is None else epoch % self._draws

    def __len__(self) -> int:
        return len(self.items)

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def clip(self, index: int) -> ClipRequest:
        """The item as `reader` takes it."""
        item = self.items[index]
        return ClipRequest(str(item.path), index, self.label(index), self.draw, span=item.span)

    def __getitem__(self, index: int) -> Sample:
        return self.reader(self.clip(index))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks what could be read and lists what could not. With nothing readable `frames` is an
    empty tensor."""
    clips = [sample for sample in samples if sample.frames is not None]
    stacked = [sample.frames.numpy() for sample in clips if sample.frames is not None]
    frames = torch.from_numpy(np.stack(stacked)) if stacked else torch.empty(0, dtype=torch.uint8)
    return Batch(
        frames,
        torch.tensor([sample.label for sample in clips], dtype=torch.int64),
        torch.tensor([sample.index for sample in clips], dtype=torch.int64),
        [(sample.index, sample.error) for sample in samples if sample.error is not None],
        sum(sample.damaged for sample in clips),
    )


def _integer_labels(items: Sequence[Item], classes: list[str]) -> np.ndarray:
    """int32 (N,)."""
    number = {name: index for index, name in enumerate(classes)}
    if len(number) < len(classes):
        twice = sorted(name for name, count in Counter(classes).items() if count > 1)
        raise DataError(f"class names must differ, but there are two of: {', '.join(twice[:3])}")
    if len(classes) < 2:
        raise DataError(
            f"two classes or more are needed, found {len(classes)}: {', '.join(classes)}"
        )
    labels = labels_of(items)
    if unknown := next((label for label in in_order(labels) if label not in number), None):
        item = next(item for item in items if item.label == unknown)
        near = difflib.get_close_matches(unknown, classes, n=3, cutoff=0.0)
        known = f"the nearest of {len(classes)}: {', '.join(near)}"
        raise DataError(f"unknown label '{unknown}' ({item.path}); {known}")
    numbers = np.array([number.get(label, -1) for label in labels.values], np.int32)
    return numbers[labels.codes]
