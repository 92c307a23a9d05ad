"""A model of the Hugging Face hub as a folder on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from froster.encoders.huggingface import is_hf_clip
from froster.encoders.known import read_object
from froster.encoders.layouts import is_model_folder
from froster.encoders.open_clip import CONFIG, WEIGHTS
from froster.encoders.tokenizer import BPE_FILE
from froster.errors import CheckpointError, FrosterError

# The README so that something is there of a repository that holds no model.
_SMALL = ("*.json", "merges.txt", BPE_FILE, "README.md")


def download(repo: str) -> Path:
    """A folder with the configs, the tokenizer and the weights of a hub repository; what is cached
    needs no network.

    Of a repository with several sets of weights one is taken: those that its `config.json`
    describes, else open_clip's. Raises FrosterError in one sentence that says how else to get the
    model.
    """
    import huggingface_hub  # slow to import, and only needed here

    def fetch(patterns: Sequence[str], revision: str | None = None) -> Path:
        chosen = list(patterns)
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=chosen, ignore_patterns=["*/*"]
            )
        )

    try:
        folder = fetch(_SMALL)
        if not folder.is_dir():
            raise CheckpointError(
                f"{repo}: there is no config.json on the hub, so this is no model"
            )
        for names in _wanted(folder):
            if not _there(folder, names):
                fetch(
                    (*_SMALL, *names), folder.name
                )  # of the same commit, which need not be looked up again
            if _there(folder, names):
                break
    except CheckpointError:
        raise
    except Exception as error:  # every transport has its own family of errors
        raise FrosterError(
            f"{repo} is no file or folder here and could not be had from the Hugging Face hub"
            f" ({type(error).__name__}): download it on a machine with internet and pass the"
            " folder, or use --model nano"
        ) from None
    return folder


def _there(folder: Path, names: list[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _wanted(folder: Path) -> Iterator[list[str]]:
    """Sets of files that hold the weights, best first. None where the configs tell that we cannot
    read them."""
    if (folder / "config.json").is_file() and (is_hf_clip(folder) or is_model_folder(folder)):
        for name in ("model.safetensors", "pytorch_model.bin"):
            index = folder / f"{name}.index.json"
            shards = read_object(index, "index").get("weight_map") if index.is_file() else None
            yield (
                sorted({str(shard) for shard in shards.values()})
                if isinstance(shards, dict)
                else [name]
            )
    if (folder / CONFIG).is_file():
        yield from ([name] for name in WEIGHTS)
