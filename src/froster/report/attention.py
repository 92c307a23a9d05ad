"""Where a model looks: the attention of what a frame is embedded by to the patches of every frame,
as numbers and as pictures.

A frame is embedded by its class token (CLIP), by the mean of its patches (CLIPA), or by a probe
that asks all of its tokens (SigLIP, PE-Core). A block's picture is the attention of the tokens that
are so read, each as much as it is; a probe stands behind the blocks and has a picture of its own.

The weights are those of the forward pass: they are made again from what each block's attention was
given, with its own projections, neighbours and mask, and are compared with what the block made of
them. Of the methods' additions:

- neighbour frames (VCLIP): a patch is a key of its own frame and of the frames beside it. What is
  shown on a frame is the sum of what all frames give to *its* patches, so that colour lies on the
  pixels it is about.
- prompt, message, summary and context tokens (Vita-CLIP, X-CLIP, TC-CLIP) take their share of the
  attention but have no place in a picture.
- frames that a method does not take for single ones (DUALPATH's beyond its eight) stay dark.
- a second attention over time (AIM), adapters and STAN's branch are not attention to patches of a
  frame and not shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from froster.encoders.block import Block
from froster.encoders.preprocessing import normalise
from froster.encoders.vision import VisionTower
from froster.errors import UsageError
from froster.inference.recognizer import Recognizer
from froster.methods.base import VideoCLIP
from froster.methods.tc_clip import ContextBlock
from froster.utils.drawing import save
from froster.utils.files import atomic_file
from froster.utils.tensors import finite
from froster.video.transforms import inference_transform

ANIMATION_FPS = 3


class BlockInput(NamedTuple):
    """What a block's attention was given in a forward pass of one clip."""

    block: Block
    x: Tensor
    """(T, n, D), after ln_1: the frame's own L tokens, the class token first if there is one, then
    what the method adds."""
    num_frames: int


@dataclass(frozen=True)
class CLSAttention:
    """How the frames of a clip divide their attention, mean over the heads."""

    patches: Tensor
    """(T, rows, columns): what each patch gets from all frames that see it."""
    shares: dict[str, float]
    """Of all that the T frames give away: to `patches`, `class tokens`, `added tokens` and
    `padding`; sums to 1."""


@torch.no_grad()
def cls_attention(
    model: VideoCLIP, frames: Tensor, layer: int = -1, rollout: bool = False
) -> CLSAttention:
    """One clip's frames (T, 3, H, W), normalised -> their attention in one block; an attention pool
    counts as the last one.

    `rollout`: through all blocks up to that one (Abnar & Zuidema, 2020): the product of (A + I) /
    2, where A is a block's attention among the clip's own tokens, without padding and added tokens,
    its rows made to sum to 1 again; a pool's weights are multiplied as they are. Raises UsageError
    where there is no such block, or where a block does not attend as `Block.attend` does.
    """
    tower = model.clip.visual
    inputs, reading = tower_inputs(tower, lambda: model.encode_frames(frames[None]))
    count = len(inputs) + (tower.attn_pool is not None)
    if not -count <= layer < count:
        raise UsageError(
            f"there is no layer {layer}: the network has {count}, 0 to {count - 1} or -{count} to"
            " -1"
        )
    L, prefix, last = tower.config.tokens, tower.config.prefix, layer % count
    if last < len(inputs) or rollout:
        used = inputs[: last + 1]
        given = rolled_out(used, reading) if rollout else in_block(used[-1], reading)  # (T, T, n)
    else:
        given = on_own_frame(reading)
    total = given.sum(dim=(0, 1)) / len(given)  # (n,)
    shares = {
        "patches": float(total[prefix:L].sum()),
        "class tokens": float(total[:prefix].sum()),
        "added tokens": float(total[L:].sum()),
        "padding": max(0.0, 1 - float(total.sum())),
    }
    patches = given.new_zeros(len(frames), tower.config.side**2)
    patches[model.frames_of(len(frames))] = given[..., prefix:L].sum(dim=0)
    return CLSAttention(patches.unflatten(-1, (tower.config.side, -1)).cpu(), shares)


def video_attention(
    recognizer: Recognizer, frames: Tensor, layer: int = -1, rollout: bool = False
) -> CLSAttention:
    """The same of frames (T, H, W, 3) uint8 as they were read."""
    how = recognizer.preprocessing
    pixels = inference_transform(frames, recognizer.image_size, how).to(recognizer.device)
    return cls_attention(recognizer.model, normalise(pixels, how), layer, rollout)


