"""Vita-CLIP: three kinds of prompt tokens in every frozen block, a time embedding, and learned text
context.

Block, per frame t:  8 global tokens (through attention and MLP, fresh in every layer);
                     T local tokens p_j + W_c x_j,cls of all frames, shown to every frame;
                     a summary token q_t + MHA(LN q) over the frames, q = W_c x_cls.
Local and summary tokens are dropped after the attention. Without a class token x_cls is the mean of
the patches. W_c is frozen at its random start, as released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Attention, Block
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import UsageError, one_of
from froster.methods.base import Method, Official, VideoCLIP, replace_blocks
from froster.methods.heads import check_reserved, summary
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import fuse_attention, has, rename, without
from froster.methods.xclip import xavier
from froster.text.bank import PromptBank
from froster.text.labels import names_of, place_of
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

NAME_ALONE = Prompting(("{}.",), "plain")


class VitaBlock(Block):
    def __init__(
        self,
        block: Block,
        prefix: int,
        num_frames: int,
        num_global: int,
        local: bool,
        summary_token: bool,
    ):
        self.init_from(block)
        self.prefix, width = prefix, block.width
        spread = (6 / (3 * 16 * 16 + width)) ** 0.5

        def prompt(rows: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(rows, width).uniform_(-spread, spread))

        self.global_prompts = prompt(num_global) if num_global else None
        self.local_prompts = prompt(num_frames) if local else None
        self.cls_proj = nn.Linear(width, width) if local or summary_token else None
        self.summary_ln = nn.LayerNorm(width) if summary_token else None
        self.summary_attn = xavier(Attention(width, block.attn.heads)) if summary_token else None

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        length = x.shape[1]  # what is added is seen, and thrown away again
        frames = x
        if self.global_prompts is not None:
            x = torch.cat([x, self.global_prompts.expand(len(x), -1, -1)], dim=1)
        if self.cls_proj is not None:
            q = self.cls_proj(summary(frames, self.prefix)).unflatten(0, (-1, num_frames))
            x = torch.cat([x, *self.clip_tokens(q)], dim=1)
        return (x + self.attend(self.ln_1(x), num_frames))[:, :length]

    def clip_tokens(
        self, q: Float[Tensor, "batch time width"]
    ) -> list[Float[Tensor, "frames _ width"]]:
        """W_c x_cls -> the tokens that tell a frame of its clip."""
        T = q.shape[1]
        tokens = []
        if self.local_prompts is not None:
            if len(self.local_prompts) != T:
                raise UsageError(
                    f"this network was made for clips of {len(self.local_prompts)} frames, not"
                    f" of {T}"
                )
            tokens.append((q + self.local_prompts).repeat_interleave(T, dim=0))
        if self.summary_attn is not None and self.summary_ln is not None:
            tokens.append((q + self.summary_attn(self.summary_ln(q))).flatten(0, 1)[:, None])
        return tokens


class VitaNet(VideoCLIP):
    """Learned context before the name: the same for all classes, or (for the classes it was trained
    on) their own."""

    def __init__(self, clip: CLIP, context: int, classes: tuple[str, ...]):
        super().__init__(clip, "mean_then_unit")
        self.class_names = classes
        self.shared_prompts = not classes
        shape = (*([len(classes)] if classes else []), context, clip.config.text.width)
        self.text_prompt = nn.Parameter(torch.randn(shape) * 0.02) if context else None
        self.reserved_tokens = check_reserved(context, clip.config.text)

    def encode_text(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Token ids (K, L). `context`: (n, W) or (K, n, W); by default the generic one, or none
        where it is class-specific."""
        if context is None and self.text_prompt is not None and self.text_prompt.ndim == 2:
            context = self.text_prompt
        if context is None:
            return super().encode_text(tokens)
        tokens = tokens.to(context.device)
        words = self.clip.text.token_embedding(tokens)
        words = torch.cat([words[:, :1], context.expand(len(tokens), -1, -1), words[:, 1:]], dim=1)
        same = 1 + context.shape[0] if context.ndim == 2 else 1
        text = self.clip.config.text
        end = text.ends(tokens) + context.shape[-2]
        return self.clip.text.encode(words[:, : text.context], end, same)

    def prompts(self, bank: PromptBank, rows: list[int]) -> Tensor:
        known = {name: i for i, name in enumerate(self.class_names)}
        every = [place_of(label, known) for label in bank.labels]
        places = [place for place in every if place is not None]
        if self.text_prompt is None or len(places) < len(bank.labels):
            return super().prompts(bank, rows)
        context = self.text_prompt[places]
        return torch.stack([self.encode_text(bank.tokens(row)[0], context) for row in rows])


