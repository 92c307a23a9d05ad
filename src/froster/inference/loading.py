"""From the name of a model to its network: the one way in which weights are read."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from froster.encoders.checkpoints import Checkpoint, LoadReport, load_clip
from froster.encoders.known import DEFAULT_MODEL
from froster.encoders.tokenizer import TokenizerSource, tokenizer_of
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.inference.model_folder import (
    LoadedModel,
    ModelConfig,
    is_model_folder,
    load_folder,
    resolve,
)
from froster.inference.released import complete, find_released, missing_parts
from froster.methods import VCLIP, Frozen, Method
from froster.methods.base import Official
from froster.text.prompts import FROSTER_PROMPTS, fitting
from froster.utils.address import is_address

NANO = Path(__file__).parents[1] / "world" / "nano"


def load_source(source: str | Path, clip: str | Path | None = None) -> LoadedModel:
    """The model of a folder, a file, a name on the hub, or "nano"; see `froster.load`."""
    if source == "":
        raise UsageError("an empty text names no model")
    if str(source) == "nano":
        return load_path(NANO, clip)
    path = resolve(source)
    try:
        return load_path(path, clip)
    except FrosterError as error:
        if not is_address(source) and os.path.exists(os.path.expanduser(source)):
            raise
        # The user of a hub id does not know the folder that it was downloaded to.
        raise type(error)(str(error).replace(str(path), str(source))) from error


def load_path(path: Path, clip: str | Path | None) -> LoadedModel:
    """A model folder of froster, a method's release or a plain CLIP, whichever it is."""
    if is_model_folder(path):
        return load_folder(path)
    checkpoint = Checkpoint(path)
    if (release := find_released(checkpoint)) is not None:
        return _load_release(release, path, clip)
    plain, report = load_clip(checkpoint)
    method = VCLIP(pad="zero") if report.method == "vclip" else Frozen()
    config = ModelConfig(method, prompting=fitting(FROSTER_PROMPTS, plain.config.text.context))
    tokenizer = tokenizer_of(path, plain.config.text)
    return LoadedModel(
        config.method.build(plain), tokenizer, config, _provenance(report, tokenizer)
    )


def _load_release(release: Official, path: Path, clip: str | Path | None) -> LoadedModel:
    """A release; what it lacks comes from the CLIP `clip`."""
    missing = missing_parts(release.state)
    base = _load_base(release, path, clip) if missing else None
    network = complete(release, path, base.network.clip if base else None)
    borrows_text = base is not None and "text tower" in missing
    tokenizer = (
        base.tokenizer if base and borrows_text else tokenizer_of(path, network.clip.config.text)
    )
    provenance = _provenance(release, tokenizer, ", ".join(missing))
    return LoadedModel(network, tokenizer, _preset_config(release.method), provenance)


def _load_base(release: Official, path: Path, clip: str | Path | None) -> LoadedModel:
    try:
        return load_source(clip or DEFAULT_MODEL)
    except FrosterError as error:
        raise CheckpointError(
            f"{path}: taken for {release.format}, which holds no"
            f" {', '.join(missing_parts(release.state))}: pass clip=…, the CLIP it was trained from"
            f" ({error})"
        ) from None


def _preset_config(method: Method) -> ModelConfig:
    """How a method's own paper tests: its prompts, sampling and views."""
    preset = method.preset()
    frames = getattr(method, "frames", 0) or preset.sampling.frames
    sampling = dataclasses.replace(preset.sampling, frames=frames)
    return ModelConfig(method, sampling, preset.views, preset.prompting, preset.fusion)


def _provenance(
    report: LoadReport | Official, tokenizer: TokenizerSource, missing: str = ""
) -> str:
    """What the weights were taken for, and what was left out or assumed."""
    parts = [report.format, *(f"ignored {name}" for name in report.ignored), *report.notes]
    if missing:
        parts.append(f"{missing} of the CLIP")
    if isinstance(tokenizer, FrosterError):
        parts.append("no tokenizer: labels cannot be read")
    return "; ".join(parts)
