"""Shapes as types, checked at run time in the tests only: conftest.py puts this into the rooms that
have them."""

from collections.abc import Callable, Hashable
from functools import cache, partial, update_wrapper, wraps
from inspect import isfunction
from threading import get_ident
from types import FunctionType
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


def shape(value: object) -> Hashable:
    """All of a value that a check depends on; numbers are sizes in some annotations."""
    kind = type(value)
    if hasattr(kind, "dtype") and hasattr(kind, "shape"):
        return kind, value.shape, value.dtype  # type: ignore[attr-defined]
    if isinstance(value, list | tuple):
        return kind, *map(shape, value)
    if isinstance(value, dict):
        return kind, *((name, shape(inner)) for name, inner in value.items())
    return value if kind is int else kind


def once_a_shape(
    function: Callable[..., Any], check: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    """Checks calls with shapes that it has not seen together: to check every call would be a tenth
    of the time of a small network."""
    results: dict[int, Any] = {}  # by thread
    thread = get_ident

    def computed(*_: Any, **__: Any) -> Any:
        return results.pop(thread())

    # In the function's module, whose names its annotations bear.
    ends = FunctionType(
        computed.__code__.replace(co_name=function.__name__),
        function.__globals__,
        closure=computed.__closure__,
    )

    @cache
    def checks() -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Made at the first call: of most functions a process calls none."""
        return check(function), check(update_wrapper(ends, function))

    passed: dict[Hashable, set[Hashable]] = {}

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*arguments, **options)
        given = shape(arguments), shape(options)
        if given not in passed:
            result = checks()[0](*arguments, **options)
            passed[given] = {shape(result)}
            return result
        result = function(*arguments, **options)
        if (end := shape(result)) not in passed[given]:
            results[thread()] = result
            checks()[1](*arguments, **options)
            passed[given].add(end)
        return result

    return call


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
            if not stated:
                return of
            check = partial(wrap, typechecker=typechecker)
            return once_a_shape(of, check) if of is function else check(of)

        return decorate

    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(rooms, "shapes.check_shapes")
