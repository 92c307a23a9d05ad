"""Distances, projectors and presets."""

from __future__ import annotations

import pytest
import torch

from froster.errors import UsageError
from froster.methods.base import Features
from froster.training.distill import Distillation, Projector, distance
from froster.training.distill_options import PRESETS, Distill, distill_preset
from golden import close


def test_residual_projector_starts_as_the_identity_and_w1_waits_for_w2() -> None:
    h = Projector(16, Distill())
    z = torch.randn(5, 16, requires_grad=True)
    assert torch.equal(h(z), z)
    h(z).square().sum().backward()
    assert h.w1.weight.grad.abs().max() == 0
    assert h.w2.weight.grad.abs().max() > 0
    assert z.grad.abs().min() > 0


def test_projector_formula() -> None:
    h = Projector(16, Distill(alpha=0.3, zero_init=False))
    z = torch.randn(5, 16)
    close(h(z), z + 0.3 * torch.nn.functional.gelu(z @ h.w1.weight.T) @ h.w2.weight.T)
    mlp = Projector(16, Distill(kind="mlp"))
    close(mlp(z), torch.nn.functional.gelu(z @ mlp.w1.weight.T) @ mlp.w2.weight.T)
    assert {name for name, _ in h.named_parameters()} == {"w1.weight", "w2.weight"}
    assert abs(Projector(512, Distill()).w1.weight.std().item() - (2 / 512) ** 0.5) < 1e-3


def test_distances_on_unit_vectors() -> None:
    a, b = (torch.nn.functional.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    cosine = distance(a, b, Distill(distance="cosine"))
    close(distance(a, b, Distill(distance="mse")), 2 * cosine)
    close(distance(a, b, Distill(distance="l2")), (2 * (1 - (a * b).sum(-1))).sqrt().mean())
    close(distance(a, b, Distill(reduction="sum")), 6 * cosine)


def test_paper_preset_is_equation_7() -> None:
    """Sum over the videos of the L2 distance of raw pooled features, likewise over the classes."""
    paper = distill_preset("froster-paper")
    assert (paper.level, paper.unit, paper.kind, paper.alpha, paper.beta_v) == (
        "video",
        False,
        "residual",
        0.1,
        2.0,
    )
    z, f, w, u = torch.randn(3, 8), torch.randn(3, 8), torch.randn(5, 8), torch.randn(5, 8)
    both = Distillation(8, paper)
    student, teacher = (Features(x[:, None], x, x) for x in (z, f))
    losses, distances = both(student, w[None], teacher, u[None])
    close(distances["distill_v"], sum((z[i] - f[i]).norm() for i in range(3)))
    close(distances["distill_t"], sum((w[k] - u[k]).norm() for k in range(5)))
    for name, distance_before_beta in distances.items():
        close(losses[name], 2.0 * distance_before_beta)


def test_l2_has_no_nan_gradient_where_student_and_teacher_agree() -> None:
    z = torch.randn(4, 8, requires_grad=True)
    distance(z, z.detach().clone(), Distill(distance="l2")).backward()
    assert z.grad.isfinite().all()


def test_plain_has_no_parameters() -> None:
    assert not list(Distillation(8, PRESETS["plain"]).parameters())


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="froster-paper"):
        distill_preset("residul")
