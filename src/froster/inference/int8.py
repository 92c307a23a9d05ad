"""A model in int8 on a CPU: the ranges that `froster export --to int8` measured on a user's videos,
and that `--runtime` computes by.

The folder holds `int8.safetensors`, the ranges, and `export.json`, which says for which model they
are and how far int8 is from it. The weights stay the model's, made int8 when it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.data.listing import Listing
from froster.encoders.int8 import LARGEST_ERROR, Observer, Ranges, check_int8, modules_of, use_int8
from froster.encoders.layouts import read_object
from froster.encoders.model import unit
from froster.encoders.precision import pick_dtype, with_cast_weights
from froster.encoders.preprocessing import normalise
from froster.encoders.reading import read_safetensors
from froster.errors import CheckpointError, FrosterError, UsageError, VideoError
from froster.inference.embedder import CPU_ALONE, Embedder
from froster.inference.fingerprint import tower_fingerprint
from froster.inference.recognizer import Recognizer
from froster.methods import VideoCLIP
from froster.methods.base import plain
from froster.utils import strict_json as json
from froster.utils.files import atomic_folder, sole_maker
from froster.utils.progress import Working, silently
from froster.utils.tensors import file_digest, finite, save_tensors

FILE = "int8.safetensors"
LARGEST_DIFFERENCE = 0.01
"""1 - cosine of a video embedding in int8 to that in float32, beyond which nothing is written."""
MOST_VIDEOS = 64
"""Of those given, evenly: every second one is measured, the others are compared."""


@dataclass(frozen=True, eq=False)
class Int8:
    """The ranges of a model's image tower."""

    ranges: Ranges
    digest: str = ""
    """Of the file."""

    def network(self, model: VideoCLIP, dtype: torch.dtype) -> VideoCLIP:
        """The model for inference, the rest of it in `dtype`. Raises UsageError where this machine,
        which may be another than the one that read the ranges, cannot compute by them;
        CheckpointError where they are another model's."""
        check_int8()
        network = with_cast_weights(plain(model), dtype)
        use_int8(network.clip.visual, self.ranges)
        return network


def read_int8(model: Embedder, folder: str | Path) -> Int8:
    """What `export_int8` wrote of this model. Raises UsageError where this machine cannot compute
    by it, CheckpointError where it is damaged or another model's."""
    check_int8()
    if model.device.type != "cpu":
        raise UsageError(CPU_ALONE)
    folder = Path(folder)
    about = read_object(folder / "export.json", "export")
    if about.get("runtime") != "int8":
        raise CheckpointError(f"{folder} is no export to int8: froster export --to int8 makes one")
    if about.get("model") != tower_fingerprint(model):
        raise CheckpointError(
            f"{folder} was measured on another model than {model.source or 'this one'}: leave"
            " --runtime out, or export that one to int8"
        )
    return Int8(read_safetensors(folder / FILE), file_digest(folder / FILE)[:32])


@torch.no_grad()
def export_int8(
    model: Recognizer,
    folder: str | Path,
    videos: Listing,
    labels: Sequence[str],
    *,
    truncate: bool = False,
    working: Working = silently,
) -> dict[str, Any]:
    """Measure the ranges on every second video, compare int8 with float32 on the others, and return
    what `export.json` says.

    `model` is on the CPU in float32; `labels` are those among which both say which fits best.
    `folder` appears only if every cosine is near enough. Raises UsageError on a wrong request or
    chip, FrosterError where int8 differs more.
    """
    check_int8()
    if len(labels) < 2:
        raise UsageError("int8 is compared by which label fits best: give two labels or more")
    folder = Path(folder)
    classes = model.class_embeddings(labels, truncate)
    clips = _clips(model, videos, working)
    ranges, errors = measure(model, clips[::2], working)
    if not ranges:
        name = model.config.method.name
        raise FrosterError(f"no part of {name} is near enough in int8; nothing was written")
    quick = model.on(model.device)
    quick.dtype = pick_dtype(model.device, model.clip.config.vision.width)
    quick.runtime = Int8(ranges)
    differences, same = [], []
    with working("comparing", len(clips) // 2) as advance:
        for clip in clips[1::2]:
            exact, near = model.encode_clips(clip), quick.encode_clips(clip)
            cosine = (unit(exact.video) * unit(near.video)).sum()
            differences.append(1 - float(finite(cosine, "embeddings in int8")))
            first, second = (model.model.logits(x.video, classes, x.context) for x in (exact, near))
            same.append(bool(first.argmax() == second.argmax()))
            advance(1)
    if not max(differences) <= LARGEST_DIFFERENCE:
        raise FrosterError(
            f"int8 differs from float32: the cosine of a video's two embeddings is"
            f" {1 - max(differences):.4f}, less than {1 - LARGEST_DIFFERENCE:g}; nothing was"
            " written, more videos to measure may help"
        )
    about = {
        "format": "froster-export",
        "version": 1,
        "runtime": "int8",
        "file": FILE,
        "model": tower_fingerprint(model),
        "videos": {"measured": len(clips[::2]), "compared": len(same)},
        "labels": list(labels),
        "same_top1": sum(same) / len(same),
        "cosine_difference": {"largest": max(differences), "limit": LARGEST_DIFFERENCE},
        "modules": {
            "int8": sum(name in errors for name in ranges),
            "all": sum(1 for _ in modules_of(plain(model.model).clip.visual)),
            "errors": errors,
            "limit": LARGEST_ERROR,
        },
        "made_with": {"torch": torch.__version__},
    }
    with sole_maker(folder), atomic_folder(folder) as part:
        save_tensors({name: x.contiguous() for name, x in ranges.items()}, part / FILE)
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (part / "export.json").write_text(text + "\n", encoding="utf-8")
    return about


def _clips(model: Recognizer, videos: Listing, working: Working) -> list[Tensor]:
    """One clip (1, T, 3, S, S) uint8 of each video that can be read."""
    count = min(len(videos), MOST_VIDEOS)
    chosen = [videos[number * len(videos) // count] for number in range(count)]
    clips = []
    with working("reading videos", count) as advance:
        for video in chosen:
            with suppress(VideoError):
                clips.append(model.read_views(video.path, 1))
            advance(1)
    if len(clips) < 2:
        raise UsageError(
            "int8 is measured on some videos and compared on others: --videos takes two or more"
            f" that can be read, and there {'is 1' if clips else 'is none'}"
        )
    return clips


@torch.no_grad()
def measure(
    model: Recognizer, clips: Sequence[Tensor], working: Working = silently
) -> tuple[Ranges, dict[str, float]]:
    """The ranges of a model in float32 on clips (B, T, 3, S, S) uint8, of what is near enough in
    int8, and the error of each part."""
    network = with_cast_weights(plain(model.model), torch.float32)  # a copy that shares its weights
    observer = Observer(network.clip.visual)
    with working("measuring", len(clips)) as advance:
        for clip in clips:
            network.encode(normalise(clip, model.preprocessing))
            advance(1)
    return observer.ranges()
