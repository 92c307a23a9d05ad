"""ActionCLIP: CLIP with a temporal head, or with temporal shift inside, trained by a contrast
within the batch.

    logits = s u(v) u(t)^T over the clips of a batch, each with its own class by one random template
    of 16; q = row soft-max of 10 * [same class];  L = (KL(q || p_video) + KL(q || p_text)) / 2

At test the soft-maxes of the 16 templates are averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP, unit
from froster.encoders.reading import State
from froster.errors import one_of
from froster.methods.base import Method, Official, VideoCLIP, replace_blocks
from froster.methods.heads import ConvHead, LSTMHead, TemporalTransformer, heads_of, temporal_shift
from froster.methods.recipe import Preset, tuned, with_head
from froster.methods.weight_names import count_layers, has, ours, rename, without
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

TEMPLATES = (
    "a photo of action {}",
    "a picture of action {}",
    "Human action of {}",
    "{}, an action",
    "{} this is an action",
    "{}, a video of action",
    "Playing action of {}",
    "{}",
    "Playing a kind of action, {}",
    "Doing a kind of action, {}",
    "Look, the human is {}",
    "Can you recognize the action of {}?",
    "Video classification of {}",
    "A video of {}",
    "The man is {}",
    "The woman is {}",
)


def same_class(labels: Int[Tensor, " batch"]) -> Float[Tensor, "batch batch"]:
    """The target of both directions: row soft-max of 10 where the classes
    are equal, else 0."""
    return (10.0 * (labels[:, None] == labels[None])).softmax(dim=-1)


def in_batch_kl(
    logits: Float[Tensor, "batch batch"], target: Float[Tensor, "batch batch"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Logits, video by text, and the target -> KL(q || p) of videos and of texts, sum / B
    each."""
    video = F.kl_div(logits.log_softmax(-1), target, reduction="batchmean")
    text = F.kl_div(logits.T.log_softmax(-1), target, reduction="batchmean")
    return video, text


class ActionNet(VideoCLIP):
    """Keeps the classes of every template apart."""

    def classes(
        self, prompts: Float[Tensor, "prompts classes embed"]
    ) -> Float[Tensor, "prompts classes embed"]:
        """Unit."""
        return unit(prompts)

    def logits(
        self,
        video: Float[Tensor, "batch embed"],
        classes: Float[Tensor, "prompts classes embed"],
        context: Tensor | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """The log of the mean over the templates of the soft-max over the classes."""
        logits = self.clip.logit_scale.exp() * torch.einsum("be,pke->pbk", video, classes)
        return logits.log_softmax(-1).logsumexp(dim=0) - math.log(len(classes))


class ShiftBlock(Block):
    """A CLIP block whose input is shifted in time (TSM)."""

    def __init__(self, block: Block, prefix: int):
        self.init_from(block)
        self.prefix = prefix

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        shifted = temporal_shift(x, num_frames, self.prefix)
        return super().attention_sublayer(shifted, num_frames)


Head = Literal["transf", "meanp", "lstm", "conv1d", "conv1d-released"]


@dataclass(frozen=True)
class ActionCLIP(Method):
    """A head over the frame embeddings (6-layer transformer by default); all of CLIP is trained
    with it."""

    name = "actionclip"
    summary = (
        "a temporal head on the frame embeddings, or shift in the blocks; contrast within the batch"
    )
    reference = "Wang et al., ActionCLIP, arXiv 2109.08472"
    variants = {
        "transf": {"head": "transf"},
        "meanp": {"head": "meanp"},
        "lstm": {"head": "lstm"},
        "conv1d": {"head": "conv1d"},
        "conv1d-released": {"head": "conv1d-released"},
        "tsm": {"head": "meanp", "shift": True},
    }
    objective = "in-batch"

    head: Head = "transf"
    """`conv1d-released` reads the frames' memory in the wrong order, as the released code does."""
    shift: bool = False
    """Shift patch channels in time at the input of every block."""
    layers: int = 6
    heads: int | None = None
    """Attention heads of `transf`; default: `heads_of`."""

    def __post_init__(self) -> None:
        one_of("head", self.head, "transf", "meanp", "lstm", "conv1d", "conv1d-released")

    def build(self, clip: CLIP) -> VideoCLIP:
        if self.shift:
            prefix = clip.config.vision.prefix
            replace_blocks(clip, lambda block: ShiftBlock(block, prefix))
        return ActionNet(clip, "mean_then_unit", self.make_head(clip))

    def make_head(self, clip: CLIP) -> nn.Module | None:
        width = clip.config.embed_dim
        if self.head == "meanp":
            return None
        if self.head == "lstm":
            return LSTMHead(width)
        if self.head != "transf":
            return ConvHead(width, scrambled=self.head == "conv1d-released")
        return late_transformer(clip, self.layers, self.heads)

    def preset(self) -> Preset:
        recipe = tuned(
            5e-6,
            epochs=50,
            batch_size=128,
            new_scale=10,
            warmup_epochs=5,
            lr_ends=0.0,
            weight_decay=0.2,
            decay="all",
            betas=(0.9, 0.98),
            draw="one a clip",
        )
        # The release counts RandAugment's magnitude, 9, out of 30.
        augment = Augment(crop="multiscale", color_jitter=0.8, grayscale=0.2, rand_augment=(2, 3))
        prompting, sampling = Prompting(TEMPLATES, "plain"), Sampling("uniform", 8)
        return Preset(recipe, prompting, augment, sampling, views=1, fusion="probs")

    def froster_preset(self) -> Preset:
        return with_head(3.33e-5)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """`model_state_dict` and `fusion_model_state_dict`, the latter under `fusion_model.`."""
        shift = has(state, r"resblocks\.\d+\.net\.")
        if not shift and not has(state, r"^fusion_model\."):
            return None
        head: Head = "meanp"
        if has(state, r"^fusion_model\.transformer\."):
            if not has(state, "token_embedding") or has(state, r"\.mlp\.fc_up\."):
                return None  # Text4Vis and MoTE, whose heads have the same names
            head = "transf"
        elif has(state, r"^fusion_model\.lstm_visual\."):
            head = "lstm"
        elif has(state, r"^fusion_model\.shift\."):
            head = "conv1d-released"
        # Every head of the release holds positions; only the transformer uses them.
        ignored = [
            name
            for name in state
            if head != "transf" and name.endswith("frame_position_embeddings.weight")
        ]
        layers = (
            count_layers(state, "fusion_model.transformer.resblocks") if head == "transf" else 6
        )
        rules = [*HEAD_NAMES, (r"(resblocks\.\d+)\.net\.", r"\1.")]
        weights = rename(ours(without(state, ignored)), rules)
        kind = "tsm" if shift else head
        return Official(f"ActionCLIP ({kind})", cls(head, shift, layers), weights, ignored)


HEAD_NAMES = [
    (r"^fusion_model\.frame_position_embeddings\.weight$", "head.positional_embedding"),
    (r"^fusion_model\.lstm_visual\.", "head.lstm."),
    (r"^fusion_model\.", "head."),
]


def late_transformer(clip: CLIP, layers: int, heads: int | None) -> TemporalTransformer:
    """The head of ActionCLIP and Text4Vis: 77 positions, outer skip, LayerNorm eps 1e-12, all
    linear layers N(0, 0.02)."""
    width = clip.config.embed_dim
    head = TemporalTransformer(width, heads or heads_of(clip), layers, 77, eps=1e-12)
    head.initialise(std=0.02, positions_std=0.02)
    return head
