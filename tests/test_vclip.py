"""Neighbour-frame attention against the reference, and what its padding means."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.methods import VCLIP, Frozen, class_embeddings, pool
from golden import close

TINY = CLIPConfig(VisionConfig(32, 8, 64, 3, 2), TextConfig(20, 99, 64, 1, 2), embed_dim=32)


def tiny_clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(TINY).eval()


@torch.no_grad()
def test_masked_padding_leaves_a_still_video_alone() -> None:
    """Neighbours that repeat the own frame change nothing, if missing ones are masked; zeros do at
    the ends."""
    still = torch.randn(2, 1, 3, 32, 32).expand(-1, 5, -1, -1, -1)
    plain = Frozen().build(tiny_clip()).encode_frames(still)
    close(VCLIP(pad="mask").build(tiny_clip()).encode_frames(still), plain)
    padded = VCLIP(pad="zero").build(tiny_clip()).encode_frames(still)
    assert (padded - plain).abs().max() > 1e-3


@torch.no_grad()
def test_mask_means_attention_over_the_neighbours_that_exist() -> None:
    model = VCLIP(pad="mask").build(tiny_clip())
    block = model.clip.visual.transformer.resblocks[0]
    x = torch.randn(4, 17, 64)  # one video of four frames
    q, k, v = block.attn.project(x)
    rows = []
    for t in range(4):
        seen = [s for s in (t - 1, t, t + 1) if 0 <= s < 4]
        keys, values = (torch.cat([y[s : s + 1] for s in seen], dim=2) for y in (k, v))
        rows.append(F.scaled_dot_product_attention(q[t : t + 1], keys, values))
    close(block.attend(x, num_frames=4), block.attn.merge(torch.cat(rows)))


@torch.no_grad()
def test_videos_of_a_batch_do_not_see_each_other() -> None:
    model = VCLIP(radius=2).build(tiny_clip())
    frames = torch.randn(3, 4, 3, 32, 32)
    alone = torch.cat([model.encode_frames(video[None]) for video in frames])
    close(model.encode_frames(frames), alone)
    order = torch.tensor([2, 0, 1])
    close(model.encode_frames(frames[order]), alone[order])


def test_no_new_parameters() -> None:
    assert VCLIP().build(tiny_clip()).clip.state_dict().keys() == tiny_clip().state_dict().keys()


@torch.no_grad()
def test_frame_unit_is_the_mean_of_the_frames_logits() -> None:
    z, classes = torch.randn(2, 5, 32), unit(torch.randn(4, 32))
    close(pool(z, "frame_unit") @ classes.T, (unit(z) @ classes.T).mean(1))
    assert not torch.allclose(pool(z, "frame_unit"), pool(z, "mean_then_unit"))


@torch.no_grad()
def test_class_embeddings_are_unit_means_of_unit_prompts() -> None:
    prompts = torch.randn(3, 4, 8)
    close(class_embeddings(prompts), F.normalize(F.normalize(prompts, dim=-1).mean(0), dim=-1))
