"""Batches in the order that was asked for, whatever becomes of the processes that read them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch

from deadly_data import Deadly, DeadlyAfterwards, Killed
from froster.data.dataset import VideoDataset
from froster.data.loader import batches
from froster.data.manifest import Item, read_items
from froster.inference.recognizer import load
from froster.methods import VCLIP
from froster.methods.recipe import Recipe
from froster.training.distill_options import Distill
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.trainer import Trained
from froster.utils import pool
from froster.video.sampling import Sampling
from froster.world.clips import WorldClips
from shared_files import World
from train_worker import small_world

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of POSIX")


def test_a_process_that_dies_or_hangs_costs_its_file_and_changes_no_order(tmp_path: Path) -> None:
    order = [[0, 9, 7], [5, 1, 3], [2, 3, 5], [8, 6, 4]]
    found = list(batches(Deadly(tmp_path / "killed"), order, 2, limit=1.0))
    assert (tmp_path / "killed").exists()
    assert [batch.indices.tolist() for batch in found] == [[0, 9, 7], [1], [2], [8, 6, 4]]
    assert [batch.frames[:, 0, 0].tolist() for batch in found] == [[0, 9, 7], [1], [2], [8, 6, 4]]
    assert [batch.labels.tolist() for batch in found] == [[0, 1, 1], [1], [0], [0, 0, 0]]
    crashed, silent = f"the decoder crashed (exit code {-signal.SIGSEGV})", pool.silence(1.0)
    assert [batch.errors for batch in found] == [
        [],
        [(5, f"item 5: {silent}"), (3, f"item 3: {crashed}")],
        [(3, f"item 3: {crashed}"), (5, f"item 5: {silent}")],
        [],
    ]


def test_a_process_that_dies_after_its_part_costs_nothing_and_moves_nothing() -> None:
    found = list(batches(DeadlyAfterwards(), [[0, 1], [2, 3], [4]], 2))
    assert [batch.indices.tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    assert [batch.frames[:, 0].tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    assert [batch.errors for batch in found] == [[], [], []]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    videos = World("base", 1)
    for i in range(5):
        videos.write(i, root / "ab"[i % 2] / f"{i}.mp4")
    (root / "a" / "broken.mp4").write_bytes(b"no video")
    return root


@pytest.mark.parametrize("train", [True, False])
def test_processes_change_nothing(folder: Path, train: bool) -> None:
    dataset = VideoDataset(
        read_items(folder), ["a", "b"], Sampling("uniform", 4), 60, train=train, views=2
    )
    dataset.set_epoch(3)
    order = [[4, 0, 2], [1, 5, 3], [2], [0]]
    alone = list(batches(dataset, order))
    kept = list(batches(dataset, order, 2))  # all of them: none is written over by the next
    for one, two in zip(alone, kept, strict=True):
        assert torch.equal(one.frames, two.frames) and torch.equal(one.labels, two.labels)
        assert (
            torch.equal(one.indices, two.indices)
            and one.errors == two.errors
            and one.damaged == two.damaged
        )
    for batch, items in zip(alone, order, strict=True):
        samples = [
            sample for sample in map(dataset.__getitem__, items) if sample.frames is not None
        ]
        assert torch.equal(
            batch.frames, torch.stack([s.frames for s in samples if s.frames is not None])
        )
    assert sum(len(batch.errors) for batch in alone) == 1


def test_what_was_waited_for_in_vain_is_not_waited_for_again(folder: Path) -> None:
    items = [Item(folder / "a" / "0.mp4", "a"), Item(folder / "b" / "1.mp4", "b")]
    dataset = VideoDataset(items, ["a", "b"], Sampling("uniform", 4), 60, train=True)
    error = f"{items[1].path}: {pool.silence(5)}"
    (batch,) = batches(dataset, [[0, 1]], known={error: 1}, limit=5)
    assert batch.indices.tolist() == [0] and batch.errors == [(1, error)]
    (batch,) = batches(
        dataset, [[0, 1]], known={f"{items[1].path}: no frame can be decoded": 1}, limit=5
    )
    assert batch.indices.tolist() == [0, 1], "any other fault may be gone"


def trained(out: Path, clips: WorldClips, workers: int, stop: bool = False) -> Trained:
    recipe = Recipe(
        epochs=2, batch_size=4, lr=1e-3, warmup_epochs=1, precision="float32", workers=workers
    )

    def log(step: int, metrics: dict[str, float]) -> None:
        if stop and step == 5:
            raise InterruptedError

    base = load("nano", device="cpu")
    how = FineTuning(VCLIP(), Distill(), recipe)
    return fine_tune(base, how, clips, clips.videos.classes, out, Hooks(on_step=log))[1]


@pytest.mark.usefixtures("few_templates")
def test_a_killed_process_changes_no_weight_and_a_deadly_file_is_counted(tmp_path: Path) -> None:
    clips = small_world(load("nano", device="cpu"))
    alone = trained(tmp_path / "alone", clips, 0)
    once = trained(tmp_path / "once", Killed(clips, tmp_path / "marker"), 2)
    assert (tmp_path / "marker").exists() and once.unreadable == {}
    assert all(torch.equal(once.last[name], tensor) for name, tensor in alone.last.items())
    always = trained(tmp_path / "always", Killed(clips, None), 2)
    assert always.unreadable == {f"item 5: the decoder crashed (exit code {-signal.SIGKILL})": 2}
    assert not all(torch.equal(always.last[name], tensor) for name, tensor in alone.last.items())
    with pytest.raises(InterruptedError):
        trained(tmp_path / "resumed", Killed(clips, None), 2, stop=True)
    resumed = trained(tmp_path / "resumed", Killed(clips, None), 2)
    assert resumed.unreadable == always.unreadable
    assert all(torch.equal(resumed.last[name], tensor) for name, tensor in always.last.items())
