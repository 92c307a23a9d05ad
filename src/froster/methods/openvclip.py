"""Open-VCLIP: VCLIP's network with frozen text, regularised towards CLIP in weight space.

Training: every step also takes the loss at theta' = a theta_CLIP + (1 - a) theta, a ~ U(0, R), with
weight C. After it: the mean of the epochs' weights, then half of them with half of CLIP's
(`weights.interpolate`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor

from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import UsageError
from froster.methods.base import LossAt, Official, TrainingClips, VideoCLIP
from froster.methods.recipe import Preset, Recipe
from froster.methods.vclip import VCLIP
from froster.methods.weight_names import start_of
from froster.text.prompts import KINETICS_28, Prompting


class InterpolatedWeights:
    """IWR: the loss once more, at a theta_CLIP + (1 - a) theta, a ~ U(0, reach) drawn anew in every
    step.

    The exact gradient carries the factor 1 - a. The released code adds the gradient at the
    interpolated weights as it is, which is the exact one of a loss divided by that factor
    (`exact_factor=False`).
    """

    def __init__(self, clip: CLIP, weight: float, reach: float, exact_factor: bool):
        self.start = start_of(clip)
        self.weight, self.reach, self.exact_factor = weight, reach, exact_factor

    def draw(self, rng: random.Random) -> float:
        return rng.uniform(0.0, self.reach)

    def __call__(
        self, student: VideoCLIP, loss_at: LossAt, rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        a = self.draw(rng)
        mixed = {
            name: a * self.start[name] + (1 - a) * parameter
            for name, parameter in student.named_parameters()
            if parameter.requires_grad and name in self.start
        }
        extra = self.weight * loss_at(mixed)
        return (extra if self.exact_factor else extra / (1 - a)), extra.detach()


@dataclass(frozen=True)
class OpenVCLIP(VCLIP):
    """The image tower and the logit scale are trained."""

    name = "openvclip"
    summary = (
        "VCLIP with frozen text; each step also takes the loss at weights interpolated towards CLIP"
    )
    reference = "Weng et al., Open-VCLIP, ICML 2023"
    variants = {"released": {}, "exact": {"exact_factor": True}}

    iwr_weight: float = 0.5
    """C; 0: without this regularisation (the row VCLIP of FROSTER's table 3)."""
    iwr_range: float = 0.6
    """R: how far towards CLIP the weights may lie."""
    exact_factor: bool = False
    """Take the exact gradient, with its factor (1 - a); the released code leaves that out."""
    clip_share: float = 0.5
    """How much of CLIP's weights is in the final ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.iwr_range < 1 and self.iwr_weight >= 0 and 0 <= self.clip_share <= 1):
            raise UsageError(
                "iwr_range must lie in [0, 1), clip_share in [0, 1], and iwr_weight not be negative"
            )

    @property
    def patch(self) -> float:
        return self.clip_share

    def trains(self, name: str) -> bool:
        return not name.startswith("clip.text.")

    def regulariser(
        self, clip: CLIP, student: VideoCLIP, clips: TrainingClips
    ) -> InterpolatedWeights | None:
        return (
            InterpolatedWeights(clip, self.iwr_weight, self.iwr_range, self.exact_factor)
            if self.iwr_weight
            else None
        )

    def preset(self) -> Preset:
        return Preset(Recipe(epochs=22, batch_size=64, draw="all"), Prompting(KINETICS_28, "plain"))

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """Its files have VCLIP's names; the loader takes them for the network VCLIP."""
        return None
