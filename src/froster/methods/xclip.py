"""X-CLIP: message tokens between the frames, multi-frame integration, and text prompts made from
the video.

Block, per clip:  m_t = W x_t,cls;  m = m + MHA(LN m) over the T messages;  [x_t ; m_t] through
                  ln_1 and the block's attention, the message dropped again, then the MLP.
Head:             mean over T of MIT(z + P) + z.
Text, per video:  y = mean over T of LN(patches) W_p;  two decoder layers of the raw class
                  embeddings c over LN(y) give t;  logits = s u(v) . u(c + alpha t).

Without a class token the message is made of the mean of the patches. FROSTER compares with the
message tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Attention, Block
from froster.encoders.mlp import QuickGELU
from froster.encoders.model import CLIP, unit
from froster.encoders.preprocessing import Preprocessing
from froster.encoders.reading import State
from froster.methods.base import Features, Method, Official, Pooling, VideoCLIP, replace_blocks
from froster.methods.clip_per_frame import XCLIP_AUGMENT
from froster.methods.heads import TemporalTransformer, summary
from froster.methods.recipe import Preset, tuned, with_head
from froster.methods.weight_names import (
    count_layers,
    fuse_attention,
    has,
    hf_blocks,
    ours,
    rename,
    without,
)
from froster.text.prompts import Prompting
from froster.video.sampling import Sampling

XCLIP_PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ImageNet's mean and deviation, as the released code has them (`datasets/build.py: img_norm_cfg`);
training through froster keeps those of the CLIP that it starts from."""


class XCLIPBlock(Block):
    def __init__(self, block: Block, prefix: int):
        self.init_from(block)
        self.prefix, width = prefix, block.width
        self.message_fc = nn.Linear(width, width)
        self.message_ln = nn.LayerNorm(width)
        self.message_attn = xavier(Attention(width, block.attn.heads))

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        m = self.message_fc(summary(x, self.prefix)).unflatten(0, (-1, num_frames))  # (B, T, D)
        m = (m + self.message_attn(self.message_ln(m))).flatten(0, 1)[:, None]
        seen = torch.cat([x, m], dim=1)
        return (seen + self.attend(self.ln_1(seen), num_frames))[:, :-1]


def xavier(attention: Attention) -> Attention:
    """PyTorch's own initialisation of an attention layer."""
    nn.init.xavier_uniform_(attention.in_proj_weight)
    nn.init.zeros_(attention.out_proj.bias)
    return attention


class CrossAttention(nn.Module):
    """Queries from the text, keys and values from the video; no biases but the last."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        text: Float[Tensor, "batch classes embed"],
        video: Float[Tensor, "batch patches embed"],
    ) -> Float[Tensor, "batch classes embed"]:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, text), (self.k_proj, video), (self.v_proj, video))
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self,
        text: Float[Tensor, "batch classes embed"],
        video: Float[Tensor, "batch patches embed"],
    ) -> Float[Tensor, "batch classes embed"]:
        text = text + self.cross_attn(self.norm1(text), video)
        return text + self.mlp(self.norm3(text))


class VideoPrompts(nn.Module):
    """alpha * t, what the video adds to the raw class embeddings."""

    def __init__(self, vision_width: int, width: int, layers: int, heads: int):
        super().__init__()
        self.patch_norm = nn.LayerNorm(vision_width)
        self.patch_proj = nn.Parameter(torch.randn(vision_width, width))
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
        self.alpha = nn.Parameter(torch.full((width,), 0.1))
        for layer in self.decoder.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def embed_patches(
        self, patches: Float[Tensor, "batch time patches width"]
    ) -> Float[Tensor, "batch patches embed"]:
        """Of the last block, the mean over time."""
        return (self.patch_norm(patches) @ self.patch_proj).mean(dim=1)

    def forward(
        self, classes: Float[Tensor, "classes embed"], context: Float[Tensor, "batch patches embed"]
    ) -> Float[Tensor, "batch classes embed"]:
        """Of raw class embeddings and the videos' patches."""
        video = self.norm(context)
        text = classes.expand(len(video), -1, -1)
        for layer in self.decoder:
            text = layer(text, video)
        return self.alpha * text


class XCLIPNet(VideoCLIP):
    def __init__(self, clip: CLIP, head: TemporalTransformer, video_prompts: VideoPrompts):
        super().__init__(clip, "mean_then_unit", head)
        self.video_prompts = video_prompts

    def encode(self, frames: Tensor) -> Features:
        layers: list[Tensor] = []
        z = self.clip.encode_image(frames, layers).float()
        patches = layers[-1][:, self.clip.config.vision.prefix :].unflatten(
            0, frames.shape[:2]
        )  # (B, T, N, D)
        return self.pool_frames(z, self.video_prompts.embed_patches(patches).float())

    def classes(self, prompts: Tensor) -> Tensor:
        """Raw, as the prompts are added to them: the mean over the templates, (K, E)."""
        return prompts.mean(dim=0)

    def conditioned(
        self, classes: Float[Tensor, "classes embed"], context: Float[Tensor, "batch patches embed"]
    ) -> Float[Tensor, "batch classes embed"]:
        """c + alpha t"""
        return classes + self.video_prompts(classes, context)

    @property
    def logit_scale(self) -> float:
        """Cosines with texts that have seen the video."""
        return float(self.clip.logit_scale.detach().exp())

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise ValueError("X-CLIP's text depends on the video: it needs the clip's context")
        text = unit(self.conditioned(classes, context).float())
        return self.clip.logit_scale.exp() * torch.einsum("be,bke->bk", video, text)


