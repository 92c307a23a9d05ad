"""Windows of frames to logits, whichever network it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from froster.encoders.precision import autocast
from froster.encoders.preprocessing import normalise
from froster.evaluation.calibration import LabelScores
from froster.inference.recognizer import Recognizer
from froster.methods import Features
from froster.utils.tensors import finite
from froster.video.windows import HeldFrame, Squares, Window

Item = TypeVar("Item")
ScoreFunction = Callable[[Tensor], Tensor]
"""Logits (n, K) -> probabilities (n, K), or (n, K + 1) where the last one says that none of the
labels fits."""


def columns(outputs: LabelScores) -> Float[Tensor, "n columns"]:
    """The probabilities of the labels and, where there is a rule for it, of none of them."""
    if outputs.none is None:
        return outputs.probabilities
    return torch.cat([outputs.probabilities, outputs.none[:, None]], dim=1)


class WindowScorer:
    """Logits of windows of one network; the labels may change between two calls. A network that
    embeds each frame by itself does so once, however many windows it is in, and lets its pixels go.
    """

    def __init__(self, recognizer: Recognizer, batch: int = 8):
        self.recognizer, self.batch = recognizer, batch
        self.squares = Squares(recognizer.image_size, recognizer.preprocessing)
        self.keep = self.squares.keep
        self.apart = recognizer.model.frames_apart

    @torch.no_grad()
    def __call__(
        self, windows: Sequence[Window], classes: Tensor
    ) -> Float32[Tensor, "windows labels"]:
        """Of windows and the result of `Recognizer.class_embeddings`, on the CPU."""
        features = self._from_frames(windows) if self.apart else self._from_windows(windows)
        logits = self.recognizer.model.logits(features.video, classes, features.context)
        return finite(logits.float().cpu(), "logits")

    def _from_windows(self, windows: Sequence[Window]) -> Features:
        frames = torch.stack([_pixels(window.samples) for window in windows])  # (n, T, 3, S, S)
        return self.recognizer.encode_clips(frames)

    def _from_frames(self, windows: Sequence[Window]) -> Features:
        recognizer = self.recognizer
        new = {id(s): s for window in windows for s in window.samples if s.embedding is None}
        room = self.batch * len(windows[0].samples)
        with autocast(recognizer.device, recognizer.dtype):
            for part in chunked(list(new.values()), room):
                frames = normalise(_pixels(part).to(recognizer.device), recognizer.preprocessing)
                embeddings = recognizer.inference.encode_frames(frames[:, None]).float()[:, 0]
                for sample, embedding in zip(part, embeddings, strict=True):
                    sample.embedding, sample.pixels = embedding.clone(), None
            samples = [sample.embedding for window in windows for sample in window.samples]
            z = torch.stack([z for z in samples if z is not None])
            return recognizer.inference.pool_frames(z.unflatten(0, (len(windows), -1)))


def _pixels(frames: Sequence[HeldFrame]) -> Tensor:
    """(n, 3, S, S)"""
    return torch.stack([frame.pixels for frame in frames if frame.pixels is not None])


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` of the items; the last one may be shorter."""
    items = iter(items)
    while part := list(itertools.islice(items, size)):
        yield part
