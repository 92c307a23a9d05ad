"""Tensors on disk and on their way out of a network."""

from __future__ import annotations

import ctypes
import hashlib
import stat
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from froster.errors import CheckpointError
from froster.utils.files import cannot_write

StateDict = dict[str, Tensor]


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """A safetensors file with the mode that the umask gives, as `save_file` alone keeps it from
    everybody else. Raises WriteError."""
    try:
        path.touch()
        mode = stat.S_IMODE(path.stat().st_mode)
        save_file(tensors, path, metadata)
        path.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_digest(name: str, tensor: Tensor) -> str:
    """Of the numbers of a tensor on the CPU, of their type and shape, and of its name."""
    facts = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
    digest = hashlib.blake2b(facts.encode(), digest_size=16)
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cpu_state(module: nn.Module) -> StateDict:
    """A copy of a module's weights, on the CPU, that later steps do not change."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in module.state_dict().items()
    }


def seed_of(number: int) -> int:
    """A seed that PyTorch takes, which has 64 bits; a number that fits is its own."""
    return number if -(2**63) <= number < 2**64 else number % 2**64


def finite(numbers: Tensor, what: str) -> Tensor:
    """The same numbers. Raises CheckpointError where one of them is none."""
    if not bool(numbers.isfinite().all()):
        raise CheckpointError(
            f"the network's {what} are not finite numbers (NaN or infinite): its weights are"
            " damaged, or too large to compute with; load another copy or checkpoint"
        )
    return numbers


def return_freed() -> None:
    """Returns to the system what large tensors leave when they go, where the C library would keep
    it (glibc): a tenth of a second for gigabytes."""
    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows wants a name
        ctypes.CDLL(None).malloc_trim(0)
