"""Where a model is, on this machine or on the hub, and in whose layout it is stored.

Its configs are read strictly: a setting that we do not know is an error that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from froster.encoders.known import hub_id_of
from froster.encoders.licence import tell_licence
from froster.errors import CheckpointError, FrosterError
from froster.utils import strict_json as json
from froster.utils.address import Address, as_path, is_address
from froster.utils.downloads import directly_below, downloaded, hub_cause

Layout = Literal["froster", "huggingface", "open_clip", "file"]

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
HF_KINDS = ("clip", "metaclip_2", "siglip", "xclip")
"""What a Hugging Face `config.json` that we read may be of; X-CLIP's is a method's."""
HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Or, in shards, those that `<name>.index.json` lists."""
_OTHER_SUFFIXES = {
    ".gguf": "a GGUF file, which llama.cpp reads",
    ".onnx": "an ONNX file, which is an end product",
    ".msgpack": "Flax weights",
    ".h5": "TensorFlow weights",
    ".tflite": "a TensorFlow Lite file",
    ".ggml": "a GGML file",
}
# The README so that something is downloaded of a repository that holds no model.
_SMALL_FILES = ("*.json", "merges.txt", BPE_FILE, "README.md")


_OF_MODELS = (".json", ".txt", ".txt.gz", ".safetensors", ".bin", ".pt", ".pth", ".model")


def layout_of(path: Path) -> Layout:
    """Whose layout a file or folder has.

    "huggingface" is also a folder whose config.json is of something else: who reads it says of
    what.
    Raises CheckpointError, which says what it is, on any other that holds no CLIP.
    """
    if not path.is_dir():
        refuse_file(path)
        return "file"
    if is_model_folder(path):
        return "froster"
    if hf_model_type(path) in HF_KINDS and _has_hf_weights(path):
        return "huggingface"
    if open_clip_weights(path):
        return "open_clip"
    refuse_folder(path)
    return "huggingface"


def is_model_folder(folder: Path) -> bool:
    """Whether froster wrote this folder."""
    return _config(folder).get("format") == "froster"


def hf_model_type(folder: Path) -> str | None:
    """What Hugging Face's `config.json` describes: a "clip", or an "xclip", which is a method's."""
    return _config(folder).get("model_type")


def open_clip_weights(folder: Path) -> Path | None:
    """The file with open_clip's weights in a folder."""
    files = [folder / name for name in OPEN_CLIP_WEIGHTS]
    return next((file for file in files if file.is_file()), None)


def _has_hf_weights(folder: Path) -> bool:
    return any(
        (folder / name).is_file() or (folder / f"{name}.index.json").is_file()
        for name in HF_WEIGHTS
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / "config.json", "config")
    except CheckpointError:
        return {}


def locate(source: str | Path, weights: str | None = None) -> Path:
    """The file or folder, downloaded if `source` is a hub id or a short name of one; with the name
    of a file of `weights` a hub id of no image-text encoder too. Raises CheckpointError, or
    FrosterError without the hub."""
    if is_address(source):
        return _at_address(as_path(source))
    # Which leaves the home of a user who does not exist as it is.
    path = Path(os.path.expanduser(source))
    if path.exists():
        return path
    hub_id = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"
    is_hub_id = isinstance(source, str) and re.fullmatch(hub_id, source)
    if not is_hub_id or path.suffix in (".pt", ".pth", ".pyth", ".bin", ".safetensors", ".npz"):
        raise CheckpointError(f"{source}: there is no such file or folder")
    return download(str(source) if weights else hub_id_of(str(source)), weights)


def _at_address(source: Path) -> Path:
    """A copy, in the cache, of a file; or of the files of a model folder, or of the one in the
    output folder of a run."""
    assert isinstance(source, Address)
    try:
        if not source.is_dir():
            return downloaded(source) / source.name
        below = source.files()
        files = directly_below(source, below)
        if "config.json" not in files:
            files = directly_below(Address(f"{source.text.rstrip('/')}/model"), below) or files
        wanted = [file for name, file in files.items() if name.endswith(_OF_MODELS)]
        if not wanted:
            raise CheckpointError(f"{source}: there is no model in this folder")
        return downloaded(*wanted)
    except OSError as error:
        raise CheckpointError(f"{source}: {error.strerror or error}") from error


