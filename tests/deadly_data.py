"""Data over which processes die, for `test_loader.py`. Each of these imports this file and not pytest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

from froster.data.dataset import Sample
from froster.world.clips import WorldClips


class Deadly(Dataset[Sample]):
    """Of item 3 every process dies, over item 5 none comes back, and item 7 meets one that the
    system kills once."""

    def __init__(self, marker: Path):
        self.marker = marker

    def label(self, index: int) -> int:
        return index % 2

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        if index == 5:
            time.sleep(60)
        if index == 7 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Sample(index, torch.full((2, 3), index, dtype=torch.uint8), self.label(index), None)


class Last(Sample):
    """The process that read it dies as soon as it has handed it on."""

    def __del__(self) -> None:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)


class DeadlyAfterwards(Dataset[Sample]):
    def label(self, index: int) -> int:
        return index % 2

    def __getitem__(self, index: int) -> Sample:
        return (Last if index == 1 else Sample)(
            index, torch.full((2,), index, dtype=torch.uint8), self.label(index), None
        )


class Killed(WorldClips):
    """The process that reads item 5 is killed: once, or always."""

    def __init__(self, clips: WorldClips, marker: Path | None):
        super().__init__(clips.videos, clips.sampling, train=True)
        self.marker = marker

    def __getitem__(self, index: int) -> Sample:
        if index == 5 and not (self.marker and self.marker.exists()):
            if self.marker:
                self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)
