"""Files of weights that claim more than they hold, or that torch would take for code: one line, and
nothing is allocated."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import froster
from froster.encoders.reading import read_file, read_pickle
from froster.errors import CheckpointError

HUGE = 1 << 38
"""Numbers: a terabyte in float32."""


def refused(path: Path, match: str, read: Callable[[Path], Any] = read_file) -> None:
    """In one line that names the file, at once, and with no more memory than the file has."""
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=match) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert time.process_time() - began < 2 and peak < 20_000_000


def expanded(*shape: int) -> Tensor:
    return torch.ones((), dtype=torch.float16).expand(shape)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "tensor",
    [
        expanded(262144, 1024, 1024),
        expanded(2, 3),
        torch.arange(5.0).as_strided((4, 4), (0, 1)),
        torch.arange(9.0).as_strided((3, 7), (1, 1), 0),
        torch.nn.Parameter(torch.ones(1).expand(9, 9)),
    ],
)
def test_a_tensor_with_more_elements_than_its_storage_has_numbers(
    tensor: Tensor, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": {"visual.proj": tensor}}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "claims more numbers")
    refused(path, "claims more numbers", read_pickle)
    if zipped:
        refused(path, "claims more numbers", lambda path: froster.load(path, device="cpu"))


def test_weights_that_lie_apart_in_one_storage_or_are_turned_are_read(tmp_path: Path) -> None:
    storage = torch.arange(12.0)
    state = {
        "a": storage[2:6].view(2, 2),
        "b": storage[6:].view(2, 3).T,
        "none": torch.empty(0, 5),
        "one": torch.tensor(3.0),
    }
    for zipped in (True, False):
        torch.save(state, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
        found = read_file(tmp_path / "model.pt")[1]
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_many_names_of_one_tensor_are_not_made_many_tensors_of(tmp_path: Path) -> None:
    tensor = torch.zeros(100_000, dtype=torch.float16)
    torch.save({f"layer{i}": tensor for i in range(100)}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "claims to hold 20000000 bytes")
    torch.save({"a": tensor, "tied": tensor}, tmp_path / "model.pt")
    assert set(read_file(tmp_path / "model.pt")[1]) == {"a", "tied"}


@pytest.mark.parametrize("kind", ["sparse", "complex", "meta"])
def test_what_is_no_plain_tensor_is_refused(kind: str, tmp_path: Path) -> None:
    tensor = {
        "sparse": torch.sparse_coo_tensor(
            torch.tensor([[0], [0]]), torch.ones(1), (1 << 20, 1 << 20), check_invariants=True
        ),
        "complex": torch.ones(3, dtype=torch.complex64),
        "meta": torch.empty(1 << 20, 1 << 20, device="meta"),
    }[kind]
    torch.save({"w": tensor}, tmp_path / "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(tmp_path / "model.pt", "no plain tensor|not a checkpoint of plain tensors")


def test_an_old_file_that_claims_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"M\xe8\x03") == 2  # the size of the storage, and the tensor's
    huge = b"\x8a\x06" + HUGE.to_bytes(6, "little")
    path.write_bytes(data.replace(b"M\xe8\x03", huge))
    refused(path, "claims to hold 1099511627776 bytes")


def test_a_pickle_that_asks_for_a_long_memo(tmp_path: Path) -> None:
    """Python's unpickler in C would take 64 GB for these seven bytes."""
    path = tmp_path / "model.pth"
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    refused(path, "not a checkpoint")


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def script(path: Path, stored: bytes, said: int, shape: int, stride: int = 1, **names: Any) -> Path:
    """A TorchScript archive of one module with one tensor of bytes."""
    pid = (
        b"(X\x07\x00\x00\x00storagectorch\nByteStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(said)
        + b"tQ"
    )
    view = (
        b"K\x00(" + number(shape) + b"t(" + number(stride) + b"t\x89ccollections\nOrderedDict\n)R"
    )
    tree = (
        b"\x80\x02c__torch__\nNode\n)\x81}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        + pid
        + view
        + b"tRsb."
    )
    with zipfile.ZipFile(path, "w", names.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr(names.get("tree", "archive/data.pkl"), tree)
        archive.writestr(names.get("constants", "archive/constants.pkl"), b"\x80\x02).")
        archive.writestr(names.get("code", "archive/code/__torch__.py"), "")
        archive.writestr("archive/data/0", stored)
    return path


def test_torchscript_storages_are_what_the_pickle_says(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    whole = read_file(script(path, bytes(range(100)), 100, 100))
    assert whole[0] == "torchscript" and torch.equal(
        whole[1]["w"], torch.arange(100, dtype=torch.uint8)
    )
    refused(script(path, bytes(100), 99, 99), "has 100 bytes, and is said to hold 99")
    refused(script(path, bytes(100), HUGE, 100), "is said to hold")
    refused(script(path, bytes(100), 100, HUGE, 0), "claims more numbers")
    refused(script(path, bytes(100), 100, 101, 0), "claims more numbers")
    refused(script(path, bytes(100), 100, 100, -1), "not a readable")
    refused(script(path, bytes(100), 100, 100, 2), "not a readable")


@pytest.mark.parametrize("size", [100_000, 50_000_000])
def test_deflated_zeros_stay_packed(size: int, tmp_path: Path) -> None:
    path = script(tmp_path / "model.pt", bytes(size), size, size, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < size / 50
    refused(path, "unpacks to more than its")


def test_deflated_tensors_of_a_plain_archive_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(1000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(tmp_path / "model.pt", "compressed|unpacks")


@pytest.mark.parametrize(
    "names",
    [
        {"code": "archive/CODE/__torch__.py"},
        {"code": "archive/Code/__torch__.py"},
        {"code": "elsewhere"},
        {"constants": "archive/CONSTANTS.PKL"},
        {"constants": "Archive/constants.pkl"},
        {"constants": "constants.pkl"},
        {"constants": "archive/deep/er/Constants.Pkl"},
        {"constants": "archive/code/constants.pkl"},
        {"tree": "archive/DATA.PKL"},
        {"tree": "data.pkl"},
    ],
)
def test_no_archive_with_constants_reaches_torch(
    names: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch before 2.6 runs the code of such a file, whatever `weights_only` says."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(torch.jit, "load", never)
    path = script(tmp_path / "model.pt", bytes(4), 4, 4, **names)
    try:
        assert read_file(path)[0] == "torchscript"
    except CheckpointError as error:
        assert str(path) in str(error)
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        read_pickle(path)


@pytest.mark.parametrize("second", ["archive/data.pkl", "archive/Data.pkl", "ARCHIVE/data/0"])
def test_two_entries_of_one_name_are_refused(second: str, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "archive.pt")
    shutil.copy(tmp_path / "archive.pt", tmp_path / "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "model.pt", "a") as archive:
            archive.writestr(second, pickle.dumps({}))
    refused(tmp_path / "model.pt", "one name")


def test_a_pipe_is_no_file_of_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "no file of weights")


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_none_of_the_pickles_of_an_old_file_is_run(before: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(
        b"".join(pickle.dumps(n, 2) for n in range(before))
        + pickle.dumps(Bomb(tmp_path / "boom"), 2)
    )
    refused(path, "not a checkpoint")
    refused(path, "not a checkpoint", read_pickle)
    assert not (tmp_path / "boom").exists()
