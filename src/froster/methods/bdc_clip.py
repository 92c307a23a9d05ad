"""BDC-CLIP: beside the cosine, how the channels of a video's tokens depend on one another is
compared with how those of a text's tokens do.

    Brownian distance covariance of M tokens x_j (r channels, after LayerNorm and a linear layer):
      y_j = soft-max_j(q . x_j / sqrt r) x_j           q: class token, or end token of a text
      d_ik = sqrt(max(0, |y_i - y_k|^2 / 2M) + 1e-5)   between the channels, over the tokens
      doubly centred, the upper triangle row by row:   r (r + 1) / 2 numbers
    video: the frames' attend to each other by their class tokens, with a skip; the mean
    L = CE(cosine) + CE(BDC) + CE(linear layer on the video's BDC);  score = a p_cosine + b p_BDC

Every fourth block attends over all frames at once. The softmax of a text covers its padding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.kernels import dot_product_attention
from froster.encoders.model import CLIP, unit
from froster.encoders.reading import State
from froster.errors import UsageError
from froster.methods.base import Features, Method, Objective, Official, VideoCLIP, class_embeddings
from froster.methods.clip_per_frame import XCLIP_AUGMENT
from froster.methods.heads import require
from froster.methods.recipe import Preset, tuned, with_head
from froster.methods.weight_names import has, rename
from froster.text.prompts import KINETICS_28, Prompting
from froster.video.sampling import Sampling


def of_clips(
    x: Float[Tensor, "frames heads tokens dim"], num_frames: int
) -> Float[Tensor, "batch heads _ dim"]:
    """The tokens of all frames of a clip, one frame after the other."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(2, 3)


