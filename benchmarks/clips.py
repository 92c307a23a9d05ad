"""Video files to measure readers on, made where they are needed: moving, textured, a little noisy,
as cameras give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """A sort of file: how it is coded, and how much there is of it."""

    suffix: str
    codec: str
    width: int
    height: int
    fps: int
    frames: int
    gop: int | None = None
    """Frames from one key frame to the next at most; None: as the coder likes."""
    bit_rate: int | None = None


# UCF101: 320x240, Xvid at 25 fps, 7.2 s and half a megabyte on average, a key frame every half
# second.
UCF = Kind("avi", "mpeg4", 320, 240, 25, 180, gop=12, bit_rate=570_000)
# As a site gives it: ten seconds, 1.6 megabit/s, a key frame every 250 frames.
HD = Kind("mp4", "libx264", 1280, 720, 30, 300, bit_rate=1_600_000)


def write_clip(path: Path, kind: Kind, seed: int = 0) -> Path:
    """A clip of its own for every seed; the same for the same one."""
    generator = torch.Generator().manual_seed(seed)
    scene = Scene(kind.width, kind.height, generator)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.fps)
        stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
        # PyAV's default cuts every picture into slices, which files in the wild hardly have and
        # threads can share out.
        stream.codec_context.thread_type = "FRAME"
        if kind.gop is not None:
            stream.codec_context.gop_size = kind.gop
        if kind.bit_rate is not None:
            stream.bit_rate = kind.bit_rate
        for number in range(kind.frames):
            picture = scene.picture(number / kind.fps)
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24"))
            )
        container.mux(stream.encode())
    return path


class Scene:
    """A textured ground that a hand-held camera drifts over, and a textured blob that crosses it."""

    def __init__(self, width: int, height: int, generator: torch.Generator) -> None:
        self.size = height, width
        self.generator = generator
        self.ground, self.thing = (_texture(2 * height, 2 * width, generator) for _ in range(2))
        self.phases = (torch.rand(4, generator=generator) * 6.28).tolist()

    def picture(self, second: float) -> Tensor:
        """(height, width, 3) uint8 RGB."""
        a, b, c, d = (phase + second for phase in self.phases)
        ground = self._seen(self.ground, a, b)
        thing = self._seen(self.thing, -c, d)
        rows, columns = (torch.linspace(-1, 1, n) for n in self.size)
        x, y = 0.7 * torch.tensor([c, d]).sin()
        mask = (12 * (0.35 - torch.hypot(rows[:, None] - y, columns - x))).sigmoid()
        noise = torch.randn(self.size, generator=self.generator) * 1.5
        return (ground.lerp(thing, mask) + noise).clamp(0, 255).byte().permute(1, 2, 0).contiguous()

    def _seen(self, canvas: Tensor, a: float, b: float) -> Tensor:
        """The part of a canvas (3, H, W) in view, at subpixel positions, for coders must not find
        whole blocks again."""
        move = torch.tensor([[a / 2, b / 3, a + b]]).sin() * torch.tensor([0.25, 0.25, 0.02])
        x, y, turn = move[0].tolist()
        view = torch.tensor([[[0.5, turn, x], [-turn, 0.5, y]]])
        grid = F.affine_grid(view, [1, 3, *self.size], align_corners=False)
        return F.grid_sample(canvas[None], grid, align_corners=False, padding_mode="reflection")[0]


def _texture(height: int, width: int, generator: torch.Generator) -> Tensor:
    """(3, height, width) of 0 to 255: noise of all scales, the coarse ones stronger, cut by edges,
    as in pictures."""

    def noise(cells: int, channels: int) -> Tensor:
        coarse = torch.randn(1, channels, cells, cells * width // height, generator=generator)
        return F.interpolate(coarse, (height, width), mode="bicubic")[0]

    image = sum(
        (
            noise(cells, 3) / cells**0.7
            for cells in (3, 6, 12, 24, 48, 96, 192, 384)
            if cells < height
        ),
        0 * noise(3, 3),
    )
    image /= image.std()
    edges = sum((30 * noise(cells, 1)).tanh() for cells in (4, 8, 16))
    return (25 * image + 30 * edges + 128).clamp(0, 255)
