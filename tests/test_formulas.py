"""What the golden files hold for one size, for other sizes: the parts of the systems around and after
FROSTER against their formulas, written once more, slowly, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from froster.methods.bdc_clip import TokenBDC
from froster.methods.bit_resnet import StandardisedConv
from froster.methods.dualpath import mosaic, time_code
from froster.methods.er_zasr import Paired, losses, rehearse
from froster.methods.ez_clip import stillness
from froster.methods.mote import ExpertHead
from froster.methods.ost import match, transport_plan
from froster.methods.recipe import Recipe
from froster.methods.tc_clip import group_means, merged_groups
from froster.methods.tsm_resnet import shift
from froster.training.distill import (
    anchor_scores,
    probability_transfer,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
    soft_divergence,
)

SEEDS = pytest.mark.parametrize("seed", range(4))


def close(found: Tensor, expected: Tensor | np.ndarray | float, atol: float = 2e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-4, atol=atol)


def sizes(seed: int, *limits: tuple[int, int]) -> list[int]:
    """Random whole numbers between limits, and the generator seeded."""
    torch.manual_seed(seed)
    return [int(torch.randint(low, high + 1, ())) for low, high in limits]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def unit_rows(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


@SEEDS
def test_tomes_rounds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of r tokens while these fit, then what is left; means over all seeds of a group, with
    the sizes that earlier rounds gave."""
    n, k, r, width = sizes(seed, (20, 60), (3, 15), (3, 9), (5, 9))
    monkeypatch.setattr("froster.methods.tc_clip.MERGED_A_ROUND", r)
    x = torch.randn(2, n, width)
    group = merged_groups(x, k)
    for rows, found, means in zip(x.double().numpy(), group, group_means(x, group, k), strict=True):
        tokens = [(row, {i}) for i, row in enumerate(rows)]
        steps = [r] * int((n - k) / r)
        while len(tokens) > k:
            count = len(tokens)
            take = min(steps.pop() if steps else count - k, count // 2)
            even, odd = tokens[::2], tokens[1::2]

            def cosine(a: np.ndarray, b: np.ndarray) -> float:
                return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

            best = [max((cosine(a, b), place) for place, (b, _) in enumerate(odd)) for a, _ in even]
            order = sorted(range(len(even)), key=lambda i: -best[i][0])
            merged = {place: set(of) for place, (_, of) in enumerate(odd)}
            for i in order[:take]:
                merged[best[i][1]] |= even[i][1]
            groups = [even[i][1] for i in order[take:]] + [merged[i] for i in range(len(odd))]
            tokens = [(rows[sorted(of)].mean(0), of) for of in groups]
        expected = torch.empty(n, dtype=torch.long)
        for number, (_, of) in enumerate(tokens):
            expected[sorted(of)] = number
        assert torch.equal(found, expected)
        close(means, np.stack([mean for mean, _ in tokens]))


@SEEDS
def test_brownian_distance_covariance(seed: int) -> None:
    sets, tokens, width, r = sizes(seed, (1, 3), (2, 7), (6, 12), (2, 6))
    bdc = TokenBDC(width, r)
    x = bdc.reduced(torch.randn(sets, tokens, width))
    found = bdc(x, x[:, 0])
    for rows, of_set in zip(x.detach().double().numpy(), found, strict=True):
        y = rows * softmax(rows @ rows[0] / math.sqrt(r))[:, None]
        d = np.array(
            [
                [
                    math.sqrt(max(0.0, ((y[:, i] - y[:, j]) ** 2).sum() / (2 * tokens)) + 1e-5)
                    for j in range(r)
                ]
                for i in range(r)
            ]
        )
        centred = d - d.mean(0)[None] - d.mean(1)[:, None] + d.mean()
        close(of_set, centred[np.triu_indices(r)])


@SEEDS
def test_transport(seed: int) -> None:
    B, K, T, N, E = sizes(seed, (1, 4), (1, 5), (1, 9), (1, 6), (4, 16))
    frames, sentences = unit_rows(B, T, E), unit_rows(N, K, E)
    pooled, moved = match(frames, sentences)
    f, s = frames.double(), sentences.double()
    cosines = torch.einsum("bte,nke->bktn", f, s)
    kernel = torch.exp(-(1 - cosines) / 0.1)
    r, c = torch.ones(B, K, T).double(), torch.ones(B, K, N).double()
    for _ in range(100):
        old, r = r, 1 / T / torch.einsum("bktn,bkn->bkt", kernel, c)
        c = 1 / N / torch.einsum("bktn,bkt->bkn", kernel, r)
        if (r - old).abs().mean() < 0.01:
            break
    plan = r[..., None] * kernel * c[..., None, :]
    close(transport_plan(cosines.float()), plan)
    close(moved, (plan * cosines).sum((2, 3)))
    close(pooled, torch.einsum("be,ke->bk", f.mean(1), s.mean(0)))


@SEEDS
def test_experts_and_how_near_the_classes_are(seed: int) -> None:
    B, K, seen, E = sizes(seed, (1, 4), (1, 9), (1, 9), (8, 16))
    head = ExpertHead(2 * E, 2, layers=2, positions=5, experts=3, seen=seen)
    v, classes = torch.randn(B, 2 * E), unit_rows(K, 2 * E)
    assert head.spe_cls_feature is not None
    head.spe_cls_feature.copy_(unit_rows(seen, 2 * E))
    expected = []
    known = head.spe_cls_feature.double()
    for x in F.normalize(v.double(), dim=-1):
        tests = sorted(classes.double(), key=lambda g: -float(x @ g))[:5]
        taught = sorted(known, key=lambda s: -float(x @ s))[:5]
        m = sum(max(float(g @ s) for s in taught) for g in tests) / len(tests)
        expected.append(math.exp(-(1 - m) / 0.05))
    close(head.nearness(v, classes), torch.tensor(expected))
    for share, tau in zip(head.at([0.6, -2.4, math.inf]), (0.6, -2.4, math.inf), strict=True):
        close(share, softmax(np.arange(1, 4) / tau))
    mlp, x = head.transformer.blocks()[1].mlp, torch.randn(4, 2 * E)
    shares = torch.tensor([0.2, 0.5, 0.3])
    up, down = (
        [sum(s * getattr(e, name) for s, e in zip(shares, layers, strict=True)) for name in NAMES]
        for layers in (mlp.fc_up, mlp.fc_dn)
    )
    hidden = F.linear(x, *up)
    close(mlp(x, shares), F.linear(hidden * torch.sigmoid(1.702 * hidden), *down).detach())


NAMES = ("weight", "bias")


@SEEDS
def test_the_loss_of_motion(seed: int) -> None:
    B, T, E = sizes(seed, (1, 4), (2, 8), (3, 9))
    z = torch.randn(B, T, E)
    x = z.double().numpy()
    change = [
        abs(x[b, min(t + 1, T - 1), e] - x[b, max(t - 1, 0), e]) / 2
        for b, t, e in itertools.product(range(B), range(T), range(E))
    ]
    variance = x.var(axis=1, ddof=1)
    close(stillness(z), 1 / (1 + np.mean(change) + variance.mean()))


@SEEDS
def test_mosaics_and_their_code(seed: int) -> None:
    """A frame of a mosaic of 4 x 4 is the mean of the middle of every 4 x 4 of its pixels."""
    B, sets, cells, width = sizes(seed, (1, 2), (1, 3), (2, 5), (3, 8))
    H = 4 * cells
    frames = torch.randn(B, 16 * sets, 3, H, H)
    small = frames.unflatten(-1, (-1, 4)).unflatten(-3, (-1, 4))[..., 1:3, :, 1:3].mean((-3, -1))
    found = mosaic(frames, 4)
    for number in range(16 * sets):
        row, column = divmod(number % 16, 4)
        of_frame = found[:, number // 16, :, row * cells :, column * cells :]
        close(of_frame[..., :cells, :cells], small[:, number])
    code = time_code(sets, 4, 16, 2 * width)  # a grid of which a frame has whole cells
    for place, d in itertools.product(range(16 * 16), range(2 * width)):
        row, column = divmod(place, 16)
        for s in range(sets):
            number = 16 * s + 4 * (row // 4) + column // 4 + 1
            angle = number / 10000 ** (2 * (d // 2) / (2 * width))
            value = math.cos(angle) if d % 2 else math.sin(angle)
            assert float(code[s, 1 + place, d]) == pytest.approx(value, abs=1e-4)
    close(code[:, 0], np.tile([0.0, 1.0], width)[None].repeat(sets, 0))


@SEEDS
def test_logits_and_anchors(seed: int) -> None:
    B, K, P, E = sizes(seed, (1, 6), (2, 9), (1, 20), (3, 12))
    s, t = torch.randn(2, B, K).unbind()
    for temperature in (1.0, 2.5, 4.0):
        total = 0.0
        for student, teacher in zip(s.double().numpy(), t.double().numpy(), strict=True):
            p, q = softmax(teacher / temperature), softmax(student / temperature)
            total += float((p * np.log(p / q)).sum())
        close(soft_divergence(s, t, temperature), temperature**2 * total / B)
    v, classes, anchors = unit_rows(B, E), unit_rows(K, E), unit_rows(P, E)
    expected = v.double() @ (anchors.double().T @ anchors.double()) @ classes.double().T
    close(anchor_scores(v, classes, anchors), expected)


@SEEDS
def test_relations(seed: int) -> None:
    B, D, D2 = sizes(seed, (2, 7), (3, 9), (3, 9))
    pair = torch.randn(B, D), torch.randn(B, D2)
    s, t = (x.double().numpy() for x in pair)

    def huber(a: float) -> float:
        return a * a / 2 if abs(a) < 1 else abs(a) - 0.5

    def rows(gram: np.ndarray) -> np.ndarray:
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    def normed(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    difference = rows(s @ s.T) - rows(t @ t.T)
    close(similarity_preserving(*pair), (difference**2).sum() / B**2)

    def distances(x: np.ndarray) -> np.ndarray:
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
        return d / d[d > 0].mean()

    of_pairs = (distances(s) - distances(t)).ravel()
    close(rkd_distance(*pair), np.mean([huber(a) for a in of_pairs]))

    def angle(x: np.ndarray, i: int, j: int, k: int) -> float:
        if i in (j, k):
            return 0.0
        a, b = x[j] - x[i], x[k] - x[i]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    triples = list(itertools.product(range(B), repeat=3))
    close(rkd_angle(*pair), np.mean([huber(angle(s, *x) - angle(t, *x)) for x in triples]))

    def shares(x: np.ndarray) -> np.ndarray:
        similarity = (1 + normed(x) @ normed(x).T) / 2
        return similarity / similarity.sum(1, keepdims=True)

    p, q = shares(t), shares(s)
    close(probability_transfer(*pair), (p * np.log((p + 1e-7) / (q + 1e-7))).mean())


@SEEDS
def test_shifted_channels_and_standardised_kernels(seed: int) -> None:
    B, T, C = sizes(seed, (1, 3), (1, 6), (4, 40))
    x = torch.randn(B * T, C, 2, 3)
    expected = torch.zeros_like(x)
    for b, t, c in itertools.product(range(B), range(T), range(C)):
        other = t + 1 if c < C // 8 else t - 1 if c < 2 * (C // 8) else t
        if 0 <= other < T:
            expected[b * T + t, c] = x[b * T + other, c]
    assert torch.equal(shift(x, T), expected)
    conv = StandardisedConv(C, 3, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, 2.0, 3.0)
    kernels = conv.weight.detach().double()
    flat = kernels.flatten(1)
    mean, variance = flat.mean(1), (flat - flat.mean(1, keepdim=True)).square().mean(1)
    kernels = (kernels - mean[:, None, None, None]) / (variance + 1e-10).sqrt()[:, None, None, None]
    close(conv(x), F.conv2d(x.double(), kernels, padding=1), atol=2e-4)


@SEEDS
def test_rehearsal(seed: int) -> None:
    B, K, C = sizes(seed, (2, 5), (2, 6), (3, 9))
    scores, among = (Paired(torch.randn(B, n), torch.randn(B, n)) for n in (K, C))
    shown = (torch.rand(B, C) > 0.5).long()
    shown[:, 0] = 1
    targets = torch.randint(K, (B,))

    def er(x: Tensor) -> float:
        rows = [
            (np.log(softmax(row / 0.1)), s)
            for row, s in zip(x.double().numpy(), shown, strict=True)
        ]
        return -float(np.mean([log[j] for log, s in rows for j in range(C) if s[j]]))

    def ce(x: Tensor) -> float:
        logs = [np.log(softmax(row / 0.1)) for row in x.double().numpy()]
        return -float(np.mean([log[int(k)] for log, k in zip(logs, targets, strict=True)]))

    close(rehearse(among.video, shown), er(among.video))
    v, o = scores
    expected = {
        "ce_act": ce(v),
        "ce_obj": ce(o),
        "ce_sum": ce(v + o.clamp(min=0)),
        "er_act": er(among.video),
        "er_obj": er(among.objects),
        "er_sum": er(among.video + among.objects),
    }
    found = losses(scores, targets, among, shown)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close(found[name], value)
    early = losses(scores, targets, among, shown, "early")
    close(sum(early.values()), ce(v + o) + er(among.video + among.objects))  # type: ignore[arg-type]


@SEEDS
def test_the_epochs_of_a_gaussian_mean(seed: int) -> None:
    (epochs,) = sizes(seed, (1, 20))
    mu, sigma = float(torch.rand(()) * epochs), float(torch.rand(()) * 3 + 0.5)
    recipe = Recipe(epochs=epochs, averaging="gaussian", average_mu=mu, average_sigma=sigma)
    weights = np.array([recipe.weight_of_epoch(t) for t in range(1, epochs + 1)])
    densities = np.exp(-((np.arange(1, epochs + 1) - mu) ** 2) / (2 * sigma**2))
    close(torch.tensor(weights / weights.sum()), densities / densities.sum())
    flat = Recipe(epochs=epochs, averaging="gaussian", average_sigma=1e6)
    assert flat.weight_of_epoch(1) == pytest.approx(flat.weight_of_epoch(epochs))
