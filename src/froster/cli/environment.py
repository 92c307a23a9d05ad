"""What this installation can do: versions, chips, decoders, disk, the default model."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any

import av
import torch

from froster import __version__
from froster.encoders.precision import SMALLEST_BF16_WIDTH, pick_device, pick_dtype
from froster.inference.recognizer import DEFAULT_MODEL
from froster.utils.pool import cores

PACKAGES = (
    "numpy",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "pillow",
    "pyarrow",
    "onnxruntime",
    "openvino",
)
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2video")
_GIB = 1 << 30


def environment() -> dict[str, Any]:
    """Everything by section; `problems` is what keeps froster from its work or slows it down."""
    found: dict[str, Any] = {
        "froster": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": torch.__version__,
        "cpu": _cpu(),
        "cuda": _cuda(),
        "pyav": av.__version__,
        "ffmpeg": {
            name: ".".join(map(str, version)) for name, version in av.library_versions.items()
        },
        "decoders": {name: decoder(name) for name in CODECS},
        "disk": _disk(),
        "model": _model(),
    }
    device = pick_device()
    found["runs on"] = (
        f"{device} in {str(pick_dtype(device, SMALLEST_BF16_WIDTH)).removeprefix('torch.')}"
    )
    found["problems"] = _problems(found)
    return found


def decoder(codec: str) -> str:
    """The decoder that FFmpeg takes for a codec; empty where it has none."""
    try:
        return av.CodecContext.create(codec, "r").codec.name
    except (av.FFmpegError, ValueError):
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> dict[str, Any]:
    def has(name: str) -> bool:
        return bool(getattr(torch.cpu, name, lambda: False)())

    return {
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": has("_is_avx512_bf16_supported"),
        "amx": has("_is_amx_tile_supported"),
    }


def _cuda() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    devices = [
        torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())
    ]
    return [
        {
            "name": device.name,
            "memory GiB": round(device.total_memory / _GIB, 1),
            "capability": f"{device.major}.{device.minor}",
        }
        for device in devices
    ]


def _disk() -> dict[str, float]:
    """Free GiB here and where temporary files go."""
    places = {"here": os.getcwd(), "temporary": os.environ.get("TMPDIR", "/tmp")}
    return {
        name: round(shutil.disk_usage(place).free / _GIB, 1)
        for name, place in places.items()
        if os.path.exists(place)
    }


def _model() -> dict[str, Any]:
    """Whether the default model is here already."""
    from huggingface_hub import constants, try_to_load_from_cache

    weights = [
        try_to_load_from_cache(DEFAULT_MODEL, name)
        for name in ("model.safetensors", "pytorch_model.bin")
    ]
    here = any(isinstance(path, str) for path in weights)
    return {
        "default": DEFAULT_MODEL,
        "in cache": here,
        "cache": constants.HF_HUB_CACHE,
        "offline": constants.HF_HUB_OFFLINE,
    }


def _problems(found: dict[str, Any]) -> list[str]:
    problems = [f"no decoder for {name}" for name, known in found["decoders"].items() if not known]
    if not found["model"]["in cache"]:
        problems.append(
            f"{DEFAULT_MODEL} is not in the cache: it is downloaded at the first use; --model nano"
            " needs nothing"
        )
    if _version("torchvision"):
        problems.append(
            "torchvision is installed: froster does not need it, and one of another torch breaks"
            " transformers"
        )
    for place, free in found["disk"].items():
        if free < 2:
            problems.append(f"{free} GiB free ({place})")
    if "+cu" in found["torch"] and not found["cuda"]:
        problems.append("torch is a CUDA build, but there is no GPU that it can use")
    return problems
