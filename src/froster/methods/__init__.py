"""The networks of the literature, one file each. A method is a small dataclass of options with a `build(clip)`."""

from __future__ import annotations

import dataclasses
from typing import Any

from froster.errors import UsageError
from froster.methods.clip_per_frame import FineTuned, Frozen
from froster.methods.vclip import VCLIP
from froster.methods.video_clip import VideoCLIP, pool

Method = Frozen | FineTuned | VCLIP
METHODS: dict[str, type[Method]] = {method.name: method for method in (Frozen, FineTuned, VCLIP)}

__all__ = ["METHODS", "VCLIP", "FineTuned", "Frozen", "Method", "VideoCLIP", "method_dict", "method_from_dict", "pool"]


def method_from_dict(values: dict[str, Any]) -> Method:
    """`{"name": "vclip", "radius": 1}` -> `VCLIP(radius=1)`. Raises UsageError on a name or option that is unknown."""
    options = dict(values)
    name = options.pop("name", None)
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; froster methods lists what there is: {', '.join(METHODS)}")
    known = [field.name for field in dataclasses.fields(METHODS[name])]
    for option in options:
        if option not in known:
            raise UsageError(f"method {name} has no option {option!r}; it has {', '.join(known)}")
    return METHODS[name](**options)


def method_dict(method: Method) -> dict[str, Any]:
    """The inverse of `method_from_dict`, for `config.json`."""
    return {"name": method.name, **dataclasses.asdict(method)}