class JointBlock(Block):
    """A CLIP block in which every token sees those of all frames."""

    def __init__(self, block: Block):
        self.init_from(block)

    def attention(
        self,
        q: Float[Tensor, "frames heads queries dim"],
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> Float[Tensor, "frames heads queries dim"]:
        q, k, v = (of_clips(x, num_frames) for x in (q, k, v))
        seen = dot_product_attention(q, k, v)
        return seen.unflatten(2, (num_frames, -1)).transpose(1, 2).flatten(0, 1)

    def keys_values(
        self,
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> tuple[Tensor, Tensor, None]:
        """Those of all frames for every one, which `attention` does without the copies."""
        k, v = (of_clips(x, num_frames).repeat_interleave(num_frames, dim=0) for x in (k, v))
        return k, v, None


class TokenBDC(nn.Module):
    """Tokens of a frame or a text -> their BDC."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.reduce = nn.Linear(width, channels, bias=False)

    def reduced(
        self, tokens: Float[Tensor, "*sets tokens width"]
    ) -> Float[Tensor, "*sets tokens channels"]:
        return self.reduce(self.norm(tokens))

    def forward(
        self, x: Float[Tensor, "sets tokens channels"], query: Float[Tensor, "sets channels"]
    ) -> Float[Tensor, "sets pairs"]:
        """Of `reduced` tokens. In float32: half precision has no room for the squares."""
        with torch.autocast(x.device.type, enabled=False):
            x, query = x.float(), query.float()
            shares = (x @ query[..., None] / math.sqrt(x.shape[-1])).softmax(dim=1)
            rows = (shares * x).transpose(1, 2)  # (sets, channels, tokens)
            gram = rows @ rows.transpose(1, 2)
            squared = gram.diagonal(dim1=1, dim2=2)
            apart = squared[:, :, None] + squared[:, None] - 2 * gram
            d = ((apart / (2 * x.shape[1])).clamp(min=0) + 1e-5).sqrt()
            centred = d - d.mean(1, keepdim=True) - d.mean(2, keepdim=True)
            row, column = torch.triu_indices(*d.shape[1:], device=d.device)
            return (centred + d.mean((1, 2), keepdim=True))[:, row, column]


class BDCNet(VideoCLIP):
    """A text is its embedding followed by its BDC."""

    def __init__(self, clip: CLIP, method: BDCCLIP):
        super().__init__(clip, "mean_then_unit")
        width, r = clip.config.embed_dim, method.channels
        self.method = method
        self.video_bdc, self.text_bdc = TokenBDC(width, r), TokenBDC(width, r)
        self.q_proj, self.k_proj = (nn.Linear(r, r, bias=False) for _ in range(2))
        self.bdc_scale = nn.Parameter(torch.tensor(math.log(100.0)))
        self.closed = nn.Linear(r * (r + 1) // 2, method.seen) if method.seen else None

    def encode(self, frames: Tensor) -> Features:
        tokens = self.tokens(frames)
        features = self.pool_frames(tokens[:, :, 0].float())
        features.context = self.bdc_of_video(tokens)[:, None]
        return features

    def tokens(
        self, frames: Float[Tensor, "batch time 3 height width"]
    ) -> Float[Tensor, "batch time tokens embed"]:
        """All of the last block, projected as CLIP does the class token, which is the first."""
        visual = self.clip.visual
        B, T = visual.check(frames)
        x = visual.transformer(visual.embed(frames.flatten(0, 1), T), T)
        return visual.project(visual.ln_post(x)).unflatten(0, (B, T))

    def bdc_of_frames(
        self, x: Float[Tensor, "batch time tokens channels"]
    ) -> Float[Tensor, "batch time pairs"]:
        flat = x.flatten(0, 1)
        return self.video_bdc(flat, flat[:, 0]).unflatten(0, x.shape[:2])

    def bdc_of_video(
        self, tokens: Float[Tensor, "batch time tokens embed"]
    ) -> Float[Tensor, "batch pairs"]:
        x = self.video_bdc.reduced(tokens).float()
        with torch.autocast(x.device.type, enabled=False):
            bdc, cls = self.bdc_of_frames(x), x[:, :, 0]
            scores = self.q_proj(cls) @ self.k_proj(cls).transpose(1, 2)
            shares = (scores / math.sqrt(cls.shape[-1])).softmax(dim=-1)
            return (shares @ bdc + bdc).mean(dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(K, E + r (r + 1) / 2): the raw embeddings and the BDCs."""
        text = self.clip.text
        short = text.config.context - tokens.shape[1]
        full = F.pad(tokens, (0, short), value=text.config.pad)
        full = full.to(text.positional_embedding.device)
        x = text.transformer(text.token_embedding(full) + text.positional_embedding)
        x = text.project(x)
        reduced = self.text_bdc.reduced(x)
        rows, end = torch.arange(len(x), device=x.device), text.config.ends(full)
        if text.config.pool == "last":
            end = torch.full_like(end, -1)
        bdc = self.text_bdc(reduced, reduced[rows, end])
        return torch.cat([x[rows, end].float(), bdc], dim=-1)

    def parts(self, text: Float[Tensor, "*rows columns"]) -> tuple[Tensor, Tensor]:
        """Embeddings and BDCs."""
        width = self.clip.config.embed_dim
        return text[..., :width], text[..., width:]

    def text_embeddings(self, prompts: Tensor) -> Tensor:
        return self.parts(prompts)[0]

    def classes(self, prompts: Tensor) -> Tensor:
        return torch.cat([class_embeddings(part) for part in self.parts(prompts)], dim=-1)

    def two_logits(
        self, video: Tensor, classes: Tensor, context: Tensor | None
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
        """Cosines and BDCs, each times its own scale. The release rounds the test's scale of the
        BDCs down."""
        if context is None:
            raise ValueError("BDC-CLIP compares more than embeddings: it needs the clip's context")
        embeddings, bdcs = self.parts(classes)
        scale = self.bdc_scale.exp()
        if not self.training:
            scale = torch.floor(scale / self.method.bdc_divisor)
        bdc = scale * unit(context[:, 0]) @ bdcs.T
        return self.clip.logit_scale.exp() * video @ embeddings.T, bdc

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        """The logs of the mean of both soft-maxes, weighted."""
        method, (cosine, bdc) = self.method, self.two_logits(video, classes, context)
        mixed = method.cosine_share * cosine.softmax(-1) + method.bdc_share * bdc.softmax(-1)
        return mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()

    def losses(
        self, features: Features, classes: Tensor, logits: Tensor, objective: Objective
    ) -> dict[str, Tensor]:
        cosine, bdc = self.two_logits(features.video, classes, features.context)
        losses = {"ce": objective(cosine), "bdc": objective(bdc)}
        if self.closed is not None and features.context is not None:
            losses["closed"] = objective(self.closed(features.context[:, 0]))
        return losses


@dataclass(frozen=True)
class BDCCLIP(Method):
    """Everything is trained."""

    name = "bdc-clip"
    summary = (
        "joint attention over the clip in every fourth block; beside the cosine, Brownian distance"
        " covariances of the tokens are compared"
    )
    reference = "Long et al., BDC-CLIP, ICML 2025"

    channels: int = 192
    every: int = 4
    """The last of so many blocks attends over all frames."""
    cosine_share: float = 0.9
    bdc_share: float = 0.1
    """Of the scores. The paper takes .9 and .1 on Kinetics-600, .1 and .9 on UCF and HMDB."""
    bdc_divisor: float = 1.0
    """Of the scale of the BDCs at test time; 5 in the paper on UCF and HMDB."""
    seen: int = 0
    """Training classes, for the linear layer that is used in training alone."""

    def __post_init__(self) -> None:
        shares = self.cosine_share, self.bdc_share
        if self.channels < 2 or self.every < 1 or self.seen < 0 or self.bdc_divisor <= 0:
            raise UsageError("channels, every and seen are counts, and bdc_divisor is above zero")
        if min(shares) < 0 or sum(shares) <= 0:
            raise UsageError(f"the shares of cosine and BDC are not negative, nor both 0: {shares}")

    def for_classes(self, labels: Sequence[str]) -> Method:
        return dataclasses.replace(self, seen=len(labels))

    def build(self, clip: CLIP) -> VideoCLIP:
        require(self.name, clip, class_token=True)
        blocks = clip.visual.transformer.resblocks
        for i in range(self.every - 1, len(blocks), self.every):
            blocks[i] = JointBlock(clip.visual.transformer.blocks()[i])
        return BDCNet(clip, self)

    def preset(self) -> Preset:
        recipe = tuned(
            4e-6,
            epochs=10,
            batch_size=256,
            new_scale=100,
            warmup_epochs=0,
            weight_decay=1e-3,
            betas=(0.9, 0.98),
            draw="one",
        )
        note = (
            "28 templates in place of a language model's prompts, one for all classes of a step;"
            " the linear layer is trained at the rate of the other new weights (half of it there)"
        )
        prompting, sampling = Prompting(KINETICS_28, "plain"), Sampling("uniform", 32)
        return Preset(recipe, prompting, XCLIP_AUGMENT, sampling, 2, "probs", note=note)

    def froster_preset(self) -> Preset:
        return with_head(4e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if not has(state, r"^vision_bdc_head\."):
            return None
        rules = [
            (r"^image_encoder\.", "visual."),
            (r"^text_encoder\.", "text."),
            (r"^token_embedding\.", "text.token_embedding."),
            (r"^logit_scale_clip$", "logit_scale"),
            (r"^logits_scale_vision$", "bdc_scale"),
            (r"^vision_bdc_head\.", "closed."),
            (r"^vision_([qk])_proj\.", r"\1_proj."),
            (r"^vision_(norm|reduce)\.", r"video_bdc.\1."),
            (r"^text_(norm|reduce)\.", r"text_bdc.\1."),
        ]
        method = cls(
            channels=len(state["vision_reduce.weight"]), seen=len(state["vision_bdc_head.weight"])
        )
        return Official("BDC-CLIP", method, rename(state, rules))
