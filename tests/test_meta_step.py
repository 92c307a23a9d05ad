"""Open-MeDe: the step that must serve the next batch too, and the Gaussian mean of the epochs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from froster.errors import UsageError
from froster.methods.recipe import Recipe
from froster.training.meta import add_query_gradient, with_query
from froster.training.weights import RunningMean
from golden import close
from test_training import assert_same_weights, run, steps


def both(net: nn.Linear, alpha: float, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the meta step, and those on each batch where the network stands."""
    torch.manual_seed(0)
    support, query = torch.randn(5, 4), torch.randn(5, 4)
    (g_s,) = torch.autograd.grad(net(support).square().mean(), [net.weight])
    (g_q,) = torch.autograd.grad(net(query).square().mean(), [net.weight])
    net.weight.grad = g_s.clone()
    add_query_gradient([net.weight], lambda: net(query).square().mean(), delta, alpha)
    return net.weight.grad, g_s, g_q


def test_without_an_inner_step_it_is_the_sum_of_two_gradients() -> None:
    net = nn.Linear(4, 3, bias=False)
    start = net.weight.detach().clone()
    total, g_s, g_q = both(net, 0.0, 0.5)
    close(total, g_s + 0.5 * g_q)
    total, g_s, g_q = both(net, 0.1, 0.5)
    assert (total - g_s - 0.5 * g_q).abs().max() > 1e-4
    assert torch.equal(net.weight, start), "the inner step is taken back"
    total, g_s, _ = both(net, 0.1, 0.0)
    close(total, g_s)


def test_every_batch_is_once_the_support_and_once_the_query() -> None:
    assert list(with_query(iter("abca"), True)) == [("a", "b"), ("b", "c"), ("c", "a")]  # type: ignore[arg-type, comparison-overlap]
    assert list(with_query(iter("aa"), True)) == [("a", "a")]  # type: ignore[arg-type, comparison-overlap]
    assert list(with_query(iter(""), True)) == []  # type: ignore[arg-type]
    assert list(with_query(iter("ab"), False)) == [("a", None), ("b", None)]  # type: ignore[arg-type, comparison-overlap]


def test_gaussian_weights_fall_on_both_sides_and_become_uniform() -> None:
    recipe = Recipe(epochs=12, averaging="gaussian")
    factors = [recipe.weight_of_epoch(t) for t in range(1, 13)]
    assert max(factors) == factors[5] == 1 and factors[3] == pytest.approx(factors[7])
    wide = Recipe(epochs=12, averaging="gaussian", average_sigma=1e6)
    states = [{"w": torch.randn(4)} for _ in range(12)]
    means = [RunningMean(r.weight_of_epoch) for r in (wide, recipe)]
    for state in states:
        for mean in means:
            mean.add(state)
    close(means[0].mean["w"], torch.stack([s["w"] for s in states]).mean(0))
    shares = torch.tensor(factors) / sum(factors)
    close(means[1].mean["w"], (shares[:, None] * torch.stack([s["w"] for s in states])).sum(0))
    with pytest.raises(UsageError, match="average_sigma must be positive"):
        Recipe(average_sigma=0.0)


def test_a_killed_meta_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    options = ("--meta", 0.5, "--averaging", "gaussian", "--distill", "taco", "--epochs", 2)
    assert run(tmp_path / "one", *options).returncode == 0
    killed = tmp_path / "two"
    assert run(killed, *options, "--kill-at", 5).returncode == -signal.SIGKILL
    assert run(killed, *options).returncode == 0
    assert steps(killed) == steps(tmp_path / "one")
    assert_same_weights(tmp_path / "one", killed)


def test_two_processes_take_the_meta_step_of_one(tmp_path: Path) -> None:
    for processes in (1, 2):
        out = tmp_path / f"{processes}"
        done = run(out, "--meta", 0.5, "--epochs", 1, processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
    for a, b in zip(steps(tmp_path / "1"), steps(tmp_path / "2"), strict=True):
        for key in ("loss", "query", "grad_norm"):
            assert abs(a[key] - b[key]) <= 2e-3 * abs(a[key]) + 1e-4, (a["step"], key)


@pytest.mark.parametrize(
    ("mu", "sigma", "only"), [(3.0, 0.02, 3), (100.0, 0.5, 6), (-90.0, 0.5, 1), (4.0, 1e-200, 4)]
)
def test_of_a_steep_curve_one_epoch_is_the_mean(mu: float, sigma: float, only: int) -> None:
    """The others' factors are too small for a number."""
    recipe = Recipe(
        epochs=6, averaging="gaussian", average_from=1, average_mu=mu, average_sigma=sigma
    )
    mean = RunningMean(recipe.weight_of_epoch)
    for epoch in range(1, 7):
        mean.add({"w": torch.tensor([float(epoch)])})
    assert mean.mean["w"].tolist() == [only]


@pytest.mark.parametrize("mu", [float("nan"), float("inf")])
def test_the_centre_of_the_curve_is_an_epoch(mu: float) -> None:
    with pytest.raises(UsageError, match="average_mu"):
        Recipe(epochs=6, averaging="gaussian", average_mu=mu)
