"""OST: the frames of a video and several sentences about a class are matched by optimal transport.

    plan = entropic transport between the T frames and the N sentences of a class, uniform
           marginals, cost 1 - cos, kernel exp(-cost / 0.1); without gradient
    ot = s sum(plan * cos);   pooled = s mean_t(frame) . mean_n(sentence)   (means of unit vectors)
    logits = mean over both sets of sentences, what is seen and how it goes on, of pooled + ot

Sinkhorn's rounds end, for all videos and classes of a batch together, when the row scaling moves by
less than 0.01 on average: a score depends a little on what else is in the batch. Trained on what
ViFi-CLIP trains, with the contrast within the batch. `froster.inference.transport` compares so with
any network's frames, without training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from froster.encoders.model import CLIP, unit
from froster.methods.base import Features, Method, VideoCLIP
from froster.methods.clip_per_frame import XCLIP_AUGMENT
from froster.methods.recipe import FROSTER, Preset, tuned
from froster.text.prompts import Prompting
from froster.video.sampling import Sampling

DESCRIPTORS = Prompting(
    ("This is a video about {}", "A video of {} usually includes {}"), "descriptors"
)
SHARPNESS, ROUNDS, STILL = 0.1, 100, 0.01


@torch.no_grad()
def transport_plan(
    cosines: Float[Tensor, "batch classes time sentences"],
) -> Float[Tensor, "batch classes time sentences"]:
    """The plan of every video and class by Sinkhorn's rounds, rows first."""
    kernel = torch.exp((cosines.float() - 1) / SHARPNESS)
    T, N = kernel.shape[-2:]
    r, c = kernel.new_ones(kernel.shape[:-1]), kernel.new_ones(*kernel.shape[:-2], N)
    for _ in range(ROUNDS):
        before = r
        r = (1 / T) / (kernel @ c[..., None])[..., 0]
        c = (1 / N) / (r[..., None, :] @ kernel)[..., 0, :]
        if (r - before).abs().mean() < STILL:
            break
    return r[..., None] * kernel * c[..., None, :]


def match(
    frames: Float[Tensor, "batch time embed"], sentences: Float[Tensor, "sentences classes embed"]
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
    """Unit frames and unit sentences -> the cosines of the means, and those under the plan."""
    pooled = frames.mean(dim=1) @ sentences.mean(dim=0).T
    cosines = torch.einsum("bte,nke->bktn", frames, sentences)
    return pooled, (transport_plan(cosines) * cosines).sum((-2, -1))


class Matching(VideoCLIP):
    """Compares the single frames with the single prompts of a class: the first half of these is one
    set, the second the other. An odd number of prompts is one set."""

    def pool_frames(self, z: Tensor, context: Tensor | None = None) -> Features:
        return super().pool_frames(z, unit(z))

    def classes(
        self, prompts: Float[Tensor, "prompts classes embed"]
    ) -> Float[Tensor, "prompts classes embed"]:
        """Unit."""
        return unit(prompts)

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise ValueError("frames are matched one by one: it needs the clip's context")
        parts = classes.chunk(1 if len(classes) % 2 else 2)
        scores = [torch.stack(match(context, part)).sum(dim=0) for part in parts]
        return self.clip.logit_scale.exp() * torch.stack(scores).mean(dim=0)


@dataclass(frozen=True)
class OST(Method):
    """Both towers are trained, but not the token embeddings, as in ViFi-CLIP."""

    name = "ost"
    summary = (
        "frames and several sentences a class are matched by optimal transport; CLIP frame by"
        " frame, contrast within the batch"
    )
    reference = "Chen et al., OST, CVPR 2024"
    objective = "in-batch sets"

    def build(self, clip: CLIP) -> VideoCLIP:
        return Matching(clip, "frame_unit")

    def trains(self, name: str) -> bool:
        return name != "clip.text.token_embedding.weight"

    def preset(self) -> Preset:
        recipe = tuned(
            8e-6,
            epochs=10,
            batch_size=256,
            warmup_epochs=5,
            weight_decay=1e-3,
            decay="all",
            betas=(0.9, 0.98),
        )
        note = (
            'sentences are parted by semicolons, "name: seen; seen | then; then"; the paper has'
            " four of each from a language model"
        )
        sampling = Sampling("uniform", 32)
        return Preset(recipe, DESCRIPTORS, XCLIP_AUGMENT, sampling, 1, "probs", note=note)

    def froster_preset(self) -> Preset:
        return Preset(FROSTER.recipe, DESCRIPTORS, distill=FROSTER.distill)