@dataclass(frozen=True)
class XCLIP(Method):
    """The image tower is trained with the new parts; the text tower and the logit scale are not."""

    name = "xclip"
    summary = (
        "message tokens between frames in every block, multi-frame integration, text prompts from"
        " the video"
    )
    reference = "Ni et al., X-CLIP, ECCV 2022"
    variants = {"full": {}, "message": {"message_only": True}}

    message_only: bool = False
    """Without integration and prompts: FROSTER's `cross_frame_attend`."""
    frames: int = 8
    """Positions of the multi-frame integration."""
    mit_layers: int = 1
    prompt_layers: int = 2
    pooling: Pooling = "frame_unit"
    """Of `message_only`; otherwise the integration's mean is made unit."""

    def build(self, clip: CLIP) -> VideoCLIP:
        replace_blocks(clip, lambda block: XCLIPBlock(block, clip.config.vision.prefix))
        if self.message_only:
            return VideoCLIP(clip, self.pooling)
        width = clip.config.embed_dim
        heads = max(1, width // 64)
        head = TemporalTransformer(width, heads, self.mit_layers, self.frames)
        head.initialise(std=None, positions_std=0.02)
        for name, parameter in head.named_parameters():
            if parameter.ndim == 2 and "in_proj" not in name:
                nn.init.trunc_normal_(parameter, std=0.02)
        prompts = VideoPrompts(clip.config.vision.width, width, self.prompt_layers, heads)
        return XCLIPNet(clip, head, prompts)

    def trains(self, name: str) -> bool:
        return not name.startswith("clip.text.") and name != "clip.logit_scale"

    def preset(self) -> Preset:
        """The zero-shot setting, trained on K400 with the text frozen."""
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
            decay="no positions",
        )
        prompting = Prompting(("{}",), "plain")
        sampling = Sampling("uniform", 32)
        return Preset(recipe, prompting, XCLIP_AUGMENT, sampling, views=1, fusion="probs")

    def froster_preset(self) -> Preset:
        return with_head(8e-5)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if has(state, r"^vision_model\.encoder\.layers\.\d+\.message_fc"):
            return cls.from_huggingface(state)
        if not has(state, r"resblocks\.\d+\.message_fc"):
            return None
        if not has(state, r"^mit\."):
            return Official(
                "X-CLIP's message tokens (FROSTER's version)", cls(message_only=True), ours(state)
            )
        return cls.full("X-CLIP (official)", state)

    @classmethod
    def full(cls, format: str, state: State) -> Official:
        rules = [
            (r"^mit\.positional_embedding", "head.positional_embedding"),
            (r"^mit\.", "head.transformer."),
            (r"^prompts_generator\.", "video_prompts."),
            (r"^prompts_visual_ln\.", "video_prompts.patch_norm."),
            (r"^prompts_visual_proj", "video_prompts.patch_proj"),
            (r"(decoder\.\d+\.mlp)\.3\.", r"\1.2."),
        ]
        weights = rename(ours(state), rules)
        weights["head.positional_embedding"] = weights["head.positional_embedding"].flatten(0, -2)
        layers = count_layers(state, "mit.resblocks")
        decoder_layers = count_layers(state, "prompts_generator.decoder")
        method = cls(False, len(weights["head.positional_embedding"]), layers, decoder_layers)
        return Official(format, method, weights, preprocessing=XCLIP_PREPROCESSING)

    @classmethod
    def from_huggingface(cls, state: State) -> Official:
        """transformers' XCLIPModel: other names, linear layers in place of matrices, q, k and v
        apart."""
        cross = {name: tensor for name, tensor in state.items() if ".cross_attn." in name}
        rest = fuse_attention(without(state, cross))
        image, text = r"^vision_model\.embeddings\.", r"^text_model\.embeddings\."
        blocks = "visual.transformer.resblocks."
        rules = [
            (rf"{image}class_embedding", "visual.class_embedding"),
            (rf"{image}patch_embedding\.", "visual.conv1."),
            (rf"{image}position_embedding\.weight", "visual.positional_embedding"),
            (r"^vision_model\.pre_layernorm\.", "visual.ln_pre."),
            (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
            (r"^visual_projection\.weight", "visual.proj"),
            (r"^text_projection\.weight", "text_projection"),
            (rf"{text}position_embedding\.weight", "positional_embedding"),
            (rf"{text}token_embedding\.", "token_embedding."),
            (r"^text_model\.final_layer_norm\.", "ln_final."),
            *hf_blocks(r"vision_model\.encoder\.layers\.", blocks),
            (r"^vision_model\.encoder\.layers\.(\d+)\.message", rf"{blocks}\1.message"),
            *hf_blocks(r"text_model\.encoder\.layers\.", "transformer.resblocks."),
            *hf_blocks(r"mit\.encoder\.layers\.", "mit.resblocks."),
            (r"^mit\.position_embedding", "mit.positional_embedding"),
            (r"^prompts_generator\.layernorm\.", "prompts_generator.norm."),
            (r"^prompts_visual_layernorm\.", "prompts_visual_ln."),
            (r"^prompts_visual_projection$", "prompts_visual_proj"),
        ]
        weights = rename({**rest, **cross}, rules)
        for name in ("visual.proj", "text_projection"):
            weights[name] = weights[name].T.contiguous()
        ignored = [name for name in weights if name.endswith("position_ids")]
        official = cls.full("X-CLIP (Hugging Face)", without(weights, ignored))
        official.ignored = ignored
        return official
