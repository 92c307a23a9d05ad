"""Texts to token rows: CLIP's byte-pair tokenizer, and those of the families with another one,
carried out by the `tokenizers` library.

A tokenizer is read from a `tokenizer.json` (Hugging Face's or our own), and CLIP's also from
`vocab.json` + `merges.txt`, or from OpenAI's `bpe_simple_vocab_16e6.txt.gz`. All of CLIP's give the
ids of OpenAI's code. Texts are cleaned here, as the text tower was trained; which rule, how a row
ends and what stands behind its end says the tower's `TextConfig`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from torch import Tensor

from froster.encoders.cleaning import RULES
from froster.encoders.config import TextConfig
from froster.encoders.layouts import BPE_FILE
from froster.encoders.pipelines import END, START, WORD, CLIPPipeline, pipeline_of
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.utils import strict_json as json
from froster.utils.downloads import hub_cause
from froster.utils.files import write_text

HUB_ID = "openai/clip-vit-base-patch16"

# The published file holds more merges than CLIP uses: 49,408 ids = 256 bytes, as many word-final,
# the merges, 2 specials.
_BPE_MERGES = 49408 - 2 * 256 - 2
_LONGEST = 1 << 24
"""Characters of a vocabulary that are unpacked; OpenAI's has three million."""
_USED = 0.9
"""Of a table of token embeddings at least so much is the tokenizer's: CLIPA's BERT has 30,522
tokens in a table of 32,000."""

