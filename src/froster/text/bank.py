"""The prompts of a class set, tokenised once, and their embeddings, a template or a few at a time.

The text tower computes what the prompts of one template begin with once, and nothing behind a
prompt's end (`encoders/packed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from froster.encoders.tokenizer import Tokenizer, lengths
from froster.text.labels import check_cleaned, check_labels
from froster.text.prompts import FROSTER_PROMPTS, Prompting
from froster.utils.interrupt import check

Tokenize = Callable[[list[str], int, bool], Tensor]
"""Texts, context, whether they may be cut -> token ids (n, L), zeros behind the end."""
EncodeText = Callable[[Tensor], Tensor]
"""Token ids (n, L) -> embeddings (n, E)."""

# Prompts that are encoded together: few enough for the memory; and so many at least, which fill the
# processor, of as many templates as that takes. More would not begin alike.
MAX_BATCH = 2048
FULL_BATCH = 128


class PromptBank:
    """Every prompt of every class, P rows of K; in FROSTER's form the last row is the bare labels.

    Raises UsageError on empty or repeated labels, also where they are so after the tokenizer's
    cleaning, and on a prompt longer than the context (unless `truncate`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Tokenize,
        labels: Sequence[str],
        context: int,
        prompting: Prompting = FROSTER_PROMPTS,
        *,
        truncate: bool = False,
    ):
        check_labels(labels)
        if isinstance(tokenizer, Tokenizer):
            check_cleaned(labels, tokenizer.clean)
        self.labels = list(labels)
        self.num_templates = len(prompting.templates)
        rows = prompting.prompts(labels)
        flat = tokenizer([text for row in rows for text in row], context, truncate)
        self._tokens = flat.unflatten(0, (len(rows), len(labels)))  # (P, K, L)
        count = tokenizer.lengths if isinstance(tokenizer, Tokenizer) else lengths
        self._lengths = count(self._tokens)

    @property
    def rows(self) -> list[int]:
        """The index of every row of prompts."""
        return list(range(len(self._tokens)))

    def tokens(self, *rows: int) -> Tensor:
        """Token ids of the given rows of prompts, (len(rows), K, L)."""
        chosen = list(rows)
        return self._tokens[chosen][..., : int(self._lengths[chosen].max())]

    def embed(self, encode_text: EncodeText, rows: Sequence[int]) -> Tensor:
        """The raw embeddings of the given rows of prompts, (len(rows), K, E)."""
        parts = [self.tokens(*some) for some in self.together(rows)]
        return torch.cat(
            [
                self.encode(encode_text, part.flatten(0, 1)).unflatten(0, part.shape[:2])
                for part in parts
            ]
        )

    def together(self, rows: Sequence[int]) -> list[list[int]]:
        """The rows in groups that are encoded at once."""
        count = max(1, FULL_BATCH // len(self.labels))
        return [list(rows[start : start + count]) for start in range(0, len(rows), count)]

    @staticmethod
    def encode(encode_text: EncodeText, tokens: Tensor) -> Tensor:
        """Token rows (n, L) -> embeddings (n, E), in the given order. Equal rows are computed once.
        Differentiable."""
        rows, inverse = torch.unique(tokens, dim=0, return_inverse=True)
        embeddings = []
        for part in rows.split(MAX_BATCH):
            check()
            embeddings.append(encode_text(part))
        return torch.cat(embeddings)[inverse]
