"""Labelled videos as clips to train on and as views to evaluate: one decode a video, nothing replaced in silence."""

import difflib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from froster.clip.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import DataError, VideoError
from froster.video.augment import FROSTER_AUGMENT, Augment, augment
from froster.video.manifest import Item, Items, read_items
from froster.video.parcel import stack
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform

__all__ = ["Batch", "Item", "Items", "Sample", "VideoDataset", "collate", "read_items"]


@dataclass(frozen=True)
class Sample:
    """One item of a `VideoDataset`. `frames` is None exactly where `error` says why."""

    index: int
    "the item's position in the dataset"
    frames: Tensor | None
    "uint8: (T, 3, S, S) in training, (views, T, 3, S, S) in evaluation"
    label: int
    error: str | None
    "'file: cause'"
    damaged: int = 0
    "frames that could not be decoded, and for which a neighbour stands in"


class Batch(NamedTuple):
    """The B readable samples of a batch, B >= 0, and the list of the others. A tuple, so that a loader can pin it."""

    frames: Tensor
    "uint8 (B, ...)"
    labels: Tensor
    "int64 (B,)"
    indices: Tensor
    "int64 (B,): positions in the dataset"
    errors: list[tuple[int, str]]
    "position in the dataset and 'file: cause' of what could not be read"
    damaged: int = 0
    "frames of the batch that could not be decoded, and for which a neighbour stands in"


class VideoDataset(Dataset[Sample]):
    """Videos with integer labels, the position of their label in `classes`.

    In training an item is a random clip, changed as `augment` says. It depends on `seed`, the epoch (`set_epoch`) and
    its position only, not on worker, rank or order. In evaluation it is the `views` clips of the video, from one decode,
    squared as `how` says. A video that cannot be read gives a Sample with an error.
    Raises DataError where an item's label is not in `classes`, or `classes` are not two or more different names.
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
    ) -> None:
        self.items = items
        self.classes = list(classes)
        self._labels = _integer_labels(items, self.classes)
        self.sampling = sampling
        self.image_size = image_size
        self.views = views
        self.train = train
        self.seed = seed
        self.augment = augment
        self.how = how
        # In shared memory: workers that live through epochs hold a copy of this object made in the first.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Makes the random choices those of that epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.items)

    def label(self, index: int) -> int:
        return self._labels[index]

    def __getitem__(self, index: int) -> Sample:
        item, label = self.items[index], self._labels[index]
        try:
            with Video(item.path) as video:
                frames = self._clip(video, index) if self.train else self._views(video)
                return Sample(index, frames, label, None, video.damaged)
        except VideoError as error:
            return Sample(index, None, label, str(error))

    def _clip(self, video: Video, index: int) -> Tensor:
        rng = random.Random(f"{self.seed}/{int(self._epoch)}/{index}")
        frames = video.read(self.sampling.train_indices(video.timing, rng))
        return augment(frames, self.image_size, rng, self.augment)

    def _views(self, video: Video) -> Tensor:
        views = self.sampling.view_indices(video.timing, self.views)
        needed = sorted({frame for view in views for frame in view})
        row = {frame: number for number, frame in enumerate(needed)}
        frames = inference_transform(video.read(needed), self.image_size, self.how)
        return torch.from_numpy(frames.numpy()[[[row[frame] for frame in view] for view in views]])


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks what could be read and lists what could not. With nothing readable `frames` is an empty tensor."""
    clips = [sample for sample in samples if sample.frames is not None]
    stacked = [sample.frames for sample in samples if sample.frames is not None]
    return Batch(
        frames=stack(stacked) if stacked else torch.empty(0, dtype=torch.uint8),
        labels=torch.tensor([sample.label for sample in clips], dtype=torch.int64),
        indices=torch.tensor([sample.index for sample in clips], dtype=torch.int64),
        errors=[(sample.index, sample.error) for sample in samples if sample.error is not None],
        damaged=sum(sample.damaged for sample in clips),
    )


def _integer_labels(items: Sequence[Item], classes: list[str]) -> list[int]:
    if len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if classes.count(name) > 1})
        raise DataError(f"class names must differ, but there are two of: {', '.join(twice[:3])}")
    if len(classes) < 2:
        raise DataError(f"two classes or more are needed, found {len(classes)}: {', '.join(classes)}")
    number = {name: index for index, name in enumerate(classes)}
    for item in items:
        if item.label not in number:
            near = difflib.get_close_matches(item.label, classes, n=3, cutoff=0.0)
            known = f"the nearest of {len(classes)}: {', '.join(near)}"
            raise DataError(f"unknown label '{item.label}' ({item.path}); {known}")
    return [number[item.label] for item in items]