# The library warns loudly when a process forks (loader workers do) after it has used its threads.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Tokenizer:
    """Text to a text tower's token ids and back.

    Attributes: `start` and `end` (ids of the special tokens round a text, None where a family has
    none), `vocab_size` (specials included).
    """

    def __init__(self, backend: Backend, text: TextConfig | None = None) -> None:
        """`text`: of the tower that it is for; None: some CLIP's. Raises CheckpointError where it
        cannot be that tower's, or is none of CLIP's without `text`."""
        self._pipeline = pipeline_of(backend, clip_alone=text is None)
        self._text = text or TextConfig()
        self.vocab_size: int = backend.get_vocab_size()
        self.start = self._pipeline.start
        self.end = self._pipeline.end if self._text.end < 0 or self.is_clip else self._text.end
        if text is not None:
            self._check(text)

    @property
    def is_clip(self) -> bool:
        """Is it CLIP's byte-pair encoding?"""
        return isinstance(self._pipeline, CLIPPipeline)

    @property
    def full_length(self) -> bool:
        """Are rows as long as the context, whatever their texts?"""
        return self._text.full_length

    def lengths(self, tokens: Int64[Tensor, "*texts length"]) -> Int64[Tensor, "*texts"]:
        """How much of each row has to be kept."""
        if self.full_length:
            return torch.full(tokens.shape[:-1], tokens.shape[-1])
        return lengths(tokens, self._text.pad)

    def _check(self, text: TextConfig) -> None:
        """Raises CheckpointError unless these are the tower's tokens."""
        most, least = text.vocab, text.vocab if self.is_clip else _USED * text.vocab
        if not least <= self.vocab_size <= most:
            raise CheckpointError(
                f"the model has {text.vocab} token embeddings, its tokenizer {self.vocab_size}"
                " tokens: it is another model's"
            )
        wanted = text.end if text.end >= 0 else text.vocab - 1
        theirs = self._pipeline.end
        if self.is_clip or (text.pool == "end" and text.end < 0):
            fits = theirs == wanted
        else:  # 0 stands in the place of the file's own end (CLIPA)
            fits = text.end <= 0 or theirs in (None, wanted)
        if not fits:
            raise CheckpointError(
                f"the model ends a text with token {wanted}, its tokenizer with {theirs}: it is"
                " another model's"
            )

    @classmethod
    def from_file(cls, path: str | Path, text: TextConfig | None = None) -> Tokenizer:
        """Read a `tokenizer.json`, of any family where `text` says of which tower. Raises
        CheckpointError naming the file."""
        try:
            return cls(Backend.from_str(Path(path).read_text(encoding="utf-8")), text)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise CheckpointError(f"{path}: not a readable tokenizer.json ({error})") from None

    @classmethod
    def from_bpe(cls, path: str | Path, text: TextConfig | None = None) -> Tokenizer:
        """Read OpenAI's `bpe_simple_vocab_16e6.txt.gz` (49,408 ids). Raises CheckpointError naming
        the file."""
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                # The first line is a header.
                lines = file.read(_LONGEST).split("\n")[1 : 1 + _BPE_MERGES]
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
        try:
            return cls.build({word: index for index, word in enumerate(words)}, merges, text)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None

    @classmethod
    def from_vocab_merges(
        cls, vocab: str | Path, merges: str | Path, text: TextConfig | None = None
    ) -> Tokenizer:
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
            return cls.build(words, pairs, text)
        except CheckpointError as error:
            raise CheckpointError(f"{vocab}: {error}") from None
        except Exception as error:  # bare, for merges that the vocabulary does not hold
            raise CheckpointError(f"{vocab}, {merges}: not a CLIP vocabulary ({error})") from None

    @classmethod
    def build(
        cls,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        text: TextConfig | None = None,
    ) -> Tokenizer:
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
                pre_tokenizers.Split(WORD, "removed", invert=True),
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
        return cls(backend, text)

    @classmethod
    def from_any(cls, file: Path, text: TextConfig | None = None) -> Tokenizer:
        """Read a file of any of the kinds. Raises CheckpointError naming it."""
        if file.name.endswith(".gz"):
            return cls.from_bpe(file, text)
        if file.name == "vocab.json":
            return cls.from_vocab_merges(file, file.with_name("merges.txt"), text)
        return cls.from_file(file, text)

    @classmethod
    def find(cls, source: str | Path | None = None, text: TextConfig | None = None) -> Tokenizer:
        """The CLIP tokenizer that belongs to a checkpoint, of the text tower `text`.

        Looks in the folder (or beside the file) `source`, then at the environment variable
        FROSTER_BPE (a file or a folder), then in `openai/clip-vit-base-patch16` on the Hugging Face
        hub, whose cached copy works offline. Raises FrosterError in one sentence if there is none.
        """
        file = None if source is None else tokenizer_file(Path(source))
        if file is not None:
            return cls.from_any(file, text)
        if named := os.environ.get("FROSTER_BPE"):
            file = tokenizer_file(Path(named))
            if file is None:
                raise UsageError(
                    f"FROSTER_BPE={named}: there is no {BPE_FILE} and no tokenizer.json"
                )
            return cls.from_any(file, text)
        import huggingface_hub  # slow to import, and only needed here

        try:
            return cls.from_file(huggingface_hub.hf_hub_download(HUB_ID, "tokenizer.json"), text)
        except CheckpointError:
            raise
        except Exception as error:  # every transport has its own family of errors
            beside = f"beside {source}, " if source is not None else ""
            raise FrosterError(
                f"no CLIP vocabulary found {beside}in FROSTER_BPE or on the hub ({HUB_ID}:"
                f" {hub_cause(error)}): download {BPE_FILE} or tokenizer.json where there is"
                " internet, then put it beside the checkpoint or set FROSTER_BPE to its path"
            ) from None

    @cached_property
    def fingerprint(self) -> str:
        """Of its file, and of how texts are cleaned and filled up for the tower."""
        content = f"{self._text}{self._pipeline.saved()}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json`, whole or not at all. Raises FrosterError when it cannot be
        written."""
        write_text(Path(path), self._pipeline.saved())

    def clean(self, text: str) -> str:
        """A text as the tower was trained to see it."""
        return RULES[self._text.clean](text)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without start and end tokens."""
        return self._pipeline.ids([self.clean(text)])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self._pipeline.text(ids)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text with start and end, however long."""
        before = [] if self.start is None else [self.start]
        behind = [] if self.end is None else [self.end]
        rows = self._pipeline.ids([self.clean(text) for text in texts])
        if not self.is_clip:  # where a label spells the end token out, the text does not end
            rows = [[token for token in row if token != self.end] for row in rows]
        return [[*before, *row, *behind] for row in rows]

    def __call__(
        self, texts: Sequence[str], context: int, truncate: bool = False
    ) -> Int64[Tensor, "texts length"]:
        """Token rows for the text tower.

        A row is: start token, ids, end token, padding; the length is the longest row's length, at
        most `context`, or the context where padding counts. `truncate` cuts a longer text and keeps
        the end token at the last place; without it such a text raises UsageError.
        """
        rows = self.rows(texts)
        for text, row in zip(texts, rows, strict=True):
            if len(row) <= context:
                continue
            if not truncate:
                raise UsageError(
                    f"text of {len(row)} tokens, the model reads at most {context} (start and end"
                    f" included): {text[:80]!r}; shorten it, or pass --truncate to cut it"
                )
            row[context - 1 :] = row[context - 1 : context] if self.end is None else [self.end]
        length = context if self.full_length else max(map(len, rows), default=0)
        tokens = torch.full((len(rows), length), self._text.pad, dtype=torch.int64)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
        return tokens


def lengths(tokens: Int64[Tensor, "*texts length"], pad: int = 0) -> Int64[Tensor, "*texts"]:
    """Of rows without the padding behind them."""
    places = torch.arange(1, tokens.shape[-1] + 1)
    return torch.where(tokens != pad, places, 0).amax(-1)


class DeferredTokenizer:
    """The tokenizer in a `tokenizer.json`, read when a label has to be: class embeddings that are
    kept need none, and CLIP's costs a sixth of a second, one of 256,000 tokens more than a small
    network."""

    def __init__(self, file: Path, text: TextConfig):
        self.file, self.text = file, text

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises CheckpointError naming the file."""
        return Tokenizer.from_file(self.file, self.text)

    @cached_property
    def fingerprint(self) -> str:
        """Of the file as it lies there, which need not be understood. Raises CheckpointError."""
        try:
            content = self.file.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self.file}: not a readable tokenizer.json ({error})") from None
        return hashlib.blake2b(f"{self.text}".encode() + content, digest_size=16).hexdigest()