def download(repo: str, weights: str | None = None) -> Path:
    """A folder with the configs, the tokenizer and the weights of a hub repository; what is cached
    needs no network. A line on standard error states the licence of weights that are downloaded.

    Of a repository with several sets of weights one is taken: those that its `config.json`
    describes, else open_clip's; or the file `weights`. Raises FrosterError in one sentence that
    says how else to get the model.
    """
    import huggingface_hub  # slow to import, and only needed here

    def fetch(patterns: Sequence[str], revision: str | None = None) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
            )
        )

    def is_complete(names: list[str]) -> bool:
        return all((folder / name).is_file() for name in names)

    try:
        folder = fetch(_SMALL_FILES)
        if not folder.is_dir():
            raise CheckpointError(
                f"{repo}: there is no config.json on the hub, so this is no model"
            )
        licence_is_told = huggingface_hub.constants.HF_HUB_OFFLINE
        for names in [[weights]] if weights else _weights_on_hub(folder):
            if not is_complete(names):
                if not licence_is_told:
                    tell_licence(repo, folder)
                    licence_is_told = True
                # Of the same commit, which need not be looked up again.
                fetch((*_SMALL_FILES, *names), folder.name)
            if is_complete(names):
                break
    except CheckpointError:
        raise
    except Exception as error:  # every transport has its own family of errors
        raise FrosterError(
            f"{repo} is no file or folder here and could not be had from the Hugging Face hub"
            f" ({hub_cause(error)}): download it on a machine with internet and pass the folder"
            + ("" if weights else ", or use --model nano")
        ) from None
    return folder


def _weights_on_hub(folder: Path) -> Iterator[list[str]]:
    """Sets of files that hold the weights, best first, by the configs in the folder. None where
    they tell that we cannot read them."""
    if hf_model_type(folder) in HF_KINDS or is_model_folder(folder):
        for name in HF_WEIGHTS:
            index = folder / f"{name}.index.json"
            shards = read_object(index, "index").get("weight_map") if index.is_file() else None
            files = shards.values() if isinstance(shards, dict) else [name]
            yield sorted({str(file) for file in files})
    if (folder / OPEN_CLIP_CONFIG).is_file():
        yield from ([name] for name in OPEN_CLIP_WEIGHTS)


def refuse_file(path: Path) -> None:
    """Raises CheckpointError on a file of a format that is known, but not to us."""
    if kind := _OTHER_SUFFIXES.get(path.suffix.lower()):
        raise CheckpointError(
            f"{path} is {kind}: froster reads safetensors and torch files of a CLIP"
        )


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
        config = read_object(folder / "adapter_config.json", "adapter config")
        raise CheckpointError(
            f"{folder} is a PEFT adapter (LoRA or the like) for"
            f" {config.get('base_model_name_or_path')!r:.80}, not a model: merge it into that model"
            " first (peft's merge_and_unload)"
        )
    if "model_index.json" in names:
        kind = read_object(folder / "model_index.json", "diffusers index").get("_class_name")
        raise CheckpointError(f"{folder} is a diffusers pipeline ({kind!r:.60}), not a CLIP")
    if "modules.json" in names or "config_sentence_transformers.json" in names:
        parts = [name for name in names if (folder / name / "config.json").is_file()]
        raise CheckpointError(
            f"{folder} is a sentence-transformers model: if it holds a CLIP, pass its folder"
            f" {next(iter(parts), '0_CLIPModel')}"
        )
    if OPEN_CLIP_CONFIG in names:
        raise CheckpointError(
            f"{folder} has {OPEN_CLIP_CONFIG}, but neither {' nor '.join(OPEN_CLIP_WEIGHTS)}: half"
            " a model"
        )
    if "config.json" in names:
        return  # who reads the config says what it is, or what is missing
    for name in names:
        refuse_file(folder / name)
    content = "the folder is empty"
    if names:
        content = f"it holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
    raise CheckpointError(
        f"{folder}: there is no config.json, so this is no model folder ({content})"
    )


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON file that holds an object. Raises CheckpointError naming the file and `what` it should
    be."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable {what} ({error!r:.200})") from None
    return as_object(values, f"{path}: not a readable {what}")


def as_object(values: Any, complaint: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise CheckpointError(f"{complaint} (expected an object, found {type(values).__name__})")
    return values


def unknown_settings(
    values: Mapping[str, Any], where: str, required: Mapping[str, Any], known: Collection[str]
) -> list[str]:
    """The entries of a config that we cannot honour, each as "where.key is value".

    `required`: what a key must say, as our network computes nothing else. `known`: keys that are
    read elsewhere, or that do not change what the network computes. A key that says null says
    nothing.
    """
    unknown = []
    for key, value in values.items():
        if value is None or key in known or (key in required and value == required[key]):
            continue
        wanted = f" (froster's has {required[key]!r})" if key in required else ""
        unknown.append(f"{where}{key} is {value!r:.60}{wanted}")
    return unknown


def refuse_settings(unknown: list[str], what: str) -> None:
    """Raises CheckpointError where there are unknown settings: "what: the first of them"."""
    if unknown:
        more = f", and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        raise CheckpointError(f"{what}: {', '.join(unknown[:4])}{more}")
