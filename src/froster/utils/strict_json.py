"""JSON as the standard has it, under the names of Python's own module.

What is written has no NaN and no infinity, which no other reader takes: they are null. What is read
may be anybody's: a text that is nested too deeply, or whose numbers are too long, is a ValueError
like every other that is no JSON.
"""

from __future__ import annotations

import json
import math
from typing import Any

_LONGEST_INTEGER = 300
"""Digits; Python makes a float of 308."""


def dumps(value: Any, **options: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def loads(text: str | bytes) -> Any:
    """Raises ValueError. A byte-order mark is passed over."""
    try:
        return json.loads(
            text.removeprefix("\ufeff") if isinstance(text, str) else text, parse_int=_integer
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
