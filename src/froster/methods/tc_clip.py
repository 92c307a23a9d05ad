"""TC-CLIP: every frame also attends to context tokens, which sum up the whole video, and the text
prompts are made from them. Written from a specification and golden numbers alone: the licence of
the authors' code (CC BY-NC 4.0) allows no more.

Block, per frame:  queries N, keys the N of the frame itself and the k context tokens of the video,
                   with a bias a head for either kind; none of it in the first block.
Context:           the 30 % of each frame's patches that its class token attends to most, taken
                   after the attention, all frames' together merged to k = 96 by bipartite matching
                   (ToMe); then the MLP, as other tokens.
Text, per video:   [SOT] [4 learned] name.   Before the last block the learned ones become
                   ctx + attend(ln ctx, LN context), + mlp(ln_2 ...), from the projected context
                   without gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP, unit
from froster.encoders.reading import State
from froster.errors import UsageError
from froster.methods.base import Features, Method, Official, VideoCLIP
from froster.methods.clip_per_frame import XCLIP_AUGMENT
from froster.methods.heads import check_reserved, require
from froster.methods.recipe import FROSTER, Preset, tuned, with_head
from froster.methods.video_prompter import VideoPrompter, split_attention
from froster.methods.weight_names import fuse_attention, has, rename, without
from froster.text.prompts import Prompting
from froster.video.sampling import Sampling

NAME_ALONE = Prompting(("{}.",), "plain")
MERGED_A_ROUND = 100
A_PHOTO_OF_A = (320, 1125, 539, 320)
"""Tokens of OpenAI's vocabulary, which the learned ones start from."""


