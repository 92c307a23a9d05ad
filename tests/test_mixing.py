"""Soft targets say what the mixed pictures show."""

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from froster.methods.recipe import Recipe
from froster.text.bank import PromptBank
from froster.training.attach import freeze
from froster.training.batches import mix_clips, rows_of_step, soft_targets
from froster.training.distill_options import Distill
from froster.training.task import Task, Teacher
from test_methods import LABELS, PROMPTING, Names, T, method_of, network, tiny_clip


def batch(clips: int, height: int = 8, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip number i is i everywhere, and its class is i: what is in a picture can be counted."""
    frames = (
        torch.arange(clips)
        .float()[:, None, None, None, None]
        .expand(-1, 2, 3, height, width)
        .clone()
    )
    return frames, torch.eye(clips)


def test_soft_targets_are_label_smoothing():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 7), torch.tensor([0, 6, 3, 3, 1])
    soft = soft_targets(labels, 7, 0.1)
    assert soft.dtype == torch.float32 and soft.shape == (5, 7)
    assert torch.allclose(soft.sum(1), torch.ones(5)) and torch.equal(soft.argmax(1), labels)
    assert torch.allclose(
        F.cross_entropy(logits, soft), F.cross_entropy(logits, labels, label_smoothing=0.1)
    )
    assert torch.equal(soft_targets(labels, 7, 0.0), F.one_hot(labels, 7).float())


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0.05, 5),
    st.integers(0, 2**32),
)
def test_cutmix_counts_the_pixels_of_its_box(clips, height, width, alpha, seed):
    frames, targets = batch(clips, height, width)
    mixed, soft = mix_clips(frames, targets, random.Random(seed), mixup=0.0, cutmix=alpha)
    for number in range(clips):
        shown = torch.stack(
            [(mixed[number, 0, 0] == other).float().mean() for other in range(clips)]
        )
        assert torch.allclose(soft[number], shown, atol=1e-6)
    assert (mixed == mixed[:, :1, :1]).all()
    taken = (mixed[0, 0, 0] != 0).nonzero()
    if len(taken):
        assert len(taken) == (taken.amax(0) - taken.amin(0) + 1).prod()


@settings(deadline=None)
@given(st.integers(1, 5), st.floats(0.05, 5), st.integers(0, 2**32))
def test_mixup_blends_frames_and_targets_alike(clips, alpha, seed):
    frames, targets = batch(clips)
    mixed, soft = mix_clips(frames, targets, random.Random(seed), mixup=alpha, cutmix=0.0)
    expected = soft @ torch.arange(clips).float()
    assert torch.allclose(mixed, expected[:, None, None, None, None].expand_as(mixed), atol=1e-5)
    assert torch.allclose(soft.sum(1), torch.ones(clips))


def test_partners_are_the_batch_turned_around():
    for mixup, cutmix in ((1.0, 0.0), (0.0, 1.0)):
        _, soft = mix_clips(*batch(5), random.Random(3), mixup, cutmix)
        shown = soft > 0
        assert torch.equal(shown, torch.eye(5).bool() | torch.eye(5).flip(0).bool())


def test_smoothed_targets_still_sum_to_one():
    frames, _ = batch(4)
    _, soft = mix_clips(
        frames, soft_targets(torch.tensor([0, 9, 2, 2]), 10, 0.1), random.Random(0), 0.8, 1.0
    )
    assert torch.allclose(soft.sum(1), torch.ones(4)) and soft.min() > 0.0099


def test_nothing_is_mixed_where_both_are_off():
    frames, targets = batch(3)
    rng = random.Random(0)
    mixed, soft = mix_clips(frames, targets, rng, 0.0, 0.0)
    assert mixed is frames and soft is targets and rng.getstate() == random.Random(0).getstate()


def is_mixup(switch: float, seed: int, clips: int = 2) -> bool:
    mixed, _ = mix_clips(
        *batch(clips, 64, 64), random.Random(seed), mixup=1.0, cutmix=1.0, switch=switch
    )
    return bool(((mixed != 0) & (mixed != 1)).any())


@pytest.mark.parametrize(("switch", "least", "most"), [(0.0, 100, 100), (0.5, 30, 70), (1.0, 0, 0)])
def test_the_switch_is_the_probability_of_cutmix(switch, least, most):
    assert least <= sum(is_mixup(switch, seed) for seed in range(100)) <= most


def test_the_generator_alone_decides_and_the_inputs_stay():
    frames, targets = batch(4)
    kept, state = frames.clone(), torch.get_rng_state()
    for seed in range(6):
        first = mix_clips(frames, targets, random.Random(seed), 0.8, 1.0)
        assert torch.equal(frames, kept) and torch.equal(
            targets, torch.eye(4)
        )  # a second cutmix would restore them
        random.seed(seed)
        again = mix_clips(frames, targets, random.Random(seed), 0.8, 1.0)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert torch.equal(state, torch.get_rng_state())


def test_shares_are_drawn_from_beta():
    """Beta(.8, .8): mean 1/2, variance 1 / (4 * 2.6)."""
    shares = torch.stack(
        [mix_clips(*batch(2), random.Random(seed), 0.8, 0.0)[1][0, 0] for seed in range(2000)]
    )
    assert abs(shares.mean() - 0.5) < 0.03 and abs(shares.var() - 1 / 10.4) < 0.01


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_a_teacher_looks_at_the_clips_that_the_student_sees(mixup: float, cutmix: float) -> None:
    """One that is the student itself is no distance from it."""
    student = network("finetuned", moved=False)
    freeze(student, method_of("finetuned"), "method")
    bank = PromptBank(Names(), LABELS, 77, PROMPTING)  # type: ignore[arg-type]
    recipe = Recipe(mixup=mixup, cutmix=cutmix, draw="all")
    task = Task(student, bank, recipe, teacher=Teacher(tiny_clip(), Distill()))
    frames = torch.randint(0, 256, (3, T, 3, 32, 32), dtype=torch.uint8)
    rows = rows_of_step("all", 0, bank)
    _, report = task(frames, torch.arange(3), rows, random.Random(0))
    assert float(report["distill_v"]) == pytest.approx(0, abs=1e-5)
