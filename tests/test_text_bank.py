"""Class embeddings from a bank are those of every prompt at full length, computed with less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.encoders.tokenizer import Tokenizer
from froster.errors import UsageError
from froster.text.bank import PromptBank
from froster.text.prompts import Prompting
from test_tokenizer import small_vocabulary

CONTEXT = 77
LABELS = ["archery: arc", "in", "a", "ar: in a in", "king"]
PROMPTING = Prompting(("a {}.", "in a {} ar.", "arc ing {}."))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.build(*small_vocabulary())


@pytest.fixture(scope="module")
def clip(tokenizer: Tokenizer) -> CLIP:
    torch.manual_seed(0)
    text = TextConfig(CONTEXT, tokenizer.vocab_size, width=64, layers=2, heads=2)
    return CLIP(CLIPConfig(VisionConfig(16, 8, 64, 1, 1), text, embed_dim=32))


class Counting:
    """A text tower that remembers the shapes it was given."""

    def __init__(self, clip: CLIP):
        self.clip = clip
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape))
        return self.clip.encode_text(tokens)


def at_full_length(clip: CLIP, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    rows = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
    tokens = tokenizer(texts, CONTEXT)
    rows[:, : tokens.shape[1]] = tokens
    return clip.encode_text(rows)


def test_prompts_are_encoded_as_at_full_length(clip: CLIP, tokenizer: Tokenizer) -> None:
    bank = PromptBank(tokenizer, LABELS, CONTEXT, PROMPTING)
    expected = torch.stack(
        [at_full_length(clip, tokenizer, row) for row in PROMPTING.prompts(LABELS)]
    )
    assert bank.num_templates == 3 and bank.rows == [0, 1, 2, 3]
    torch.testing.assert_close(bank.embed(clip.encode_text, bank.rows), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        bank.embed(clip.encode_text, [2, 0]), expected[[2, 0]], atol=1e-5, rtol=0
    )


def test_tokens_are_cut_to_the_longest(tokenizer: Tokenizer) -> None:
    bank = PromptBank(tokenizer, LABELS, CONTEXT, PROMPTING)
    bare, filled = tokenizer(LABELS, CONTEXT), tokenizer(PROMPTING.prompts(LABELS)[2], CONTEXT)
    assert bank.tokens(-1)[0].equal(bare)
    pair = bank.tokens(2, -1)
    assert pair[0].equal(filled)
    assert pair[1, :, : bare.shape[1]].equal(bare)
    assert not pair[1, :, bare.shape[1] :].any()


def test_rows_are_computed_once(clip: CLIP, tokenizer: Tokenizer) -> None:
    texts = ["a", "in", "a", "archery in archery in archery", "a", "b " * 60, "b"]
    tower = Counting(clip)
    out = PromptBank.encode(tower, tokenizer(texts, CONTEXT))
    torch.testing.assert_close(out, at_full_length(clip, tokenizer, texts), atol=1e-5, rtol=0)
    assert sum(shape[0] for shape in tower.shapes) == len(set(texts))


def test_so_many_rows_at_most_are_encoded_together(
    clip: CLIP, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("froster.text.bank.MAX_BATCH", 7)
    texts = [f"{a}{b}" for a in "abcdef" for b in "ghij"]
    tower = Counting(clip)
    out = PromptBank.encode(tower, tokenizer(texts, CONTEXT))
    assert max(shape[0] for shape in tower.shapes) == 7
    assert sum(shape[0] for shape in tower.shapes) == len(texts)
    torch.testing.assert_close(out, at_full_length(clip, tokenizer, texts), atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_full_length(clip: CLIP, tokenizer: Tokenizer) -> None:
    texts = ["a", "archery in archery in archery", "a", "in ar"]
    weights = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(1))
    parameters = list(clip.text.parameters())
    expected = torch.autograd.grad(
        (at_full_length(clip, tokenizer, texts) * weights).sum(), parameters
    )
    found = torch.autograd.grad(
        (PromptBank.encode(clip.encode_text, tokenizer(texts, 77)) * weights).sum(), parameters
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_a_bank_of_bare_names(clip: CLIP, tokenizer: Tokenizer) -> None:
    expected = at_full_length(clip, tokenizer, LABELS)
    for bare in (Prompting(()), Prompting(("{}",), "plain")):
        names = PromptBank(tokenizer, LABELS, CONTEXT, bare)
        torch.testing.assert_close(
            names.embed(clip.encode_text, names.rows)[0], expected, atol=1e-5, rtol=0
        )
    with pytest.raises(UsageError, match="no labels were given"):
        PromptBank(tokenizer, [], CONTEXT)


def test_a_prompt_over_the_context_is_refused_or_cut(tokenizer: Tokenizer) -> None:
    labels = ["archery: " + "long " * 40]
    with pytest.raises(UsageError, match=r"archery.*--truncate"):
        PromptBank(tokenizer, labels, 20, PROMPTING)
    assert PromptBank(tokenizer, labels, 20, PROMPTING, truncate=True).tokens(-1).shape == (
        1,
        1,
        20,
    )
