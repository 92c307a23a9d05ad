"""ProLIP, LP++ and Tip-Adapter against their formulas, written out once more in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from froster.encoders.last_map import LastMap
from froster.encoders.model import CLIP, unit
from froster.errors import UsageError
from froster.methods import VideoCLIP
from froster.methods.closed_set import LPPlusPlus, TipAdapter
from froster.methods.vclip import VCLIP
from froster.training.distill_options import Distill
from froster.training.lp_plus import fit_lp
from froster.training.prolip import (
    Cosines,
    ProjectionRecipe,
    has_cosines,
    strength_of,
    train_projection,
)
from froster.training.tip_adapter import fill_cache, train_keys
from test_encoder_grid import ENCODERS, clip_of

N, V, T, K = 12, 3, 4, 4
STEPS = 7


def network(encoder: str = "clip", pooling: str = "frame_unit") -> VideoCLIP:
    return VideoCLIP(clip_of(encoder), pooling).double().eval().requires_grad_(False)  # type: ignore[arg-type]


def data(net: VideoCLIP) -> tuple[LastMap, Tensor, Tensor, Tensor]:
    """The last map, kept features that tell the classes apart a little, labels and texts."""
    last = LastMap(net.clip.visual)
    draw = torch.Generator().manual_seed(0)
    size = net.clip.config.vision.image_size
    kept = last.features(torch.randn(1, 1, 3, size, size, generator=draw).double())
    labels = torch.arange(N) % K
    x = torch.randn(N, V, T, kept.shape[-1], generator=draw, dtype=torch.float64)
    x += torch.randn(K, 1, 1, kept.shape[-1], generator=draw, dtype=torch.float64)[labels]
    texts = torch.randn(K, net.clip.config.embed_dim, generator=draw, dtype=torch.float64)
    return last, x, labels, unit(texts)


def prolip(
    net: VideoCLIP, x: Tensor, labels: Tensor, texts: Tensor, recipe: ProjectionRecipe
) -> Tensor:
    """The paper's loss and Adam, line by line; x (N, V, T, D) as a projection reads it."""
    start = net.clip.visual.proj.detach()
    rest = net.clip.visual.proj_bias
    W, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(recipe.steps):
        W = W.detach().requires_grad_()
        z = x[:, step % V] @ W + (0 if rest is None else rest)
        video = (z / z.norm(dim=-1, keepdim=True)).mean(1)
        scores = net.clip.logit_scale.exp() * video @ texts.T
        ce = -(scores - scores.logsumexp(1, keepdim=True))[range(N), labels].mean()
        (gradient,) = torch.autograd.grad(ce + recipe.strength * ((W - start) ** 2).sum(), W)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = recipe.lr * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        W = W - rate * m_hat / (v_hat.sqrt() + 1e-4)
    return W.detach()


@pytest.mark.parametrize("encoder", [e for e in ENCODERS if e != "siglip"])
@pytest.mark.parametrize("strength", [0.0, 0.25])
def test_prolip(encoder: str, strength: float) -> None:
    net = network(encoder)
    last, x, labels, texts = data(net)
    recipe = ProjectionRecipe(lr=1e-2, steps=STEPS, strength=strength)
    before = copy.deepcopy(net.state_dict())
    W = train_projection(net, x, labels, texts, recipe)
    torch.testing.assert_close(W, prolip(net, x, labels, texts, recipe), rtol=0, atol=1e-9)
    assert float((W - last.weight).abs().max()) > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_cosines_have_the_gradient_of_autograd() -> None:
    draw = torch.Generator().manual_seed(1)
    x, W, b, t = (
        torch.randn(*shape, generator=draw, dtype=torch.float64)
        for shape in ((9, 6), (6, 5), (5,), (3, 5))
    )
    W.requires_grad_()
    assert torch.autograd.gradcheck(lambda W: Cosines.apply(x, W, b, unit(t)), (W,))
    plain = unit(x @ W + b) @ unit(t).T
    torch.testing.assert_close(Cosines.apply(x, W, b, unit(t)), plain)


