"""Prompts packed without padding give what the padded tower gives, with as few tokens as the words
allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from froster.encoders.block import Block
from froster.encoders.config import TextConfig
from froster.encoders.packed import Packed
from froster.encoders.text import TextTower

END = 99


@pytest.fixture
def tower() -> TextTower:
    torch.manual_seed(0)
    tower = TextTower(
        TextConfig(context=40, vocab=100, width=64, layers=3, heads=4), 16, "quick_gelu"
    )
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return tower


def rows(lengths: list[int], same: int, width: int = 0, seed: int = 0) -> Tensor:
    """Token rows of these lengths, of which the first `same` tokens are equal."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), width or max(lengths), dtype=torch.long)
    beginning = torch.randint(1, 90, (same,), generator=generator)
    for i, length in enumerate(lengths):
        tokens[i, :length] = torch.randint(1, 90, (length,), generator=generator)
        tokens[i, : min(same, length)] = beginning[:length]
        tokens[i, length - 1] = END
    return tokens


def padded(tower: TextTower, tokens: Tensor) -> Tensor:
    """The tower as it is written in the papers: every row at full length, pooled at its end token."""
    x = tower.token_embedding(tokens) + tower.positional_embedding[: tokens.shape[1]]
    x = tower.ln_final(tower.transformer(x))
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ tower.text_projection


CASES = [
    rows([9, 12, 30, 12, 5, 40], same=4),
    rows([9, 12, 30, 12, 5, 40], same=0, seed=1),
    rows([7, 7, 7], same=6, width=20),  # but for the end token all the same
    rows([11], same=3),
    rows([2, 2, 3], same=1, seed=2),
    rows([40] * 5, same=20, seed=3),
    rows([6, 9, 14], same=5, width=25, seed=4),
]


@pytest.mark.parametrize("tokens", CASES)
@pytest.mark.parametrize("run", [0, 1 << 18])
def test_values_and_gradients_are_those_of_padded_rows(
    tower: TextTower, tokens: Tensor, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("froster.encoders.packed._RUN", run)
    upstream = torch.randn(len(tokens), 16, generator=torch.Generator().manual_seed(5))
    expected, found = padded(tower, tokens), tower(tokens)
    torch.testing.assert_close(
        found, expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max())
    )
    parameters = [p for name, p in tower.named_parameters()]
    theirs = torch.autograd.grad((expected * upstream).sum(), parameters)
    ours = torch.autograd.grad((found * upstream).sum(), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_bfloat16_stays_as_near_as_the_padded_rows(tower: TextTower) -> None:
    tokens = CASES[0]
    exact = padded(tower, tokens)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        ours, theirs = tower(tokens), padded(tower, tokens)
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm() + 1e-3 * exact.norm()


def test_only_tokens_that_count_are_computed(
    tower: TextTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("froster.encoders.packed._RUN", 0)
    seen: list[int] = []
    tower.transformer.resblocks[0].mlp.register_forward_hook(
        lambda _, args, __: seen.append(args[0].shape[1])
    )
    lengths = [9, 12, 30, 12, 5, 40]
    tower(rows(lengths, same=4, width=40))
    assert seen == [4 + sum(length - 4 for length in lengths)]


def test_the_last_block_is_computed_for_the_end_tokens_alone(tower: TextTower) -> None:
    seen: list[int] = []
    tower.transformer.resblocks[-1].mlp.register_forward_hook(
        lambda _, args, __: seen.append(args[0].shape[1])
    )
    tower(rows([9, 12, 30], same=4))
    assert seen == [3]


class Louder(Block):
    def attention_sublayer(self, x: Tensor, num_frames: int) -> Tensor:
        return super().attention_sublayer(2 * x, num_frames)


def test_blocks_of_another_kind_are_asked_themselves(tower: TextTower) -> None:
    tokens = rows([9, 12, 30], same=4)
    for i, block in enumerate(tower.transformer.blocks()):
        block.__class__ = Louder
        assert tower.transformer.resblocks[i] is block
    torch.testing.assert_close(tower(tokens), padded(tower, tokens), rtol=1e-5, atol=1e-5)


def test_small_towers_would_rather_pad_than_start_another_run() -> None:
    lengths = torch.tensor([10, 11, 10, 30])
    wide = Packed.of(lengths, 2, width=1024)
    assert wide.runs == [(2, 8), (1, 9), (1, 28)] and wide.order.tolist() == [0, 2, 1, 3]
    assert Packed.of(lengths, 2, width=128).runs == [(3, 9), (1, 28)]
