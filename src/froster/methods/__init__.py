"""The networks of the literature, one file each. A method is a small dataclass of options with a
`build(clip)`."""

from __future__ import annotations

import dataclasses
from typing import Any

from froster.encoders.config import LARGEST
from froster.errors import UsageError
from froster.methods.actionclip import ActionCLIP
from froster.methods.adaptformer import AdaptFormer
from froster.methods.aim import AIM
from froster.methods.base import Features, Method, VideoCLIP, class_embeddings, pool
from froster.methods.bdc_clip import BDCCLIP
from froster.methods.clip_per_frame import FineTuned, Frozen
from froster.methods.closed_set import LPPlusPlus, TipAdapter
from froster.methods.dualpath import DualPath
from froster.methods.efficient_prompt import EfficientPrompt
from froster.methods.ez_clip import EZCLIP
from froster.methods.lora import LoRA
from froster.methods.mote import MoTE
from froster.methods.openvclip import OpenVCLIP
from froster.methods.ost import OST
from froster.methods.penalised import EWC, L2SP
from froster.methods.st_adapter import STAdapter
from froster.methods.stan import STAN
from froster.methods.tc_clip import TCCLIP
from froster.methods.text4vis import Text4Vis
from froster.methods.vclip import VCLIP
from froster.methods.vita_clip import VitaCLIP
from froster.methods.weight_names import first_difference, saved_names
from froster.methods.xclip import XCLIP

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Frozen,
        FineTuned,
        VCLIP,
        OpenVCLIP,
        ActionCLIP,
        XCLIP,
        EfficientPrompt,
        Text4Vis,
        MoTE,
        AIM,
        STAdapter,
        AdaptFormer,
        VitaCLIP,
        STAN,
        BDCCLIP,
        OST,
        EZCLIP,
        DualPath,
        TCCLIP,
        LoRA,
        L2SP,
        EWC,
    )
}
"""What `froster train` can train."""
TAUGHT: dict[str, type[Method]] = {method.name: method for method in (LPPlusPlus, TipAdapter)}
"""What `froster teach` makes beside them."""

__all__ = [
    "METHODS",
    "VCLIP",
    "Features",
    "FineTuned",
    "Frozen",
    "Method",
    "VideoCLIP",
    "class_embeddings",
    "first_difference",
    "method_dict",
    "method_from_dict",
    "pool",
    "saved_names",
]


def method_class(name: Any) -> type[Method]:
    if name == "er-zasr":
        raise UsageError(
            "er-zasr has encoders of its own, not CLIP's, and a command of its own: froster"
            " rehearse"
        )
    method = {**METHODS, **TAUGHT}.get(name)
    if method is None:
        raise UsageError(
            f"unknown method {name!r}; froster methods lists what there is: {', '.join(METHODS)}"
        )
    return method


def method_from_dict(values: dict[str, Any], variant: str | None = None) -> Method:
    """`{"name": "vclip", "radius": 1}` -> `VCLIP(radius=1)`. Raises UsageError on a name or option
    that is unknown."""
    options = dict(values)
    method = method_class(options.pop("name", None))
    if variant is not None and variant not in method.variants:
        raise UsageError(
            f"method {method.name} has no variant {variant!r}; it has"
            f" {', '.join(method.variants) or 'none'}"
        )
    known = [field.name for field in dataclasses.fields(method)]
    for option, value in options.items():
        if option not in known:
            raise UsageError(
                f"method {method.name} has no option {option!r}; it has"
                f" {', '.join(known) or 'none'}"
            )
        check_type(method, option, value)
    return method.make(variant, **options)


def check_type(method: type[Method], option: str, value: Any) -> None:
    """Raises UsageError where a value is not of the kind that the option's default is."""
    default = getattr(method, option)
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a word",
        tuple: "a list",
    }
    kind = int if default is None else type(default)  # an option without default is a count
    fits = {
        bool: isinstance(value, bool),
        int: (
            (isinstance(value, int) and not isinstance(value, bool))
            or (value is None and default is None)
        ),
        float: isinstance(value, (int, float)) and not isinstance(value, bool),
        str: isinstance(value, str),
        tuple: isinstance(value, (list, tuple)),
    }
    if not fits[kind]:
        raise UsageError(
            f"option {option} of {method.name} is {words[kind]}, such as {default}, not"
            f" {value!r:.100}"
        )
    if (
        kind in (int, float) and value is not None and not 0 <= value <= LARGEST
    ):  # nor what is no number
        raise UsageError(
            f"option {option} of {method.name} lies between 0 and {LARGEST}: {value!r:.100}"
        )


def method_dict(method: Method) -> dict[str, Any]:
    """The inverse of `method_from_dict`, for `config.json`."""
    return {"name": method.name, **dataclasses.asdict(method)}
