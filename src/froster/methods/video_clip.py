"""What every method builds: a CLIP that reads videos."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from froster.clip.model import CLIP, unit

Pooling = Literal["frame_unit", "mean_then_unit"]


def pool(frame_embeddings: Tensor, pooling: Pooling) -> Tensor:
    """Frame embeddings (B, T, E) -> video embeddings (B, E).

    `frame_unit` (FROSTER, Open-VCLIP): mean of the unit frame embeddings, not made unit again, so that the logits are
    the mean of the frames' logits. `mean_then_unit` (ViFi-CLIP and most others): the mean of the raw ones, made unit.
    """
    if pooling == "frame_unit":
        return unit(frame_embeddings).mean(dim=1)
    return unit(frame_embeddings.mean(dim=1))


class VideoCLIP(nn.Module):
    """A CLIP, whose blocks a method may have changed, with a temporal pooling. This is what is trained and saved."""

    def __init__(self, clip: CLIP, pooling: Pooling = "frame_unit"):
        super().__init__()
        self.clip = clip
        self.pooling: Pooling = pooling

    def encode_frames(self, frames: Tensor) -> Tensor:
        """frames (B, T, 3, H, W), normalised -> frame embeddings (B, T, E), not unit length."""
        return self.clip.encode_image(frames)

    def encode_video(self, frames: Tensor) -> Tensor:
        """frames (B, T, 3, H, W), normalised -> video embeddings (B, E)."""
        return pool(self.encode_frames(frames), self.pooling)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids (K, L) -> (K, E), not unit length."""
        return self.clip.encode_text(tokens)

    def logits(self, videos: Tensor, classes: Tensor) -> Tensor:
        """Video embeddings (B, E) and unit class embeddings (K, E) -> (B, K)."""
        return self.clip.logit_scale.exp() * videos @ classes.T
