"""CLIP's byte-pair tokenizer, carried out by the `tokenizers` library.

A tokenizer is read from a `tokenizer.json` (Hugging Face's or our own), from `vocab.json` +
`merges.txt`, or from OpenAI's `bpe_simple_vocab_16e6.txt.gz`. All give the ids of OpenAI's code:
the text is cleaned here, as OpenAI does, and the file's own normaliser is left out, because Hugging
Face's composes characters after lower-casing and does not know HTML entities.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import ftfy
import torch
from jaxtyping import Int64
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from torch import Tensor

from froster.encoders.layouts import BPE_FILE
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.utils import strict_json as json
from froster.utils.files import write_text

START = "<|startoftext|>"
END = "<|endoftext|>"
HUB_ID = "openai/clip-vit-base-patch16"

# The published file holds more merges than CLIP uses: 49,408 ids = 256 bytes, as many word-final,
# the merges, 2 specials.
_BPE_MERGES = 49408 - 2 * 256 - 2
_LONGEST = 1 << 24
"""Characters of a vocabulary that are unpacked; OpenAI's has three million."""
# Ignoring case matters for one letter only: a long s after an apostrophe is a contraction for CLIP
# too.
_WORD = Regex(
    r"(?i)<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)

# The library warns loudly when a process forks (loader workers do) after it has used its threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def clean(text: str) -> str:
    """The text as CLIP reads it: broken encodings repaired, HTML un-escaped, white space collapsed,
    lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class Tokenizer:
    """Text to CLIP's token ids and back.

    Attributes: `start` and `end` (ids of the two special tokens), `vocab_size` (specials included).
    """

    def __init__(self, backend: Backend) -> None:
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        if start is None or end is None:
            raise CheckpointError(
                f"this is not a CLIP tokenizer: its vocabulary has no {START} or no {END}"
            )
        self.start: int = start
        self.end: int = end
        self.vocab_size: int = backend.get_vocab_size()
        self._saved = backend.to_str()
        backend.normalizer = normalizers.Sequence([])
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._words = pre_tokenizers.Split(_WORD, "removed", invert=True)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`. Raises CheckpointError naming the file."""
        try:
            return cls(Backend.from_str(Path(path).read_text(encoding="utf-8")))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise CheckpointError(f"{path}: not a readable tokenizer.json ({error})") from None

    @classmethod
    def from_bpe(cls, path: str | Path) -> Tokenizer:
        """Read OpenAI's `bpe_simple_vocab_16e6.txt.gz` (49,408 ids). Raises CheckpointError naming
        the file."""
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                text = file.read(_LONGEST)
                lines = text.split("\n")[1 : 1 + _BPE_MERGES]  # the first line is a header
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise CheckpointError(f"{path}: not a readable BPE vocabulary ({error})") from None
        merges = [(pair[0], pair[1]) for pair in map(str.split, lines) if len(pair) == 2]
        if len(merges) != _BPE_MERGES:
            raise CheckpointError(
                f"{path}: {len(merges)} merges found, CLIP's vocabulary has {_BPE_MERGES}"
            )
        alphabet = sorted(
            pre_tokenizers.ByteLevel.alphabet()
        )  # in code-point order these are CLIP's first 256 ids
        words = [
            *alphabet,
            *(char + "</w>" for char in alphabet),
            *(a + b for a, b in merges),
            START,
            END,
        ]
        return cls.build({word: index for index, word in enumerate(words)}, merges)

    @classmethod
    def from_vocab_merges(cls, vocab: str | Path, merges: str | Path) -> Tokenizer:
        """Read Hugging Face's older pair, `vocab.json` and `merges.txt`. Raises CheckpointError
        naming them."""
        try:
            words = json.loads(Path(vocab).read_text(encoding="utf-8"))
            lines = Path(merges).read_text(encoding="utf-8").split("\n")
            pairs = [
                (pair[0], pair[1])
                for pair in map(str.split, lines)
                if len(pair) == 2 and pair[0] != "#version:"
            ]
            return cls.build(words, pairs)
        except CheckpointError as error:
            raise CheckpointError(f"{vocab}: {error}") from None
        except Exception as error:  # the library raises bare Exception for merges that the vocabulary does not hold
            raise CheckpointError(f"{vocab}, {merges}: not a CLIP vocabulary ({error})") from None

    @classmethod
    def build(cls, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
        """A tokenizer with CLIP's pipeline from byte-level tokens (word-final ones end in `</w>`)
        and ordered merges.

        The pipeline is the one of Hugging Face's CLIP files, so that a saved `tokenizer.json`
        serves there too.
        """
        model = models.BPE(
            vocab=dict(vocab), merges=list(merges), end_of_word_suffix="</w>", unk_token=END
        )
        backend = Backend(model)
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(_WORD, "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        if START in vocab and END in vocab:
            backend.add_special_tokens([START, END])
            backend.post_processor = processors.TemplateProcessing(
                single=f"{START} $A {END}",
                special_tokens=[(START, vocab[START]), (END, vocab[END])],
            )
        return cls(backend)

    @classmethod
    def find(cls, source: str | Path | None = None) -> Tokenizer:
        """The tokenizer that belongs to a checkpoint.

        Looks in the folder (or beside the file) `source`, then at the environment variable
        FROSTER_BPE (a file or a folder), then in `openai/clip-vit-base-patch16` on the Hugging Face
        hub, whose cached copy works offline. Raises FrosterError in one sentence if there is none.
        """
        found = None if source is None else cls._in_folder(Path(source))
        if found is not None:
            return found
        if named := os.environ.get("FROSTER_BPE"):
            found = cls._in_folder(Path(named))
            if found is None:
                raise UsageError(
                    f"FROSTER_BPE={named}: there is no {BPE_FILE} and no tokenizer.json"
                )
            return found
        import huggingface_hub  # slow to import, and only needed here

        try:
            return cls.from_file(huggingface_hub.hf_hub_download(HUB_ID, "tokenizer.json"))
        except CheckpointError:
            raise
        except Exception as error:  # every transport has its own family of errors
            beside = f"beside {source}, " if source is not None else ""
            raise FrosterError(
                f"no CLIP vocabulary found {beside}in FROSTER_BPE or on the hub ({HUB_ID}:"
                f" {type(error).__name__}): download {BPE_FILE} or tokenizer.json where there is"
                " internet, then put it beside the checkpoint or set FROSTER_BPE to its path"
            ) from None

    @classmethod
    def _in_folder(cls, path: Path) -> Tokenizer | None:
        if path.name.endswith(".gz") and path.is_file():
            return cls.from_bpe(path)
        if path.name == "tokenizer.json" and path.is_file():
            return cls.from_file(path)
        folder = path if path.is_dir() else path.parent
        if (folder / "tokenizer.json").is_file():
            return cls.from_file(folder / "tokenizer.json")
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return cls.from_vocab_merges(folder / "vocab.json", folder / "merges.txt")
        if (folder / BPE_FILE).is_file():
            return cls.from_bpe(folder / BPE_FILE)
        return None

    @cached_property
    def fingerprint(self) -> str:
        """Of its file: vocabulary, merges and pipeline."""
        return hashlib.blake2b(self._saved.encode(), digest_size=16).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json`, whole or not at all. Raises FrosterError when it cannot be
        written."""
        write_text(Path(path), self._saved)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without start and end tokens."""
        return self._encode([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, a blank after each word, as CLIP's own decoder gives it."""
        tokens = [self._backend.id_to_token(index) for index in ids]
        return (
            decoders.ByteLevel()
            .decode([token for token in tokens if token is not None])
            .replace("</w>", " ")
        )

    def __call__(
        self, texts: Sequence[str], context: int, truncate: bool = False
    ) -> Int64[Tensor, "texts length"]:
        """Token rows for the text tower.

        A row is: start token, ids, end token, zeros; the length is the longest row's length, at
        most `context`. `truncate` cuts a longer text and keeps the end token at the last place;
        without it such a text raises UsageError.
        """
        rows = [[self.start, *ids, self.end] for ids in self._encode(texts)]
        for text, row in zip(texts, rows, strict=True):
            if len(row) <= context:
                continue
            if not truncate:
                raise UsageError(
                    f"text of {len(row)} tokens, the model reads at most {context} (start and end"
                    f" included): {text[:80]!r}; shorten it, or pass --truncate to cut it"
                )
            row[context - 1 :] = [self.end]
        tokens = torch.zeros(len(rows), max(map(len, rows), default=0), dtype=torch.int64)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
        return tokens

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [clean(text) for text in texts]
        rows = [row.ids for row in self._backend.encode_batch(cleaned, add_special_tokens=False)]
        # The library finds special tokens anywhere; for CLIP they are words, and "?<|endoftext|>"
        # is three others.
        for index, text in enumerate(cleaned):
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
