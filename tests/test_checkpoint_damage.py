"""A checkpoint that is not what was written is named, whatever has happened to it, and an earlier
whole one is taken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from froster.errors import CheckpointError, UsageError
from froster.training.checkpoint import Checkpoints, RunState
from froster.training.weights import RunningMean
from froster.utils.tensors import StateDict

FILES = ("student.safetensors", "average.safetensors", "optimizer.pt", "state.json")
RUN = {"lr": 0.5, "classes": ["a", "b"], "numbers": {1: 2, 10: 3, 9: 4}, "sizes": (1, 2)}


class Training:
    """A network of two weights, its optimizer and all else that a checkpoint holds."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.student = nn.Linear(16, 16)
        self.optimizer = torch.optim.AdamW(self.student.parameters())
        self.average, self.unreadable, self.history = RunningMean(), {"x: broken": 2}, []  # type: ignore[var-annotated]

    def step(self, epoch: int) -> None:
        self.optimizer.zero_grad()
        self.student(torch.ones(1, 16)).square().sum().backward()
        self.optimizer.step()
        self.average.add(
            {name: tensor.detach().clone() for name, tensor in self.student.state_dict().items()}
        )
        self.history.append({"epoch": epoch, "base": 50.0 + epoch / 3})

    def state(self, run: dict[str, Any]) -> RunState:
        modules = {"student": self.student}
        return RunState(modules, self.optimizer, run, self.average, self.unreadable, self.history)

    def save(self, folder: Checkpoints, epoch: int) -> None:
        folder.save(epoch, self.state(RUN))

    def resume(self, folder: Checkpoints, run: dict[str, Any] = RUN) -> int:
        self.unreadable, self.history = {}, []
        return folder.resume(self.state(run))

    def content(self) -> dict[str, Any]:
        moments = self.optimizer.state_dict()["state"]
        flat: StateDict = {
            f"{i}/{name}": value for i, values in moments.items() for name, value in values.items()
        }
        flat |= {
            f"student/{name}": tensor.clone() for name, tensor in self.student.state_dict().items()
        }
        flat |= {f"mean/{name}": tensor for name, tensor in self.average.mean.items()}
        return {
            "tensors": {name: tensor.tolist() for name, tensor in flat.items()},
            "count": self.average.count,
            "unreadable": dict(self.unreadable),
            "history": list(self.history),
        }


@pytest.fixture
def two(tmp_path: Path) -> tuple[Checkpoints, dict[int, dict[str, Any]]]:
    """Checkpoints of two epochs, and what they hold."""
    checkpoints, training, contents = (
        Checkpoints(tmp_path / "run" / "checkpoints", keep=2),
        Training(),
        {},
    )
    for epoch in (1, 2):
        training.step(epoch)
        training.save(checkpoints, epoch)
        contents[epoch] = training.content()
    return checkpoints, contents


def flipped(data: bytes, place: float, bit: int = 3) -> bytes:
    i = int(place * (len(data) - 1))
    return data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "zeros at the end": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "missing": lambda data: None,
    "a bit of the first byte": lambda data: flipped(data, 0),
    "a bit of the header": lambda data: flipped(data, 0.05),
    "a bit in the middle": lambda data: flipped(data, 0.5, 0),
    "the last bit": lambda data: flipped(data, 1.0, 0),
    "something else": lambda data: b"[" * 100_000,
}


