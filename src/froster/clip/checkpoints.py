"""Weights from elsewhere into our `CLIP`: what kind of checkpoint it is, its sizes, its names.

"Official" names are OpenAI's. Ours are the same, except that the text tower's begin with `text.`. Every key must fit:
what is left out on purpose is listed in the report, anything else that is missing or unknown is an error.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

import froster.strict_json as json
from froster.clip.huggingface import download, read_hf_config, read_hf_weights, state_from_hf
from froster.clip.model import CLIP, CLIPConfig, TextConfig, VisionConfig, blank
from froster.clip.reading import State, flat_weights, read_file
from froster.errors import CheckpointError, FrosterError

# Constants and masks that older files keep beside the weights.
_NOT_WEIGHTS = re.compile(r"(.*\.)?(input_resolution|context_length|vocab_size|attn_mask)")
# What a training checkpoint of the released code holds beside the student.
_NOT_STUDENT = re.compile(r"(raw_model|projector_v|projector_t)\b.*")
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# The towers above ViT-L have heads of 80 to 112; up to there every one has 64.
_WIDEST_WITH_HEADS_OF_64 = 1024


@dataclass(frozen=True)
class LoadReport:
    """What was recognised, and what was left out."""

    format: Literal["huggingface", "openai", "open_clip", "froster-released"]
    method: Literal["frozen", "vclip"] = "frozen"
    """How the weights read videos: frame by frame, or (the released FROSTER and Open-VCLIP) with temporal attention."""
    ignored: list[str] = field(default_factory=list)
    """Names in the file that belong to no weight of the network."""
    notes: list[str] = field(default_factory=list)
    """What had to be assumed."""


def from_official(name: str) -> str:
    """OpenAI's name of a weight -> ours."""
    return name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}"


def to_official(name: str) -> str:
    """Our name of a weight -> OpenAI's."""
    return name.removeprefix("text.")


def architecture_from_state_dict(official: State) -> CLIPConfig:
    """The sizes of a CLIP from its weights under official names; heads of 64, QuickGELU. Raises CheckpointError."""

    def shape(name: str, dims: int) -> tuple[int, ...]:
        if name not in official or official[name].ndim != dims:
            raise CheckpointError(f"this is no CLIP with a vision transformer: it has no {name} of {dims} dimensions")
        return tuple(official[name].shape)

    def tower(prefix: str, width: int) -> tuple[int, int, int]:
        if width < 64 or width % 64:
            raise CheckpointError(f"width {width} is no multiple of 64, the width of CLIP's attention heads")
        pattern = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
        return width, len({match[1] for match in map(pattern.match, official) if match}), width // 64

    width, _, patch, _ = shape("visual.conv1.weight", 4)
    tokens, _ = shape("visual.positional_embedding", 2)
    context, text_width = shape("positional_embedding", 2)
    vocab, _ = shape("token_embedding.weight", 2)
    _, embed_dim = shape("text_projection", 2)
    try:
        return CLIPConfig(
            VisionConfig(patch * math.isqrt(tokens - 1), patch, *tower("visual.", width)),
            TextConfig(context, vocab, *tower("", text_width)),
            embed_dim,
        )
    except ValueError as error:
        raise CheckpointError(f"these weights make no CLIP: {error}") from None


def strict_load(module: nn.Module, state: State) -> None:
    """Load weights that must fit exactly; a module on the meta device takes the tensors over, in its own dtypes.

    Raises CheckpointError naming missing and unknown keys and wrong shapes, the first few of each and their number.
    """
    expected = module.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", [name for name in expected if name not in state]),
            ("unexpected", [name for name in state if name not in expected]),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"the weights do not fit the architecture: {'; '.join(problems)}")
    on_meta = any(tensor.is_meta for tensor in expected.values())
    module.load_state_dict({name: state[name].to(expected[name].dtype) for name in expected}, assign=on_meta)


def load_clip(source: str | Path) -> tuple[CLIP, LoadReport]:
    """A CLIP, in float32 on the CPU, from a file, a folder or a Hugging Face hub id.

    Reads Hugging Face and open_clip folders, OpenAI's `.pt` (TorchScript or plain), open_clip files and the checkpoints
    released with FROSTER and Open-VCLIP. open_clip's networks use GELU unless `open_clip_config.json` beside the file
    says `quick_gelu`; OpenAI's use QuickGELU. Nothing in a file is executed.
    Raises CheckpointError naming the file and the cause, FrosterError when the hub is out of reach.
    """
    path = locate(source)
    try:
        return _load_folder(path) if path.is_dir() else _load_file(path)
    except FrosterError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from None


