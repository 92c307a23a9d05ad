"""From one task to the next: the path integral of synaptic intelligence, and what it holds."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import froster
from froster.errors import UsageError
from froster.inference.recognizer import load
from froster.methods import METHODS
from froster.methods.penalised import Consolidated, consolidate
from froster.training.fine_tune import student_of
from froster.training.importance import FILE, PathIntegral, holding, read_importance
from golden import close
from shared_files import World
from test_training import run, weights

pytestmark = pytest.mark.usefixtures("few_templates_throughout")
QUIET = {"epochs": 2, "batch_size": 2, "blend_points": 0, "look": False, "device": "cpu"}


def path_of(optimizer_of, steps: int = 40) -> tuple[PathIntegral, float]:
    """The path of a small network, and how far its loss fell."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(32, 6), torch.arange(32) % 3
    optimizer, path = optimizer_of(net.parameters()), PathIntegral(net)
    first = F.cross_entropy(net(x), y).item()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        path.before()
        optimizer.step()
        path.after()
    return path, first - F.cross_entropy(net(x), y).item()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_descent_gives_every_weight_a_share_of_the_fall(momentum: float) -> None:
    path, fall = path_of(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=momentum))
    shares = [x for name, x in path.record().items() if name.startswith("path/")]
    assert all((x >= 0).all() for x in shares)
    assert float(sum(x.sum() for x in shares)) == pytest.approx(fall, rel=0.05)


def test_decay_makes_shares_negative_which_the_authors_clip() -> None:
    path, _ = path_of(lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=4.0))
    record = path.record()
    shares, change = record["path/0.weight"], record["change/0.weight"]
    assert (shares < 0).any()
    close(consolidate(shares, change, clip=False), shares / (change**2 + 0.1))
    close(consolidate(shares, change), (shares / (change**2 + 0.1)).clamp(min=0))
    earlier = torch.full_like(shares, 0.5)
    close(consolidate(shares, change, earlier), (0.5 + shares / (change**2 + 0.1)).clamp(min=0))


def test_the_authors_rule_leaves_the_penalty_out_of_the_gradient() -> None:
    net = nn.Linear(3, 2)
    start = {name: p.detach() - 0.1 for name, p in net.named_parameters()}
    held = Consolidated(start, 2.0, {name: torch.ones_like(p) for name, p in start.items()})
    without, total = PathIntegral(net, held), PathIntegral(net, held, total=True)
    loss = net(torch.ones(1, 3)).square().sum()
    alone = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    (loss + held.of(net)).backward()
    without.before()
    total.before()
    for (name, p), gradient in zip(net.named_parameters(), alone, strict=True):
        close(without.gradients[name], gradient)
        close(total.gradients[name], p.grad)


def test_what_was_held_is_remembered_of_weights_that_stayed_as_they_were() -> None:
    """The image tower alone, say, after both: a third task holds the text tower too."""
    net = nn.Linear(3, 2)
    held = Consolidated({}, 1.0, {"weight": torch.ones(2, 3), "bias": torch.ones(2)})
    net.bias.requires_grad_(False)
    record = PathIntegral(net, held).record()
    assert record.keys() == {"path/weight", "change/weight", "held/weight", "held/bias"}


def test_a_killed_run_remembers_bit_for_bit(tmp_path: Path) -> None:
    options = ("--remember", "--epochs", 2)
    assert run(tmp_path / "one", *options).returncode == 0
    killed = tmp_path / "two"
    assert run(killed, *options, "--kill-at", 5).returncode == -signal.SIGKILL
    assert run(killed, *options).returncode == 0
    one, two = (
        load_file(out / "checkpoints" / "epoch-0002" / FILE) for out in (tmp_path / "one", killed)
    )
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert sum(float(x.sum()) for x in one.values()) != 0


def test_remembering_changes_nothing_of_the_training(tmp_path: Path) -> None:
    for name, options in {"without": (), "with": ("--remember",)}.items():
        assert run(tmp_path / name, "--epochs", 1, *options).returncode == 0
    a, b = (weights(tmp_path / name)["last"] for name in ("without", "with"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tasks of two classes with four videos each."""
    rendered, folders = World("base", 4), []
    for task in range(2):
        root = tmp_path_factory.mktemp("task")
        for i in range(8 * task, 8 * task + 8):
            rendered.write(i, root / rendered.label(i) / f"{i}.mp4")
        folders.append(root)
    return folders


def test_a_second_and_a_third_task_hold_what_came_before(tasks: list[Path], tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    froster.train(tasks[0], first, "nano", remember=True, **QUIET)
    record = read_importance(str(first / "model"))
    assert not any(name.startswith("held/") for name in record)
    strong = {"hold": "si", "hold_strength": 1e6, "lr": 1e-3}
    froster.train(tasks[1], second, str(first), remember=True, **strong, **QUIET)
    lines = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    held = [line["hold"] for line in lines if "hold" in line]
    assert held[0] == 0 < held[-1], "it starts where the first task ended"
    assert any(name.startswith("held/") for name in read_importance(str(second)))
    free = tmp_path / "free"
    froster.train(tasks[1], free, str(first), lr=1e-3, **QUIET)
    omega = {
        name.removeprefix("path/"): consolidate(x, record[f"change/{name.removeprefix('path/')}"])
        for name, x in record.items()
        if name.startswith("path/")
    }
    start = load(first).model.state_dict()

    def moved(run: Path) -> float:
        state = load(run).model.state_dict()
        return sum(float((x * (state[n] - start[n]) ** 2).sum()) for n, x in omega.items())

    assert moved(second) < 0.5 * moved(free)
    froster.train(tasks[0], third, str(second), hold="si-total", **{**QUIET, "epochs": 1})


def test_what_has_no_importance_is_refused_before_the_training(
    tasks: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match="nano is no folder of a training run, so nothing is known"
    ):
        froster.train(tasks[0], tmp_path / "a", "nano", hold="si", **QUIET)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UsageError, match="was trained without --remember"):
        read_importance(str(tmp_path / "run"))


def test_another_network_is_refused() -> None:
    base = load("nano", device="cpu")
    student = student_of(base, METHODS["vclip"].make()).model
    record = {"path/head.weight": torch.zeros(3), "change/head.weight": torch.zeros(3)}
    with pytest.raises(UsageError, match="has trained another network"):
        holding(student, record, "si", 1.0)


def test_a_network_with_weights_of_its_own_goes_on_with_the_same_method() -> None:
    base = load("nano", device="cpu")
    taught = student_of(base, METHODS["st-adapter"].make())
    again = student_of(taught, taught.config.method)
    assert again.model is not taught.model
    for name, tensor in taught.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    with pytest.raises(UsageError, match="is st-adapter already: go on with that method"):
        student_of(taught, METHODS["vclip"].make())
