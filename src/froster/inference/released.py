"""Checkpoints that the methods' authors released: recognised by the names of their weights,
completed, loaded strictly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from froster.encoders.blank import blank
from froster.encoders.checkpoints import (
    Checkpoint,
    architecture_from_state_dict,
    is_training_extra,
    refuse_own,
    to_official,
    unwrap,
)
from froster.encoders.config import CLIPConfig
from froster.encoders.huggingface import read_hf_preprocessing
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import CheckpointError, FrosterError
from froster.inference.model_folder import load_saved
from froster.methods import METHODS, VideoCLIP
from froster.methods.base import Official
from froster.methods.weight_names import ours

# Where the separate head of ActionCLIP and Text4Vis is put.
_HEAD_NEST = "fusion_model_state_dict"


def recognise(state: State) -> Official | None:
    """What a state dict is, if it holds weights that only one of the methods has."""
    for method in METHODS.values():
        try:
            release = method.from_official(state)
        except (LookupError, ValueError, TypeError, RuntimeError, StopIteration) as error:
            raise CheckpointError(
                f"taken for weights of {method.name}, and they are not whole ({error!r})"
            ) from None
        if release is not None:
            return release
    return None


def find_released(checkpoint: Checkpoint) -> Official | None:
    """What a checkpoint is, if it is a method's release; None where it is a plain CLIP (or VCLIP).

    Raises CheckpointError naming the file and the cause.
    """
    try:
        if not checkpoint.may_be_a_release:
            return None
        state, separate_head = _read_state(checkpoint)
        release = recognise(state)
        if release is None and separate_head:  # ActionCLIP's plain mean has a head without weights
            method = METHODS["actionclip"].make("meanp")
            release = Official("ActionCLIP (meanp)", method, ours(state))
        if release is not None and not checkpoint.is_file:
            size = _architecture(release.state, None, {}).vision.image_size
            release.preprocessing, notes = read_hf_preprocessing(
                checkpoint.path, size, release.preprocessing
            )
            release.notes += notes
        return release
    except FrosterError as error:
        raise _naming(checkpoint.path, error) from None


def complete(release: Official, source: str | Path, clip: CLIP | None) -> VideoCLIP:
    """`assemble`, with errors that name the file."""
    try:
        return assemble(release, clip)
    except FrosterError as error:
        raise _naming(Path(source), error) from None


def _naming(path: Path, error: FrosterError) -> FrosterError:
    return error if str(path) in str(error) else CheckpointError(f"{path}: {error}")


def _read_state(checkpoint: Checkpoint) -> tuple[State, bool]:
    """The weights of a checkpoint under their official names, without what a training loop wrapped
    round them, and whether it holds a head apart from them."""
    kind, content = checkpoint.content
    state = unwrap(content)
    if kind == "safetensors" and checkpoint.is_file:
        refuse_own(checkpoint.file, state)
    head = content.get(_HEAD_NEST)
    if separate := isinstance(head, dict):
        heads = {f"fusion_model.{name.removeprefix('module.')}": t for name, t in head.items()}
        state = {**state, **heads}
    return {name: t for name, t in state.items() if not is_training_extra(name)}, separate


def missing_parts(state: State) -> dict[str, str]:
    """What a release left out: words -> how the names of its weights begin."""
    parts = {
        "image tower": "visual.conv1.",
        "projection": "visual.proj",
        "text tower": "text.transformer.",
        "token embeddings": "text.token_embedding.",
        "logit scale": "logit_scale",
    }
    missing = {
        words: start
        for words, start in parts.items()
        if not any(name.startswith(start) for name in state)
    }
    if "text tower" in missing:
        del missing["token embeddings"]
    return missing


def assemble(release: Official, base: CLIP | None = None) -> VideoCLIP:
    """The network of a release, with parts that it lacks taken from `base`. Raises CheckpointError
    where a weight is missing, unknown or of another shape."""
    missing = missing_parts(release.state)
    if missing and base is None:
        raise CheckpointError(f"{release.format} holds no {', '.join(missing)}")
    state = dict(release.state)
    if base is not None:
        towers = {"visual.conv1.": "visual.", "text.transformer.": "text."}
        starts = tuple(towers.get(start, start) for start in missing.values())
        borrowed = {name: t for name, t in base.state_dict().items() if name.startswith(starts)}
        state = borrowed | state
    with blank(len(state)):
        config = _architecture(state, base, missing)
        if "image tower" not in missing:
            config = dataclasses.replace(config, preprocessing=release.preprocessing)
        model = release.method.build(CLIP(config))
    load_saved(model, {name: tensor.float() for name, tensor in state.items()})
    return model


def _architecture(state: State, base: CLIP | None, missing: dict[str, str]) -> CLIPConfig:
    """The sizes, from the weights; of a tower that came from `base`, from there."""
    if base is None:
        return architecture_from_state_dict(
            {to_official(name): tensor for name, tensor in state.items()}
        )
    config = base.config
    stand_ins = {
        "visual.conv1.weight": (64, 3, 8, 8),
        "visual.class_embedding": (64,),
        "visual.positional_embedding": (5, 64),
        "visual.ln_pre.weight": (64,),
        "visual.proj": (64, 64),
        "positional_embedding": (8, 64),
        "token_embedding.weight": (9, 64),
        "text_projection": (64, 64),
        **({"visual.proj": (64, 64)} if "image tower" in missing else {}),
    }
    known = {name: torch.empty(shape, device="meta") for name, shape in stand_ins.items()}
    hidden = ("visual.",) if "image tower" in missing else ()
    stated = {to_official(name): t for name, t in state.items() if not name.startswith(hidden)}
    sizes = architecture_from_state_dict({**known, **stated})
    return CLIPConfig(
        config.vision if "image tower" in missing else sizes.vision,
        config.text if "text tower" in missing else sizes.text,
        config.embed_dim if "projection" in missing else state["visual.proj"].shape[1],
        config.activation,
        config.preprocessing,
    )
