"""Folders and files that hold something else than a CLIP: each is refused by what it is."""

from __future__ import annotations

from pathlib import Path

from froster.encoders.known import read_object
from froster.encoders.open_clip import CONFIG, WEIGHTS
from froster.errors import CheckpointError

HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_OTHER_SUFFIXES = {
    ".gguf": "a GGUF file, which llama.cpp reads",
    ".onnx": "an ONNX file, which is an end product",
    ".msgpack": "Flax weights",
    ".h5": "TensorFlow weights",
    ".tflite": "a TensorFlow Lite file",
    ".ggml": "a GGML file",
}
_TAKES = "froster reads safetensors and torch files of a CLIP"


def is_model_folder(folder: Path) -> bool:
    """Is it a folder that froster wrote?"""
    try:
        return read_object(folder / "config.json", "config").get("format") == "froster"
    except CheckpointError:
        return False


def refuse_file(path: Path) -> None:
    """Raises CheckpointError on a file of a format that is known, but not to us."""
    if kind := _OTHER_SUFFIXES.get(path.suffix.lower()):
        raise CheckpointError(f"{path} is {kind}: {_TAKES}")


def refuse_folder(folder: Path) -> None:
    """Raises CheckpointError, which says what a folder is that holds no CLIP of a kind that we
    read."""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if "export.json" in names:
        raise CheckpointError(
            f"{folder} is an export of froster for another runtime: load the model that it was made"
            " from"
        )
    if "adapter_config.json" in names:
        base = read_object(folder / "adapter_config.json", "adapter config").get(
            "base_model_name_or_path"
        )
        raise CheckpointError(
            f"{folder} is a PEFT adapter (LoRA or the like) for {base!r:.80}, not a model: merge it"
            " into that model first (peft's merge_and_unload)"
        )
    if "model_index.json" in names:
        kind = read_object(folder / "model_index.json", "diffusers index").get("_class_name")
        raise CheckpointError(f"{folder} is a diffusers pipeline ({kind!r:.60}), not a CLIP")
    if "modules.json" in names or "config_sentence_transformers.json" in names:
        inner = next(
            (name for name in names if (folder / name / "config.json").is_file()), "0_CLIPModel"
        )
        raise CheckpointError(
            f"{folder} is a sentence-transformers model: if it holds a CLIP, pass its folder"
            f" {inner}"
        )
    if CONFIG in names:
        raise CheckpointError(
            f"{folder} has {CONFIG}, but neither {' nor '.join(WEIGHTS)}: half a model"
        )
    if "config.json" in names:
        return  # what it is, or what is missing, is said by who reads the config
    for name in names:
        refuse_file(folder / name)
    what = (
        f"it holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        if names
        else "the folder is empty"
    )
    raise CheckpointError(f"{folder}: there is no config.json, so this is no model folder ({what})")