def rolled_out(inputs: Sequence[BlockInput], reading: Tensor) -> Tensor:
    """Frame t to token j of frame s through several blocks and `reading` (T, L), (T, T, L)."""
    L = reading.shape[1]
    # From the last block down, so that only one row a frame is ever multiplied.
    rows = on_own_frame(reading).flatten(1)  # (T, T*L)
    for block_input in reversed(inputs):
        A = joint(block_input, rows=L)[..., :L]  # (T, L, T, L)
        A = (A / A.sum(dim=(2, 3), keepdim=True)).flatten(2).flatten(0, 1)  # (T*L, T*L)
        rows = (rows @ A + rows) / 2
    return rows.unflatten(1, (-1, L))


def in_block(block_input: BlockInput, reading: Tensor) -> Tensor:
    """Frame t to token j of frame s in one block, (T, T, n): the attention of the tokens by as much
    as each is read, (T, L)."""
    used = int(reading.sum(dim=0).nonzero().max()) + 1
    return torch.einsum("tl,tlsn->tsn", reading[:, :used], joint(block_input, rows=used))


def on_own_frame(reading: Tensor) -> Tensor:
    """What each frame reads of its own tokens (T, L), among those of all frames, (T, T, L)."""
    return torch.diag_embed(reading.T).permute(1, 2, 0)


def joint(block_input: BlockInput, rows: int) -> Tensor:
    """Attention of the first `rows` tokens of each frame t to token j of frame s, mean over the
    heads, (T, rows, T, n).

    What goes to padding is left out, so a row sums to 1 only where there is none.
    """
    given = weights(block_input, rows).mean(dim=1)  # (T, rows, L')
    place = sources(block_input)
    T, n, _ = block_input.x.shape
    spread = given.new_zeros(T, rows, 1 + T * n)
    spread.scatter_add_(2, place[:, None].expand(-1, rows, -1), given)
    return spread[..., 1:].unflatten(-1, (T, n))


def weights(block_input: BlockInput, rows: int) -> Tensor:
    """The attention weights of the first `rows` tokens, (T, h, rows, L'), over the keys that the
    block attends to."""
    block, x, num_frames = block_input
    q, k, v = block.attn.project(x)
    k, v, mask = block.keys_values(k, v, num_frames)
    logits = q[:, :, :rows] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None and mask.is_floating_point():
        logits = logits + mask
    elif mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    attention = logits.softmax(dim=-1)
    made = block.attn.merge(attention @ v)
    real = finite(block.attend(x, num_frames)[:, :rows], "attention outputs")
    if not torch.allclose(made, real, rtol=1e-3, atol=1e-4 * float(real.abs().max())):
        raise UsageError(
            f"{type(block).__name__} attends in a way of its own, which these weights do not"
            " describe"
        )
    return attention


def sources(block_input: BlockInput) -> Tensor:
    """Where every key comes from, (T, L'): 1 + its place among the clip's T*n tokens; 0 for
    padding."""
    block, x, num_frames = block_input
    T, n, _ = x.shape
    # Numbered tokens take the way of the keys, so this holds for whatever a method gathers.
    places = torch.arange(1.0, T * n + 1, device=x.device).view(T, 1, n, 1)
    return block.keys_values(places, places, num_frames)[0][:, 0, :, 0].long()


def tower_inputs(
    tower: VisionTower, forward: Callable[[], object]
) -> tuple[list[BlockInput], Tensor]:
    """The same with how much of a frame's embedding is made of each of its tokens behind the last
    block, (T, L)."""
    config, pool = tower.config, tower.attn_pool
    if pool is None:
        inputs = block_inputs(tower, forward)
        reading = inputs[-1].x.new_zeros(len(inputs[-1].x), config.tokens)
        if config.pool == "class":
            reading[:, 0] = 1
        else:
            reading[:, config.prefix :] = 1 / config.side**2
        return inputs, reading
    asked: list[Tensor] = []
    hook = pool.register_forward_pre_hook(lambda pool, given: asked.append(given[0]))
    try:
        inputs = block_inputs(tower, forward)
    finally:
        hook.remove()
    q, k, _ = pool.queries_keys_values(asked[-1])
    reading = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)[:, 0]
    return inputs, finite(reading, "attention weights")


