"""Ordinary ways of doing froster's work, in plain PyTorch, transformers and PyAV. They compute the
same numbers.

(a) `ReleasedStep`, `ReleasedEvaluation`: the work of the released recipe. Prompts are tokenised and encoded anew at every
    step (and for every batch of a test), by student and teacher, all at the full context; attention is a soft-max of
    scores over neighbouring frames' keys that are copied into place; weights in float32, or plain autocast; default AdamW.
(b) `frame_by_frame`: transformers' CLIPModel with its fused attention, looped over the frames of a clip.
(c) `xclip`: transformers' XCLIPModel.
(d) `one_view`: every view of a video decoded by its own open, from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, CLIPModel, XCLIPConfig, XCLIPModel

from benchmarks.setup import Scene
from froster.encoders.preprocessing import MEAN, STD
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.sampling import Sampling, Timing

ALPHA, BETA = 0.1, 2.0


def attend_to_neighbours(
    module, query, key, value, attention_mask, scaling, num_frames=8, **kwargs
):
    """Queries (B*T, h, L, d) over the keys of the next, the previous and the own frame; zeros
    beyond the clip's ends."""

    def gathered(x: Tensor) -> Tensor:
        x = x.unflatten(0, (-1, num_frames))
        zero = torch.zeros_like(x[:, :1])
        following, previous = torch.cat([x[:, 1:], zero], 1), torch.cat([zero, x[:, :-1]], 1)
        return torch.cat([following, previous, x], 3).flatten(0, 1)

    key, value = gathered(key), gathered(value)
    weights = torch.softmax(query @ key.transpose(-1, -2) * scaling, dim=-1)
    return (weights @ value).transpose(1, 2), weights


AttentionInterface.register("neighbours", attend_to_neighbours)


def clip_model(folder: Path, vision: str = "eager", text: str = "eager") -> CLIPModel:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation({"vision_config": vision, "text_config": text})
    return model


