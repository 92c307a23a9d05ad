"""The prompts of a class set, tokenised once, and their embeddings, computed at their own length.

The text tower's mask is causal and a prompt is read off at its end token, so columns behind the end token can be cut
without changing the result. Rows are therefore sorted by length and computed in buckets, each as long as its longest row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from froster.clip.model import unit
from froster.clip.tokenizer import Tokenizer
from froster.text.prompts import KINETICS_28, check_labels, prompts

EncodeText = Callable[[Tensor], Tensor]
"""Token ids (n, L) -> embeddings (n, E)."""

MAX_BATCH = 512
# A bucket ends where padding its rows to the longest would cost more than this share of their own tokens.
WASTE = 0.15


class PromptBank:
    """Every prompt of every class: one row of K a template, and last the bare labels.

    Raises UsageError on empty or repeated labels, and on a prompt longer than the context (unless `truncate`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        context: int,
        templates: Sequence[str] = KINETICS_28,
        *,
        truncate: bool = False,
    ):
        check_labels(labels)
        self.labels = list(labels)
        self.num_templates = len(templates)
        rows = prompts(labels, templates)
        flat = tokenizer([text for row in rows for text in row], context, truncate)
        self._tokens = flat.unflatten(0, (len(rows), len(labels)))  # (P, K, L)

    def tokens(self, *rows: int) -> Tensor:
        """Token ids of the given rows of prompts (a template's index; -1 is the bare label), (len(rows), K, L)."""
        chosen = self._tokens[list(rows)]
        return chosen[..., : int(lengths(chosen).max())]

    def train_tokens(self, template: int) -> Tensor:
        """The two prompts of a training step, (2, K, L): one template, and the bare label."""
        return self.tokens(template, -1)

    @staticmethod
    def encode(encode_text: EncodeText, tokens: Tensor) -> Tensor:
        """Token rows (n, L) -> embeddings (n, E), in the given order. Equal rows are computed once. Differentiable."""
        rows, inverse = torch.unique(tokens, dim=0, return_inverse=True)
        order = lengths(rows).argsort(stable=True)
        parts = [encode_text(rows[order[start:end], :width]) for start, end, width in buckets(lengths(rows)[order])]
        position = torch.empty_like(order)
        position[order] = torch.arange(len(order), device=order.device)
        return torch.cat(parts)[position[inverse]]

    def prompt_table(self, encode_text: EncodeText) -> Tensor:
        """The raw embedding of every prompt, (P, K, E); the bare labels are the last row."""
        P, K, _ = self._tokens.shape
        return self.encode(encode_text, self._tokens.flatten(0, 1)).unflatten(0, (P, K))

    def class_embeddings(self, encode_text: EncodeText) -> Tensor:
        """Unit class embeddings over all prompts, (K, E): u(mean over prompts of u(prompt))."""
        return unit(unit(self.prompt_table(encode_text).float()).mean(dim=0))


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
