"""What a model folder says beside its weights, and reading one."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from froster.encoders.layouts import (
    is_model_folder,
    locate,
    read_object,
    refuse_settings,
    unknown_settings,
)
from froster.encoders.model import CLIP, CLIPConfig, TextConfig, VisionConfig, blank
from froster.encoders.preprocessing import Preprocessing
from froster.encoders.reading import read_safetensors
from froster.encoders.tokenizer import Tokenizer
from froster.errors import CheckpointError, FrosterError, one_of
from froster.evaluation.metrics import Fusion
from froster.inference.released import load_saved
from froster.methods import Frozen, Method, VideoCLIP, method_dict, method_from_dict
from froster.text.prompts import FROSTER_PROMPTS, KINETICS_28, Prompting
from froster.video.sampling import Sampling

VERSION = 1
"""Of `config.json`."""
MOST_VIEWS = 1000

__all__ = ["VERSION", "ModelConfig", "folder_of", "is_model_folder", "load_folder", "resolve"]


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder says beside the weights."""

    method: Method = field(default_factory=Frozen)
    sampling: Sampling = field(default_factory=lambda: Sampling("dense"))
    views: int = 3
    prompting: Prompting = FROSTER_PROMPTS
    fusion: Fusion = "logits"
    """How the views are joined: the sum of their logits, or the mean of their soft-maxes."""

    def __post_init__(self) -> None:
        one_of("fusion", self.fusion, "logits", "probs")

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": method_dict(self.method),
            "sampling": asdict(self.sampling),
            "views": self.views,
            "templates": list(self.prompting.templates),
            "prompt_form": self.prompting.form,
            "fusion": self.fusion,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse; what is missing has its default."""
        views = values.get("views", cls.views)
        if type(views) is not int or not 1 <= views <= MOST_VIEWS:
            raise ValueError(f"views is {views!r}")
        return cls(
            method_from_dict(values["method"]),
            Sampling(**{"kind": "dense", **values.get("sampling", {})}),
            views,
            Prompting(
                tuple(values.get("templates", KINETICS_28)), values.get("prompt_form", "froster")
            ),
            values.get("fusion", "logits"),
        )


def resolve(source: str | Path) -> Path:
    """The folder or file on this machine that is meant, looked up, or downloaded, once.

    The output folder of a training run means the model in it, and the weights of a froster model
    its whole folder. Raises CheckpointError, or FrosterError when the hub cannot be reached.
    """
    path = locate(source)
    folder = _whole(path)
    if path.is_file() and folder != path and path.name not in ("model.safetensors", "config.json"):
        raise CheckpointError(
            f"{path} lies in the folder of a froster model, whose weights are model.safetensors:"
            " load the folder, or move the file out of it"
        )
    return folder


def folder_of(model: str | Path) -> Path | None:
    """The folder on this machine of the froster model that `froster.load` would read by this name.

    None where it reads no froster model or none that is here: nano (whatever folder may bear that
    name), a name on the hub, another kind of weights.
    """
    if str(model) == "nano":
        return None
    folder = _whole(Path(os.path.expanduser(model)))
    return folder if is_model_folder(folder) else None


def _whole(path: Path) -> Path:
    """The model in the output folder of a run, and the folder of a froster model's file; any other
    path as it is."""
    if path.is_file():
        return path.parent if is_model_folder(path.parent) else path
    if not (path / "config.json").is_file() and (path / "model" / "config.json").is_file():
        return path / "model"
    return path


def check_config(values: dict[str, Any]) -> None:
    """Raises CheckpointError where a `config.json` says what this froster does not know, such as
    one of a newer version."""
    version = values.get("version", VERSION)
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"it is of version {version!r:.40}, and this froster reads {VERSION}: a newer froster"
            " wrote it"
        )
    found = unknown_settings(
        values,
        "",
        {},
        ("format", "version", "architecture", "preprocessing", *ModelConfig().to_dict()),
    )
    for where, kind in (
        ("sampling", Sampling),
        ("architecture", CLIPConfig),
        ("architecture.vision", VisionConfig),
        ("architecture.text", TextConfig),
    ):
        part: Any = values
        for name in where.split("."):
            part = part.get(name) if isinstance(part, dict) else None
        if isinstance(part, dict):
            known = {each.name for each in fields(kind)} - {
                "preprocessing"
            }  # which has a place of its own
            found += unknown_settings(part, f"{where}.", {}, known)
    refuse_settings(found, "froster does not know")


_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    AttributeError,
    ZeroDivisionError,
    FrosterError,
)


def broken_config(folder: Path, error: Exception) -> CheckpointError:
    cause = str(error) if isinstance(error, (FrosterError, ValueError)) else repr(error)
    return CheckpointError(f"{folder / 'config.json'}: not a froster model's config ({cause})")


def load_folder(folder: Path) -> tuple[VideoCLIP, Tokenizer, ModelConfig]:
    """Read what `Recognizer.save` wrote. Raises CheckpointError naming the file and the cause."""
    try:
        values = read_object(folder / "config.json", "config")
        check_config(values)
        config = ModelConfig.from_dict(values)
        preprocessing = Preprocessing.from_dict(values.get("preprocessing") or {})
        architecture = dataclasses.replace(
            CLIPConfig.from_dict(values["architecture"]), preprocessing=preprocessing
        )
    except _BROKEN as error:
        raise broken_config(folder, error) from error
    weights = folder / "model.safetensors"
    state = {name: tensor.float() for name, tensor in read_safetensors(weights).items()}
    try:
        with blank(len(state)):
            model = config.method.build(CLIP(architecture))
    except _BROKEN as error:
        raise broken_config(folder, error) from error
    try:
        load_saved(model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    return model, Tokenizer.from_file(folder / "tokenizer.json"), config
