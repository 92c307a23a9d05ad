"""Weights from elsewhere into our `CLIP`: what kind of checkpoint it is, its sizes, its names.

"Official" names are OpenAI's. Ours are the same, except that the text tower's begin with `text.`.
Every key must fit: what is left out on purpose is listed in the report, anything else that is
missing or unknown is an error.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import nn

from froster.encoders.architecture import Stated, architecture_from_state_dict, check_both_towers
from froster.encoders.blank import blank
from froster.encoders.config import Activation, CLIPConfig
from froster.encoders.families import EVA02, PE_CORE, PE_CORE_G
from froster.encoders.hf_names import scalar, state_from_hf
from froster.encoders.huggingface import read_hf_config, read_hf_preprocessing, read_hf_weights
from froster.encoders.layouts import (
    OPEN_CLIP_CONFIG,
    Layout,
    hf_model_type,
    layout_of,
    locate,
    open_clip_weights,
)
from froster.encoders.model import CLIP
from froster.encoders.open_clip import OpenClipConfig
from froster.encoders.reading import State, flat_weights, read_file
from froster.encoders.timm_names import from_eva, from_timm, is_eva, is_timm
from froster.errors import CheckpointError, FrosterError

# Where training loops put the weights.
_NESTS = ("model_state", "model_state_dict", "state_dict", "model", "net")
# Constants and masks that older files keep beside the weights, and how many a mean is made of.
NOT_WEIGHTS = re.compile(
    r"(.*\.)?(input_resolution|context_length|vocab_size|attn_mask|n_averaged)"
)
# What a training checkpoint of the released code holds beside the student.
NOT_STUDENT = re.compile(r"(raw_model|projector_v|projector_t)\b.*")
# Files whose names tell that their networks use QuickGELU: MetaCLIP's own (b16_fullcc2.5b.pt,
# l14_400m.pt), DFN's, and what open_clip calls quickgelu.
_QUICK = re.compile(r"quick_?gelu|openai|metaclip|dfn|fullcc|^[blh]\d\d_400m", re.IGNORECASE)
# OpenAI's vocabulary; in larger ones the end of a text need not be the largest id (MetaCLIP 2).
_LARGEST_VOCABULARY = 49408
# The towers above ViT-L have heads of 80 to 112; up to there every one has 64.
_WIDEST_WITH_HEADS_OF_64 = 1024


@dataclass(frozen=True)
class LoadReport:
    """What was recognised, and what was left out."""

    format: Literal["huggingface", "openai", "open_clip", "pe-core", "eva", "froster-released"]
    method: Literal["frozen", "vclip"] = "frozen"
    """How the weights read videos: frame by frame, or (the released FROSTER and Open-VCLIP) with
    temporal attention."""
    ignored: list[str] = field(default_factory=list)
    """Names in the file that belong to no weight of the network."""
    notes: list[str] = field(default_factory=list)
    """What had to be assumed."""


def from_official(name: str) -> str:
    """OpenAI's name of a weight -> ours."""
    shared = name.startswith("visual.") or name in ("logit_scale", "logit_bias")
    return name if shared else f"text.{name}"


def to_official(name: str) -> str:
    """Our name of a weight -> OpenAI's."""
    return name.removeprefix("text.")


def unwrap(content: dict[str, Any]) -> State:
    """The weights of a checkpoint without what training loops wrap round them: the dictionary that
    they lie in, DDP's `module.`, the `_orig_mod.` of torch.compile, and the `model.` of Lightning
    and of FROSTER's code, or the `clip.` of a network around a CLIP, where each of the network's
    weights has it.

    Raises CheckpointError where there are no weights, or something else among them.
    """
    nest = next((key for key in _NESTS if isinstance(content.get(key), dict)), None)
    state = flat_weights(content[nest] if nest else content)
    state = {without_wrapper(name): tensor for name, tensor in state.items()}
    for prefix in ("model.", "clip."):
        names = [name for name in state if not is_training_extra(name)]
        # What froster train writes is left as it is, and refused by its names.
        if all(name.startswith(prefix) and not name.startswith("clip.text.") for name in names):
            state = {without_wrapper(n.removeprefix(prefix)): x for n, x in state.items()}
    return state


