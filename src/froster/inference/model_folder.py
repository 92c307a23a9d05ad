"""A model folder: what it says beside the weights, where it lies, how it is read and written."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from froster.encoders.blank import blank
from froster.encoders.checkpoints import locate, strict_load
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.layouts import is_model_folder, read_object, refuse_settings, unknown_settings
from froster.encoders.model import CLIP
from froster.encoders.preprocessing import Preprocessing
from froster.encoders.reading import State, read_safetensors
from froster.encoders.tokenizer import TokenizerSource, opened, tokenizer_in
from froster.errors import CheckpointError, FrosterError, UsageError, one_of
from froster.evaluation.calibration import Calibration, read_calibration
from froster.evaluation.metrics import Fusion
from froster.methods import Frozen, Method, VideoCLIP, method_dict, method_from_dict, saved_names
from froster.text.prompts import FROSTER_PROMPTS, KINETICS_28, Prompting
from froster.utils import strict_json as json
from froster.utils.address import refuse_address
from froster.utils.files import atomic_folder
from froster.utils.tensors import cpu_state, save_tensors
from froster.video.sampling import Sampling

VERSION = 1
"""Of `config.json`."""
MOST_VIEWS = 1000


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder says beside the weights."""

    method: Method = field(default_factory=Frozen)
    sampling: Sampling = field(default_factory=lambda: Sampling("dense"))
    views: int = 3
    prompting: Prompting = FROSTER_PROMPTS
    fusion: Fusion = "logits"
    """How views are fused: the mean of their logits, or of their soft-maxes."""

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


@dataclass(frozen=True)
class LoadedModel:
    """What is read of a model, on the CPU."""

    network: VideoCLIP
    tokenizer: TokenizerSource
    config: ModelConfig
    provenance: str = "froster"
    """What the weights were taken for."""
    calibration: Calibration = field(default_factory=Calibration)


def resolve(source: str | Path) -> Path:
    """The folder or file on this machine that is meant, downloaded if need be. The output folder of
    a run means the model in it, and the weights of a froster model its folder. Raises
    CheckpointError, or FrosterError when the hub cannot be reached."""
    path = locate(source)
    folder = _folder_with(path)
    if path.is_file() and folder != path and path.name not in ("model.safetensors", "config.json"):
        raise CheckpointError(
            f"{path} lies in the folder of a froster model, whose weights are model.safetensors:"
            " load the folder, or move the file out of it"
        )
    return folder


def folder_of(model: str | Path) -> Path | None:
    """The folder on this machine of the froster model that `froster.load` would read by this name;
    None for nano (whatever folder may bear that name), a name on the hub, other weights."""
    if str(model) == "nano":
        return None
    folder = _folder_with(Path(os.path.expanduser(model)))
    return folder if is_model_folder(folder) else None


def _folder_with(path: Path) -> Path:
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
    unknown = unknown_settings(
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
            known = {field.name for field in fields(kind)} - {"preprocessing"}  # stands by itself
            unknown += unknown_settings(part, f"{where}.", {}, known)
    refuse_settings(unknown, "froster does not know")


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


def _broken_config(folder: Path, error: Exception) -> CheckpointError:
    cause = str(error) if isinstance(error, (FrosterError, ValueError)) else repr(error)
    return CheckpointError(f"{folder / 'config.json'}: not a froster model's config ({cause})")


def load_folder(folder: Path) -> LoadedModel:
    """Read what `save_folder` wrote. Raises CheckpointError naming the file and the cause."""
    try:
        values = read_object(folder / "config.json", "config")
        check_config(values)
        config = ModelConfig.from_dict(values)
        preprocessing = Preprocessing.from_dict(values.get("preprocessing") or {})
        architecture = dataclasses.replace(
            CLIPConfig.from_dict(values["architecture"]), preprocessing=preprocessing
        )
    except _BROKEN as error:
        raise _broken_config(folder, error) from error
    weights = folder / "model.safetensors"
    state = {name: tensor.float() for name, tensor in read_safetensors(weights).items()}
    try:
        with blank(len(state)):
            network = config.method.build(CLIP(architecture))
    except _BROKEN as error:
        raise _broken_config(folder, error) from error
    try:
        load_saved(network, state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    tokenizer = tokenizer_in(folder / "tokenizer.json", architecture.text)
    return LoadedModel(network, tokenizer, config, calibration=read_calibration(folder))


def load_saved(model: VideoCLIP, state: State) -> None:
    """Load weights under their saved names, all of them. Raises CheckpointError naming what does
    not fit."""
    names = saved_names(model)
    try:
        strict_load(model, {names.get(name, name): tensor for name, tensor in state.items()})
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("clip.", "")) from None


def save_folder(folder: Path, model: LoadedModel, report: dict[str, Any]) -> None:
    """Write weights, config, tokenizer, calibration and report; the folder appears whole or not at
    all. Raises UsageError where the folder holds something else."""
    refuse_address(folder)
    if folder.is_file() or (
        folder.is_dir() and not is_model_folder(folder) and any(folder.iterdir())
    ):
        raise UsageError(f"{folder} exists and is no model folder: it is not overwritten")
    tokenizer = opened(model.tokenizer)
    clip = model.network.clip
    config = {
        "format": "froster",
        "version": VERSION,
        "architecture": clip.architecture(),
        "preprocessing": clip.config.preprocessing.to_dict(),
        **model.config.to_dict(),
    }
    with atomic_folder(folder) as part:
        state, names = cpu_state(model.network), saved_names(model.network)
        weights = {saved: state[name] for saved, name in names.items()}
        save_tensors(weights, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tokenizer.save(part / "tokenizer.json")
        if model.calibration.fitted is not None:
            model.calibration.save(part)
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n")
