"""The nano CLIP's tokenizer: CLIP's pipeline, with merges learnt from the world's own words.

Every word of the world becomes one token; any other text is spelt in shorter pieces, down to bytes.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tokenizers import pre_tokenizers

from froster.encoders.cleaning import clip as clean
from froster.encoders.pipelines import END, START
from froster.encoders.tokenizer import Tokenizer
from tools.nano.captions import corpus

Pair = tuple[str, str]


def merge(pieces: list[str], pair: Pair) -> list[str]:
    """Join every occurrence of `pair` among the pieces of a word, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def learn_merges(words: list[str]) -> list[Pair]:
    """Byte-pair merges, most frequent first (ties: first in the alphabet), until every word is one
    piece."""
    spelt = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[Pair] = []
    while counts := Counter(pair for pieces in spelt for pair in pairwise(pieces)):
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        spelt = [merge(pieces, pair) for pieces in spelt]
    return merges


def build_tokenizer() -> Tokenizer:
    """The tokenizer of the nano CLIP, always the same. Ids in CLIP's order: bytes, final bytes,
    merges, two specials."""
    words = sorted({word for line in corpus() for word in clean(line).replace(".", " ").split()})
    merges = learn_merges(words)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        *alphabet,
        *(char + "</w>" for char in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return Tokenizer.build(
        {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges
    )
