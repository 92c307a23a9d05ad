"""Class embeddings from a bank are those of every prompt at full length, computed with less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from froster.clip.model import CLIP, CLIPConfig, TextConfig, VisionConfig, unit
from froster.clip.tokenizer import Tokenizer
from froster.errors import UsageError
from froster.text.bank import PromptBank
from froster.text.prompts import KINETICS_28, prompts
from test_tokenizer import small_vocabulary

CONTEXT = 77
LABELS = ["archery: arc", "in", "a", "ar: in a in", "king"]
TEMPLATES = ("a {}.", "in a {} ar.", "arc ing {}.")


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
    bank = PromptBank(tokenizer, LABELS, CONTEXT, TEMPLATES)
    expected = torch.stack([at_full_length(clip, tokenizer, row) for row in prompts(LABELS, TEMPLATES)])
    table = bank.prompt_table(clip.encode_text)
    assert bank.num_templates == 3
    torch.testing.assert_close(table, expected, atol=1e-5, rtol=0)
    classes = unit(unit(expected).mean(0))
    torch.testing.assert_close(bank.class_embeddings(clip.encode_text), classes, atol=1e-5, rtol=0)
    pair = unit(unit(expected[[1, -1]]).mean(0))
    torch.testing.assert_close(bank.class_embeddings_for(clip.encode_text, 1), pair, atol=1e-5, rtol=0)
    for some in (slice(1, 3), torch.tensor([4, 0])):
        shard = bank.class_embeddings_for(clip.encode_text, 1, some)
        torch.testing.assert_close(shard, pair[some], atol=1e-5, rtol=0)


def test_tokens_are_cut_to_the_longest(tokenizer: Tokenizer) -> None:
    bank = PromptBank(tokenizer, LABELS, CONTEXT, TEMPLATES)
    assert bank.tokens("bare").equal(tokenizer(LABELS, CONTEXT))
    assert bank.tokens(2).equal(tokenizer(prompts(LABELS, TEMPLATES)[2], CONTEXT))
    pair = bank.train_tokens(2)
    assert pair.shape == (2, len(LABELS), bank.tokens(2).shape[1])
    assert pair[1, :, : bank.tokens("bare").shape[1]].equal(bank.tokens("bare"))


def test_rows_are_computed_once_at_about_their_length(clip: CLIP, tokenizer: Tokenizer) -> None:
    texts = ["a", "in", "a", "archery in archery in archery", "a", "ar " * 60, "in"]
    tower = Counting(clip)
    rows = tokenizer(texts, CONTEXT)
    out = PromptBank.encode(tower, rows)
    torch.testing.assert_close(out, at_full_length(clip, tokenizer, texts), atol=1e-5, rtol=0)
    lengths = [len(tokenizer.encode(text)) + 2 for text in texts]
    assert tower.shapes == [(1, lengths[5]), (1, lengths[3]), (2, 3)]


def test_no_more_than_max_batch_rows_at_a_time(clip: CLIP, tokenizer: Tokenizer) -> None:
    texts = [f"{a}{b}" for a in "abcdef" for b in "ghij"]
    tower = Counting(clip)
    out = PromptBank.encode(tower, tokenizer(texts, CONTEXT), max_batch=7)
    assert [shape[0] for shape in tower.shapes] == [7, 7, 7, 3]
    torch.testing.assert_close(out, at_full_length(clip, tokenizer, texts), atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_full_length(clip: CLIP, tokenizer: Tokenizer) -> None:
    texts = ["a", "archery in archery in archery", "a", "in ar"]
    weights = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(1))
    parameters = list(clip.text.parameters())
    expected = torch.autograd.grad((at_full_length(clip, tokenizer, texts) * weights).sum(), parameters)
    found = torch.autograd.grad((PromptBank.encode(clip.encode_text, tokenizer(texts, 77)) * weights).sum(), parameters)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_bank_of_bare_names_or_of_templates_only(clip: CLIP, tokenizer: Tokenizer) -> None:
    names = PromptBank(tokenizer, LABELS, CONTEXT, templates=())
    expected = unit(at_full_length(clip, tokenizer, LABELS))
    torch.testing.assert_close(names.class_embeddings(clip.encode_text), expected, atol=1e-5, rtol=0)
    filled = PromptBank(tokenizer, LABELS, CONTEXT, KINETICS_28, bare=False)
    assert filled.prompt_table(clip.encode_text).shape == (28, len(LABELS), 32)
    with pytest.raises(ValueError, match="without the bare"):
        filled.train_tokens(0)
    with pytest.raises(IndexError, match="28 of 28"):
        filled.tokens(28)
    with pytest.raises(UsageError, match="at least one label"):
        PromptBank(tokenizer, [], CONTEXT)


def test_a_prompt_over_the_context_is_refused_or_cut(tokenizer: Tokenizer) -> None:
    labels = ["archery: " + "long " * 40]
    with pytest.raises(UsageError, match=r"archery.*--truncate"):
        PromptBank(tokenizer, labels, 20, TEMPLATES)
    assert PromptBank(tokenizer, labels, 20, TEMPLATES, truncate=True).tokens("bare").shape == (1, 20)