def block_inputs(tower: VisionTower, forward: Callable[[], object]) -> list[BlockInput]:
    """What the attention of every block of the tower was given while `forward` was called."""
    inputs: dict[object, BlockInput] = {}

    def noting(block: Block, attend: Callable[..., Any]):

        def note(x: Tensor, num_frames: int, *place: Tensor) -> Any:
            inputs[block] = BlockInput(block, x.detach(), num_frames)
            return attend(x, num_frames, *place)

        return note

    blocks = list(tower.transformer.resblocks)
    ours = [block for block in blocks if isinstance(block, Block)]
    names = ["attended" if isinstance(block, ContextBlock) else "attend" for block in ours]
    for block, name in zip(ours, names, strict=True):
        setattr(block, name, noting(block, getattr(block, name)))
    try:
        forward()
    finally:
        for block, name in zip(ours, names, strict=True):
            delattr(block, name)
    for i, module in enumerate(blocks):
        if module not in inputs:
            kind = type(module).__name__
            raise UsageError(
                "the attention of this network cannot be drawn: it is not within frames in block"
                f" {i} ({kind})"
            )
    return [inputs[module] for module in blocks]


@dataclass(frozen=True)
class StripRow:
    """One model's line of a strip."""

    label: str
    frames: Tensor
    """(T, 3, S, S) uint8, as shown."""
    heat: Tensor | None = None
    """(T, rows, columns), or None for the bare frames."""

    def pictures(self) -> np.ndarray:
        """(T, S, S, 3) uint8: the frames in grey, coloured where the model looks; one scale for the
        whole row."""
        if self.heat is None:
            return self.frames.permute(0, 2, 3, 1).numpy()
        # A few patches can take most of the attention: they would leave everything else dark.
        least = self.heat.min()
        scale = (self.heat.flatten().quantile(0.995) - least).clamp(min=1e-12)
        coarse = ((self.heat - least) / scale).clamp(0, 1)[:, None]
        size = self.frames.shape[2:]
        heat = F.interpolate(coarse, size, mode="bilinear", align_corners=False)[:, 0].numpy()
        colour = np.asarray(colormaps["inferno"](heat))[..., :3]
        grey = self.frames.float().mean(dim=1)[..., None].numpy() / 255
        alpha = 0.25 + 0.6 * heat[..., None]
        return (255 * ((1 - alpha) * grey + alpha * colour)).round().astype(np.uint8)


def attention_strip(
    rows: Sequence[StripRow], columns: Sequence[str], note: str, path: Path
) -> Path:
    """One row per model, one column per frame."""
    figure = Figure(figsize=(1.2 + 1.25 * len(columns), 0.35 + 1.3 * len(rows)))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row.pictures()):
            axes = grid[r][c]
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if r == 0:
                axes.set_title(columns[c], fontsize=8)
        grid[r][0].set_ylabel(row.label, fontsize=8, rotation=0, ha="right", va="center")
    figure.subplots_adjust(wspace=0.04, hspace=0.04)
    below = grid[-1][0].get_position().y0 - 0.12 / figure.get_figheight()
    figure.text(0.5, below, note, fontsize=7, color="#555555", ha="center", va="top")
    return save(figure, path)


def attention_animation(rows: Sequence[StripRow], columns: Sequence[str], path: Path) -> Path:
    """The models side by side, frame after frame, as a looping .gif or an .mp4. Raises UsageError
    on another suffix."""
    figure = Figure(figsize=(2.2 * len(rows), 2.6), dpi=110)
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(rows), squeeze=False)[0]
    panels = []
    for axes, row in zip(grid, rows, strict=True):
        pictures = row.pictures()
        axes.set_axis_off()
        axes.set_title(row.label, fontsize=8)
        panels.append((axes.imshow(pictures[0]), pictures))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.07, top=0.86, wspace=0.03)
    clock = figure.text(0.5, 0.015, "", fontsize=8, ha="center")
    film = []
    for t, column in enumerate(columns):
        for panel, pictures in panels:
            panel.set_data(pictures[t])
        clock.set_text(column)
        canvas.draw()
        film.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return write_film(film, path)


def write_film(film: Sequence[np.ndarray], path: Path) -> Path:
    """Pictures (H, W, 3) uint8 -> a looping .gif or an .mp4."""
    check_film(path)
    with atomic_file(path) as part:
        if path.suffix.lower() == ".gif":
            first, *rest = (Image.fromarray(picture) for picture in film)
            loop: dict[str, Any] = {"duration": 1000 // ANIMATION_FPS, "loop": 0}
            first.save(part, "GIF", save_all=True, append_images=rest, **loop)
            return path
        # H.264 halves the colours' resolution.
        height, width = (side - side % 2 for side in film[0].shape[:2])
        with av.open(str(part), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=ANIMATION_FPS, options={"crf": "18"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for picture in film:
                cut = np.ascontiguousarray(picture[:height, :width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
            container.mux(stream.encode(None))
    return path


def check_film(path: Path) -> None:
    """Raises UsageError unless it is a .gif or an .mp4."""
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise UsageError(f"an animation is a .gif or an .mp4, not {path.name}")
