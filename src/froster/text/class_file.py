"""Class embeddings from a file: what any text tower made of the labels, for the model's own.

The file is a safetensors with one tensor, `embeddings` (K, E), and in its metadata `names`, a JSON
list of the K names; or a Parquet table with the columns `label` (text) and `embedding` (list of
numbers), which tools of tables read and write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from froster.encoders.reading import read_safetensors, safetensors_metadata
from froster.errors import UsageError, install
from froster.text.bank import EncodeText, PromptBank
from froster.text.labels import check_labels
from froster.utils import strict_json as json
from froster.utils.address import Address, as_path
from froster.utils.downloads import downloaded
from froster.utils.files import atomic_file
from froster.utils.tensors import save_tensors

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
        is_table = path.suffix.lower() == ".parquet"
        names, table = _of_parquet(path) if is_table else _of_safetensors(path)
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


def write_classes(path: Path, names: Sequence[str], embeddings: Tensor) -> None:
    """A file that `ClassFile.from_file` reads, .parquet or .safetensors. Raises UsageError on
    another suffix, or without pyarrow, WriteError."""
    suffix, table = path.suffix.lower(), embeddings.detach().float().cpu().contiguous()
    if suffix == ".safetensors":
        with atomic_file(path) as part:
            save_tensors({TENSOR: table}, part, {NAMES: json.dumps(list(names))})
    elif suffix == ".parquet":
        pa, pq = _pyarrow(path)
        columns = {"label": pa.string(), "embedding": pa.list_(pa.float32())}
        values = pa.array(table.flatten().numpy())
        ends = pa.array(range(0, table.numel() + 1, table.shape[1]), pa.int32())
        lists = pa.ListArray.from_arrays(ends, values)
        with atomic_file(path) as part:
            pq.write_table(pa.table([pa.array(names), lists], schema=pa.schema(columns)), part)
    else:
        raise UsageError(f"class embeddings go to a .parquet or .safetensors, not {path.name!r}")


def _of_safetensors(path: Path) -> tuple[list[str], Tensor]:
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
    return names, table


def _of_parquet(path: Path) -> tuple[list[str], Tensor]:
    pa, pq = _pyarrow(path)
    try:
        table = pq.read_table(path, columns=["label", "embedding"])
        names = table["label"].cast(pa.string()).to_pylist()
        rows = torch.tensor(table["embedding"].to_pylist(), dtype=torch.float32)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        cause = str(error).splitlines()[0][:200]
        raise UsageError(
            f"{path}: it needs the columns label (text) and embedding (lists of numbers of one"
            f" length): {cause}"
        ) from None
    if rows.ndim != 2:
        raise UsageError(f"{path}: its column embedding holds no lists of numbers")
    return names, rows


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"{path}: Parquet needs pyarrow: {install('parquet')}") from None
    return pyarrow, pyarrow.parquet


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
