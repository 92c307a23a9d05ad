"""Shapes as types, checked at run time in the tests only: conftest.py puts this into the rooms that
have them."""

from collections.abc import Callable
from inspect import isfunction
from typing import Any

import jaxtyping
from beartype import beartype


def tensors(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of arguments and results that are tensors of a stated shape."""
    return {
        name: kind for name, kind in function.__annotations__.items() if "[Tensor," in str(kind)
    }


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype for the arguments and results that are tensors of a stated shape.

    Others are left out: what a user or a file may get wrong is refused by froster itself, with a
    message of its own.
    """
    function.__annotations__ = tensors(function)
    return beartype(function) if function.__annotations__ else function


def install(rooms: list[str]) -> None:
    """From here on every function and dataclass of these rooms that states a shape is checked.

    jaxtyping's hook would bind the arguments of all other functions too, call by call, to check
    nothing, at a cost of every call.
    """
    wrap = jaxtyping.jaxtyped

    def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
        def decorate(of: Any) -> Any:
            function = of if isfunction(of) else of.__init__
            stated = isfunction(function) and tensors(function)
            return wrap(of, typechecker=typechecker) if stated else of

        return decorate

    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(rooms, "shapes.check_shapes")
