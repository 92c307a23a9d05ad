"""Frame features before the last linear map, computed once and kept: what is taught on them takes
seconds.

    FOLDER/KEY/about.json          what the features depend on; KEY is its digest
    FOLDER/KEY/*.safetensors       parts that appear whole: "VIDEO/VIEW" -> (T, D), each with a
                                   digest

VIDEO is the fingerprint of a file, with start and end of a part where it is one; VIEW a clip as the
model is tested ("c0", "c1", …) or a random one with augmentation ("r0", "r1", …). Parts of the
store have names of their own, so that several processes may write at once, and a killed one costs
what it had not written; small ones are joined.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from froster.data.dataset import ReadViews
from froster.encoders.last_map import LastMap
from froster.encoders.precision import autocast
from froster.encoders.preprocessing import normalise
from froster.errors import DataError, UsageError
from froster.inference.batch import ReadOptions
from froster.inference.recognizer import Recognizer
from froster.methods import VideoCLIP, method_dict
from froster.utils import pool
from froster.utils import strict_json as json
from froster.utils.files import atomic_file, write_json
from froster.utils.progress import Working, silently
from froster.utils.tensors import save_tensors, tensor_digest
from froster.video.augment import FROSTER_AUGMENT, Augment, augment
from froster.video.container import unchanged
from froster.video.part import VideoPart
from froster.video.reader import Video

FORMAT = 1
PART_SECONDS = 20.0
PART_BYTES = 64 << 20
"""A part is written after so long, or so much: what a kill can cost."""
SMALL_PARTS = 32
"""So many parts of less than a quarter of that are joined: rounds of corrections leave a small one
each."""


Task = tuple[str, tuple[float, float] | None, str, tuple[str, ...]]
"""Path, part in seconds, name in the store and names of views."""


def part_key(video: str, span: tuple[float, float] | None) -> str:
    """The name of a video, or of a part of it, by the file's fingerprint."""
    return video if span is None else f"{video}@{span[0]:g}-{span[1]:g}"


def last_map(network: VideoCLIP) -> LastMap:
    """Of a network whose frames are embedded by the image tower alone. Raises UsageError for
    others."""
    kind = type(network)
    if kind.encode is not VideoCLIP.encode or kind.encode_frames is not VideoCLIP.encode_frames:
        raise UsageError(
            f"this network ({kind.__name__}) makes more of a clip than embeddings of its frames, so"
            " nothing can be kept of them: start from a plain CLIP or vclip"
        )
    return LastMap(network.clip.visual)


def views_of(tested: int, drawn: int) -> list[str]:
    """The names of clips as in the test, and of random ones."""
    return [*(f"c{i}" for i in range(tested)), *(f"r{i}" for i in range(drawn))]


@dataclass(frozen=True)
class KeptViews:
    """How the views are read from a file: the work of a process."""

    test: ReadViews
    augment: Augment = FROSTER_AUGMENT

    def __call__(self, task: Task) -> Iterator[np.ndarray]:
        """One array, uint8 (V, T, 3, S, S). Raises VideoError."""
        path, span, video, names = task
        with unchanged(path), Video(path) as file:
            part = file if span is None else VideoPart(file, *span)
            clips = self.test.clips(part) if any(name[0] == "c" for name in names) else None
            views = [
                self.drawn(part, f"{video}/{name}")
                if clips is None or name[0] == "r"
                else clips[int(name[1:])]
                for name in names
            ]
        yield np.stack(views)

    def to_dict(self) -> dict[str, Any]:
        """How the clips are taken."""
        test = self.test
        return {
            "sampling": dataclasses.asdict(test.sampling),
            "views": test.views,
            "augment": dataclasses.asdict(self.augment),
        }

    def drawn(self, part: Video | VideoPart, seed: str) -> np.ndarray:
        """A random clip, changed as in training; the same one at every call."""
        rng, test = random.Random(seed), self.test
        indices = test.sampling.train_indices(part.timing, rng)
        frames = part.at(indices) if isinstance(part, VideoPart) else part.read(indices)
        return augment(frames, test.size, rng, self.augment, test.how).numpy()


