"""CLIP applied frame by frame: frozen (the zero-shot baseline and the teacher) or fine-tuned (as in
ViFi-CLIP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import one_of
from froster.methods.base import Method, Official, Pooling, VideoCLIP
from froster.methods.recipe import Preset, tuned
from froster.methods.weight_names import has, rename, without
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

XCLIP_AUGMENT = Augment(crop="multiscale", color_jitter=0.8, grayscale=0.2)
"""The augmentation that X-CLIP brought and ViFi-CLIP kept."""


@dataclass(frozen=True)
class Frozen(Method):
    """Every frame through CLIP as it is, then the mean."""

    name = "frozen"
    summary = "CLIP as it is, frame by frame; nothing is trained"
    reference = "Radford et al., CLIP, ICML 2021"

    pooling: Pooling = "frame_unit"

    def __post_init__(self) -> None:
        one_of("pooling", self.pooling, "frame_unit", "mean_then_unit")

    def build(self, clip: CLIP) -> VideoCLIP:
        return VideoCLIP(clip, self.pooling)

    def trains(self, name: str) -> bool:
        return False

    def preset(self) -> Preset:
        return Preset()


@dataclass(frozen=True)
class FineTuned(Method):
    """The same network, trained: no frame sees another. The token embeddings stay CLIP's, as in
    ViFi-CLIP."""

    name = "finetuned"
    summary = "CLIP frame by frame, fine-tuned; no temporal module"
    reference = "Rasheed et al., ViFi-CLIP, CVPR 2023"
    variants = {
        "both": {"towers": "both"},
        "image": {"towers": "image"},
        "text": {"towers": "text"},
    }

    towers: Literal["both", "image", "text"] = "both"
    pooling: Pooling = "mean_then_unit"

    def __post_init__(self) -> None:
        one_of("towers", self.towers, "both", "image", "text")
        one_of("pooling", self.pooling, "frame_unit", "mean_then_unit")

    def build(self, clip: CLIP) -> VideoCLIP:
        return VideoCLIP(clip, self.pooling)

    def trains(self, name: str) -> bool:
        if name.startswith("clip.text."):
            return self.towers != "image" and name != "clip.text.token_embedding.weight"
        return self.towers == "both" or (self.towers == "image" and name.startswith("clip.visual."))

    def preset(self) -> Preset:
        """Base-to-novel on 16 shots (the zero-shot setting on all of K400: rate 8e-6, batch 256, 10
        epochs)."""
        recipe = tuned(
            2e-6,
            epochs=11,
            batch_size=64,
            warmup_epochs=5,
            weight_decay=1e-3,
            decay="all",
            betas=(0.9, 0.98),
            label_smoothing=0.1,
            mixup=0.8,
            cutmix=1.0,
        )
        prompting = Prompting(("a photo of a {}.",), "plain")
        sampling = Sampling("uniform", 32)
        return Preset(recipe, prompting, XCLIP_AUGMENT, sampling, views=1, fusion="probs")

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """ViFi-CLIP's release: both towers without the token embeddings, which are CLIP's, and its
        classes' prompts."""
        if cls is not FineTuned or not has(state, r"^image_encoder\."):
            return None
        if has(state, r"^vision_bdc_head\.|\.prompt_generation_layer\."):
            return None  # BDC-CLIP and TC-CLIP, which grew from its code
        ignored = [name for name in state if name.startswith("prompt_learner.")]
        rules = [(r"^image_encoder\.", "visual."), (r"^text_encoder\.", "text.")]
        return Official("ViFi-CLIP", cls(), rename(without(state, ignored), rules), ignored)
