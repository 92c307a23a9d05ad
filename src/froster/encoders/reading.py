"""Tensors out of files that strangers made. Nothing here runs what a file holds.

Pickles go through torch's `weights_only` loader. TorchScript archives (OpenAI's `.pt`) do not go
through `torch.jit.load`: that compiles the code in the archive and runs its `__setstate__`, which
can write files. Their pickled tree of modules is read as plain data instead, with every class but
tensors replaced by an inert one.
"""

from __future__ import annotations

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

from froster.encoders.archive import (
    STORAGES,
    Inert,
    Unpickler,
    check_archive,
    check_legacy,
    check_stored,
    check_tensors,
    check_view,
    is_torchscript,
)
from froster.errors import CheckpointError

State = dict[str, Tensor]

# Where training loops put the weights.
_NESTS = ("model_state", "model_state_dict", "state_dict", "model", "net")
# Constants and masks that older files keep beside the weights.
NOT_WEIGHTS = re.compile(r"(.*\.)?(input_resolution|context_length|vocab_size|attn_mask)")
# What a training checkpoint of the released code holds beside the student.
NOT_STUDENT = re.compile(r"(raw_model|projector_v|projector_t)\b.*")


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
        kind = _archive_kind(path)
        return kind, (
            _read_torchscript(path) if kind == "torchscript" else _read_weights(path, is_zip=True)
        )
    if head[:1] == b"\x80":
        return "pickle", _read_weights(path, is_zip=False)
    raise CheckpointError(f"{path}: neither safetensors nor a torch checkpoint")


def read_safetensors(path: Path) -> State:
    """Raises CheckpointError naming the file."""
    try:
        return load_file(path)
    except (
        OSError,
        SafetensorError,
        KeyError,
        AttributeError,
    ) as error:  # the latter: a type that torch does not have
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({_first_line(error)})"
        ) from None


def flat_weights(content: Any) -> State:
    """`content`, if it is a dictionary of tensors and nothing else. Raises CheckpointError."""
    if not isinstance(content, dict) or not content:
        raise CheckpointError("expected a dictionary of weights")
    if others := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"found also {', '.join(map(str, others[:3]))}, and only tensors are loaded"
        )
    return content


def unwrap(content: dict[str, Any]) -> State:
    """The weights of a checkpoint without what training loops wrap round them: the dictionary that
    they lie in, DDP's `module.`, and the `model.` of Lightning and of FROSTER's code where each of
    the network's weights has it.

    Raises CheckpointError where there are no weights, or something else among them.
    """
    nest = next((key for key in _NESTS if isinstance(content.get(key), dict)), None)
    state = flat_weights(content[nest] if nest else content)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if all(name.startswith("model.") for name in state if not is_training_extra(name)):
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return state


def is_training_extra(name: str) -> bool:
    """Does this name belong to what FROSTER's training checkpoints hold beside the student?"""
    return NOT_STUDENT.fullmatch(name) is not None or NOT_WEIGHTS.fullmatch(name) is not None


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
            warnings.simplefilter(
                "ignore"
            )  # about pickle protocols, which the user can do nothing about
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        check_tensors(content, path.stat().st_size)
    except (
        Exception
    ) as error:  # a cut-off archive, a foreign pickle and a forbidden class raise unrelated types
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found and is_zip:  # X-CLIP's loop, for one, saves its settings object beside the weights
            return _read_inert(path)
        cause = (
            f"it holds a {found[1]}, and only tensors are loaded" if found else _first_line(error)
        )
        raise CheckpointError(f"{path}: not a checkpoint of plain tensors ({cause})") from None
    return content


def _read_weights(path: Path, is_zip: bool) -> dict[str, Any]:
    # Mapped, not read: a training checkpoint is mostly teacher and optimizer, which nobody asks
    # for.
    content = _load(path, is_zip, mapped=is_zip)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a dictionary of weights, found {type(content).__name__}"
        )
    return content


def _read_inert(path: Path) -> Any:
    """A torch archive that holds other objects than tensors: those become empty shells, the tensors
    are read."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            with archive.open(f"{root}/data.pkl") as file:
                content = _ModuleTree(file, archive, root).load()
        check_tensors(content, path.stat().st_size)
    except Exception as error:  # a foreign pickle can fail in any way
        raise CheckpointError(
            f"{path}: not a checkpoint of plain tensors ({_first_line(error)})"
        ) from None
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _read_torchscript(path: Path) -> State:
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            with archive.open(f"{root}/data.pkl") as file:
                state = dict(_tensors(_ModuleTree(file, archive, root).load(), ""))
        check_tensors(state, path.stat().st_size)
    except Exception as error:  # a foreign pickle can fail in any way
        raise CheckpointError(
            f"{path}: not a readable TorchScript archive ({_first_line(error)})"
        ) from None
    return state


class _ModuleTree(Unpickler):
    """The modules of an archive as `Inert` objects that hold tensors. No name is ever imported."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root
        self._read: dict[str, bytearray] = {}

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
        if key not in self._read:
            self._read[key] = bytearray(self._archive.read(entry))
        return torch.frombuffer(self._read[key], dtype=dtype)


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
