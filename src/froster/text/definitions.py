"""Elaborated descriptions: classes and concepts with what they are, and their tokens for a BERT."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor

from froster.errors import CheckpointError, DataError
from froster.text.labels import parse_json, read_utf8

CONTEXT = 100
"""Tokens of a text, its start and its end included; what is longer is cut."""
_TABLE = (
    "imagenet21k_goog_synsets.txt",
    "imagenet_synset_to_lemma.txt",
    "imagenet_synset_to_definition.txt",
)


def key_of(label: str) -> str:
    """What of a label must agree with a definition's name."""
    return " ".join(label.replace("_", " ").split()).casefold()


def read_definitions(path: Path) -> dict[str, str]:
    """`key_of` a class -> "name: definition". The file is ER-ZASR's JSON, objects with `word`,
    perhaps `cleaned_word`, and `cleaned_defn`, in a list or by their names, or an object
    `{"name": "definition"}`. Raises DataError."""
    data = parse_json(read_utf8(path), path)
    entries = list(data.items()) if isinstance(data, dict) else [("", value) for value in data]
    texts: dict[str, str] = {}
    for name, value in entries:
        if isinstance(value, str) and name:
            value = {"word": name, "cleaned_defn": value}
        word, definition = _strings(value, "cleaned_word", "word"), _strings(value, "cleaned_defn")
        if not word or not definition:
            raise DataError(
                f"{path}: a class needs word and cleaned_defn, and this one has {value!r:.100}"
            )
        for known in (name, _strings(value, "word"), word):
            if known:
                texts[key_of(known)] = f"{word}: {definition}"
    return texts


def _strings(entry: Any, *keys: str) -> str:
    """The text under the first of the keys that has one."""
    values = [entry.get(key) for key in keys] if isinstance(entry, dict) else []
    return next((value for value in values if isinstance(value, str) and value.strip()), "")


def class_texts(definitions: Mapping[str, str], labels: Sequence[str]) -> list[str]:
    """Raises DataError where a class has no definition."""
    missing = [label for label in labels if key_of(label) not in definitions]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(labels)} classes have no definition, such as"
            f" {', '.join(map(repr, missing[:3]))}"
        )
    return [definitions[key_of(label)] for label in labels]


def read_concepts(path: Path) -> list[str]:
    """The text of every concept, in the order of the object network's logits. `path` is a text file
    with one a line, or timm's tables of ImageNet-21k: a folder with them (its `timm/data/_info`) or
    timm's wheel, which need not be installed. Raises DataError."""
    if path.suffix == ".whl":
        ids, lemmas, definitions = tables_of_wheel(path)
    elif not path.is_dir():
        return [line.strip() for line in read_utf8(path).splitlines() if line.strip()]
    else:
        for name in _TABLE:
            if not (path / name).is_file():
                raise DataError(f"{path}: there is no {name}, as timm's folder of tables has")
        ids, lemmas, definitions = (read_utf8(path / name).splitlines() for name in _TABLE)
    lemma, definition = (
        dict(line.split("\t", 1) for line in lines if "\t" in line)
        for lines in (lemmas, definitions)
    )
    missing = [number for number in ids if number not in lemma or number not in definition]
    if missing:
        raise DataError(f"{path}: {len(missing)} concepts have no text, such as {missing[0]}")
    return [f"{lemma[n]}: {definition[n]}".lower().replace("_", " ") for n in ids]


def tables_of_wheel(path: Path) -> list[list[str]]:
    """The lines of timm's tables in its wheel. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as wheel:
            texts = [wheel.read(f"timm/data/_info/{name}") for name in _TABLE]
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no wheel of timm with its tables ({error})") from None
    return [text.decode().splitlines() for text in texts]


class WordPieces:
    """A BERT folder's tokenizer."""

    def __init__(self, folder: Path):
        """Of its `tokenizer.json`, or an uncased one of its `vocab.txt`. Raises CheckpointError."""
        file, vocab = folder / "tokenizer.json", folder / "vocab.txt"
        try:
            self.tokenizer: Any = (
                Tokenizer.from_file(str(file))
                if file.is_file()
                else BertWordPieceTokenizer(str(vocab), lowercase=True)
            )
        except Exception as error:  # the library raises bare ones
            raise CheckpointError(
                f"{folder}: no readable tokenizer.json or vocab.txt ({error})"
            ) from None
        pad = self.tokenizer.token_to_id("[PAD]")
        if pad is None:
            raise CheckpointError(f"{folder}: its tokenizer has no [PAD], as a BERT's has")
        self.tokenizer.enable_padding(pad_id=pad)

    def limit(self, context: int) -> None:
        """Cut texts at what a BERT can take, 100 tokens at most."""
        self.tokenizer.enable_truncation(min(CONTEXT, context))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and masks (texts, length), as long as the longest."""
        rows = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([row.ids for row in rows])
        return ids, torch.tensor([row.attention_mask for row in rows])