@torch.no_grad()
def merged_groups(x: Float[Tensor, "batch tokens width"], k: int) -> Int[Tensor, "batch tokens"]:
    """To which of k groups each token goes.

    A round parts the tokens into even and odd ones; the even ones that are most alike (cosine) to
    an odd one are merged into it. What is left: even ones, the likest first, then the odd ones.
    """
    group = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    n, full_rounds = x.shape[1], int((x.shape[1] - k) / MERGED_A_ROUND)
    tokens = x
    while n > k:
        r = min(MERGED_A_ROUND if full_rounds > 0 else n - k, n // 2)
        full_rounds -= 1
        rows = unit(tokens)
        likeness, nearest = (rows[:, ::2] @ rows[:, 1::2].transpose(1, 2)).max(dim=-1)
        order = likeness.argsort(dim=-1, descending=True)
        gone, left = order[:, :r], order[:, r:]
        stay = left.shape[1]
        place = torch.empty_like(order)
        place.scatter_(1, left, torch.arange(stay, device=x.device).expand_as(left))
        place.scatter_(1, gone, stay + nearest.gather(1, gone))
        new = group.new_empty(len(x), n)
        new[:, ::2], new[:, 1::2] = place, stay + torch.arange(n // 2, device=x.device)
        group, n = new.gather(1, group), n - r
        tokens = group_means(x, group, n)
    return group


def group_means(
    x: Float[Tensor, "batch tokens width"], group: Int[Tensor, "batch tokens"], k: int
) -> Float[Tensor, "batch groups width"]:
    places = group[..., None].expand_as(x)
    sums = x.new_zeros(len(x), k, x.shape[-1]).scatter_add(1, places, x)
    return sums / F.one_hot(group, k).sum(dim=1)[..., None].to(x.dtype)


class ContextBlock(Block):
    """The context tokens of a video lie behind those of its frames, shared out over the frames:
    (B*T, N + c, D), with zeros behind the last one."""

    def __init__(self, block: Block, tokens: int, share: float, most: int, first: bool):
        self.init_from(block)
        self.tokens, self.most = tokens, most
        self.seeds = int((tokens - 1) * share)
        self.local_global_bias_table = (
            None if first else nn.Parameter(torch.empty(block.attn.heads, 1, 2))
        )
        if self.local_global_bias_table is not None:
            nn.init.trunc_normal_(self.local_global_bias_table, std=0.02)

    def context_of(
        self, x: Float[Tensor, "frames *heads tokens width"], num_frames: int
    ) -> Float[Tensor, "batch *heads context width"]:
        rows = x[..., self.tokens :, :].unflatten(0, (-1, num_frames)).movedim(1, -3)
        return rows.flatten(-3, -2)[..., : min(self.most, num_frames * self.seeds), :]

    def keys_values(
        self,
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Those of the frame itself and of the video's context, and what is added to the scores of
        either kind, (1, h, 1, keys)."""
        if self.local_global_bias_table is None or k.shape[2] == self.tokens:
            return k, v, None
        k, v = (
            torch.cat(
                [
                    x[:, :, : self.tokens],
                    self.context_of(x, num_frames).repeat_interleave(num_frames, 0),
                ],
                dim=2,
            )
            for x in (k, v)
        )
        kind = torch.arange(k.shape[2], device=k.device) >= self.tokens
        return k, v, self.local_global_bias_table.to(k.dtype)[None, :, :, kind.long()]

    def attended(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> tuple[Float[Tensor, "frames alone width"], Float[Tensor, "frames patches"]]:
        """What attention makes of the tokens of the frames alone, and how much each class token
        attends to each patch, the mean over the heads. `x`: after ln_1."""
        q, k, v = self.attn.project(x)
        q = q[:, :, : self.tokens]
        k, v, bias = self.keys_values(k, v, num_frames)
        scores = q[:, :, :1] @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        scores = scores if bias is None else scores + bias
        seen = scores.float().softmax(dim=-1).mean(dim=1)[:, 0, 1 : self.tokens]
        mask = None if bias is None else bias.expand(1, q.shape[1], 1, k.shape[2])
        return self.attn.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)), seen

    def attend(self, x: Tensor, num_frames: int, positions: Tensor | None = None) -> Tensor:
        return self.attended(x, num_frames)[0]

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames _ width"]:
        attended, seen = self.attended(self.ln_1(x), num_frames)
        alone = x[:, : self.tokens] + attended
        k = min(self.most, num_frames * self.seeds)
        if not k:
            return alone
        seeds = self.seeds_of(alone, seen).unflatten(0, (-1, num_frames)).flatten(1, 2)
        context = group_means(seeds, merged_groups(seeds, k), k)
        padded = F.pad(context, (0, 0, 0, -k % num_frames))
        return torch.cat([alone, padded.unflatten(1, (num_frames, -1)).flatten(0, 1)], dim=1)

    def seeds_of(
        self, alone: Float[Tensor, "frames alone width"], seen: Float[Tensor, "frames patches"]
    ) -> Float[Tensor, "frames seeds width"]:
        """The patches that are seen most, the first the most."""
        places = seen.topk(self.seeds, dim=-1).indices + 1
        return alone.gather(1, places[..., None].expand(-1, -1, alone.shape[-1]))


class TCNet(VideoCLIP):
    """A text is what comes out of the last block but one, of all of its tokens, and the place of
    its end: the last block's outcome depends on the video."""

    cuts_texts = True

    def __init__(self, clip: CLIP, learned: int, length: int):
        super().__init__(clip, "mean_then_unit")
        text = clip.config.text
        self.length = min(length, text.context)
        self.reserved_tokens = text.context - self.length
        self.reserved_tokens += check_reserved(learned, replace(text, context=self.length))
        start = torch.randn(learned, text.width) * 0.02
        if text.vocab == 49408 and learned == len(A_PHOTO_OF_A):
            words = torch.tensor(A_PHOTO_OF_A, device=clip.text.token_embedding.weight.device)
            start = clip.text.token_embedding.weight.detach().index_select(0, words)
        self.text_prompt = nn.Parameter(start)
        last = clip.text.transformer.blocks()[-1]
        self.text_prompter = VideoPrompter(last, clip.config.embed_dim)

    def encode(self, frames: Tensor) -> Features:
        layers: list[Tensor] = []
        visual = self.clip.visual
        z = self.clip.encode_image(frames, layers).float()
        block = visual.transformer.blocks()[-1]
        assert isinstance(block, ContextBlock)
        context = block.context_of(layers[-1], frames.shape[1])
        return self.pool_frames(z, visual.project(visual.ln_post(context)).float())

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(K, length * W + 1)"""
        text, learned = self.clip.text, self.text_prompt
        tokens = tokens.to(learned.device)
        words = text.token_embedding(F.pad(tokens, (0, self.length)))
        x = torch.cat([words[:, :1], learned.expand(len(tokens), -1, -1), words[:, 1:]], dim=1)
        x = x[:, : self.length] + text.positional_embedding[: self.length]
        for block in text.transformer.blocks()[:-1]:
            x = text.transformer.run_block(block, x)
        end = text.config.ends(tokens)[:, None] + len(learned)
        return torch.cat([x.flatten(1).float(), end.float()], dim=1)

    def finished(
        self, texts: Float[Tensor, "texts columns"], learned: Float[Tensor, "batch learned width"]
    ) -> Float[Tensor, "batch texts embed"]:
        """The last block and the projection, at the end of each text, with these in the place of
        the learned tokens."""
        block = self.clip.text.transformer.blocks()[-1]
        dtype = block.attn.in_proj_weight.dtype  # of a tower that was cast ahead, for inference
        with torch.autocast(texts.device.type, dtype, enabled=dtype != torch.float32):
            return self._finished(block, texts, learned).float()

    def _finished(self, block: Block, texts: Tensor, learned: Tensor) -> Tensor:
        text = self.clip.text
        x, end = texts[:, :-1].unflatten(1, (self.length, -1)), texts[:, -1].long()
        n, rows = learned.shape[1], torch.arange(len(texts), device=texts.device)
        last = x[rows, end]  # (K, W)
        words = torch.cat([x[:, :1], x[:, 1 + n :]], dim=1)
        q, k, v = block.attn.project(block.ln_1(words), block.ln_1(last)[:, None])
        _, k_video, v_video = block.attn.project(block.ln_1(learned))
        q = q[:, :, 0] * q.shape[-1] ** -0.5  # (K, h, d)
        of_words = torch.einsum("khd,khld->khl", q, k)
        place = torch.arange(words.shape[1], device=x.device)
        place = place + n * (place > 0)
        of_words = of_words.masked_fill((place > end[:, None])[:, None], float("-inf"))
        of_video = torch.einsum("khd,bhnd->bkhn", q, k_video)
        scores = torch.cat([of_video, of_words.expand(len(learned), -1, -1, -1)], dim=-1)
        shares = scores.float().softmax(dim=-1).to(v.dtype)
        attended = torch.einsum("bkhn,bhnd->bkhd", shares[..., :n], v_video)
        attended = attended + torch.einsum("bkhl,khld->bkhd", shares[..., n:], v)
        y = block.mlp_sublayer(last + block.attn.out_proj(attended.flatten(2)))
        return text.project(y)

    def learned_of(self, texts: Float[Tensor, "texts columns"]) -> Float[Tensor, "1 learned width"]:
        """The learned tokens before the last block: they see no name, so they are the same in every
        text."""
        x = texts[0, :-1].unflatten(0, (self.length, -1))
        return x[None, 1 : 1 + len(self.text_prompt)]

    def text_embeddings(self, prompts: Tensor) -> Tensor:
        """Of the texts that no video has changed."""
        flat = prompts.flatten(0, 1)
        return self.finished(flat, self.learned_of(flat))[0].unflatten(0, prompts.shape[:2])

    def classes(self, prompts: Tensor) -> Tensor:
        return prompts

    @property
    def logit_scale(self) -> float:
        """Cosines with texts that have seen the video."""
        return float(self.clip.logit_scale.detach().exp())

    def conditioned(
        self, classes: Float[Tensor, "prompts classes columns"], context: Tensor
    ) -> Float[Tensor, "batch classes embed"]:
        """Unit."""
        flat = classes.flatten(0, 1)
        learned = self.text_prompter(self.learned_of(flat), context.detach())
        texts = unit(self.finished(flat, learned)).unflatten(1, classes.shape[:2])
        return unit(texts.mean(dim=1))

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise ValueError("TC-CLIP's text depends on the video: it needs the clip's context")
        text = self.conditioned(classes, context)
        return self.clip.logit_scale.exp() * torch.einsum("be,bke->bk", video, text)


@dataclass(frozen=True)
class TCCLIP(Method):
    """Everything is trained."""

    name = "tc-clip"
    summary = (
        "every frame attends to context tokens merged from the whole video; text prompts are made"
        " from them"
    )
    reference = "Kim et al., TC-CLIP, ECCV 2024"

    context_tokens: int = 96
    """0: none, and the image tower is CLIP's."""
    seed_share: float = 0.3
    """Of each frame's patches, that the context tokens are merged from."""
    learned: int = 4
    """Text tokens before the name."""
    length: int = 30
    """Tokens of a prompt, learned ones, start and end included."""
    clip_share: float = 0.0
    """How much of CLIP's weights is in the final ones; the paper also tests .3."""

    def __post_init__(self) -> None:
        if self.context_tokens < 0 or self.learned < 1 or self.length < 1:
            raise UsageError("context_tokens, learned and length count tokens")
        if not (0 <= self.seed_share <= 1 and 0 <= self.clip_share <= 1):
            raise UsageError("seed_share and clip_share lie in [0, 1]")

    @property
    def learns_prompts(self) -> bool:
        return True

    @property
    def patch(self) -> float:
        return self.clip_share

    def build(self, clip: CLIP) -> VideoCLIP:
        require(self.name, clip, class_token=True, causal_text=True)
        blocks, tokens = clip.visual.transformer.resblocks, clip.config.vision.tokens
        for i, block in enumerate(clip.visual.transformer.blocks()):
            blocks[i] = ContextBlock(block, tokens, self.seed_share, self.context_tokens, i == 0)
        return TCNet(clip, self.learned, self.length)

    def preset(self) -> Preset:
        recipe = tuned(
            8e-6,
            epochs=10,
            batch_size=256,
            new_scale=10,
            warmup_epochs=5,
            weight_decay=1e-3,
            betas=(0.9, 0.98),
            label_smoothing=0.1,
            mixup=0.8,
            cutmix=1.0,
        )
        note = "the attention's biases are trained at the rate of the other new weights"
        sampling = Sampling("uniform", 16)
        return Preset(recipe, NAME_ALONE, XCLIP_AUGMENT, sampling, 2, "probs", note=note)

    def froster_preset(self) -> Preset:
        recipe = with_head(8e-5).recipe
        return Preset(recipe, NAME_ALONE, distill=FROSTER.distill)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if not has(state, r"^text_encoder\.prompt_generation_layer\."):
            return None
        ignored = [
            name
            for name in state
            if name.startswith("prompt_learner.") and name != "prompt_learner.ctx"
        ]
        rules = [
            (r"^image_encoder\.", "visual."),
            (r"^text_encoder\.prompt_generation_layer\.0\.", "text_prompter."),
            (r"^text_encoder\.", "text."),
            (r"^(prompt_learner\.)?token_embedding\.", "text.token_embedding."),
            (r"^prompt_learner\.ctx$", "text_prompt"),
            (r"\.attn\.local_global_bias_table$", ".local_global_bias_table"),
        ]
        weights = split_attention(rename(fuse_attention(without(state, ignored)), rules))
        notes = [
            "the weights do not tell the number of context tokens nor the share of seeds: 96, .3"
        ]
        method = cls(learned=len(weights["text_prompt"]))
        return Official("TC-CLIP", method, weights, ignored, notes)
