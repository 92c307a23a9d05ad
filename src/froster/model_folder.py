"""What a model folder says beside its weights, and reading one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

import froster.strict_json as json
from froster.clip.model import CLIP, CLIPConfig, blank
from froster.clip.tokenizer import Tokenizer
from froster.errors import CheckpointError, FrosterError, one_of
from froster.evaluation import Fusion
from froster.methods import Frozen, Method, VideoCLIP, method_dict, method_from_dict
from froster.released import load_saved
from froster.text.prompts import FROSTER_PROMPTS, KINETICS_28, Prompting
from froster.video.sampling import Sampling

MOST_VIEWS = 1000


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
            Prompting(tuple(values.get("templates", KINETICS_28)), values.get("prompt_form", "froster")),
            values.get("fusion", "logits"),
        )


def is_model_folder(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("format") == "froster"
    except (OSError, ValueError, AttributeError):
        return False


_BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ZeroDivisionError, FrosterError)


def broken_config(folder: Path, error: Exception) -> CheckpointError:
    cause = str(error) if isinstance(error, (FrosterError, ValueError)) else repr(error)
    return CheckpointError(f"{folder / 'config.json'}: not a froster model's config ({cause})")


def load_folder(folder: Path) -> tuple[VideoCLIP, Tokenizer, ModelConfig]:
    """Read what `Recognizer.save` wrote. Raises CheckpointError naming the file and the cause."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = ModelConfig.from_dict(values)
        architecture = CLIPConfig.from_dict(values["architecture"])
    except _BROKEN as error:
        raise broken_config(folder, error) from error
    weights = folder / "model.safetensors"
    try:
        state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    except (OSError, SafetensorError, KeyError, AttributeError) as error:  # the latter: a type that torch does not have
        raise CheckpointError(f"{weights}: cannot be read: {error}") from error
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