@dataclass(frozen=True)
class VitaCLIP(Method):
    """Prompts, time embedding, summary attention and logit scale are trained; both towers are
    frozen."""

    name = "vita-clip"
    summary = (
        "global, local and summary prompt tokens in every block, a time embedding, learned text"
        " context"
    )
    reference = "Wasim et al., Vita-CLIP, CVPR 2023"
    trains_clip = False
    small_scale = 100.0
    variants = {"generic": {}, "class": {"context_of": "class"}, "vision": {"context": 0}}

    frames: int = 8
    num_global: int = 8
    local: bool = True
    summary_token: bool = True
    context: int = 8
    """Learned text tokens; 0: none."""
    context_of: Literal["all", "class"] = "all"
    """One context for all classes, or one a class, which a new class cannot have: it gets none."""
    classes: tuple[str, ...] = ()
    """The classes of a class-specific context."""

    def __post_init__(self) -> None:
        one_of("context_of", self.context_of, "all", "class")
        if self.num_global < 0 or self.context < 0:
            raise UsageError(
                f"num_global and context count tokens: {self.num_global}, {self.context}"
            )
        object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def learns_prompts(self) -> bool:
        return self.context > 0 and self.context_of == "all"

    def for_classes(self, labels: Sequence[str]) -> Method:
        return replace(self, classes=names_of(labels)) if self.context_of == "class" else self

    def build(self, clip: CLIP) -> VideoCLIP:
        replace_blocks(
            clip,
            lambda block: VitaBlock(
                block,
                clip.config.vision.prefix,
                self.frames,
                self.num_global,
                self.local,
                self.summary_token,
            ),
        )
        clip.visual.temporal_embedding = nn.Parameter(
            torch.randn(self.frames, clip.config.vision.width) * 0.02
        )
        if self.context_of == "class" and not self.classes:
            raise UsageError("a class-specific context needs its classes")
        return VitaNet(clip, self.context, self.classes if self.context_of == "class" else ())

    def trains(self, name: str) -> bool:
        new = "global_prompts local_prompts summary_ temporal_embedding text_prompt logit_scale"
        return any(part in name for part in new.split())

    def preset(self) -> Preset:
        recipe = tuned(
            4e-4, epochs=32, batch_size=256, warmup_epochs=0, lr_ends=0.0, weight_decay=0.05
        )
        augment = Augment(crop="resized", rand_augment=(4, 7))
        note = "30,000 steps of batch 256, which are 32 epochs of K400"
        sampling = Sampling("dense", self.frames)
        return Preset(recipe, NAME_ALONE, augment, sampling, fusion="probs", note=note)

    def froster_preset(self) -> Preset:
        return with_adapters(4e-4, prompting=NAME_ALONE)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if not has(state, r"^visual\.(time_embed|blocks\.\d+\.)"):
            return None
        learner = [name for name in state if name.startswith("prompt_learner.")]
        specific = [name for name in learner if state[name].ndim == 3]
        buffers = [name for name in learner if name.startswith("prompt_learner.token_")]
        rules = [
            (r"^textual\.", "text."),
            (r"^prompt_learner\.ctx(_generic)?$", "text_prompt"),
            (r"^visual\.blocks\.", "visual.transformer.resblocks."),
            (r"\.norm([12])\.", r".ln_\1."),
            (r"\.mlp\.fc1\.", ".mlp.c_fc."),
            (r"\.mlp\.fc2\.", ".mlp.c_proj."),
            (r"\.summary_attn_layer\.", ".summary_attn."),
            (r"^visual\.cls_token$", "visual.class_embedding"),
            (r"^visual\.pos_embed$", "visual.positional_embedding"),
            (r"^visual\.time_embed$", "visual.temporal_embedding"),
            (r"^visual\.patch_embed\.proj\.", "visual.conv1."),
        ]
        weights = rename(fuse_attention(without(state, {*specific, *buffers})), rules)
        # CLIP's patch convolution has no bias: one is the same as a shift of the patches'
        # positions.
        if (bias := weights.pop("visual.conv1.bias", None)) is not None:
            positions = weights["visual.positional_embedding"].float().clone()
            positions[1:] += bias.float()
            weights["visual.positional_embedding"] = positions
        if (rows := weights.pop("visual.global_prompts", None)) is not None:
            for i, layer in enumerate(rows):
                weights[f"visual.transformer.resblocks.{i}.global_prompts"] = layer
        for name in [name for name in weights if name.endswith(".local_prompts")]:
            weights[name] = weights[name][0]
        local, summary = has(weights, r"\.local_prompts$"), has(weights, r"\.summary_ln\.")
        if not (local or summary):
            weights = {name: tensor for name, tensor in weights.items() if ".cls_proj." not in name}
        context = len(weights["text_prompt"]) if "text_prompt" in weights else 0
        frames, num_global = len(weights["visual.temporal_embedding"]), 0
        if rows is not None:
            num_global = rows.shape[1]
        method = cls(frames, num_global, local, summary, context)
        notes = []
        if specific:
            notes = [
                "the file does not name the classes of its class-specific context: it is left out"
            ]
        return Official("Vita-CLIP", method, weights, [*specific, *buffers], notes)
