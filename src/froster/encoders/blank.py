"""Networks without memory: to count weights, or to load them from a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from froster.errors import CheckpointError


class _NoDraws(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (
            func in (Tensor.normal_, Tensor.uniform_)
            or getattr(func, "__module__", None) == "torch.nn.init"
        ):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        if func in (Tensor.mul, Tensor.__mul__) and args[0].is_meta and isinstance(args[1], float):
            return args[0]  # draws that are scaled: PyTorch would import its compiler for them
        return func(*args, **kwargs)


@contextmanager
def blank(weights: int | None = None) -> Iterator[None]:
    """Networks that are built in here have shapes but no memory: to count weights, or to load them
    from a file.

    The meta device alone would still carry out the initial draws and their scaling, in Python, and
    import the compiler for it (seconds). Raises CheckpointError where a network asks for many more
    than so many `weights`, which are all that a file has: its config may speak of a billion layers.
    """
    room, thread = max(1000, 2 * (weights or 0)), threading.get_ident()

    def count(*_: Any) -> None:
        nonlocal room
        room -= threading.get_ident() == thread
        if room < 0:
            raise CheckpointError(
                f"it asks for a network of more than the {weights} weights that there are"
            )

    counting = None if weights is None else register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), _NoDraws():
            yield
    finally:
        if counting is not None:
            counting.remove()
