"""Class embeddings from a file: what any text tower made of the labels, for the model's own.

The file is a safetensors with one tensor, `embeddings` (K, E), and in its metadata `names`, a JSON
list of the K names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from froster.encoders.reading import read_safetensors, safetensors_metadata
from froster.errors import UsageError
from froster.text.bank import EncodeText, PromptBank
from froster.text.labels import check_labels
from froster.utils import strict_json as json
from froster.utils.address import Address, as_path
from froster.utils.downloads import downloaded

TENSOR, NAMES = "embeddings", "names"
_SHOWN = 5


def local_copy(path: Path) -> Path:
    """The file itself, or the copy of one at an address. Raises UsageError."""
    if not isinstance(path, Address):
        return path
    try:
        return downloaded(path) / path.name
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True, eq=False)
class ClassFile:
    """The names of classes with an embedding of each."""

    path: Path
    names: list[str]
    embeddings: Float[Tensor, "classes embed"]

    @classmethod
    def from_file(cls, path: str | Path, width: int) -> ClassFile:
        """Of an encoder whose joint space has that width. Raises UsageError, or CheckpointError
        where it is no safetensors."""
        path = local_copy(as_path(path))
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file of class embeddings")
        state = read_safetensors(path)
        try:
            names = json.loads(safetensors_metadata(path)[NAMES])
        except (KeyError, ValueError):
            names = None
        if not isinstance(names, list):
            raise UsageError(f"{path}: its metadata has no {NAMES!r}, a JSON list of the classes")
        table = state.get(TENSOR)
        if table is None or table.ndim != 2 or not table.is_floating_point():
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in list(state.items())[:3])
            raise UsageError(
                f"{path}: it needs a tensor {TENSOR!r} of (classes, width), and has {shapes}"
            )
        if len(table) != len(names):
            raise UsageError(f"{path}: {len(names)} names for {len(table)} embeddings")
        if table.shape[1] != width:
            raise UsageError(
                f"{path}: embeddings of width {table.shape[1]}, the model's have {width}"
            )
        try:
            check_labels(names)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        table = table.float()
        length = table.norm(dim=1)
        wrong = ~(length.isfinite() & (length > 0))
        if wrong.any():
            first = names[int(wrong.nonzero()[0])]
            raise UsageError(
                f"{path}: {int(wrong.sum())} embeddings are zero or not finite, such as that of"
                f" {first!r:.100}"
            )
        return cls(path, names, table)

    @property
    def digest(self) -> str:
        """Of names and embeddings."""
        content = json.dumps(self.names).encode() + self.embeddings.cpu().numpy().tobytes()
        return blake2b(content, digest_size=16).hexdigest()

    def to(self, device: torch.device) -> ClassFile:
        return ClassFile(self.path, self.names, self.embeddings.to(device))

    def of(self, labels: Sequence[str]) -> Float[Tensor, "labels embed"]:
        """Raises UsageError where one is missing."""
        places = {name: place for place, name in enumerate(self.names)}
        missing = [label for label in labels if label not in places]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise UsageError(
                f"{self.path}: it has no embedding of"
                f" {', '.join(map(repr, missing[:_SHOWN]))}{more}"
            )
        return self.embeddings[[places[label] for label in labels]]


class GivenBank(PromptBank):
    """A bank of one row whose embeddings are given: there are no tokens, and nothing to train."""

    def __init__(self, classes: ClassFile, labels: Sequence[str]):
        check_labels(labels)
        self.labels, self.num_templates = list(labels), 1
        self._embeddings = classes.of(labels)[None]

    @property
    def rows(self) -> list[int]:
        return [0]

    def tokens(self, *rows: int) -> Tensor:
        raise UsageError(
            "class embeddings from a file have no texts: train the image tower alone (--tune"
            " image), by a method without learned prompts"
        )

    def embed(self, encode_text: EncodeText, rows: Sequence[int]) -> Tensor:
        return self._embeddings[torch.tensor(list(rows))]
