"""What a method of the literature says of itself."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from froster.data.dataset import Batch
from froster.encoders.model import CLIP
from froster.methods.official import Official, State
from froster.methods.recipe import FROSTER, Preset, Recipe
from froster.methods.video_clip import VideoCLIP

Level = Literal["frame", "video"]
LossAt = Callable[[Mapping[str, Tensor]], Tensor]
"""The loss of a step's clips once more, with these weights in place of the student's own."""


class Regulariser(Protocol):
    """What a method adds to the loss of each step, to hold the student near CLIP."""

    def __call__(
        self, student: VideoCLIP, loss_at: LossAt, rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        """What is minimised beside the loss, and what is reported of it; both with their weight."""
        ...


@dataclass(frozen=True)
class TrainingClips:
    """The training set, for a method that looks at it before the first step."""

    batches: Callable[[], Iterable[Batch]]
    """Every clip once; this rank's."""
    classes: Callable[[], Tensor]
    """The class embeddings (K, E), encoded anew by the student as it stands."""
    seed: int


@dataclass(frozen=True)
class Method:
    """A network of the literature: the fields of a subclass are its options, `build` makes it from
    a CLIP."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """What it changes, in one line."""
    reference: ClassVar[str]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name -> options; the first is the default."""
    level: ClassVar[Level] = "frame"
    """Where vision distillation attaches by itself: at `video` level where only what follows the
    frames is trained."""
    objective: ClassVar[Literal["classes", "in-batch"]] = "classes"
    """Cross-entropy over all classes, or ActionCLIP's contrast within the batch."""
    trains_clip: ClassVar[bool] = True
    """Does it train CLIP's weights? Else it trains adapters or prompts in their place, and a
    recipe's `lr` is their rate."""
    small_scale: ClassVar[float] = 30.0
    """In a small network such as the nano CLIP: the rate of new weights as a multiple of the
    others' (`docs/lab.md`)."""
    output_layers: ClassVar[str] = ""
    """A regular expression: the last, linear layers of new branches, which interpolation with CLIP
    can scale."""

    @property
    def learns_prompts(self) -> bool:
        """Prompts for all classes are learned, so the teacher's class embeddings are those of the
        28 templates."""
        return False

    @property
    def patch(self) -> float:
        """The share of CLIP's weights in the final ones."""
        return 0.0

    @classmethod
    def make(cls, variant: str | None = None, **options: Any) -> Method:
        """The method in one of its variants, with single options changed."""
        return cls(**{**cls.variants.get(variant or "", {}), **options})

    def preset(self) -> Preset:
        """The paper's own setting."""
        return FROSTER

    def froster_preset(self) -> Preset:
        """The method inside FROSTER's training: its prompts, clips, schedule and distillation."""
        return FROSTER

    def build(self, clip: CLIP) -> VideoCLIP:
        """Turn `clip` into the video network, in place."""
        raise NotImplementedError

    def trains(self, name: str) -> bool:
        """Does the paper train this weight of the network (`clip.visual.…`, `clip.text.…`,
        `head.…`)?"""
        return True

    def for_classes(self, labels: Sequence[str]) -> Method:
        """The method as it is trained on these classes; only class-specific prompts depend on them."""
        return self

    def regulariser(
        self, clip: CLIP, student: VideoCLIP, clips: TrainingClips
    ) -> Regulariser | None:
        """What training adds to the loss of this method. `clip` is where `student` starts from."""
        return None

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """Weights under the names of the method's own release, or None where `state` is nothing of
        the kind."""
        return None


def adapters(lr: float, **changes: Any) -> Preset:
    """FROSTER's setting for a method that trains adapters or prompts at `lr`: its rates were never
    published, so the original's, and FROSTER's for CLIP's weights."""
    recipe = dataclasses.replace(FROSTER.recipe, lr=lr, clip_lr=FROSTER.recipe.lr)
    return dataclasses.replace(FROSTER, recipe=recipe, **changes)


def with_head(lr: float) -> Preset:
    """FROSTER's setting for a method that trains CLIP's weights, and new ones at `lr`."""
    return dataclasses.replace(
        FROSTER, recipe=dataclasses.replace(FROSTER.recipe, new_scale=lr / FROSTER.recipe.lr)
    )


def tuned(lr: float, **changes: Any) -> Recipe:
    """A recipe without FROSTER's own habits: no norm clipping, no averaging of epochs."""
    return Recipe(**{"lr": lr, "clip_norm": None, "average_from": None, **changes})
