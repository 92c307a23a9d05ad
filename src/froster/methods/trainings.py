"""Trainings of the literature that bring no network of their own, as presets for any method: TACO
and Open-MeDe. Their published setting, where it is known; what has no counterpart is in the note.
"""

from __future__ import annotations

import dataclasses

from froster.errors import one_of
from froster.methods.base import Method
from froster.methods.openvclip import OpenVCLIP
from froster.methods.recipe import Preset, Recipe
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

TACO = Preset(
    Recipe(
        epochs=15,
        batch_size=192,
        lr=3.75e-6,
        new_scale=5e-5 / 3.75e-6,
        warmup_epochs=5.0,
        lr_ends=0.0,
        weight_decay=0.2,
        decay="all",
        clip_norm=None,
        average_from=1,
        specialise=True,
        tune="both",
    ),
    Prompting(("This is a video about {}",), "plain"),
    Augment(crop="resized", grayscale=0.2),
    Sampling("uniform"),
    distill="taco",
    note="TACO: its test has 28 templates and FROSTER's names (--descriptions is the nearest), and"
    " its mean of the epochs holds CLIP's own weights too (blend does that)",
)
"""Zhu et al., NeurIPS 2026, arXiv 2606.25478, by the released code for ViT-B/16; its network is
`finetuned`."""

OPEN_MEDE = dataclasses.replace(
    OpenVCLIP().preset(),
    recipe=dataclasses.replace(
        OpenVCLIP().preset().recipe, tune="image", meta=0.5, averaging="gaussian", average_from=1
    ),
    note="Open-MeDe has published no code: the weights of its inner step and of its Gaussian mean"
    " (--meta, --meta-rate, --average-mu, --average-sigma) are not its authors' but chosen here",
)
"""Yu et al., ICCV 2025, arXiv 2502.20158: Open-VCLIP's network (`vclip`) and recipe, text frozen,
no teacher."""

TRAININGS = {"taco": TACO, "open-mede": OPEN_MEDE}


def setting_of(method: Method, name: str | None) -> Preset:
    """A preset by name: of the method's own paper (`official`, the default), the method inside
    FROSTER's training, or one of `TRAININGS`."""
    one_of("preset", name or "official", "official", "froster", *TRAININGS)
    if name in TRAININGS:
        return TRAININGS[name]
    return method.froster_preset() if name == "froster" else method.preset()
