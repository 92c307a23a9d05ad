"""CLIP applied frame by frame: frozen (the zero-shot baseline and the teacher) or fine-tuned (as in ViFi-CLIP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from froster.clip.model import CLIP
from froster.errors import one_of
from froster.methods.video_clip import Pooling, VideoCLIP


@dataclass(frozen=True)
class Frozen:
    """Every frame through CLIP as it is, then the mean."""

    name: ClassVar[str] = "frozen"
    summary: ClassVar[str] = "CLIP as it is, frame by frame; nothing is trained"
    reference: ClassVar[str] = "Radford et al., CLIP, ICML 2021"

    pooling: Pooling = "frame_unit"

    def __post_init__(self) -> None:
        one_of("pooling", self.pooling, "frame_unit", "mean_then_unit")

    def build(self, clip: CLIP) -> VideoCLIP:
        return VideoCLIP(clip, self.pooling)


@dataclass(frozen=True)
class FineTuned(Frozen):
    """The same network, trained: no frame sees another."""

    name: ClassVar[str] = "finetuned"
    summary: ClassVar[str] = "CLIP frame by frame, fine-tuned; no temporal module"
    reference: ClassVar[str] = "Rasheed et al., ViFi-CLIP, CVPR 2023"
