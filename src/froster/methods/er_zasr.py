"""ER-ZASR (Chen & Huang, ICCV 2021): zero-shot recognition by elaborated definitions of the classes
and of the objects that a video shows, and by elaborative rehearsal.

The video features and the objects are made once and stored; what is here is trained on them. Names
of modules are those of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.model import unit
from froster.encoders.reading import State
from froster.methods.bert import Bert, mean_token

TEMPERATURE = 0.1
DROPOUT = 0.5


class Texts(NamedTuple):
    """Texts as token ids with their masks: 1 for a token, 0 for padding."""

    ids: Int[Tensor, "texts length"]
    mask: Int[Tensor, "texts length"]


class Paired(NamedTuple):
    """A batch's videos by what moves and by what is seen, each unit length, or their products with
    texts."""

    video: Float[Tensor, "batch _"]
    objects: Float[Tensor, "batch _"]

    def times(self, texts: Float[Tensor, "texts embed"]) -> Paired:
        return Paired(self.video @ texts.T, self.objects @ texts.T)

    def late(self) -> Float[Tensor, "batch _"]:
        """The score of the paper's model: objects speak for a class, never against one."""
        return self.video + self.objects.clamp(min=0)

    def early(self) -> Float[Tensor, "batch _"]:
        """The score of the authors' evaluation over three splits, which is another."""
        return self.video + self.objects


class ElaborativeRehearsal(nn.Module):
    """Stored features, and texts, in one space."""

    def __init__(self, bert: Bert, features: int, embed: int = 512):
        super().__init__()

        def gate() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(2 * embed, embed), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(embed, embed)
            )

        self.vis_encoder = nn.ModuleDict({"ft_embed": nn.Linear(features, embed)})
        self.txt_backbone = nn.ModuleDict({"bert": bert})
        self.txt_encoder = nn.ModuleDict({"ft_embed": nn.Linear(bert.width, embed)})
        self.act_gate_fc, self.obj_gate_fc = gate(), gate()

    @classmethod
    def for_weights(cls, state: State, heads: int | None = None) -> ElaborativeRehearsal:
        """A network of the sizes that weights under the authors' names tell."""
        start = "txt_backbone.bert."
        bert = Bert(
            {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}, heads
        )
        embed, features = state["vis_encoder.ft_embed.weight"].shape
        return cls(bert, features, embed)

    @property
    def bert(self) -> Bert:
        return self.txt_backbone["bert"]  # type: ignore[return-value]

    @property
    def features(self) -> int:
        """Width of the video features that it reads."""
        return int(self.vis_encoder["ft_embed"].in_features)  # type: ignore[arg-type]

    def texts(self, texts: Texts) -> Float[Tensor, "texts embed"]:
        """Unit length."""
        hidden = F.dropout(self.bert(*texts), DROPOUT, self.training)
        return unit(self.txt_encoder["ft_embed"](mean_token(hidden, texts.mask)))

    def raw(self, features: Float[Tensor, "batch features"], objects: Texts) -> Paired:
        """Both streams of videos before they see each other."""
        return Paired(unit(self.vis_encoder["ft_embed"](features)), self.texts(objects))

    def gated(self, raw: Paired) -> Paired:
        """Each stream weighed by what both show."""
        both = torch.cat(raw, dim=1)
        gates = (gate(both).sigmoid() for gate in (self.act_gate_fc, self.obj_gate_fc))
        return Paired(*(unit(gate * x) for gate, x in zip(gates, raw, strict=True)))

    def forward(self, features: Float[Tensor, "batch features"], objects: Texts) -> Paired:
        return self.gated(self.raw(features, objects))


def contrast(
    scores: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    return F.cross_entropy(scores / TEMPERATURE, targets)


def rehearse(
    scores: Float[Tensor, "batch concepts"], shown: Int[Tensor, "batch concepts"]
) -> Float[Tensor, ""]:
    """Elaborative rehearsal: a video against the concepts of the whole batch. The mean over all
    pairs of a video and a concept that it shows; the concepts of one video compete."""
    log_p = (scores / TEMPERATURE).log_softmax(1)
    return -log_p[shown.bool()].mean()


def losses(
    classes: Paired,
    targets: Int[Tensor, " batch"],
    concepts: Paired,
    shown: Int[Tensor, "batch concepts"],
    fusion: Literal["late", "early"] = "late",
) -> dict[str, Tensor]:
    """The terms of training, each with weight 1: those of both streams and of their sum, or, with
    early fusion, of the sum alone. Objects are cut off at zero in the late sum over classes, and
    not in the sum over concepts, as in the authors' code."""
    if fusion == "early":
        return {
            "ce_sum": contrast(classes.early(), targets),
            "er_sum": rehearse(concepts.early(), shown),
        }
    return {
        "ce_act": contrast(classes.video, targets),
        "ce_obj": contrast(classes.objects, targets),
        "ce_sum": contrast(classes.late(), targets),
        "er_act": rehearse(concepts.video, shown),
        "er_obj": rehearse(concepts.objects, shown),
        "er_sum": rehearse(concepts.early(), shown),
    }


def union(
    shown: Sequence[Sequence[str]], others: Sequence[Sequence[str]] = ()
) -> tuple[list[str], Int[Tensor, "batch concepts"]]:
    """The distinct concepts of a batch, in the order in which they first appear, a video's shown
    ones before its `others`, and which video shows which."""
    others = others or [[] for _ in shown]
    pairs = zip(shown, others, strict=True)
    texts = list(dict.fromkeys(text for pair in pairs for part in pair for text in part))
    targets = torch.tensor([[int(text in mine) for text in texts] for mine in map(set, shown)])
    return texts, targets


def learning_rate(step: int, steps: int, warmup: int, lr: float, batch: int) -> float:
    """At a step from 0: from `lr / batch` up by equal ratios, then down along a cosine over all
    steps that begins at `lr`."""
    if step < warmup:
        return lr * batch ** (step / warmup - 1)
    return lr * (1 + math.cos(math.pi * step / steps)) / (1 + math.cos(math.pi * warmup / steps))
