"""Tensors out of files that strangers made. Nothing here runs what a file holds.

Pickles go through torch's `weights_only` loader. TorchScript archives (OpenAI's `.pt`) do not go through `torch.jit.load`:
that compiles the code in the archive and runs its `__setstate__`, which can write files. Their pickled tree of modules is
read as plain data instead, with every class but tensors replaced by an inert one.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from froster.errors import CheckpointError

State = dict[str, Tensor]

_STORAGES = {
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


def read_file(path: Path) -> tuple[str, dict[str, Any]]:
    """What a checkpoint file holds, on the CPU, and its kind: "safetensors", "torchscript" or "pickle".

    A pickle may nest its weights (`{"model_state": …}`); the others are flat. Raises CheckpointError naming the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return "safetensors", read_safetensors(path)
    if head[:4] == b"PK\x03\x04" and (root := _torchscript_root(path)) is not None:
        return "torchscript", _read_torchscript(path, root)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return "pickle", _read_pickle(path, is_zip=head[:1] == b"P")
    raise CheckpointError(f"{path}: neither safetensors nor a torch checkpoint")


def read_safetensors(path: Path) -> State:
    """Raises CheckpointError naming the file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({_first_line(error)})") from None


def flat_weights(content: Any) -> State:
    """`content`, if it is a dictionary of tensors and nothing else. Raises CheckpointError."""
    if not isinstance(content, dict) or not content:
        raise CheckpointError("expected a dictionary of weights")
    if others := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"found also {', '.join(map(str, others[:3]))}, and only tensors are loaded")
    return content


def _read_pickle(path: Path, is_zip: bool) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, which the user can do nothing about
            # Mapped, not read: a training checkpoint is mostly teacher and optimizer, which nobody asks for.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a cut-off archive, a foreign pickle and a forbidden class raise unrelated types
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found and is_zip:  # X-CLIP's loop, for one, saves its settings object beside the weights
            return _read_inert(path)
        cause = f"it holds a {found[1]}, and only tensors are loaded" if found else _first_line(error)
        raise CheckpointError(f"{path}: not a checkpoint of plain tensors ({cause})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dictionary of weights, found {type(content).__name__}")
    return content


def _read_inert(path: Path) -> dict[str, Any]:
    """A torch archive that holds other objects than tensors: those become empty shells, the tensors are read."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            with archive.open(f"{root}/data.pkl") as file:
                content = _ModuleTree(file, archive, root).load()
    except Exception as error:  # a foreign pickle can fail in any way
        raise CheckpointError(f"{path}: not a checkpoint of plain tensors ({_first_line(error)})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dictionary of weights, found an object")
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _torchscript_root(path: Path) -> str | None:
    """The top folder of a TorchScript archive, None for another (or broken) zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    root = names[0].split("/")[0] if names else ""
    is_script = f"{root}/constants.pkl" in names and any(name.startswith(f"{root}/code/") for name in names)
    return root if is_script else None


def _read_torchscript(path: Path, root: str) -> State:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{root}/data.pkl") as file:
            return dict(_tensors(_ModuleTree(file, archive, root).load(), ""))
    except Exception as error:  # a foreign pickle can fail in any way
        raise CheckpointError(f"{path}: not a readable TorchScript archive ({_first_line(error)})") from None


class _Inert:
    """Stands for every class that a pickle names. Calling it does nothing; a module's attributes land in its dict."""

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


class _ModuleTree(pickle.Unpickler):
    """The modules of an archive as `_Inert` objects that hold tensors. No name is ever imported."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root
        self._loaded: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        return _HARMLESS.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, numel = pid
        if key not in self._loaded:
            data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            self._loaded[key] = torch.frombuffer(data, dtype=dtype, count=numel)
        return self._loaded[key]


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_HARMLESS = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): dict,
}
"""What a pickle may really call."""


def _tensors(module: _Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a tree of modules with its dotted name."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Inert):
            yield from _tensors(value, f"{prefix}{name}.")
