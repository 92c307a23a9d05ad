"""One training step and one evaluation of the released code, number by number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from froster.clip.checkpoints import to_official
from froster.distill import Distill
from froster.methods import VCLIP, pool
from froster.optim import adamw
from froster.task import Task, class_embeddings
from golden import clip_from, close, golden, part


class TokenBank:
    """The prompts of a golden file, which are token rows already."""

    num_templates = 1

    def __init__(self, *tokens: Tensor):
        self.tokens = torch.stack(tokens)

    def train_tokens(self, template: int) -> Tensor:
        return self.tokens

    def encode(self, encode_text, tokens: Tensor) -> Tensor:
        return encode_text(tokens)

    def prompt_table(self, encode_text) -> Tensor:
        return torch.stack([encode_text(rows) for rows in self.tokens])


@pytest.fixture(scope="module")
def g() -> dict[str, Tensor]:
    return golden("froster_step")


def make_task(g: dict[str, Tensor], distill: Distill) -> Task:
    bank = TokenBank(g["input/train_tokens_template"], g["input/train_tokens_bare"])
    student = VCLIP().build(clip_from(part(g, "weights/model.")))
    task = Task(student, bank, distill, teacher=clip_from(part(g, "weights/raw_model.")))
    for name in ("projector_v", "projector_t"):
        projector = getattr(task.distill, name)
        projector.w1.weight.data.copy_(g[f"weights/{name}.0.weight"])
        projector.w2.weight.data.copy_(g[f"weights/{name}.2.weight"])
    return task


def official_names(task: Task) -> dict[str, torch.nn.Parameter]:
    names = {f"model.{to_official(n)}": p for n, p in task.student.clip.named_parameters()}
    for side in ("projector_v", "projector_t"):
        projector = getattr(task.distill, side)
        names |= {f"{side}.0.weight": projector.w1.weight, f"{side}.2.weight": projector.w2.weight}
    return names


@pytest.mark.parametrize(("form", "distance"), [("cos", "cosine"), ("l2", "l2")])
def test_losses_and_every_gradient(g: dict[str, Tensor], form: str, distance: str) -> None:
    task = make_task(g, Distill(distance=distance))
    losses = task.losses(g["input/frames"], g["input/labels"], task.text_prompts(0), template=0)
    close(losses.ce, g["output/ce"], 2e-5)
    close(losses.vision, g[f"output/loss_v_{form}"], 2e-5)
    close(losses.text, g[f"output/loss_t_{form}"], 2e-5)
    close(losses.total, g[f"output/total_{form}"], 2e-5)
    close(losses.logits, g["output/logits"], 2e-4)

    losses.total.backward()
    parameters = official_names(task)
    expected = part(g, f"output/grad_{form}/")
    assert expected
    for name, gradient in expected.items():
        close(parameters[name].grad, gradient, atol=2e-5 * gradient.abs().max().item(), rtol=1e-3)
    for name, gradient in part(g, f"output/grad_{form}_last32rows/").items():
        close(parameters[name].grad[-32:], gradient, atol=2e-5 * gradient.abs().max().item(), rtol=1e-3)
    norm = torch.nn.utils.clip_grad_norm_([p for p in task.parameters() if p.requires_grad], 1.0)
    close(norm, g[f"output/grad_norm_{form}"], atol=1e-4, rtol=1e-4)


def test_adamw_step(g: dict[str, Tensor]) -> None:
    task = make_task(g, Distill())
    task.losses(g["input/frames"], g["input/labels"], task.text_prompts(0), template=0).total.backward()
    torch.nn.utils.clip_grad_norm_([p for p in task.parameters() if p.requires_grad], 1.0)
    parameters = official_names(task)
    gradients = {name: p.grad.clone() for name, p in parameters.items()}
    adamw(task, lr=1e-3, weight_decay=0.01).step()
    expected = part(g, "output/adamw_step/")
    assert len(expected) >= 6
    for name, weight in expected.items():
        clear = gradients[name].abs() > 1e-6  # below that the sign of the step is rounding
        assert clear.any()
        close(parameters[name][clear], weight[clear], atol=1e-6, rtol=0)


def test_features_before_the_losses(g: dict[str, Tensor]) -> None:
    task = make_task(g, Distill())
    with torch.no_grad():
        prompts = task.text_prompts(0)
        frames = task.student.encode_frames(g["input/frames"])
        close(frames, g["output/frame_emb"])
        close(class_embeddings(prompts), g["output/class_emb"])
        close(class_embeddings(task.teacher_prompts), g["output/teacher_class_emb"])
        close(task.distill.projector_v(frames / frames.norm(dim=-1, keepdim=True)), g["output/img_encode"])
        close(task.distill.projector_t(class_embeddings(prompts)), g["output/text_encode"])


def test_evaluation_sums_raw_logits_over_views(g: dict[str, Tensor]) -> None:
    student = VCLIP().build(clip_from(part(g, "weights/model.")))
    with torch.no_grad():
        classes = class_embeddings(torch.stack([student.encode_text(rows) for rows in g["input/eval_tokens"]]))
        close(classes, g["output/eval_class_emb"])
        views = torch.stack([pool(student.encode_frames(view), "frame_unit") for view in g["input/eval_views"]])
        close(student.logits(views, classes), g["output/eval_logits_per_view"], 2e-4)
        close(student.logits(views.sum(0), classes), g["output/eval_logits"], 2e-4)