def normalised(frames: Tensor) -> Tensor:
    mean = torch.tensor(MEAN, device=frames.device).view(3, 1, 1)
    std = torch.tensor(STD, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def full_rows(scene: Scene, texts: Sequence[str]) -> dict[str, Tensor]:
    """Tokenised, padded to the whole context."""
    context = scene.config.text.context
    rows = scene.tokenizer(texts, context)
    return {"input_ids": F.pad(rows, (0, context - rows.shape[1]))}


def class_features(model: CLIPModel, scene: Scene, prompts: list[list[str]]) -> Tensor:
    """Prompts, P lists of K -> unit class features (K, E), from texts."""
    tokens = full_rows(scene, [text for row in prompts for text in row])
    tokens = {name: rows.to(model.device) for name, rows in tokens.items()}
    each = model.get_text_features(**tokens).pooler_output.float()
    return unit(unit(each.unflatten(0, (len(prompts), -1))).mean(0))


class Projector(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.w2.weight)

    def forward(self, z: Tensor) -> Tensor:
        return z + ALPHA * self.w2(F.gelu(self.w1(z)))


class ReleasedStep:
    """(a) One training step of FROSTER as the released code works through it. Calling it returns
    the loss.

    `text_chunks`: the text of both models is worked through in so many parts, forward and backward,
    with the gradient of an earlier step in the place of this step's; the work is the same and its
    memory is not needed at once.
    """

    def __init__(
        self,
        scene: Scene,
        labels: Sequence[str],
        frames: int,
        dtype: torch.dtype = torch.float32,
        text_chunks: int = 1,
        device: str = "cpu",
    ):
        self.scene, self.labels, self.frames, self.dtype, self.text_chunks = (
            scene,
            list(labels),
            frames,
            dtype,
            text_chunks,
        )
        self.student = clip_model(scene.folder, vision="neighbours").to(device).train()
        self.teacher = clip_model(scene.folder).to(device).eval().requires_grad_(False)
        width = scene.config.embed_dim
        self.projector_v, self.projector_t = (
            Projector(width).to(device),
            Projector(width).to(device),
        )
        modules = (self.student, self.projector_v, self.projector_t)
        self.weights = [p for module in modules for p in module.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-8, weight_decay=0.01)

    def __call__(self, clips: Tensor, targets: Tensor, template: int) -> float:
        """clips (B, T, 3, H, W) uint8, targets (B,) ints, the number of the template that is drawn."""
        rows = FROSTER_PROMPTS.prompts(self.labels)
        prompts = [rows[template], rows[-1]]
        self.optimizer.zero_grad()
        with torch.autocast(
            clips.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16
        ):
            if self.text_chunks > 1:
                return self.chunked(clips, targets, prompts)
            loss = self.loss(clips, targets, *self.text(prompts))
        loss.backward()
        return self.finish(loss)

    def text(self, prompts: list[list[str]]) -> tuple[Tensor, Tensor]:
        w = class_features(self.student, self.scene, prompts)
        with torch.no_grad():
            return w, class_features(self.teacher, self.scene, prompts)

    def loss(self, clips: Tensor, targets: Tensor, w: Tensor, u: Tensor) -> Tensor:
        pixels = normalised(clips).flatten(0, 1)
        z = unit(
            self.student.get_image_features(pixels, num_frames=self.frames).pooler_output.float()
        )
        with torch.no_grad():
            f = unit(self.teacher.get_image_features(pixels).pooler_output.float())
        logits = (
            self.student.logit_scale.exp()
            * z.unflatten(0, clips.shape[:2]).mean(1).float()
            @ w.T.float()
        )
        vision = 1 - F.cosine_similarity(self.projector_v(z).float(), f).mean()
        text = 1 - F.cosine_similarity(self.projector_t(w).float(), u).mean()
        return F.cross_entropy(logits, targets) + BETA * (vision + text)

    def chunked(self, clips: Tensor, targets: Tensor, prompts: list[list[str]]) -> float:
        size = -(-len(self.labels) // self.text_chunks)
        parts = []
        for start in range(0, len(self.labels), size):
            w, u = self.text([row[start : start + size] for row in prompts])
            w.backward(torch.full_like(w, 1e-3))
            parts.append((w.detach(), u))
        w, u = (torch.cat(features) for features in zip(*parts, strict=True))
        loss = self.loss(clips, targets, w, u)
        loss.backward()
        return self.finish(loss)

    def finish(self, loss: Tensor) -> float:
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()  # so that contenders which wait for their turn hold less
        return float(loss.detach())


class ReleasedEvaluation:
    """(a) A test as the released code works through it: all 29 prompts of every class are encoded
    for every batch."""

    def __init__(
        self, scene: Scene, labels: Sequence[str], frames: int, dtype: torch.dtype = torch.float32
    ):
        self.scene, self.labels, self.frames, self.dtype = scene, list(labels), frames, dtype
        self.model = clip_model(scene.folder, vision="neighbours").eval()

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """clips (B, T, 3, H, W) uint8 -> logits (B, K)."""
        with torch.autocast(
            clips.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16
        ):
            w = class_features(self.model, self.scene, FROSTER_PROMPTS.prompts(self.labels))
            pixels = normalised(clips).flatten(0, 1)
            z = unit(
                self.model.get_image_features(pixels, num_frames=self.frames).pooler_output.float()
            )
        return self.model.logit_scale.exp() * z.unflatten(0, clips.shape[:2]).mean(1) @ w.T


def frame_by_frame(scene: Scene, dtype: torch.dtype) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """(b) clip (T, 3, H, W) uint8 and texts -> logits (K,): the mean over the frames, one forward a
    frame."""
    model = clip_model(scene.folder, "sdpa", "sdpa").eval()

    @torch.no_grad()
    def run(clip: Tensor, texts: Sequence[str]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            tokens = scene.tokenizer(texts, scene.config.text.context)
            w = unit(model.get_text_features(input_ids=tokens).pooler_output.float())
            z = [
                unit(model.get_image_features(normalised(frame)[None]).pooler_output.float())
                for frame in clip
            ]
        return model.logit_scale.exp() * torch.cat(z).mean(0) @ w.T

    return run


def xclip(
    scene: Scene, dtype: torch.dtype, frames: int
) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """(c) clip (T, 3, H, W) uint8 and texts -> logits (K,), by an XCLIPModel of CLIP's sizes,
    random weights."""
    text, vision = scene.config.text, scene.config.vision
    config = XCLIPConfig(
        text_config={
            "hidden_size": text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "intermediate_size": 4 * text.width,
            "vocab_size": text.vocab,
            "max_position_embeddings": text.context,
            "eos_token_id": text.vocab - 1,
        },
        vision_config={
            "hidden_size": vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "intermediate_size": 4 * vision.width,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_frames": frames,
            "mit_hidden_size": scene.config.embed_dim,
            "mit_intermediate_size": 4 * scene.config.embed_dim,
            "mit_num_attention_heads": max(1, scene.config.embed_dim // 64),
        },
        projection_dim=scene.config.embed_dim,
        prompt_num_attention_heads=max(1, scene.config.embed_dim // 64),
    )
    model = XCLIPModel(config).eval()

    @torch.no_grad()
    def run(clip: Tensor, texts: Sequence[str]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            tokens = scene.tokenizer(texts, text.context)
            return model(input_ids=tokens, pixel_values=normalised(clip)[None]).logits_per_video[0]

    return run


def one_view(
    path: Path, sampling: Sampling, timing: Timing, view: int, views: int, size: int
) -> Tensor:
    """(d) One view of a video, (T, 3, S, S) uint8: the file is opened for it, and decoded from its
    start."""
    return decoded(path, sampling.view_indices(timing, views)[view], size)


def decoded(path: Path, indices: Sequence[int], size: int) -> Tensor:
    """The frames of these indices, (T, 3, S, S) uint8, decoded from the start of the file, with
    CLIP's resize."""
    wanted: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in indices:
                wanted[number] = frame.to_ndarray(format="rgb24")
            if number >= max(indices):
                break
    frames = torch.from_numpy(np.stack([wanted[index] for index in indices])).permute(0, 3, 1, 2)
    height, width = frames.shape[2:]
    short = min(height, width)
    resized = F.interpolate(
        frames, (size * height // short, size * width // short), mode="bicubic", antialias=True
    )
    top, left = round((resized.shape[2] - size) / 2), round((resized.shape[3] - size) / 2)
    return resized[:, :, top : top + size, left : left + size].contiguous()
