"""What is asked of a torch file before it is read: how much it may claim, and that torch would run
nothing of it.

A file's tensors can claim far more memory than the file has bytes: storages of one byte that are
seen as terabytes (stride 0), zeros that were deflated, storages of which the pickle says another
size than the archive.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from froster.errors import CheckpointError

STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
SHARED = 4
"""Weights may be tied, or kept twice: a file's tensors together claim at most so many times its
bytes."""

# Python's own unpickler in Python: that in C gives a memo as long as the file asks for, 64 GB for a
# few bytes.
Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class Inert:
    """Stands for every class that a pickle names. Calling it does nothing; a module's attributes
    land in its dict."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Raises CheckpointError where two entries have one name (readers differ in which they take,
    and torch's does not tell upper from lower case), or where what is unpacked is larger than the
    file, of `size` bytes."""
    names = [name.casefold() for name in archive.namelist()]
    if len(set(names)) < len(names):
        raise CheckpointError("two entries of the archive have one name")
    if sum(entry.file_size for entry in archive.infolist() if _holds_data(entry.filename)) > size:
        raise CheckpointError(f"it unpacks to more than its {size} bytes")


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Would any version of torch take it for code to run? They go by this entry, wherever and
    however written."""
    return any(name.casefold().endswith("constants.pkl") for name in archive.namelist())


def check_stored(archive: zipfile.ZipFile) -> None:
    """Raises CheckpointError where tensors are compressed: torch never does so, and maps such bytes
    as they are."""
    if any(
        _holds_data(entry.filename) and entry.compress_type != zipfile.ZIP_STORED
        for entry in archive.infolist()
    ):
        raise CheckpointError("its tensors are compressed, as torch never writes them")


def _holds_data(name: str) -> bool:
    return not name.partition("/")[2].startswith(("code/", "debug/"))


class _Sizes(Unpickler):
    """Sums what the storages of a pickle are said to hold. Nothing is made, and no name is
    imported."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.sizes: dict[Any, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return STORAGES.get(name, Inert) if module == "torch" else Inert

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] in ("storage", b"storage"):
            _, dtype, key, _, numel, *_ = pid
            self.sizes[key] = max(self.sizes.get(key, 0), numel * getattr(dtype, "itemsize", 1))
        return Inert()


def check_legacy(path: Path) -> None:
    """The format before torch 1.6: several pickles one after the other, the last of them the
    object, then the numbers.

    torch makes room for the numbers before it looks whether they are there. Raises CheckpointError
    where the file is shorter than what it claims.
    """
    with path.open("rb") as file:
        for _ in range(
            3
        ):  # a magic number, the version, the machine; or whatever a stranger put there
            _Sizes(file).load()
        scan = _Sizes(file)
        scan.load()
    check_claim(sum(scan.sizes.values()), path.stat().st_size)


def check_claim(claimed: int, size: int) -> None:
    if claimed > size:
        raise CheckpointError(f"it claims to hold {claimed} bytes of tensors and has {size}")


def check_tensors(content: Any, size: int) -> None:
    """Raises CheckpointError where a tensor in nested dictionaries and lists is not made of numbers
    that lie in the file of `size` bytes, one for each of its elements."""
    claimed, seen, rest = 0, set(), [("", content)]
    while rest:
        name, value = rest.pop()
        if isinstance(value, Tensor):
            check_tensor(name, value)
            claimed += value.numel() * value.element_size()
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            rest += value.items() if isinstance(value, dict) else [(name, item) for item in value]
    check_claim(claimed, SHARED * size)


def check_tensor(name: Any, tensor: Tensor) -> None:
    if (
        tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.is_quantized
        or tensor.is_complex()
    ):
        raise CheckpointError(f"{name} is no plain tensor of real numbers")
    check_view(name, tensor.shape, tensor.untyped_storage().nbytes() // tensor.element_size())


def check_view(name: Any, shape: Any, stored: int) -> None:
    """Raises CheckpointError where a tensor of this shape has more elements than its storage has
    numbers."""
    if math.prod(shape) > stored:
        raise CheckpointError(
            f"{name or 'a tensor'} of shape {tuple(shape)} claims more numbers than the {stored} it"
            " is made of"
        )
