"""Parts that several methods put on top of CLIP's frames or into its blocks.

Temporal heads: frame embeddings (B, T, E) -> one vector a clip (B, E), before it is made unit.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Transformer
from froster.encoders.config import TextConfig
from froster.encoders.model import CLIP
from froster.errors import UsageError
from froster.text.bank import PromptBank
from froster.text.labels import place_of


def ones_at_classes(
    bank: PromptBank, rows: list[int], classes: tuple[str, ...], otherwise: str
) -> Float[Tensor, "prompts labels known"]:
    """The labels of a bank as a closed set knows them, the same for every prompt: ones at their
    places among `classes`. Raises UsageError on a label that is none of them; `otherwise` says what
    takes any."""
    known = {name: i for i, name in enumerate(classes)}
    places = []
    for label in bank.labels:
        place = place_of(label, known)
        if place is None:
            raise UsageError(
                f"this model knows only the {len(known)} classes that it was taught, and"
                f" {label.partition(':')[0]!r:.100} is none of them: {otherwise}"
            )
        places.append(place)
    return F.one_hot(torch.tensor(places), len(known)).float().expand(len(rows), -1, -1)


class TemporalTransformer(nn.Module):
    """Frame positions, CLIP-style blocks over the T frames, the mean; `skip` adds the head's input
    to its output.

    ActionCLIP's `Transf` and Text4Vis' head (6 layers, skip, LayerNorm eps 1e-12), X-CLIP's
    multi-frame integration (1 layer, skip), Efficient-Prompt's temporal model (no skip).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        positions: int,
        *,
        skip: bool = True,
        eps: float = 1e-5,
    ):
        super().__init__()
        if layers < 1 or heads < 1 or width % heads:
            raise UsageError(
                f"a temporal head of width {width} cannot have {layers} layers of {heads} attention"
                " heads"
            )
        self.skip = skip
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.transformer = Transformer(width, layers, heads, "quick_gelu", eps=eps)

    def initialise(self, std: float | None, positions_std: float) -> None:
        """Positions N(0, positions_std); linear layers N(0, std), or PyTorch's default for None;
        attention Xavier."""
        nn.init.normal_(self.positional_embedding, std=positions_std)
        for name, parameter in self.transformer.named_parameters():
            if name.endswith("in_proj_weight"):
                nn.init.xavier_uniform_(parameter)
            elif std is not None and parameter.ndim == 2:
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias") and (std is not None or "attn" in name):
                nn.init.zeros_(parameter)

    def forward(self, z: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch embed"]:
        y = self.transformer(z + self.positions(z.shape[1]))
        return (y + z if self.skip else y).mean(dim=1)

    def positions(self, frames: int) -> Float[Tensor, "time embed"]:
        """Of so many frames. Raises UsageError where there are not as many."""
        known = len(self.positional_embedding)
        if known < frames:
            raise UsageError(
                f"this network's temporal head was made for at most {known} frames, not for"
                f" {frames}"
            )
        return self.positional_embedding[:frames]


def heads_of(clip: CLIP) -> int:
    """Attention heads of a temporal transformer by default: the text tower's width / 64, or the
    joint width's where that many do not divide it (SigLIP 2 g-opt)."""
    width, heads = clip.config.embed_dim, max(1, clip.config.text.width // 64)
    return heads if width % heads == 0 else max(1, width // 64)


class LSTMHead(nn.Module):
    """ActionCLIP's `LSTM`: one layer over the frames, with a skip, then the mean."""

    def __init__(self, width: int):
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, z: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch embed"]:
        return (self.lstm(z)[0] + z).mean(dim=1)


class ConvHead(nn.Module):
    """ActionCLIP's `Conv_1D`: a depthwise convolution over three frames, with a skip, then the
    mean.

    At the start it shifts: the first quarter of the channels from the previous frame, the last from
    the next. The released code reads the memory of (B, T, E) as (B, E, T) in place of transposing,
    which mixes channels with times (`scrambled`); its weights need that.
    """

    def __init__(self, width: int, scrambled: bool):
        super().__init__()
        self.scrambled = scrambled
        self.shift = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)
        fold = width // 4
        with torch.no_grad():
            self.shift.weight.zero_()
            self.shift.weight[:fold, 0, 0] = 1
            self.shift.weight[fold : width - fold, 0, 1] = 1
            self.shift.weight[width - fold :, 0, 2] = 1

    def forward(self, z: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch embed"]:
        B, T, E = z.shape
        channels = z.reshape(B, E, T) if self.scrambled else z.transpose(1, 2)
        return (self.shift(channels).transpose(1, 2) + z).mean(dim=1)


def temporal_shift(
    x: Float[Tensor, "frames tokens width"], num_frames: int, prefix: int = 1, parts: int = 8
) -> Float[Tensor, "frames tokens width"]:
    """The first `prefix` tokens stay: the class token, if there is one. Of the patches, 1/8 of the
    channels come from the next frame, 1/8 from the previous one; zeros beyond the clip's ends
    (TSM)."""
    cls, patches = x[:, :prefix], x[:, prefix:].unflatten(0, (-1, num_frames))  # (B, T, N, D)
    fold = x.shape[-1] // parts
    padded = F.pad(patches, (0, 0, 0, 0, 1, 1))
    later, earlier, same = (
        padded[:, 2:, :, :fold],
        padded[:, :-2, :, fold : 2 * fold],
        patches[..., 2 * fold :],
    )
    return torch.cat([cls, torch.cat([later, earlier, same], dim=-1).flatten(0, 1)], dim=1)


def summary(x: Float[Tensor, "frames tokens width"], prefix: int) -> Float[Tensor, "frames width"]:
    """One vector for what a frame shows, of its tokens between two blocks: the class token, or
    without one (`prefix` 0) the mean of the patches."""
    return x[:, 0] if prefix else x.mean(dim=1)


class Adapter(nn.Module):
    """The bottleneck that AIM and AdaptFormer put beside CLIP's frozen layers.

    W2 act(W1 x), no skip. W2 = 0 at the start, so that nothing changes."""

    def __init__(
        self, width: int, bottleneck: int, activation: type[nn.Module], std: float | None = None
    ):
        """W1 is drawn as PyTorch does by default, or from a truncated normal distribution of
        deviation `std`."""
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.act = activation()
        self.up = nn.Linear(bottleneck, width)
        if std is None:
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        else:
            nn.init.trunc_normal_(self.down.weight, std=std)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        return self.up(self.act(self.down(x)))


def over_time(
    x: Float[Tensor, "frames tokens width"], num_frames: int
) -> Float[Tensor, "rows time width"]:
    """(B*T, L, D) -> (B*L, T, D): rows of the same token at all times."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)


def over_space(
    x: Float[Tensor, "rows time width"], num_tokens: int
) -> Float[Tensor, "frames tokens width"]:
    """The inverse of `over_time`: (B*L, T, D) -> (B*T, L, D)."""
    return x.unflatten(0, (-1, num_tokens)).transpose(1, 2).flatten(0, 1)


def drop_path(x: Float[Tensor, "*shape"], rate: float, training: bool) -> Float[Tensor, "*shape"]:
    """Stochastic depth: a row's whole branch is dropped with probability `rate`, the rest is scaled
    up."""
    if not training or rate == 0.0:
        return x
    keep = 1 - rate
    mask = torch.empty(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
    return x * mask / keep


def require(
    method: str,
    clip: CLIP,
    *,
    class_token: bool = False,
    class_token_read: bool = False,
    causal_text: bool = False,
) -> None:
    """Raises UsageError that names what of this the encoder lacks: frames that are embedded by
    their class token, or by tokens of which that is one; texts whose tokens see only those before
    them."""
    lacks, vision = [], clip.config.vision
    if class_token and vision.pool != "class":
        lacks.append("no class token that stands for a frame")
    if class_token_read and (not vision.class_token or vision.pool == "mean"):
        lacks.append("no class token that a frame's embedding is made of")
    if causal_text and clip.config.text.full_length:
        lacks.append("a text tower whose tokens see those behind them")
    if lacks:
        raise UsageError(f"{method} cannot use this encoder: it has {' and '.join(lacks)}")


def check_reserved(count: int, text: TextConfig) -> int:
    """Learned tokens, beside which a name must still fit. Raises UsageError, also where padding
    counts: there is no room behind a text then."""
    if count and text.full_length:
        raise UsageError("learned prompts need a causal text tower, which this encoder has not")
    if not 0 <= count <= text.context - 3:
        raise UsageError(
            f"{count} learned tokens do not fit a context of {text.context}, which has room for"
            f" {text.context - 3} beside start, name and end"
        )
    return count