def about_features(
    model: Recognizer, clips: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, Any]:
    """All that kept features depend on, beside the video; `clips` says how these are taken. The
    last map is not among it, nor the text: a model that was taught is taught again on the same
    features."""
    network, method = model.model, model.config.method
    last = f"clip.visual.{last_map(network).name}"
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(network.state_dict().items()):
        if name != last and not name.startswith(("clip.text.", "clip.logit_", "head.", "closed.")):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(
                weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
    return {
        "made_by": "froster features",
        "version": FORMAT,
        "weights": digest.hexdigest(),
        "method": method_dict(getattr(method, "inner", method)),
        "vision": model.clip.architecture()["vision"],
        "preprocessing": model.preprocessing.to_dict(),
        "clips": dict(clips),
        "computed": str(model.dtype),
        "dtype": str(dtype),
    }


class FeatureStore:
    """The features of one model in a folder that may hold those of others too; without a folder
    nothing is kept. What is damaged is computed again."""

    def __init__(self, folder: Path | None, about: Mapping[str, Any]):
        text = json.dumps(about, sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder = None if folder is None else folder / key
        self.about = dict(about)
        self.places: dict[str, Path] = {}
        self.refresh()

    def refresh(self) -> None:
        """Also what other processes have written since."""
        self._open: dict[Path, Any] = {}
        if self.folder is None:
            return
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                with safe_open(path, "pt") as file:
                    self.places |= dict.fromkeys(file.keys(), path)
            except (OSError, SafetensorError):
                continue

    @property
    def bytes(self) -> int:
        """On the disk."""
        return sum(path.stat().st_size for path in set(self.places.values()))

    def add(self, features: Mapping[str, Tensor]) -> None:
        """A new part. Raises WriteError."""
        if not features or self.folder is None:
            return
        if not (self.folder / "about.json").exists():
            write_json(self.folder / "about.json", self.about)
        self._write(self.folder, features)
        self._join_small()

    def _write(self, folder: Path, features: Mapping[str, Tensor]) -> None:
        path = folder / f"{uuid.uuid4().hex[:16]}.safetensors"
        kept = {name: x.contiguous() for name, x in features.items()}
        with atomic_file(path) as part:
            save_tensors(kept, part, {name: tensor_digest(name, x) for name, x in kept.items()})
        self.places |= dict.fromkeys(features, path)

    def _join_small(self) -> None:
        """Many small parts become one. Who has them open reads on; who looks for one that is gone
        refreshes, and two that join at once leave the same features twice."""
        sizes = {path: path.stat().st_size for path in set(self.places.values()) if path.exists()}
        small = [path for path, size in sizes.items() if size < PART_BYTES / 4]
        if len(small) < SMALL_PARTS or self.folder is None:
            return
        features = self.load([name for name, path in self.places.items() if path in small])
        self._write(self.folder, features)
        for path in small:
            self._open.pop(path, None)
            path.unlink(missing_ok=True)

    def load(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Those that are there and whole."""
        if any(not path.exists() for path in {self.places[n] for n in names if n in self.places}):
            self.refresh()  # another process has joined parts
        by_part: dict[Path, list[str]] = {}
        for name in names:
            if name in self.places:
                by_part.setdefault(self.places[name], []).append(name)
        features: dict[str, Tensor] = {}
        for path, of_part in by_part.items():
            try:
                with safe_open(path, "pt") as file:
                    digests = file.metadata() or {}
                    features |= {name: _as_written(name, file, digests) for name in of_part}
            except (OSError, SafetensorError, ValueError):
                for name in of_part:
                    self.places.pop(name, None)
        return features

    def get(self, name: str) -> Tensor:
        """One that is there. Raises DataError where its part is damaged."""
        path = self.places[name]
        if path not in self._open and not path.exists():
            self.refresh()  # another process has joined parts
            path = self.places[name]
        try:
            if path not in self._open:
                file = safe_open(path, "pt").__enter__()
                self._open[path] = file, file.metadata() or {}
            return _as_written(name, *self._open[path])
        except (OSError, SafetensorError, ValueError) as error:
            raise DataError(
                f"{path}: damaged; remove it, and it is computed again ({error})"
            ) from None


def _as_written(name: str, file: Any, digests: Mapping[str, str]) -> Tensor:
    """A tensor of a part. Raises ValueError where it is not what was written, as far as the part
    tells: those of older versions have no digests."""
    tensor: Tensor = file.get_tensor(name)
    if name in digests and digests[name] != tensor_digest(name, tensor):
        raise ValueError(f"the digest of {name} differs")
    return tensor


@dataclass(frozen=True)
class Request:
    """A video whose features are wanted."""

    path: Path
    video: str | None
    """Its fingerprint; None where the file cannot be read."""
    views: tuple[str, ...]
    span: tuple[float, float] | None = None
    """The part of it that is wanted, in seconds."""

    @property
    def key(self) -> str | None:
        """Its name in the store."""
        return self.video and part_key(self.video, self.span)


@dataclass
class Kept:
    """The features of videos, as far as they could be read."""

    features: dict[int, Float[Tensor, "views time kept"]]
    """By the video's place among the requests."""
    errors: dict[int, str]
    """'file: cause' of the others."""
    new: int
    """Clips that were computed now."""
    old: int
    """Clips that the store had."""


def keep(
    model: Recognizer,
    store: FeatureStore,
    requests: Sequence[Request],
    views: KeptViews,
    *,
    options: ReadOptions = ReadOptions(),  # noqa: B008
    dtype: torch.dtype = torch.float16,
    working: Working = silently,
) -> Kept:
    """The features of all requests: what the store lacks is computed and added to it, part by part,
    also where this is interrupted."""
    wanted: dict[str, dict[str, None]] = {}
    sources: dict[str, Request] = {}
    for r in requests:
        if r.key is not None:
            sources.setdefault(r.key, r)
            wanted.setdefault(r.key, {}).update(dict.fromkeys(r.views))
    ready = store.load([f"{video}/{view}" for video, names in wanted.items() for view in names])
    todo = {
        video: missing
        for video, names in wanted.items()
        if (missing := tuple(name for name in names if f"{video}/{name}" not in ready))
    }
    tasks = [
        (str(sources[video].path), sources[video].span, video, names)
        for video, names in todo.items()
    ]
    causes: dict[str, str] = {}
    with (working if tasks else silently)("features of frames", len(tasks)) as advance:
        for video, features, error in computed(model, store, tasks, views, options, dtype):
            ready |= features
            if error:
                causes[video] = error
            advance(1)
    kept, errors = {}, {}
    for i, r in enumerate(requests):
        if r.key is None:
            errors[i] = f"{r.path}: no such file, or it cannot be read"
        elif r.key in causes:
            errors[i] = f"{r.path}: {causes[r.key].removeprefix(f'{r.path}: ')}"
        else:
            kept[i] = torch.stack([ready[f"{r.key}/{view}"] for view in r.views])
    new = sum(len(names) for video, names in todo.items() if video not in causes)
    clips = sum(len(names) for video, names in wanted.items() if video not in causes)
    return Kept(kept, errors, new, clips - new)


def computed(
    model: Recognizer,
    store: FeatureStore,
    tasks: Sequence[Task],
    views: KeptViews,
    options: ReadOptions,
    dtype: torch.dtype,
) -> Iterator[tuple[str, dict[str, Tensor], str]]:
    """Each video with the features of its views, or what failed."""
    if not tasks:
        return
    if model.runtime is not None:
        raise UsageError(
            "features are kept of the model itself, not in int8: load it without runtime"
        )
    last = last_map(model.inference)
    workers = options.processes(len(tasks))
    events: Any = pool.run(views, tasks, workers, limit=options.time_limit)
    ends = pool.ends(events)
    part: dict[str, Tensor] = {}
    written = time.monotonic()
    try:
        with closing(pool.ahead(ends, workers + 2) if workers else ends) as following:
            for task, clips, error in following:
                *_, video, names = tasks[task]
                if clips is None:
                    yield video, {}, error
                    continue
                x = features_of(model, last, torch.from_numpy(clips)).to(dtype)
                new = {f"{video}/{name}": f for name, f in zip(names, x, strict=True)}
                part |= new
                size = sum(f.nbytes for f in part.values())
                if time.monotonic() - written > PART_SECONDS or size > PART_BYTES:
                    store.add(part)
                    part, written = {}, time.monotonic()
                yield video, new, ""
    finally:
        store.add(part)


@torch.no_grad()
def features_of(
    model: Recognizer, last: LastMap, clips: Tensor
) -> Float[Tensor, "clips time kept"]:
    """uint8 (V, T, 3, S, S) -> what is kept of each frame, on the CPU."""
    with autocast(model.device, model.dtype):
        frames = normalise(clips.to(model.device), model.preprocessing)
        return last.features(frames).float().cpu()
