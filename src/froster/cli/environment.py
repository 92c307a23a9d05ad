"""What this installation can do: versions, chips, decoders, disk, the default model."""

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

PACKAGES = """
numpy safetensors tokenizers huggingface_hub pillow pyarrow onnxruntime openvino
"""
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2video")
_GIB = 1 << 30


def environment() -> dict[str, Any]:
    """Everything by section; `problems` is what keeps froster from its work or slows it down."""
    device = pick_device()
    dtype = str(pick_dtype(device, SMALLEST_BF16_WIDTH)).removeprefix("torch.")
    libraries = av.library_versions.items()
    facts: dict[str, Any] = {
        "froster": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES.split()},
        "torch": torch.__version__,
        "cpu": cpu(),
        "cuda": [gpu(number) for number in range(torch.cuda.device_count())],
        "pyav": av.__version__,
        "ffmpeg": {name: ".".join(map(str, numbers)) for name, numbers in libraries},
        "decoders": {name: decoder(name) for name in CODECS},
        "disk": disk(),
        "model": default_model(),
        "runs on": f"{device} in {dtype}",
    }
    return {**facts, "problems": problems(facts)}


def decoder(codec: str) -> str:
    """The decoder that FFmpeg takes for a codec; empty where it has none."""
    try:
        return av.CodecContext.create(codec, "r").codec.name
    except (av.FFmpegError, ValueError):
        return ""


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def cpu() -> dict[str, Any]:
    instructions = {"bfloat16": "_is_avx512_bf16_supported", "amx": "_is_amx_tile_supported"}
    return {
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        **{
            name: bool(getattr(torch.cpu, test, lambda: False)())
            for name, test in instructions.items()
        },
    }


def gpu(number: int) -> dict[str, Any]:
    device = torch.cuda.get_device_properties(number)
    return {
        "name": device.name,
        "memory GiB": round(device.total_memory / _GIB, 1),
        "capability": f"{device.major}.{device.minor}",
    }


def disk() -> dict[str, float]:
    """Free GiB here and where temporary files go."""
    places = {"here": os.getcwd(), "temporary": os.environ.get("TMPDIR", "/tmp")}
    return {
        name: round(shutil.disk_usage(place).free / _GIB, 1)
        for name, place in places.items()
        if os.path.exists(place)
    }


def default_model() -> dict[str, Any]:
    """Whether it has been downloaded."""
    from huggingface_hub import constants, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    cached = [try_to_load_from_cache(DEFAULT_MODEL, name) for name in files]
    return {
        "default": DEFAULT_MODEL,
        "in cache": any(isinstance(path, str) for path in cached),
        "cache": constants.HF_HUB_CACHE,
        "offline": constants.HF_HUB_OFFLINE,
    }


def problems(facts: dict[str, Any]) -> list[str]:
    lines = [f"no decoder for {name}" for name, known in facts["decoders"].items() if not known]
    if not facts["model"]["in cache"]:
        lines.append(
            f"{DEFAULT_MODEL} is not in the cache: it is downloaded at the first use; --model nano"
            " needs nothing"
        )
    if version("torchvision"):
        lines.append(
            "torchvision is installed: froster does not need it, and one of another torch breaks"
            " transformers"
        )
    lines += [f"{free} GiB free ({place})" for place, free in facts["disk"].items() if free < 2]
    if "+cu" in facts["torch"] and not facts["cuda"]:
        lines.append("torch is a CUDA build, but there is no GPU that it can use")
    return lines
