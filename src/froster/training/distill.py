"""Residual feature distillation, the contribution of FROSTER (section 3.2).

    h(z) = z + alpha * W2 GELU(W1 z)                    W2 = 0 at the start, no biases
    L    = L_CE + beta_v * D(h_v(z), f) + beta_t * D(h_t(w), u)

z: student frame (or video) features, f: those of the frozen teacher on the same frames; w, u: class
features of the student and the teacher for the same prompts. The identity path lets the teacher
hold the student near CLIP, the MLP path takes up what must differ for video. Only the loss sees h:
the classifier works on z and w themselves.

What is compared where it is not features one by one: scores of the classes (Hinton's logits, TACO's
anchors), and relations within the batch (similarity preserving, RKD, PKT).

What is compared, through what and with which teacher is a cell of a grid (`Distill`), of which
FROSTER's is the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from froster.encoders.model import unit
from froster.methods.base import Features, class_embeddings
from froster.training.distill_options import Distill
from froster.training.distributed import gather_clips, ranks

Losses = dict[str, Tensor]
"""Name -> number, as `metrics.jsonl` has it."""


class Projector(nn.Module):
    """h: (…, E) -> (…, E). W1 Kaiming-normal, W2 zero, no biases, exact GELU, and the sum is not
    made unit again."""

    def __init__(self, width: int, config: Distill):
        super().__init__()
        self.alpha = config.alpha
        self.residual = config.kind == "residual"
        self.w1 = nn.Linear(width, width, bias=False)
        self.w2 = nn.Linear(width, width, bias=False)
        nn.init.kaiming_normal_(self.w1.weight)
        if self.residual and config.zero_init:
            nn.init.zeros_(self.w2.weight)
        else:
            nn.init.kaiming_normal_(self.w2.weight)

    def forward(self, z: Tensor) -> Tensor:
        y = self.w2(F.gelu(self.w1(z)))
        return z + self.alpha * y if self.residual else y


def projector_of(width: int, config: Distill) -> nn.Module:
    """What student features (…, E) go through before they are compared."""
    if config.kind == "plain":
        return nn.Identity()
    if config.kind != "linear":
        return Projector(width, config)
    linear = nn.Linear(width, width, bias=False)
    if config.zero_init:
        nn.init.eye_(linear.weight)
    return linear


def distance(student: Tensor, teacher: Tensor, config: Distill) -> Tensor:
    """Features (…, E) of the projected student and of the teacher -> one number."""
    if config.distance == "cosine":
        distances = 1 - F.cosine_similarity(student, teacher, dim=-1)
    elif config.distance == "l2":
        distances = (student - teacher).norm(dim=-1)
    elif config.distance == "hint":
        distances = (student - teacher).square().mean(dim=-1)
    else:
        distances = (student - teacher).square().sum(dim=-1)
    return distances.mean() if config.reduction == "mean" else distances.sum()


RKD_DISTANCE, RKD_ANGLE = 25.0, 50.0
"""Weights of the two parts of RKD, as RepDistiller has them."""
TINY = 1e-7


# Each takes the student's tensor, then the teacher's, and returns one number. Relations are of the
# rows of (B, …), whose widths may differ.


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of logits (…, K), the mean over the rows
    (Hinton et al., 2015)."""
    p, q = ((z / temperature).flatten(0, -2).log_softmax(-1) for z in (teacher, student))
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def anchor_scores(videos: Tensor, classes: Tensor, anchors: Tensor) -> Tensor:
    """Videos (…, E) against classes (K, E) by way of unit anchors (P, E): (v A^T)(A c^T), (…, K)
    (TACO)."""
    return (videos @ anchors.T) @ (anchors @ classes.T)


def random_anchors(count: int, width: int, seed: int) -> Tensor:
    """Unit vectors (P, E) of uniform direction."""
    return unit(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)))


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over B x B of the squared differences of the Gram matrices, of which every row has unit
    length (Tung & Mori, ICCV 2019)."""
    s, t = (unit(x @ x.T) for x in (student.flatten(1), teacher.flatten(1)))
    return (s - t).square().mean()


def relational(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD (Park et al., CVPR 2019): distances between pairs and angles of triples."""
    distances = rkd_distance(student, teacher)
    return RKD_DISTANCE * distances + RKD_ANGLE * rkd_angle(student, teacher)


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss on the distances of all pairs over the mean of those that are not zero."""
    return F.smooth_l1_loss(pair_distances(student.flatten(1)), pair_distances(teacher.flatten(1)))


def pair_distances(x: Tensor) -> Tensor:
    """(B, D) -> (B, B)."""
    squares = x.square().sum(1)
    squared = squares[:, None] + squares - 2 * x @ x.T
    apart = 1 - torch.eye(len(x), device=x.device)
    distances = squared.clamp(min=1e-12).sqrt() * apart
    count = (distances > 0).sum().clamp(min=1)
    return distances / (distances.sum() / count).clamp(min=TINY)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss on the cosines of the angles of all triples, B^3 of them."""
    return F.smooth_l1_loss(triple_cosines(student.flatten(1)), triple_cosines(teacher.flatten(1)))


def triple_cosines(x: Tensor) -> Tensor:
    """(B, D) -> (B, B, B): at corner i the cosine between the directions to j and to k."""
    directions = F.normalize(x - x[:, None], dim=-1)
    return directions @ directions.mT


