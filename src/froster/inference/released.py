"""Checkpoints that the methods' authors released: recognised by the names of their weights,
completed, loaded strictly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from froster.encoders.checkpoints import (
    Checkpoint,
    architecture_from_state_dict,
    is_training_extra,
    refuse_own,
    strict_load,
    to_official,
    unwrap,
)
from froster.encoders.huggingface import read_hf_preprocessing
from froster.encoders.model import CLIP, CLIPConfig, blank
from froster.encoders.reading import State
from froster.errors import CheckpointError, FrosterError
from froster.methods import METHODS, VideoCLIP, saved_names
from froster.methods.base import Official
from froster.methods.weight_names import ours

# Where the separate head of ActionCLIP and Text4Vis is put.
_HEAD_NEST = "fusion_model_state_dict"


def recognise(state: State) -> Official | None:
    """What a state dict is, if it holds weights that only one of the methods has."""
    for method in METHODS.values():
        try:
            found = method.from_official(state)
        except (LookupError, ValueError, TypeError, RuntimeError, StopIteration) as error:
            raise CheckpointError(
                f"taken for weights of {method.name}, and they are not whole ({error!r})"
            ) from None
        if found is not None:
            return found
    return None


def find_released(checkpoint: Checkpoint) -> Official | None:
    """What a checkpoint is, if it is a method's release; None where it is a plain CLIP (or VCLIP).

    Raises CheckpointError naming the file and the cause.
    """
    try:
        if not checkpoint.may_be_a_release:
            return None
        state, separate_head = read_state(checkpoint)
        found = recognise(state)
        if found is None and separate_head:  # ActionCLIP's plain mean has a head without weights
            found = Official("ActionCLIP (meanp)", METHODS["actionclip"].make("meanp"), ours(state))
        if found is not None and not checkpoint.is_file:
            size = architecture(found.state, None, {}).vision.image_size
            found.preprocessing, notes = read_hf_preprocessing(
                checkpoint.path, size, found.preprocessing
            )
            found.notes += notes
        return found
    except FrosterError as error:
        raise naming(checkpoint.path, error) from None


def complete(found: Official, source: str | Path, clip: CLIP | None) -> VideoCLIP:
    """`assemble`, with errors that name the file."""
    try:
        return assemble(found, clip)
    except FrosterError as error:
        raise naming(Path(source), error) from None


def naming(path: Path, error: FrosterError) -> FrosterError:
    return error if str(path) in str(error) else CheckpointError(f"{path}: {error}")


def read_state(checkpoint: Checkpoint) -> tuple[State, bool]:
    """The weights of a checkpoint under their official names, without what a training loop wrapped
    round them, and whether it holds a head apart from them."""
    kind, content = checkpoint.read
    state = unwrap(content)
    if kind == "safetensors" and checkpoint.is_file:
        refuse_own(checkpoint.file, state)
    head = content.get(_HEAD_NEST)
    if isinstance(head, dict):
        state = {
            **state,
            **{f"fusion_model.{name.removeprefix('module.')}": t for name, t in head.items()},
        }
    return {
        name: tensor for name, tensor in state.items() if not is_training_extra(name)
    }, isinstance(head, dict)


def missing_parts(state: State) -> dict[str, str]:
    """What a release left out: words -> how the names of its weights begin."""
    parts = {
        "image tower": "visual.conv1.",
        "projection": "visual.proj",
        "text tower": "text.transformer.",
        "token embeddings": "text.token_embedding.",
        "logit scale": "logit_scale",
    }
    lacking = {
        words: start
        for words, start in parts.items()
        if not any(name.startswith(start) for name in state)
    }
    if "text tower" in lacking:
        del lacking["token embeddings"]
    return lacking


def assemble(found: Official, base: CLIP | None = None) -> VideoCLIP:
    """The network of a release, with parts that it lacks taken from `base`.

    Raises CheckpointError where a weight is missing, unknown or of another shape.
    """
    lacking = missing_parts(found.state)
    if lacking and base is None:
        raise CheckpointError(f"{found.format} holds no {', '.join(lacking)}")
    state = dict(found.state)
    if base is not None:
        whole = {"visual.conv1.": "visual.", "text.transformer.": "text."}
        starts = tuple(whole.get(start, start) for start in lacking.values())
        state |= {
            name: t
            for name, t in base.state_dict().items()
            if name.startswith(starts) and name not in state
        }
    with blank(len(state)):
        config = architecture(state, base, lacking)
        if "image tower" not in lacking:
            config = dataclasses.replace(config, preprocessing=found.preprocessing)
        model = found.method.build(CLIP(config))
    load_saved(model, {name: tensor.float() for name, tensor in state.items()})
    return model


def architecture(state: State, base: CLIP | None, lacking: dict[str, str]) -> CLIPConfig:
    """The sizes, from the weights; of a tower that came from `base`, from there."""
    if base is None:
        return architecture_from_state_dict(
            {to_official(name): tensor for name, tensor in state.items()}
        )
    config = base.config
    stand_ins = {
        "visual.conv1.weight": (64, 3, 8, 8),
        "visual.positional_embedding": (5, 64),
        "positional_embedding": (8, 64),
        "token_embedding.weight": (9, 64),
        "text_projection": (64, 64),
    }
    known = {name: torch.empty(shape, device="meta") for name, shape in stand_ins.items()}
    own = {
        name: tensor
        for name, tensor in state.items()
        if not ("image tower" in lacking and name.startswith("visual."))
    }
    found = architecture_from_state_dict(
        {**known, **{to_official(name): tensor for name, tensor in own.items()}}
    )
    return CLIPConfig(
        config.vision if "image tower" in lacking else found.vision,
        config.text if "text tower" in lacking else found.text,
        config.embed_dim if "projection" in lacking else state["visual.proj"].shape[1],
        config.activation,
        config.preprocessing,
    )


def load_saved(model: VideoCLIP, state: State) -> None:
    """Load weights under their saved names, all of them. Raises CheckpointError naming what does
    not fit."""
    names = saved_names(model)
    known = {names.get(name, name): tensor for name, tensor in state.items()}
    try:
        strict_load(model, known)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("clip.", "")) from None
