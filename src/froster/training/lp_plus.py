"""LP++ (Huang et al., CVPR 2024): a linear probe of f (w_k + a_k t_k), by steps whose sizes follow
from the data, so that there is nothing to search.

    w_k starts as the mean of class k, a_k as 250 times the mean over classes of the mean of f t_k
    step of w:  4 N / largest eigenvalue of F'F, with momentum 0.9, in every step
    step of a:  N / (4 max over k of the sum of (f t_k)^2), in every tenth

The released code differs in three places: it starts from sums in place of means, has a bias that
starts at random, and never clears the gradient of a, which so adds up over the steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from froster.utils.interrupt import check

STEPS = 300
EVERY = 10
"""Steps of w for one of a."""
MOMENTUM = 0.9
START = 250.0


def fit_lp(
    f: Float[Tensor, "rows embed"],
    labels: Int64[Tensor, " rows"],
    text: Float[Tensor, "classes embed"],
    steps: int = STEPS,
    on_step: Callable[[float], None] = lambda loss: None,
) -> Float[Tensor, "classes embed"]:
    """The rows w_k + a_k t_k, of unit embeddings `f`, which have every class, and unit class
    embeddings."""
    count, classes = len(f), len(text)
    one_hot = F.one_hot(labels, classes).to(f.dtype)
    sizes = one_hot.sum(0)
    w = one_hot.T @ f / sizes[:, None]
    of_text = f @ text.T
    start = START * ((one_hot * of_text).sum(0) / sizes).mean()
    a = start.expand(classes).clone()
    step_w = 4 * count / torch.linalg.matrix_norm(f, 2).square()
    step_a = count / (4 * of_text.square().sum(0).max())
    velocity = torch.zeros_like(w)
    for step in range(steps):
        check()
        logits = f @ w.T + a * of_text
        error = (logits.softmax(-1) - one_hot) / count
        velocity = MOMENTUM * velocity + error.T @ f
        w = w - step_w * velocity
        if (step + 1) % EVERY == 0:
            a = a - step_a * (error * of_text).sum(0)
        on_step(float(F.cross_entropy(logits, labels)))
    return w + a[:, None] * text
