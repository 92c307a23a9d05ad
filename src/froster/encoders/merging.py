"""Token merging (ToMe; Bolya et al., ICLR 2023): every block joins the most similar tokens of a
frame, so that what follows has fewer to compute. Nothing is trained for it.

Between attention and MLP the patches of a frame are dealt to two sets by turns. Each of the first
set is tied to the one of the second whose key, the mean over the heads, is most like its own by
cosine; of these ties the `r` closest become one token each, the mean of the two weighted by their
sizes, which say how many patches a token stands for. Attention adds the log of the size of a key's
token to its scores. The class token is never merged.

The paper does not say in which order the tokens are dealt again in the next block; here it is the
picture's, in which neighbours fall into different sets.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.kernels import dot_product_attention

if TYPE_CHECKING:
    from froster.encoders.vision import VisionTower


Network = TypeVar("Network", bound=nn.Module)


def with_merging(network: Network, count: int) -> Network:
    """The same network, with weights that are shared, whose image tower merges `count` tokens of a
    frame in every block: for inference."""
    shared: dict[int, object] = {id(x): x for x in [*network.parameters(), *network.buffers()]}
    same = copy.deepcopy(network, shared)
    for module in same.modules():
        if hasattr(module, "merge_tokens"):
            setattr(module, "merge_tokens", count)  # noqa: B010
    return same


def pooled(
    tower: VisionTower, x: Float[Tensor, "frames tokens width"], num_frames: int
) -> Float[Tensor, "frames width"]:
    """`VisionTower.pooled` of the tokens before the first block, of which every block merges
    `tower.merge_tokens`."""
    config, sizes = tower.config, None
    alone = config.pool == "class"
    blocks = tower.transformer.blocks()
    for block in blocks[: len(blocks) - alone]:
        n = block.ln_1(x)
        q, k, v = block.attn.project(n)
        x = x + block.attn.merge(_attention(block, q, k, v, sizes, num_frames, config.tokens))
        x, sizes = _merged(x, sizes, k, tower.merge_tokens, config.prefix)
        x = block.mlp_sublayer(x)
    if alone and blocks:  # of the last block the class token is all that is used
        n = blocks[-1].ln_1(x)
        q, k, v = blocks[-1].attn.project(n, n[:, :1])
        seen = _attention(blocks[-1], q, k, v, sizes, num_frames, config.tokens)
        x = blocks[-1].mlp_sublayer(x[:, :1] + blocks[-1].attn.merge(seen))
    if alone or sizes is None:
        return tower.pool(x)
    if tower.attn_pool is not None:
        return tower.attn_pool(tower.ln_post(x), sizes.log())
    share = sizes[:, config.prefix :, None]
    return tower.ln_post((x[:, config.prefix :] * share).sum(1) / share.sum(1))


def _attention(
    block: Block, q: Tensor, k: Tensor, v: Tensor, sizes: Tensor | None, frames: int, tokens: int
) -> Tensor:
    """`Block.attention`, in which a key counts as often as its token's size says. `tokens` are
    those of a frame before any was merged."""
    if sizes is None:
        return block.attention(q, k, v, frames)
    left, sizes = sizes.shape[1], sizes[:, None, :, None]
    sizes, _, mask = block.keys_values(sizes, sizes, frames)
    k, v, _ = block.keys_values(k, v, frames)
    # No token is as small as 0: that is a key beyond the ends of a clip. Those that are seen make
    # up a frame.
    beyond = tokens / left if mask is None else 0.0
    bias = torch.where(sizes > 0, sizes, beyond).log().transpose(2, 3)
    return dot_product_attention(q, k, v, bias.to(q.dtype))


def _merged(
    x: Tensor, sizes: Tensor | None, keys: Tensor, count: int, prefix: int
) -> tuple[Tensor, Tensor]:
    """The tokens, and their sizes, of which `count` patches were merged, or as many as there are
    pairs."""
    sizes = torch.ones(x.shape[:2], device=x.device) if sizes is None else sizes
    count = min(count, (x.shape[1] - prefix) // 2)
    if not count:
        return x, sizes
    with torch.autocast(x.device.type, enabled=False):
        pairs = closest_pairs(keys[:, :, prefix:].float().mean(dim=1), count)
    patches, of_patches = merge(x[:, prefix:], sizes[:, prefix:], *pairs)
    if not prefix:
        return patches, of_patches
    return torch.cat([x[:, :prefix], patches], 1), torch.cat([sizes[:, :prefix], of_patches], 1)


def closest_pairs(
    keys: Float[Tensor, "frames tokens dim"], count: int
) -> tuple[Int[Tensor, "frames pairs"], Int[Tensor, "frames pairs"]]:
    """The places of `count` tokens, at most half of all, and of those that they are merged into. A
    place may be merged into twice, none is on both sides."""
    first, second = F.normalize(keys[:, ::2], dim=-1), F.normalize(keys[:, 1::2], dim=-1)
    cosine, nearest = (first @ second.transpose(1, 2)).max(dim=-1)
    merged = cosine.topk(count, dim=-1).indices
    return 2 * merged, 2 * nearest.gather(1, merged) + 1


def merge(
    x: Float[Tensor, "frames tokens width"],
    sizes: Float[Tensor, "frames tokens"],
    merged: Int[Tensor, "frames pairs"],
    into: Int[Tensor, "frames pairs"],
) -> tuple[Float[Tensor, "frames left width"], Float[Tensor, "frames left"]]:
    """The tokens that are left, in their order, and their sizes."""
    total = sizes.scatter_add(1, into, sizes.gather(1, merged))
    gone = torch.zeros_like(sizes).scatter(1, merged, 1.0)
    left = gone.argsort(dim=1, stable=True)[:, : x.shape[1] - merged.shape[1]]
    place = (1 - gone).cumsum(1).long() - 1  # of a token among those that are left
    parts = _rows(x, merged) * (sizes.gather(1, merged) / total.gather(1, into))[..., None]
    means = _rows(x, left) * (sizes / total).gather(1, left)[..., None]
    target = place.gather(1, into)[..., None].expand_as(parts)
    return means.scatter_add(1, target, parts), total.gather(1, left)


def _rows(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
