"""The prompts of a class set, tokenised once, and their embeddings, computed at their own length.

The text tower's mask is causal and a prompt is read off at its end token, so columns behind the end token can be cut
without changing the result. Rows are therefore sorted by length and computed in buckets, each as long as its longest row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from froster.clip.tokenizer import Tokenizer
from froster.text.prompts import FROSTER_PROMPTS, Prompting, check_labels

EncodeText = Callable[[Tensor], Tensor]
"""Token ids (n, L) -> embeddings (n, E)."""

MAX_BATCH = 512
# A bucket ends where padding its rows to the longest would cost more than this share of their own tokens.
WASTE = 0.15


class PromptBank:
    """Every prompt of every class, P rows of K; in FROSTER's form the last row is the bare labels.

    Raises UsageError on empty or repeated labels, and on a prompt longer than the context (unless `truncate`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        context: int,
        prompting: Prompting = FROSTER_PROMPTS,
        *,
        truncate: bool = False,
    ):
        check_labels(labels)
        self.labels = list(labels)
        self.num_templates = len(prompting.templates)
        rows = prompting.prompts(labels)
        flat = tokenizer([text for row in rows for text in row], context, truncate)
        self._tokens = flat.unflatten(0, (len(rows), len(labels)))  # (P, K, L)

    @property
    def rows(self) -> list[int]:
        """The index of every row of prompts."""
        return list(range(len(self._tokens)))

    def tokens(self, *rows: int) -> Tensor:
        """Token ids of the given rows of prompts, (len(rows), K, L)."""
        chosen = self._tokens[list(rows)]
        return chosen[..., : int(lengths(chosen).max())]

    def embed(self, encode_text: EncodeText, rows: Sequence[int]) -> Tensor:
        """The raw embeddings of the given rows of prompts, (len(rows), K, E)."""
        tokens = self.tokens(*rows)
        return self.encode(encode_text, tokens.flatten(0, 1)).unflatten(0, (len(rows), -1))

    @staticmethod
    def encode(encode_text: EncodeText, tokens: Tensor) -> Tensor:
        """Token rows (n, L) -> embeddings (n, E), in the given order. Equal rows are computed once. Differentiable."""
        rows, inverse = torch.unique(tokens, dim=0, return_inverse=True)
        order = lengths(rows).argsort(stable=True)
        parts = [encode_text(rows[order[start:end], :width]) for start, end, width in buckets(lengths(rows)[order])]
        position = torch.empty_like(order)
        position[order] = torch.arange(len(order), device=order.device)
        return torch.cat(parts)[position[inverse]]


def lengths(tokens: Tensor) -> Tensor:
    """Tokens up to the end token, which has the largest id, for rows (…, L)."""
    return tokens.argmax(dim=-1) + 1


def buckets(sorted_lengths: Tensor) -> list[tuple[int, int, int]]:
    """Ascending row lengths -> (start, end, width) of runs that are padded to one width."""
    runs: list[tuple[int, int, int]] = []
    start, total = 0, 0
    values = sorted_lengths.tolist()
    for i, length in enumerate(values):
        rows = i - start
        if rows and (rows >= MAX_BATCH or rows * length > (1 + WASTE) * total):
            runs.append((start, i, values[i - 1]))
            start, total = i, 0
        total += length
    return [*runs, (start, len(values), values[-1])]
