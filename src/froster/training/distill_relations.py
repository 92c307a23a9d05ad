"""What is compared where it is not features one by one: scores of the classes (Hinton's logits,
TACO's anchors), and relations within the batch (similarity preserving, RKD, PKT).

Every function takes the student's tensor, then the teacher's, and returns one number. Relations are
of the rows of (B, …), whose widths may differ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from froster.encoders.model import unit

RKD_DISTANCE, RKD_ANGLE = 25.0, 50.0
"""Weights of the two parts of RKD, as RepDistiller has them."""
TINY = 1e-7


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
