"""Every prompt of a set of classes: tokenised once, encoded at about its own length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from froster.clip.model import unit
from froster.clip.tokenizer import Tokenizer
from froster.errors import UsageError
from froster.text.prompts import KINETICS_28, prompts

EncodeText = Callable[[Tensor], Tensor]
"""Token ids (n, L) -> embeddings (n, E), not unit length."""

# Rows whose lengths fall into the same step are computed together: at most 7 tokens of padding, few distinct shapes.
_LENGTH_STEP = 8


class PromptBank:
    """The prompts of K labels: one a template, then the bare label.

    Raises UsageError when a prompt is longer than `context` tokens and `truncate` is off.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        context: int,
        templates: Sequence[str] = KINETICS_28,
        bare: bool = True,
        truncate: bool = False,
    ):
        rows = prompts(labels, templates)
        rows = rows if bare else rows[:-1]
        if not rows or not labels:
            raise UsageError("a bank of prompts needs at least one label, and a template or the bare label")
        self.labels = list(labels)
        self.num_templates = len(templates)
        self.bare = bare
        flat = tokenizer([prompt for row in rows for prompt in row], context, truncate)
        self._tokens = flat.unflatten(0, (len(rows), len(labels)))  # (P, K, L)

    def tokens(self, template: int | Literal["bare"]) -> Tensor:
        """The token rows of one template, or of the bare labels: int64 (K, L), L the longest of them."""
        return _cut(self._tokens[self._row(template)])

    def train_tokens(self, template: int) -> Tensor:
        """The prompts of one training step, as released: one drawn template and the bare labels, int64 (2, K, L)."""
        return _cut(self._tokens[[self._row(template), self._row("bare")]])

    def prompt_table(self, encode_text: EncodeText) -> Tensor:
        """Every prompt's embedding, raw, (P, K, E), the bare label's in the last row.

        For a frozen text tower this is all there is to compute: the class embeddings of template i are
        u(mean(u(table[i]), u(table[-1]))).
        """
        return self.encode(encode_text, self._tokens.flatten(0, 1)).unflatten(0, self._tokens.shape[:2])

    def class_embeddings(self, encode_text: EncodeText) -> Tensor:
        """Unit class embeddings over all prompts, float32 (K, E): u(mean over prompts of u(prompt))."""
        return unit(unit(self.prompt_table(encode_text).float()).mean(dim=0))

    def class_embeddings_for(
        self, encode_text: EncodeText, template: int, classes: slice | Tensor = slice(None)
    ) -> Tensor:
        """Unit class embeddings of one training step, float32 (k, E), over `train_tokens`; of some classes only."""
        pair = self.train_tokens(template)[:, classes]
        embeddings = self.encode(encode_text, pair.flatten(0, 1)).unflatten(0, pair.shape[:2])
        return unit(unit(embeddings.float()).mean(dim=0))

    @staticmethod
    def encode(encode_text: EncodeText, tokens: Tensor, max_batch: int = 256) -> Tensor:
        """Embeddings (n, E) of token rows (n, L), raw, in their order; differentiable.

        Equal rows are encoded once, and each at about its own length. That is exact, because the mask is causal and the
        text is read off at its end token, which is the largest id. `max_batch` rows go through the tower at a time.
        """
        tokens, copies = tokens.unique(dim=0, return_inverse=True)
        lengths, order = _lengths(tokens).sort(descending=True)
        _, sizes = ((lengths - 1) // _LENGTH_STEP).unique_consecutive(return_counts=True)
        buckets = [part for bucket in order.split(sizes.tolist()) for part in bucket.split(max_batch)]
        encoded = torch.cat([encode_text(_cut(tokens[rows])) for rows in buckets])
        return encoded[order.argsort()[copies]]

    def _row(self, template: int | Literal["bare"]) -> int:
        if template == "bare":
            if not self.bare:
                raise ValueError("this bank was made without the bare labels")
            return self.num_templates
        if not 0 <= template < self.num_templates:
            raise IndexError(f"template {template} of {self.num_templates}")
        return template


def _lengths(tokens: Tensor) -> Tensor:
    """How many tokens of each row count, the end token included: (…, L) -> (…)."""
    return tokens.argmax(dim=-1) + 1


def _cut(tokens: Tensor) -> Tensor:
    """Without the columns behind the last end token."""
    return tokens[..., : int(_lengths(tokens).max())]
