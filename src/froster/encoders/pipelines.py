"""From a cleaned text to token ids, without start and end: CLIP's own words, or what a
`tokenizer.json` says."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from froster.errors import CheckpointError

START = "<|startoftext|>"
END = "<|endoftext|>"
# Ignoring case matters for one letter only: a long s after an apostrophe is a contraction for CLIP
# too.
WORD = Regex(
    r"(?i)<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)


class CLIPPipeline:
    """CLIP's byte-pair encoding. The file's own normaliser is left out, because Hugging Face's
    composes characters after lower-casing."""

    def __init__(self, backend: Backend):
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        assert start is not None and end is not None
        self.start: int = start
        self.end: int = end
        self._saved = backend.to_str()
        without_lengths(backend)
        backend.normalizer = normalizers.Sequence([])
        self._backend = backend
        self._words = pre_tokenizers.Split(WORD, "removed", invert=True)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        rows = [row.ids for row in self._backend.encode_batch(texts, add_special_tokens=False)]
        # The library finds special tokens anywhere; for CLIP they are words, and "?<|endoftext|>"
        # is three others.
        for index, text in enumerate(texts):
            if START in text or END in text:
                rows[index] = [
                    token
                    for word, _ in self._words.pre_tokenize_str(text)
                    for token in self._word(word)
                ]
        return rows

    def _word(self, word: str) -> list[int]:
        if word in (START, END):
            return [self.start if word == START else self.end]
        return list(self._backend.encode(word, add_special_tokens=False).ids)

    def text(self, ids: Sequence[int]) -> str:
        """A blank after each word, as CLIP's own decoder gives it."""
        tokens = [self._backend.id_to_token(index) for index in ids]
        return (
            decoders.ByteLevel()
            .decode([token for token in tokens if token is not None])
            .replace("</w>", " ")
        )

    def saved(self) -> str:
        return self._saved


class FilePipeline:
    """What the file says: its normaliser, its words, its pieces (SentencePiece's, BERT's, Gemma's).

    `start` and `end` are the ids that it puts round a text, None where it puts none. Raises
    CheckpointError on more than one at either side.
    """

    start: int | None
    end: int | None

    def __init__(self, backend: Backend):
        without_lengths(backend)
        row = backend.encode("a", add_special_tokens=True)
        words = len(row.ids) - sum(row.special_tokens_mask)
        first = next((i for i, special in enumerate(row.special_tokens_mask) if not special), 0)
        before, behind = row.ids[:first], row.ids[first + words :]
        if not words or len(before) > 1 or len(behind) > 1:
            raise CheckpointError(
                f"it puts the tokens {before} before and {behind} behind a text: froster knows one"
                " of each"
            )
        self.start = before[0] if before else None
        self.end = behind[0] if behind else None
        self._backend = backend

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [row.ids for row in self._backend.encode_batch(texts, add_special_tokens=False)]

    def text(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids))

    def saved(self) -> str:
        return self._backend.to_str()


def pipeline_of(backend: Backend, clip_alone: bool) -> CLIPPipeline | FilePipeline:
    """CLIP's where the vocabulary has its two special tokens, which it must where that `clip_alone`
    will do (CheckpointError)."""
    if None not in (backend.token_to_id(START), backend.token_to_id(END)):
        return CLIPPipeline(backend)
    if clip_alone:
        raise CheckpointError(
            f"this is not a CLIP tokenizer: its vocabulary has no {START} or no {END}"
        )
    return FilePipeline(backend)


def without_lengths(backend: Backend) -> None:
    """Padding and truncation of the file count for nothing."""
    backend.no_padding()
    backend.no_truncation()
