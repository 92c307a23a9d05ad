"""Folders of Hugging Face: a config, a preprocessor, weights in one file or in shards."""

from __future__ import annotations

from pathlib import Path

from froster.encoders.config import CLIPConfig
from froster.encoders.hf_config import config_from_hf
from froster.encoders.layouts import HF_WEIGHTS, as_object, read_object
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing, from_hf
from froster.encoders.reading import State, flat_weights, read_file, read_safetensors
from froster.errors import CheckpointError


def read_hf_config(folder: Path) -> CLIPConfig:
    """The sizes in a folder's `config.json`. Raises CheckpointError naming the file."""
    path = folder / "config.json"
    values = read_object(path, "CLIP config")
    try:
        return config_from_hf(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable CLIP config ({error!r})") from None


def read_hf_preprocessing(
    folder: Path, size: int, usual: Preprocessing = CLIP_PREPROCESSING
) -> tuple[Preprocessing, list[str]]:
    """How the folder's processor prepares pictures of `size`, or else `usual`, and what had to be
    assumed.

    Raises CheckpointError naming the file.
    """
    # transformers reads them in this order.
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        values = read_object(path, "preprocessor config")
        if name == "processor_config.json":
            if "image_processor" not in values:
                continue
            values = as_object(values["image_processor"], f"{path}: image_processor cannot be read")
        try:
            return from_hf(values, size), []
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    whose = "CLIP's" if usual == CLIP_PREPROCESSING else "its authors'"
    return usual, [f"no preprocessor_config.json: {whose} own preprocessing assumed"]


def read_hf_weights(folder: Path) -> State:
    """A folder's weights, under Hugging Face's names. Raises CheckpointError naming the file."""
    for name in HF_WEIGHTS:
        if (folder / name).is_file():
            return _read_weights(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_object(index, "index").get("weight_map")
            if not isinstance(shards, dict) or not all(
                isinstance(shard, str) for shard in shards.values()
            ):
                raise CheckpointError(f"{index}: not a readable index (it has no weight_map)")
            # Only the last part of a shard's name: an index must not lead out of its folder.
            files = sorted({Path(shard).name for shard in shards.values()})
            return {
                name: tensor
                for shard in files
                for name, tensor in _read_weights(folder / shard).items()
            }
    raise CheckpointError(f"{folder}: there is no model.safetensors and no pytorch_model.bin")


def _read_weights(path: Path) -> State:
    return (
        read_safetensors(path)
        if path.suffix == ".safetensors"
        else flat_weights(read_file(path)[1])
    )