def probability_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """PKT (Passalis & Tefas, ECCV 2018): mean over B x B of p log(p / q), where p and q are the
    cosines, moved to [0, 1], as shares of their row."""
    p, q = (shares(x.flatten(1)) for x in (teacher, student))
    return (p * ((p + TINY) / (q + TINY)).log()).mean()


def shares(x: Tensor) -> Tensor:
    z = F.normalize(x, dim=-1)
    similarity = (1 + z @ z.T) / 2
    return similarity / similarity.sum(dim=1, keepdim=True)


RELATIONS = {"similarities": similarity_preserving, "rkd": relational, "pkt": probability_transfer}


def gathered(student: Tensor, teacher: Tensor, counts: bool) -> tuple[Tensor, Tensor]:
    """The rows (B, E) of all ranks, without those of a rank whose clips do not count."""
    numbers = torch.full((len(student),), 0 if counts else -1, device=student.device)
    return gather_clips(student, teacher, numbers)[:2]


@dataclass
class Scored:
    """A network's view of a step, where one term holds videos and classes together."""

    features: Features
    prompts: Tensor
    """(P, K, E), raw."""
    scale: Tensor


class Distillation(nn.Module):
    """A projector and a distance for each side that is distilled; a side without gradient has no
    projector, and its distance is reported as zero."""

    draw_anchors: Callable[[int, int, int], Tensor] = staticmethod(random_anchors)

    def __init__(self, width: int, config: Distill, *, vision: bool = True, text: bool = True):
        super().__init__()
        self.config = config
        self.projector_v = projector_of(width, config) if vision else None
        self.projector_t = projector_of(width, config) if text else None

    def forward(
        self,
        features: Features,
        prompts: Tensor,
        teacher_features: Features | None,
        teacher_prompts: Tensor,
        weight: float = 1.0,
        clip_prompts: bool = False,
    ) -> tuple[Losses, Losses]:
        """Features of B clips and raw prompts (P, K, E) of the student and of the teacher -> what
        is minimised, beta times the distances, and the distances, which are reported.

        `weight` is that of this rank's clips (`Task.forward`). `clip_prompts`: each clip has
        brought a prompt of its own; else the prompts are those of all classes, the same on every
        rank.
        """
        config = self.config
        of_clips = weight if config.reduction == "mean" else ranks() * (weight > 0)
        vision = text = prompts.new_zeros(())
        if self.projector_v is not None and teacher_features is not None:
            z, f = self.vision_feature(features), self.vision_feature(teacher_features)
            if config.target == "features":
                vision = distance(self.projector_v(z), f, config) * of_clips
            else:
                vision = self.relation(self.projector_v(z), f, weight > 0)
        if self.projector_t is not None:
            w, u = self.text_feature(prompts), self.text_feature(teacher_prompts)
            if config.target == "features":
                of_text = of_clips if clip_prompts else 1.0
                text = distance(self.projector_t(w), u, config) * of_text
            elif clip_prompts:
                text = self.relation(self.projector_t(w), u, weight > 0)
            else:
                text = RELATIONS[config.target](self.projector_t(w), u)
        losses = {"distill_v": config.beta_v * vision, "distill_t": config.beta_t * text}
        return losses, {"distill_v": vision.detach(), "distill_t": text.detach()}

    def relation(self, student: Tensor, teacher: Tensor, counts: bool) -> Tensor:
        """Among the clips or frames (…, E) of all ranks, of which this one's may not count."""
        pair = gathered(student.flatten(0, -2), teacher.flatten(0, -2), counts)
        return RELATIONS[self.config.target](*pair)

    def joint(
        self, student: Scored, teacher: Scored, seed: int, weight: float, clip_prompts: bool
    ) -> tuple[Losses, Losses]:
        """As `forward`, for the targets that compare videos with classes. `seed` draws the anchors,
        the same on all ranks."""
        config = self.config
        v, c = self.scored(student)
        f, u = self.scored(teacher)
        v = v.detach() if self.projector_v is None else self.projector_v(v)
        c = c.detach() if self.projector_t is None else self.projector_t(c)
        if clip_prompts:
            c, u = gathered(c, u, weight > 0)
        if config.target == "logits":
            z, z_teacher = student.scale * v @ c.T, teacher.scale * f @ u.T
        else:
            anchors = self.draw_anchors(config.anchors, v.shape[-1], seed).to(v)
            if dist.is_initialized():
                dist.broadcast(anchors, 0)
            # The released code multiplies both with the student's scale, which so has a gradient
            # through the target too.
            z = student.scale * anchor_scores(v, c, anchors)
            z_teacher = student.scale * anchor_scores(f, u, anchors)
        term = soft_divergence(z, z_teacher, config.temperature) * weight
        return {"distill": config.joint_weight * term}, {"distill": term.detach()}

    def scored(self, side: Scored) -> tuple[Tensor, Tensor]:
        """Frames (B, T, E) or videos (B, E) as they are multiplied with the classes (K, E)."""
        features = side.features
        v = unit(features.frames) if self.config.level == "frame" else features.video
        return v, class_embeddings(side.prompts)

    def vision_feature(self, features: Features) -> Tensor:
        """What is distilled: (B, T, E) at frame level, (B, E) at video level."""
        if self.config.level == "frame":
            return unit(features.frames) if self.config.unit else features.frames
        return unit(features.video) if self.config.unit else features.pooled

    def text_feature(self, prompts: Tensor) -> Tensor:
        """Raw prompts (P, K, E) -> (K, E)."""
        return class_embeddings(prompts) if self.config.unit else prompts.mean(dim=0)
