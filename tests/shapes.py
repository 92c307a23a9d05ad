"""Shapes as types, checked at run time in the tests only: conftest.py puts this into the rooms that
have them."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype for the arguments and results that are tensors of a stated shape.

    Others are left out: what a user or a file may get wrong is refused by froster itself, with a
    message of its own.
    """
    tensors = {
        name: kind for name, kind in function.__annotations__.items() if "[Tensor," in str(kind)
    }
    function.__annotations__ = tensors
    return beartype(function) if tensors else function