TokenizerSource = Tokenizer | DeferredTokenizer | FrosterError
"""A model's tokenizer, or why it has none."""


def fingerprint_of(source: TokenizerSource) -> str:
    """Without opening it, where that can wait. Raises FrosterError where there is none."""
    return (
        source.fingerprint if isinstance(source, DeferredTokenizer) else opened(source).fingerprint
    )


def opened(source: TokenizerSource) -> Tokenizer:
    """Raises FrosterError where there is none."""
    if isinstance(source, FrosterError):
        raise source
    return source.tokenizer if isinstance(source, DeferredTokenizer) else source


def tokenizer_in(file: Path, text: TextConfig) -> TokenizerSource:
    """The tokenizer in a `tokenizer.json`. Raises CheckpointError where there is no such file."""
    if not file.is_file():
        raise CheckpointError(f"{file}: not a readable tokenizer.json (there is none)")
    return DeferredTokenizer(file, text)


def tokenizer_of(source: Path, text: TextConfig) -> TokenizerSource:
    """The tokenizer of a text tower whose weights are in the folder or file `source`."""
    file = tokenizer_file(source)
    if file is not None and file.name == "tokenizer.json":
        return DeferredTokenizer(file, text)
    try:
        if text.clean == "clip":
            return Tokenizer.find(source, text)
        raise CheckpointError(_without_file(source))
    except FrosterError as error:
        return error


def _without_file(source: Path) -> str:
    folder = source if source.is_dir() else source.parent
    models = [entry.name for entry in sorted(folder.glob("*.model"))]
    what = f"{models[0]} alone is not read: " if models else ""
    return (
        f"{source}: there is no tokenizer.json beside it, and its text tower reads another"
        f" vocabulary than CLIP's; {what}AutoTokenizer.from_pretrained(…).save_pretrained(…) of"
        " transformers writes one"
    )


def tokenizer_file(source: Path) -> Path | None:
    """The file of a tokenizer that `source` is, or that lies in that folder or beside that file."""
    if source.is_file() and (source.name.endswith(".gz") or source.name == "tokenizer.json"):
        return source
    folder = source if source.is_dir() else source.parent
    if (folder / "tokenizer.json").is_file():
        return folder / "tokenizer.json"
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return folder / "vocab.json"
    return folder / BPE_FILE if (folder / BPE_FILE).is_file() else None
