"""Names of weights: of a network's own, of a plain CLIP's, and of those that the methods' authors
released."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from froster.encoders.blank import blank
from froster.encoders.config import CLIPConfig
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.methods.base import VideoCLIP

_FUSED = re.compile(r"(.+\.)(q|k|v)_proj\.(weight|bias)")
_TEXT_KEYS = (
    "positional_embedding",
    "text_projection",
    "token_embedding.",
    "transformer.",
    "ln_final.",
)
# Settings of a module that change while it is used.
_OF_THE_MOMENT = ("training", "checkpointing")


def saved_names(model: nn.Module) -> dict[str, str]:
    """Name of a weight in a saved model -> its name in the `VideoCLIP`. A plain network is saved
    under CLIP's names."""
    return {name.removeprefix("clip."): name for name in model.state_dict()}


def structure(network: nn.Module) -> dict[str, tuple[object, ...]]:
    """Every module of a network by its name: its class, its plain settings, the shapes of its own
    weights."""
    modules: dict[str, tuple[object, ...]] = {}
    for name, module in network.named_modules():
        settings = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, (bool, int, float, str, tuple)) and key not in _OF_THE_MOMENT
        }
        shapes = {
            key: tuple(weight.shape) for key, weight in module.named_parameters(recurse=False)
        }
        modules[name] = type(module).__qualname__, settings, shapes
    return modules


def first_difference(one: nn.Module, other: nn.Module) -> str:
    """The first module in which two networks differ beside the values of their weights, in words,
    or ""."""
    mine, theirs = structure(one), structure(other)
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            kinds = [
                str(parts[name][0]) if name in parts else "nothing" for parts in (mine, theirs)
            ]
            return f"{name or 'the whole'} is {kinds[0]} where it should be {kinds[1]}" + (
                " with other settings or sizes" if kinds[0] == kinds[1] else ""
            )
    return ""


def plain_clip(model: VideoCLIP) -> CLIP:
    """A CLIP with blocks of its own and a copy of the network's weights, of which it has no more
    than a CLIP."""
    with blank():
        clip = CLIP(model.clip.config)
    clip.load_state_dict(
        {name: weight.clone() for name, weight in model.clip.state_dict().items()}, assign=True
    )
    return clip.eval()


def start_of(clip: CLIP) -> dict[str, Tensor]:
    """CLIP's weights under the names they have in a `VideoCLIP`, as constants."""
    return {f"clip.{name}": parameter.detach() for name, parameter in clip.named_parameters()}


def new_weights(model: VideoCLIP) -> set[str]:
    """Names of the weights that a plain CLIP does not have."""
    return set(model.state_dict()) - clip_names(model.clip.config)


@cache
def clip_names(config: CLIPConfig) -> frozenset[str]:
    with blank():
        return frozenset(f"clip.{name}" for name in CLIP(config).state_dict())


def rename(state: State, rules: Sequence[tuple[str, str]]) -> State:
    """Every rule (pattern, replacement) in order, on every name."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def without(state: State, names: Collection[str]) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


def width_of(state: State, ending: str) -> int:
    """The rows of the first weight whose name ends so. Raises StopIteration where there is none."""
    return next(len(tensor) for name, tensor in state.items() if name.endswith(ending))


def count_layers(state: State, prefix: str) -> int:
    """How many N the names `prefix.N.…` have. Raises LookupError where there are none."""
    numbers = {re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in state}
    layers = len({match[1] for match in numbers if match})
    if not layers:
        raise LookupError(f"no {prefix}")
    return layers


def fuse_attention(state: State) -> State:
    """Separate `q_proj`, `k_proj`, `v_proj` of an attention -> its one `in_proj_weight`,
    `in_proj_bias`."""
    fused: State = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if match := _FUSED.fullmatch(name):
            parts.setdefault((match[1], match[3]), {})[match[2]] = tensor
        else:
            fused[name] = tensor
    for (prefix, kind), qkv in parts.items():
        if qkv.keys() == {"q", "k", "v"}:
            fused[f"{prefix}in_proj_{kind}"] = torch.cat([qkv[part] for part in "qkv"])
        else:
            fused |= {f"{prefix}{part}_proj.{kind}": tensor for part, tensor in qkv.items()}
    return fused


def has(state: State, pattern: str) -> bool:
    return any(re.search(pattern, name) for name in state)


def of_text_tower(name: str) -> bool:
    """Is this OpenAI's name of a weight of the text tower?"""
    return name.startswith(_TEXT_KEYS)


def ours(state: State) -> State:
    """OpenAI's names -> ours: the text tower's get their prefix."""
    return {
        f"text.{name}" if of_text_tower(name) else name: tensor for name, tensor in state.items()
    }


def hf_blocks(prefix: str, ours: str) -> list[tuple[str, str]]:
    """Rules for Hugging Face's names of a stack of blocks (`prefix`N.) -> ours (`ours`N.)."""
    return [
        (rf"^{prefix}(\d+)\.(self_attn|layer_norm1|layer_norm2|mlp)\.", rf"{ours}\1.\2."),
        *(
            (rf"^({re.escape(ours)}\d+)\.{theirs}\.", rf"\1.{name}.")
            for theirs, name in (
                ("self_attn", "attn"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                (r"mlp\.fc1", "mlp.c_fc"),
                (r"mlp\.fc2", "mlp.c_proj"),
            )
        ),
    ]


def text_of_huggingface(state: State) -> State:
    """Hugging Face's text tower, under whatever prefix -> ours."""
    rules = [
        (r"^.*?(?=text_model\.|text_projection)", ""),
        (r"^text_projection\.weight$", "text.text_projection"),
        (r"^text_model\.embeddings\.position_embedding\.weight$", "text.positional_embedding"),
        (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
        (r"^text_model\.final_layer_norm\.", "text.ln_final."),
        *hf_blocks(r"text_model\.encoder\.layers\.", "text.transformer.resblocks."),
    ]
    renamed = rename(
        fuse_attention({n: t for n, t in state.items() if not n.endswith("position_ids")}), rules
    )
    if "text.text_projection" in renamed:
        renamed["text.text_projection"] = renamed["text.text_projection"].T.contiguous()
    return renamed
