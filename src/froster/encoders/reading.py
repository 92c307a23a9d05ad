"""Tensors out of files that strangers made. Nothing here runs what a file holds.

Pickles go through torch's `weights_only` loader. TorchScript archives (OpenAI's `.pt`) do not go
through `torch.jit.load`: that compiles the code in the archive and runs its `__setstate__`, which
can write files. Their pickled tree of modules is read as plain data instead, with every class but
tensors replaced by an inert one.

Before torch reads a file, it is asked how much it claims: tensors can claim far more memory than
the file has bytes (storages of one byte that are seen as terabytes, zeros that were deflated,
storages of which the pickle says another size than the archive).
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from froster.errors import CheckpointError

State = dict[str, Tensor]

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
# Weights may be tied, or kept twice: a file's tensors claim at most so many times its bytes.
SHARED = 4

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


def read_file(path: Path) -> tuple[str, dict[str, Any]]:
    """What a checkpoint file holds, on the CPU, and its kind: "safetensors", "torchscript" or
    "pickle".

    A pickle may nest its weights (`{"model_state": …}`); the others are flat. Raises
    CheckpointError naming the file.
    """
    if path.exists() and not path.is_file():  # a pipe would keep us waiting
        raise CheckpointError(f"{path}: no file of weights")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return "safetensors", read_safetensors(path)
    if head[:4] == b"PK\x03\x04":
        if _archive_kind(path) == "torchscript":
            return "torchscript", _read_as_data(path, is_script=True)
        return "pickle", _read_weights(path, is_zip=True)
    if head[:1] == b"\x80":
        return "pickle", _read_weights(path, is_zip=False)
    raise CheckpointError(f"{path}: neither safetensors nor a torch checkpoint")


def read_safetensors(path: Path) -> State:
    """Raises CheckpointError naming the file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, KeyError, AttributeError) as error:
        # AttributeError: a type that torch does not have.
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({_first_line(error)})"
        ) from None


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Of a file that `read_safetensors` has read."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def flat_weights(content: Any) -> State:
    """`content`, if it is a dictionary of tensors and nothing else. Raises CheckpointError."""
    if not isinstance(content, dict) or not content:
        raise CheckpointError("expected a dictionary of weights")
    if others := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"found also {', '.join(map(str, others[:3]))}, and only tensors are loaded"
        )
    return content


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, tensors and plain values. Raises CheckpointError naming the file,
    OSError without one."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip and _archive_kind(path) == "torchscript":
        raise CheckpointError(f"{path}: a TorchScript archive where tensors were expected")
    return _load(path, is_zip)


def _archive_kind(path: Path) -> str:
    """Raises CheckpointError where an archive claims what it cannot hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.stat().st_size)
            if is_torchscript(archive):
                return "torchscript"
            check_stored(archive)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # zipfile raises many kinds for broken archives
        raise CheckpointError(f"{path}: not a whole archive ({_first_line(error)})") from None
    return "pickle"


def _load(path: Path, is_zip: bool, mapped: bool = False) -> Any:
    try:
        if not is_zip:
            check_legacy(path)
        with warnings.catch_warnings():
            # About pickle protocols, which the user can do nothing about.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        check_tensors(content, path.stat().st_size)
    except Exception as error:  # cut-off archives, pickles, forbidden classes: unrelated types
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named and is_zip:  # X-CLIP's loop, for one, saves its settings object beside the weights
            return _read_as_data(path, is_script=False)
        cause = _first_line(error)
        if named:
            cause = f"it holds a {named[1]}, and only tensors are loaded"
        raise CheckpointError(f"{path}: not a checkpoint of plain tensors ({cause})") from None
    return content


def _read_weights(path: Path, is_zip: bool) -> dict[str, Any]:
    # Mapped, not read: a training checkpoint is mostly teacher and optimizer, which are not used.
    content = _load(path, is_zip, mapped=is_zip)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a dictionary of weights, found {type(content).__name__}"
        )
    return content


def _read_as_data(path: Path, is_script: bool) -> Any:
    """A torch archive, of which nothing is run: other objects than tensors become empty shells. Of
    a TorchScript archive the tensors by their dotted names."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            with archive.open(f"{root}/data.pkl") as file:
                content = _ModuleTree(file, archive, root).load()
        if is_script:
            content = dict(_tensors(content, ""))
        check_tensors(content, path.stat().st_size)
    except Exception as error:  # a foreign pickle can fail in any way
        what = "readable TorchScript archive" if is_script else "checkpoint of plain tensors"
        raise CheckpointError(f"{path}: not a {what} ({_first_line(error)})") from None
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class _ModuleTree(Unpickler):
    """The modules of an archive as `Inert` objects that hold tensors. No name is ever imported."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root
        self._unpacked: dict[str, bytearray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        return _HARMLESS.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, numel = pid
        entry = self._archive.getinfo(f"{self._root}/data/{key}")
        if entry.file_size != numel * dtype.itemsize:
            raise CheckpointError(
                f"{entry.filename} has {entry.file_size} bytes, and is said to hold {numel} of"
                f" {dtype}"
            )
        if not numel:
            return torch.empty(0, dtype=dtype)
        if key not in self._unpacked:
            self._unpacked[key] = bytearray(self._archive.read(entry))
        return torch.frombuffer(self._unpacked[key], dtype=dtype)


def _rebuild(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    check_view("", size, storage.numel())
    return storage.as_strided(size, stride, offset)


class _Dict(dict):
    """An OrderedDict. A `state_dict` carries the versions of its modules as attributes, which
    nothing here asks for."""

    def __setstate__(self, state: Any) -> None:
        pass


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_HARMLESS = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): _Dict,
}
"""What a pickle may really call."""


def _tensors(module: Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a tree of modules with its dotted name."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, Inert):
            yield from _tensors(value, f"{prefix}{name}.")


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
        # A magic number, the version, the machine; or whatever a stranger put there.
        for _ in range(3):
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
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_complex():
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
