"""Class embeddings on disk: the same labels asked of the same model again cost no pass over the
text.

An entry holds numbers alone. Its name is a digest of all that they depend on, so that whatever
changes (a weight in memory, a template, a label, the code that computes) asks for another entry."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import froster
from froster.encoders.tokenizer import fingerprint_of
from froster.errors import WriteError
from froster.methods import VideoCLIP, method_dict
from froster.methods.weight_names import structure
from froster.utils import strict_json as json
from froster.utils.caches import cache_folder, cache_lock
from froster.utils.files import atomic_file
from froster.utils.tensors import save_tensors, tensor_digest

if TYPE_CHECKING:
    from froster.inference.embedder import Embedder

FORMAT = 1
MOST_BYTES = 256 << 20
"""What all entries may hold together; those that were not used for longest go first."""
_COLUMNS = 512
_CODE = ("encoders/*.py", "text/*.py", "methods/*.py", "inference/embedder.py")
"""Where class embeddings are computed."""


def kept_or_computed(
    model: Embedder, labels: Sequence[str], truncate: bool, compute: Callable[[], Tensor]
) -> Tensor:
    """The class embeddings of `labels` from the user's cache, or what `compute` gives, which is
    kept. Raises FrosterError where the model has no tokenizer."""
    store = ClassCache.of_user()
    key = key_of(model, labels, truncate) if store else None
    if store is None or key is None:
        return compute()
    embeddings = store.get(key)
    if embeddings is not None:
        return embeddings.to(model.device)
    embeddings = compute()
    store.put(key, embeddings)
    return embeddings


def key_of(model: Embedder, labels: Sequence[str], truncate: bool) -> str | None:
    """A digest of all that the class embeddings of `labels` depend on; None where that is not
    known, as of a network whose code is in no file. Raises FrosterError where the model has no
    tokenizer."""
    prompting, code = model.config.prompting, code_of(model.model)
    if code is None:
        return None
    made_of = {
        "format": FORMAT,
        "torch": torch.__version__,
        "code": [_code(), *code],
        "network": _structure(model.model),
        "method": method_dict(model.config.method),
        "architecture": model.clip.architecture(),
        "weights": model.files or text_fingerprint(model.model),
        "tokenizer": fingerprint_of(model.tokenizer_source),
        "device": model.device.type,
        "precision": str(model.dtype),
        "templates": list(prompting.templates),
        "form": prompting.form,
        "truncate": truncate,
        "labels": list(labels),
    }
    text = json.dumps(made_of, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@cache
def _code() -> str:
    """The version, and the sizes and times of the files that compute: in a checkout they change
    without it."""
    root = Path(froster.__file__).parent
    files = sorted(file for pattern in _CODE for file in root.glob(pattern))
    states = [_state(file) for file in files]
    return hashlib.blake2b(repr((froster.__version__, states)).encode(), digest_size=16).hexdigest()


def code_of(network: VideoCLIP) -> list[str] | None:
    """The states of the files of those modules of a network that are not ours or PyTorch's, or None
    where one has no file."""
    names = {type(module).__module__ for module in network.modules()}
    states = []
    for name in sorted(names):
        if name.split(".")[0] in ("torch", "froster"):
            continue
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or not os.path.exists(file):
            return None
        states.append(f"{name} {_state(Path(file))}")
    return states


def _state(file: Path) -> tuple[str, int, int]:
    state = file.stat()
    return file.name, state.st_size, state.st_mtime_ns


def _structure(network: VideoCLIP) -> str:
    """Classes and plain settings of all modules that are not the image tower's."""
    parts = [item for item in sorted(structure(network).items()) if not _is_visual(item[0])]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _is_visual(name: str) -> bool:
    return name.startswith("clip.visual.")


def text_fingerprint(network: VideoCLIP) -> str:
    """Of every weight that is not the image tower's, as it is in memory now.

    The bytes are summed up as whole numbers, along the rows and along the columns of a table of
    512: exact, the same with any number of threads, and as fast as memory is read (a cryptographic
    digest takes seven times as long, at each start). A weight that differs alone always shows.
    """
    state = sorted(network.state_dict().items())
    weights = [(name, weight.detach()) for name, weight in state if not _is_visual(name)]
    names = [f"{name} {weight.dtype} {tuple(weight.shape)}" for name, weight in weights]
    sums = torch.cat(
        [part for _, weight in weights for part in _sums(weight)]
    )  # to the CPU at once
    digest = hashlib.blake2b(repr(names).encode(), digest_size=16)
    digest.update(sums.cpu().numpy().data)
    return digest.hexdigest()


def _sums(weight: Tensor) -> Iterator[Tensor]:
    raw = weight.contiguous().reshape(-1).view(torch.uint8)
    if raw.storage_offset() % 8:  # as no view of eight bytes may begin
        raw = raw.clone()
    size = len(raw) // (8 * _COLUMNS) * (8 * _COLUMNS)
    table = raw[:size].view(torch.int64).view(-1, _COLUMNS)
    yield table.sum(0).view(torch.uint8)
    yield table.sum(1).view(torch.uint8)
    yield raw[size:]


class ClassCache:
    """The entries in a folder, which several processes may use at once.

    What cannot be written (a full disk) is not kept, and what is damaged is made again: nothing
    here fails.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES):
        self.folder = folder
        self.most_bytes = most_bytes

    @classmethod
    def of_user(cls) -> ClassCache | None:
        """In the user's cache; None where that is switched off."""
        folder = cache_folder()
        return None if folder is None else cls(folder / "classes")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def get(self, key: str) -> Tensor | None:
        """The class embeddings, on the CPU, or None where there are none or they are damaged."""
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                metadata, embeddings = file.metadata() or {}, file.get_tensor("classes")
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError):
            return None
        if metadata.get("digest") != tensor_digest(key, embeddings):
            return None
        with suppress(OSError):  # of a cache that may be read and not written
            os.utime(path)  # used now
        return embeddings

    def put(self, key: str, embeddings: Tensor) -> None:
        """Keeps class embeddings, and lets go of old ones where there are too many."""
        kept = embeddings.detach().cpu().contiguous()
        if kept.nbytes > self.most_bytes // 4:
            return
        with suppress(OSError, WriteError), cache_lock(self.folder):
            with atomic_file(self._path(key)) as part:
                save_tensors({"classes": kept}, part, {"digest": tensor_digest(key, kept)})
            self._let_go()

    def _let_go(self) -> None:
        entries = []
        for path in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                state = path.stat()
                entries.append((state.st_mtime_ns, state.st_size, path))
        room = self.most_bytes - sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if room >= 0:
                return
            with suppress(OSError):
                path.unlink()
                room += size