@pytest.mark.parametrize("pooling", ["frame_unit", "mean_then_unit"])
def test_a_pool_of_other_kinds_is_trained_the_plain_way(pooling: str) -> None:
    """SigLIP has no projection: the output layer of its attention pool is trained."""
    net = network("siglip", pooling)
    last, x, labels, texts = data(net)
    assert last.name == "attn_pool.mlp.c_proj.weight" and not has_cosines(net, last)
    size = net.clip.config.vision.image_size
    frames = torch.randn(2, T, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(last.embed(last.features(frames)), net.encode_frames(frames))
    W = train_projection(net, x, labels, texts, ProjectionRecipe(1e-2, 40))
    last.set(W)
    torch.testing.assert_close(last.embed(last.features(frames)), net.encode_frames(frames))


def loss_and_move(net: VideoCLIP, hold: str, strength: float = 0.5) -> tuple[float, float, float]:
    """The last loss, how far W went, and how far the frames' embeddings turned (1 - cos)."""
    last, x, labels, texts = data(net)
    losses: list[float] = []
    recipe = ProjectionRecipe(1e-2, 60, strength, hold, Distill(beta_v=5.0))  # type: ignore[arg-type]
    W = train_projection(net, x, labels, texts, recipe, on_step=losses.append)
    turned = 1 - F.cosine_similarity(last.embed(x, W), last.embed(x), dim=-1).mean()
    return losses[0] - losses[-1], float((W - last.weight).norm()), float(turned)


def test_what_is_held_moves_less() -> None:
    net = network()
    free, by_weights, by_features, both = (
        loss_and_move(net, hold) for hold in ("none", "weights", "features", "both")
    )
    assert free[0] > 0.1
    assert by_weights[1] < 0.9 * free[1] and by_features[2] < 0.9 * free[2]
    assert both[1] < by_features[1] and both[2] < by_weights[2]


def test_strength() -> None:
    assert strength_of("1/shots", 4) == 0.25 and strength_of("1/shots2", 4) == 0.0625
    assert strength_of("0", 4) == 0 and strength_of("3e-2", 1) == 0.03
    for rule in ("-1", "nan", "inf", "shots"):
        with pytest.raises(UsageError, match="1/shots2 or a number"):
            strength_of(rule, 4)


def lp_plus(f: Tensor, labels: Tensor, t: Tensor, steps: int) -> Tensor:
    """With autograd in place of the gradient by hand."""
    rows = [f[labels == k] for k in range(K)]
    w = torch.stack([of_class.mean(0) for of_class in rows]).requires_grad_()
    alpha_tilde = torch.stack([(rows[k] @ t[k]).mean() for k in range(K)])
    a = (250 * alpha_tilde.mean()).repeat(K).requires_grad_()
    lr_w = 4 * len(f) / torch.linalg.eigvalsh(f.T @ f)[-1]
    lr_a = len(f) / (4 * torch.stack([((f @ t[k]) ** 2).sum() for k in range(K)]).max())
    speed = torch.zeros_like(w)
    for step in range(steps):
        loss = F.cross_entropy(f @ (w + a[:, None] * t).T, labels)
        of_w, of_a = torch.autograd.grad(loss, (w, a))
        with torch.no_grad():
            speed = 0.9 * speed + of_w
            w -= lr_w * speed
            if step % 10 == 9:
                a -= lr_a * of_a
    return (w + a[:, None] * t).detach()


@pytest.mark.parametrize("steps", [0, 1, 10, 25])
def test_lp_plus(steps: int) -> None:
    draw = torch.Generator().manual_seed(2)
    f = unit(torch.randn(N, 8, generator=draw, dtype=torch.float64))
    t, labels = unit(torch.randn(K, 8, generator=draw, dtype=torch.float64)), torch.arange(N) % K
    torch.testing.assert_close(fit_lp(f, labels, t, steps), lp_plus(f, labels, t, steps))


def tip(net: VideoCLIP, video: Tensor, keys: Tensor, labels: Tensor, t: Tensor) -> Tensor:
    scores = net.clip.logit_scale.exp() * video @ t.T
    for key, label in zip(keys, labels, strict=True):
        scores[:, label] += torch.exp(-5.5 * (1 - unit(video) @ key))
    return scores


def test_tip_adapter() -> None:
    clip = clip_of("clip").double()
    draw = torch.Generator().manual_seed(3)
    width = clip.config.embed_dim
    video = torch.randn(N, V, width, generator=draw, dtype=torch.float64)
    labels = torch.arange(N) % K
    video += 3 * torch.randn(K, 1, width, generator=draw, dtype=torch.float64)[labels]
    t = unit(torch.randn(K, width, generator=draw, dtype=torch.float64))
    net = TipAdapter(known=tuple("abcd"), keys=N).build(clip).double().requires_grad_(False)
    fill_cache(net, video, labels, t)
    keys = unit(unit(video).mean(1))
    asked = torch.randn(5, width, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(net.taught_logits(asked), tip(net, asked, keys, labels, t))
    losses: list[float] = []
    train_keys(net, video, labels, epochs=4 * V, on_step=losses.append)
    assert losses[-V] < losses[0] and not torch.equal(net.closed.keys, keys)
    assert not any(p.requires_grad for p in net.parameters())


def test_closed_sets_refuse_what_they_cannot_classify() -> None:
    clip = clip_of("clip")
    with pytest.raises(UsageError, match="froster teach"):
        LPPlusPlus().build(clip)
    with pytest.raises(UsageError, match="in a way of its own"):
        LPPlusPlus(network="actionclip", known=("a", "b")).build(clip)
    over = LPPlusPlus(network="vclip", options=(("radius", 2),), known=["a", "b"])  # type: ignore[arg-type]
    assert over.inner == VCLIP(radius=2) and over.known == ("a", "b")


def test_towers_of_another_kind_have_no_last_map() -> None:
    class Other(type(clip_of("clip").visual)):  # type: ignore[misc]
        def forward(self, frames, layers=None):
            return super().forward(frames, layers)

    clip: CLIP = clip_of("clip")
    clip.visual.__class__ = Other
    with pytest.raises(UsageError, match="no last linear map"):
        LastMap(clip.visual)
