"""The world's videos as a dataset of clips, in memory: what `VideoDataset` is for files."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.utils.data import Dataset

from froster.data.dataset import Sample
from froster.video.sampling import Sampling, Timing
from froster.world.sets import Videos

FPS = 8.0


class WorldClips(Dataset):
    """Training: one random clip a video, (T, 3, H, W). Evaluation: `views` clips, (views, T, 3, H,
    W)."""

    def __init__(
        self, videos: Videos, sampling: Sampling, *, train: bool, views: int = 1, seed: int = 0
    ):
        self.videos, self.sampling, self.train = videos, sampling, train
        self.views, self.seed = views, seed
        self.timing = Timing(range(videos.frames.shape[1]), FPS)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.videos)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def label(self, index: int) -> int:
        return int(self.videos.labels[index])

    def single_views(self) -> Tensor:
        """The one clip of every video that an evaluation with one view takes, (N, T, 3, H, W)."""
        (indices,) = self.sampling.view_indices(self.timing, 1)
        return self.videos.frames[:, indices]

    def __getitem__(self, index: int) -> Sample:
        video = self.videos.frames[index]
        if self.train:
            rng = random.Random(f"{self.seed}/{self.epoch}/{index}")
            frames = video[self.sampling.train_indices(self.timing, rng)]
        else:
            views = self.sampling.view_indices(self.timing, self.views)
            frames = torch.stack([video[indices] for indices in views])
        return Sample(index, frames, self.label(index), None)