def damage(path: Path, how: str) -> None:
    content = DAMAGES[how](path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_the_epoch_before_is_taken(name: str, how: str, two: tuple[Checkpoints, dict]) -> None:
    checkpoints, contents = two
    damage(checkpoints.path(2) / name, how)
    training = Training()
    assert training.resume(checkpoints) == 1
    assert training.content() == contents[1]
    (line,) = checkpoints.passed_over
    assert line.startswith(f"{checkpoints.path(2) / name}: cannot be read (") and "\n" not in line

    damage(checkpoints.path(1) / name, how)
    with pytest.raises(CheckpointError) as caught:
        Training().resume(checkpoints)
    line = str(caught.value)
    assert line.startswith(
        f"cannot resume from {checkpoints.folder}: {checkpoints.path(2) / name}: cannot be read ("
    )
    assert "To start the run anew, remove that folder" in line and "\n" not in line


def test_a_state_that_is_nested_too_deeply_is_damaged(two: tuple[Checkpoints, dict]) -> None:
    """Also where it can just be read, and not be written for its digest."""
    checkpoints, _ = two
    for depth in (*range(900, 1010), 100_000):
        (checkpoints.path(2) / "state.json").write_text(
            '{"files": {}, "run": ' + "[" * depth + "]" * depth + "}"
        )
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoints.state(2)


def test_every_bit_of_state_json_is_watched_over(two: tuple[Checkpoints, dict]) -> None:
    checkpoints, contents = two
    path = checkpoints.path(2) / "state.json"
    content = path.read_bytes()
    for i in range(8 * len(content)):
        path.write_bytes(flipped(content, i // 8 / (len(content) - 1), i % 8))
        try:
            state = checkpoints.state(2)
        except CheckpointError:
            continue
        assert state["history"] == contents[2]["history"] and state["run"] == json.loads(
            json.dumps(RUN)
        ), i


def without_digests(checkpoints: Checkpoints, epoch: int, /, **changes: Any) -> None:
    """As versions before the digests wrote it."""
    path = checkpoints.path(epoch) / "state.json"
    state = json.loads(path.read_text())
    del state["files"], state["digest"]
    path.write_text(
        json.dumps(
            {name: value for name, value in {**state, **changes}.items() if value is not None}
        )
    )


def test_checkpoints_of_older_versions_are_resumed(two: tuple[Checkpoints, dict]) -> None:
    checkpoints, contents = two
    without_digests(checkpoints, 2)
    training = Training()
    assert training.resume(checkpoints) == 2
    assert training.content() == contents[2]
    without_digests(checkpoints, 1, history=None)
    shutil.rmtree(checkpoints.path(2))
    assert training.resume(checkpoints) == 1
    assert training.content() == {**contents[1], "history": []}


@pytest.mark.parametrize(
    "how", ["cut", "empty", "zeros", "missing", "a bit of the first byte", "something else"]
)
@pytest.mark.parametrize("name", FILES)
def test_without_digests_what_cannot_be_read_is_named(
    name: str, how: str, two: tuple[Checkpoints, dict]
) -> None:
    checkpoints, contents = two
    for epoch in (1, 2):
        without_digests(checkpoints, epoch)
    damage(checkpoints.path(2) / name, how)
    training = Training()
    assert training.resume(checkpoints) == 1
    assert training.content() == contents[1]
    assert str(checkpoints.path(2)) in checkpoints.passed_over[0]


WRONG = [
    {"epoch": 7},
    {"epoch": "2"},
    {"averaged": "two"},
    {"averaged": None},
    {"run": []},
    {"run": None},
    {"unreadable": [1]},
    {"history": {}},
    {"history": [1, 2]},
    {"history": "x"},
]


@pytest.mark.parametrize("change", WRONG)
def test_values_of_a_wrong_kind_are_damage(
    change: dict[str, Any], two: tuple[Checkpoints, dict]
) -> None:
    checkpoints, contents = two
    without_digests(checkpoints, 2, **change)
    training = Training()
    assert training.resume(checkpoints) == 1
    assert training.content() == contents[1]


@pytest.mark.parametrize(
    "text",
    ["[1]", "3", "null", '"x"', "[" * 200_000, '{"epoch": 2}', '{"a": ' * 100_000, "\ufeff{}"],
)
def test_a_state_that_is_none(text: str, two: tuple[Checkpoints, dict]) -> None:
    checkpoints, _ = two
    (checkpoints.path(2) / "state.json").write_text(text)
    assert Training().resume(checkpoints) == 1


def test_whole_files_of_another_network_are_named(two: tuple[Checkpoints, dict]) -> None:
    checkpoints, _ = two
    training = Training()
    training.student = nn.Linear(16, 15)
    with pytest.raises(CheckpointError, match="cannot be read"):
        training.resume(checkpoints)


def test_files_of_two_epochs_are_not_mixed(two: tuple[Checkpoints, dict]) -> None:
    checkpoints, contents = two
    shutil.copy(checkpoints.path(1) / "optimizer.pt", checkpoints.path(2) / "optimizer.pt")
    training = Training()
    assert (training.resume(checkpoints), training.content()) == (1, contents[1])


def test_other_settings_are_no_damage(two: tuple[Checkpoints, dict]) -> None:
    with pytest.raises(UsageError, match=r"lr = 0\.5, not 0\.25"):
        Training().resume(two[0], {**RUN, "lr": 0.25})


def test_a_damaged_newer_one_does_not_push_whole_ones_out(two: tuple[Checkpoints, dict]) -> None:
    """With --keep 1, after going on from epoch 1 of 2, 3, 4: the damaged fourth is not what is
    kept."""
    checkpoints, _ = two
    shutil.copytree(checkpoints.path(2), checkpoints.path(4))
    checkpoints.keep = 1
    training = Training()
    assert training.resume(checkpoints) == 2, "its state says epoch 2"
    training.step(3)
    training.save(checkpoints, 3)
    assert checkpoints.epochs() == [3, 4]
    training.step(4)
    training.save(checkpoints, 4)
    assert checkpoints.epochs() == [4]
    assert Training().resume(checkpoints) == 4


def test_checkpoints_can_be_read_by_others(two: tuple[Checkpoints, dict], tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        training = Training()
        training.step(1)
        training.save(Checkpoints(tmp_path / "open"), 1)
    finally:
        os.umask(before)
    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "open" / "epoch-0001").iterdir()
    }
    assert modes == dict.fromkeys(FILES, "0o644")