def locate(source: str | Path) -> Path:
    """The file or folder, downloaded if `source` is a hub id. Raises CheckpointError, or FrosterError without the hub."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    looks_like_hub_id = isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source)
    if not looks_like_hub_id or path.suffix in (".pt", ".pth", ".pyth", ".bin", ".safetensors"):
        raise CheckpointError(f"{source}: there is no such file or folder")
    return download(str(source))


def is_training_extra(name: str) -> bool:
    """Does this name belong to what FROSTER's training checkpoints hold beside the student?"""
    return _NOT_STUDENT.fullmatch(name) is not None or _NOT_WEIGHTS.fullmatch(name) is not None


def _load_folder(folder: Path) -> tuple[CLIP, LoadReport]:
    if (folder / "config.json").is_file():
        config = read_hf_config(folder)
        return _from_hf_state(read_hf_weights(folder), config)
    for name in _OPEN_CLIP_WEIGHTS:
        if (folder / name).is_file():
            return _load_file(folder / name)
    raise CheckpointError(f"{folder}: there is no config.json, so this is no model folder")


def _load_file(path: Path) -> tuple[CLIP, LoadReport]:
    kind, content = read_file(path)
    if "model_state" in content:
        state = flat_weights(content["model_state"])
        ignored = [name for name in state if _NOT_STUDENT.fullmatch(name)]
        student = {name.removeprefix("model."): state[name] for name in state if name not in set(ignored)}
        return _from_official_state(student, LoadReport("froster-released", "vclip", ignored))
    nested = "state_dict" in content  # open_clip's training checkpoints
    nest = next((key for key in ("state_dict", "model_state_dict", "model") if isinstance(content.get(key), dict)), None)
    state = flat_weights(content[nest] if nest else content)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.startswith("vision_model.") for name in state):
        return _from_hf_state(state, read_hf_config(path.parent))
    if kind == "safetensors" or nested or path.name.startswith("open_clip"):
        return _load_open_clip(state, path)
    return _from_official_state(state, LoadReport("openai"))


def _from_hf_state(state: State, config: CLIPConfig) -> tuple[CLIP, LoadReport]:
    ours, ignored = state_from_hf(state, config)
    return _build(config, ours), LoadReport("huggingface", ignored=ignored)


def _load_open_clip(state: State, path: Path) -> tuple[CLIP, LoadReport]:
    config = path.with_name("open_clip_config.json")
    vision_width = state["visual.class_embedding"].numel() if "visual.class_embedding" in state else 0
    if not config.is_file():
        if vision_width > _WIDEST_WITH_HEADS_OF_64:
            raise CheckpointError("needs open_clip_config.json beside it: the weights do not tell the number of heads")
        note = "no open_clip_config.json beside the file: GELU assumed, as in open_clip's own models"
        return _from_official_state(state, LoadReport("open_clip", notes=[note]), "gelu")
    try:
        values = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]
        heads = vision_width // values["vision_cfg"].get("head_width", 64)
        activation: Literal["quick_gelu", "gelu"] = "quick_gelu" if values.get("quick_gelu", False) else "gelu"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{config}: not a readable open_clip config ({error!r})") from None
    return _from_official_state(state, LoadReport("open_clip"), activation, heads)


def _from_official_state(
    state: State,
    report: LoadReport,
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu",
    vision_heads: int | None = None,
) -> tuple[CLIP, LoadReport]:
    ignored = [name for name in state if _NOT_WEIGHTS.fullmatch(name)]
    # open_clip's CustomTextCLIP names the text tower as we do.
    official = {to_official(name): tensor for name, tensor in state.items() if name not in set(ignored)}
    config = dataclasses.replace(architecture_from_state_dict(official), activation=activation)
    if vision_heads is not None:
        try:
            config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, heads=vision_heads))
        except ValueError as error:
            raise CheckpointError(f"head_width of open_clip_config.json does not fit the weights: {error}") from None
    clip = _build(config, {from_official(name): tensor for name, tensor in official.items()})
    return clip, dataclasses.replace(report, ignored=[*report.ignored, *ignored])


def _build(config: CLIPConfig, state: State) -> CLIP:
    with blank(len(state)):  # the weights are the file's: no time and memory for random ones
        clip = CLIP(config)
    strict_load(clip, state)
    return clip