def without_wrapper(name: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix("module.")


def is_training_extra(name: str) -> bool:
    """Does this name belong to what FROSTER's training checkpoints hold beside the student?"""
    return NOT_STUDENT.fullmatch(name) is not None or NOT_WEIGHTS.fullmatch(name) is not None


def strict_load(module: nn.Module, state: State) -> None:
    """Load weights that must fit exactly; a module on the meta device takes the tensors over, in
    its own dtypes.

    Raises CheckpointError naming missing and unknown keys and wrong shapes, the first few of each
    and their number.
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
    module.load_state_dict(
        {name: state[name].to(expected[name].dtype) for name in expected}, assign=on_meta
    )


class Checkpoint:
    """Weights in a file or a folder on this machine: read when first asked for, and once."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def layout(self) -> Layout:
        """Raises CheckpointError on what holds no CLIP."""
        return layout_of(self.path)

    @property
    def file(self) -> Path:
        """The file with open_clip's weights in a folder, else `path`."""
        return open_clip_weights(self.path) or self.path

    @cached_property
    def content(self) -> tuple[str, dict[str, Any]]:
        """How the weights are stored ("safetensors", "torchscript", "pickle"), and they. Raises
        CheckpointError."""
        if self.is_file:
            return read_file(self.file)
        return "safetensors", read_hf_weights(self.path)

    @property
    def is_file(self) -> bool:
        """Whether the weights are one file, under the names of OpenAI's or of a release's code."""
        return self.layout in ("file", "open_clip")

    @property
    def may_be_a_release(self) -> bool:
        """May a method's weights be in it? In a folder of Hugging Face's, X-CLIP's alone."""
        return self.is_file or hf_model_type(self.path) == "xclip"


def load_clip(source: str | Path | Checkpoint) -> tuple[CLIP, LoadReport]:
    """A CLIP, in float32 on the CPU, from a file, a folder or a Hugging Face hub id.

    Reads Hugging Face and open_clip folders, OpenAI's `.pt` (TorchScript or plain), open_clip files
    and the checkpoints released with FROSTER and Open-VCLIP. `open_clip_config.json` beside a file
    says what its network is; without one the activation is assumed, which the report says, but of
    OpenAI's archives. Nothing in a file is executed. Raises CheckpointError naming the file and the
    cause, also of what a config says and we do not know; FrosterError when the hub is out of reach.
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(locate(source))
    path = checkpoint.path
    try:
        if checkpoint.is_file:
            return _load_file(checkpoint)
        config = read_hf_config(path)
        return _from_hf_state(checkpoint.content[1], config, path)
    except FrosterError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from None


def _load_file(checkpoint: Checkpoint) -> tuple[CLIP, LoadReport]:
    kind, content = checkpoint.content
    path = checkpoint.file
    state = unwrap(content)
    if isinstance(content.get("model_state"), dict):
        ignored = [name for name in state if NOT_STUDENT.fullmatch(name)]
        student = {name: state[name] for name in state if name not in set(ignored)}
        return _from_official_state(student, LoadReport("froster-released", "vclip", ignored))
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        check_both_towers(state)
        return _from_hf_state(state, read_hf_config(path.parent), path.parent)
    if kind == "torchscript":  # OpenAI's archives alone are of this kind
        return _from_official_state(state, LoadReport("openai"))
    config = path.with_name(OPEN_CLIP_CONFIG)
    stated = OpenClipConfig.from_file(config) if config.is_file() else None
    if stated is not None:
        stated.check_names(is_timm(state))
        check_told(state, stated)
        return _from_official_state(state, LoadReport("open_clip"), stated=stated)
    if is_eva(state):
        note = "EVA02-CLIP, by the names of its weights"
        return _from_official_state(state, LoadReport("eva", notes=[note]), stated=EVA02)
    if is_timm(state):
        raise CheckpointError(
            f"needs {OPEN_CLIP_CONFIG} beside it: its image tower has timm's names, and only the"
            " config says which one it is"
        )
    if "visual.attn_pool.probe" in state:
        family = PE_CORE if "visual.class_embedding" in state else PE_CORE_G
        note = f"{family.name}, by the names of its weights"
        return _from_official_state(state, LoadReport("pe-core", notes=[note]), stated=family)
    check_told(state, None)
    if kind == "safetensors":
        refuse_own(path, state)
    theirs = kind == "safetensors" or "state_dict" in content or path.name.startswith("open_clip")
    return _assumed(state, path, "open_clip" if theirs else "openai", str(content.get("name", "")))


def refuse_own(path: Path, state: State) -> None:
    """Raises CheckpointError on weights that froster wrote, without the config that says what to do
    with them."""
    if any(name.startswith(("clip.visual.", "clip.text.")) for name in state):
        raise CheckpointError(
            "a checkpoint of froster train: load the folder model/ of its run, or go on with"
            " --resume"
        )
    named_as_ours = any(name.startswith("text.") for name in state) and not path.name.startswith(
        "open_clip"
    )
    if named_as_ours and not path.with_name(OPEN_CLIP_CONFIG).is_file():
        raise CheckpointError(
            "weights under the names of a froster model, without the config.json that says how"
            " they are used: pass the whole folder (if they are open_clip's, put their"
            f" {OPEN_CLIP_CONFIG} beside them)"
        )


def check_told(state: State, stated: OpenClipConfig | None) -> None:
    """Raises CheckpointError where weights do not tell what no config beside them tells either."""
    width = state["visual.class_embedding"].numel() if "visual.class_embedding" in state else 0
    words = state.get("token_embedding.weight", state.get("text.token_embedding.weight"))
    if width > _WIDEST_WITH_HEADS_OF_64 and not (stated and stated.vision):
        raise CheckpointError(
            f"needs {OPEN_CLIP_CONFIG} with a vision_cfg beside it: the weights do not tell the"
            " number of heads"
        )
    if words is not None and len(words) > _LARGEST_VOCABULARY and not (stated and stated.text):
        raise CheckpointError(
            f"needs {OPEN_CLIP_CONFIG} with a text_cfg beside it: with {len(words)} tokens the"
            " weights do not tell how a text ends"
        )


def _assumed(
    state: State, path: Path, form: Literal["openai", "open_clip"], run: str
) -> tuple[CLIP, LoadReport]:
    """A file that no config explains. `run`: what the training loop called it."""
    if "input_resolution" in state:
        quick, why = True, "as it holds the constants of OpenAI's"
    elif hint := _QUICK.search(path.name) or _QUICK.search(run):
        quick, why = True, f"as the name says ({hint[0]})"
    else:
        quick = form == "openai"
        why = "as in OpenAI's own models" if quick else "as in open_clip's own models"
    note = (
        f"no {OPEN_CLIP_CONFIG} beside the file: {'QuickGELU' if quick else 'GELU'} assumed, {why};"
        f' a {OPEN_CLIP_CONFIG} beside it, such as {{"model_cfg": {{"quick_gelu": true}}}}, says'
        " which"
    )
    activation: Activation = "quick_gelu" if quick else "gelu"
    return _from_official_state(state, LoadReport(form, notes=[note]), activation)


def _from_hf_state(state: State, config: CLIPConfig, folder: Path) -> tuple[CLIP, LoadReport]:
    check_both_towers(state)
    preprocessing, notes = read_hf_preprocessing(
        folder, config.vision.image_size, config.preprocessing
    )
    ours, ignored = state_from_hf(state, config)
    clip = _build(dataclasses.replace(config, preprocessing=preprocessing), ours)
    return clip, LoadReport("huggingface", ignored=ignored, notes=notes)


def _from_official_state(
    state: State,
    report: LoadReport,
    activation: Activation = "quick_gelu",
    stated: Stated | None = None,
) -> tuple[CLIP, LoadReport]:
    official, ignored = official_names(state)
    config = architecture_from_state_dict(official, stated)
    if stated is None:
        config = dataclasses.replace(config, activation=activation)
    clip = _build(config, {from_official(name): tensor for name, tensor in official.items()})
    return clip, dataclasses.replace(report, ignored=[*report.ignored, *ignored])


def official_names(state: State) -> tuple[State, list[str]]:
    """The weights of a file of OpenAI's, open_clip's, Meta's or EVA's under OpenAI's names, and the
    names that hold no weights."""
    ignored = [name for name in state if NOT_WEIGHTS.fullmatch(name)]
    state = {name: tensor for name, tensor in state.items() if name not in set(ignored)}
    if is_eva(state):
        state = from_eva(state)
    if is_timm(state):
        state, others = from_timm(state)
        ignored += others
    # open_clip's CustomTextCLIP names the text tower as we do.
    official = {to_official(name): tensor for name, tensor in state.items()}
    if "text_projection.weight" in official:  # SigLIP's is a linear layer
        official["text_projection"] = official.pop("text_projection.weight").T.contiguous()
        if "text_projection.bias" in official:
            official["projection_bias"] = official.pop("text_projection.bias")
    return {
        name: scalar(tensor) if name in ("logit_scale", "logit_bias") else tensor
        for name, tensor in official.items()
    }, ignored


def _build(config: CLIPConfig, state: State) -> CLIP:
    with blank(len(state)):  # the weights are the file's: no time and memory for random ones
        clip = CLIP(config)
    strict_load(clip, state)
    return clip
