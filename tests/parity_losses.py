"""Golden files of losses and steps that hold for any network: the distillation family, TACO, synaptic
intelligence, Open-MeDe. `parity.py` runs them."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from froster.encoders.checkpoints import (
    architecture_from_state_dict,
    from_official,
    strict_load,
    to_official,
)
from froster.encoders.model import CLIP, unit
from froster.methods import FineTuned, VideoCLIP, class_embeddings
from froster.methods.penalised import Consolidated, consolidate
from froster.methods.recipe import Recipe
from froster.training.distill import (
    anchor_scores,
    distance,
    probability_transfer,
    relational,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
    soft_divergence,
)
from froster.training.distill_options import Distill, distill_preset
from froster.training.importance import PathIntegral
from froster.training.meta import add_query_gradient
from froster.training.task import Task, Teacher
from froster.training.weights import RunningMean

Outputs = dict[str, Tensor]


def clip_of(official: dict[str, Tensor]) -> CLIP:
    clip = CLIP(architecture_from_state_dict(official)).eval()
    strict_load(clip, {from_official(name): tensor for name, tensor in official.items()})
    return clip


class TokenBank:
    """The prompts of a golden file, which are token rows already."""

    num_templates = 1

    def __init__(self, *tokens: Tensor):
        self.token_rows = torch.stack(tokens)
        self.rows = list(range(len(tokens)))
        self.labels = list(range(self.token_rows.shape[1]))

    def tokens(self, *rows: int) -> Tensor:
        return self.token_rows[list(rows)]

    def embed(self, encode_text: Callable[[Tensor], Tensor], rows: list[int]) -> Tensor:
        return torch.stack([encode_text(self.token_rows[row]) for row in rows])

    def encode(self, encode_text: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        return encode_text(tokens)


@torch.enable_grad()
def distill_losses(g: Any) -> Outputs:
    """Every loss with the gradients of what it is taken of; temperatures are in the names."""
    student = {
        name.removeprefix("student_"): x.requires_grad_()
        for name, x in g.inputs.items()
        if name.startswith("student_")
    }
    teacher = {
        name.removeprefix("teacher_"): x
        for name, x in g.inputs.items()
        if name.startswith("teacher_")
    }
    scale, targets = g.config["scale"], g.inputs["targets"]
    ce = F.cross_entropy(student["logits"], targets)
    s, t = student["features"], teacher["features"]
    regressed = F.linear(s, g.weights["regressor.weight"])
    weight = g.weights["regressor_map.weight"].flatten(1)
    mapped = F.linear(student["map"].movedim(1, -1), weight).movedim(-1, 1)
    hint, squares = distill_preset("hint"), Distill(distance="mse", unit=False)
    values: dict[str, Tensor] = {
        "ce": ce,
        "hint_features_mse": distance(regressed, t, hint),
        "hint_map_mse": distance(mapped.flatten(1), teacher["map"].flatten(1), hint),
        "hint_map_half_sum": distance(mapped.flatten(1), teacher["map"].flatten(1), squares) / 2,
        "sp_features": similarity_preserving(s, t),
        "sp_map": similarity_preserving(student["map"], teacher["map"]),
        "rkd_distance": rkd_distance(s, t),
        "rkd_angle": rkd_angle(s, t),
        "rkd": relational(s, t),
        "pkt": probability_transfer(s, t),
        "kd_total_official_weights": 0.1 * ce
        + 0.9 * soft_divergence(student["logits"], teacher["logits"], 4.0),
    }
    z = scale * student["video_unit"] @ student["class_unit"].T
    z_teacher = scale * teacher["video_unit"] @ teacher["class_unit"].T
    for name in g.outputs:
        start, _, temperature = name.rpartition("_T")
        if start == "kd":
            pair = student["logits"], teacher["logits"]
        elif start == "clip_kd":
            pair = z, z_teacher
        else:
            continue
        values[name] = soft_divergence(*pair, float(temperature))
    grams = [x @ x.T for x in (s, t)]
    whole = [gram / gram.norm() for gram in grams]
    out = {**values, "variant_sp_features_frobenius": (whole[0] - whole[1]).square().mean()}
    for name in g.outputs:
        if name.startswith("grad/"):
            _, loss, of = name.split("/")
            x = student[of.removeprefix("student_")]
            (out[name],) = torch.autograd.grad(values[loss], [x], retain_graph=True)
    return out


@torch.enable_grad()
def taco_step(g: Any) -> Outputs:
    """The step of TACO through the task that trains it, and both ways of its test."""
    config = g.config
    distill = Distill(
        "plain",
        beta_v=config["weight"],
        level="video",
        target="anchors",
        teacher="ema",
        ema_beta=config["beta"],
        anchors=len(g.inputs["anchors"]),
    )
    student = FineTuned().build(clip_of(g.part("model.")))
    task = Task(
        student,
        TokenBank(g.inputs["train_tokens"]),  # type: ignore[arg-type]
        Recipe(specialise=True),
        teacher=Teacher(student.clip, distill),
    )
    assert task.specialise is not None and task.distill is not None
    teacher = task.teacher
    strict_load(teacher.clip, {from_official(n): t for n, t in g.part("teacher.").items()})  # type: ignore[union-attr]
    projection = g.part("video_head.vision_proj.")
    strict_load(
        task.specialise,
        {name.replace("_A", "_a").replace("_B", "_b"): t for name, t in projection.items()},
    )
    task.distill.draw_anchors = lambda count, width, seed: g.inputs["anchors"].clone()  # type: ignore[method-assign]
    task.update_teacher()
    frames, rng = g.inputs["frames"], random.Random(0)
    outputs = task.outputs(frames, g.inputs["targets"], [0], rng)
    losses, report = task.losses(frames, outputs, rng)
    total = sum(losses.values())
    named = {f"model.{to_official(n)}": p for n, p in student.clip.named_parameters()} | {
        f"video_head.vision_proj.{n.replace('_a', '_A').replace('_b', '_B')}": p
        for n, p in task.specialise.named_parameters()
    }
    gradients = torch.autograd.grad(total, list(named.values()), retain_graph=True)
    out: Outputs = {f"grad/{n}": x for n, x in zip(named, gradients, strict=True)}
    with torch.no_grad():
        taught, classes = teacher.encode(frames), class_embeddings(outputs.prompts)  # type: ignore[union-attr]
        teacher_classes = class_embeddings(outputs.teacher_prompts)  # type: ignore[arg-type]
        raw = student.encode(frames).frames
    anchors, v = g.inputs["anchors"], outputs.features.video
    scores = anchor_scores(v, classes, anchors)
    teacher_scores = anchor_scores(taught.video, teacher_classes, anchors)
    s = student.clip.logit_scale
    detached = F.cross_entropy(outputs.logits, g.inputs["targets"]) + config["weight"] * (
        soft_divergence(s.exp() * scores, (s.exp() * teacher_scores).detach())
    )
    (out["variant_grad_logit_scale_teacher_detached"],) = torch.autograd.grad(detached, [s])
    out |= {
        "ce": report["ce"],
        "kl": report["distill"],
        "loss": total,
        "frame_emb": raw,
        "class_emb": classes,
        "logits": v @ classes.T,
        "projected_video_unit": v,
        "anchor_scores_student": scores,
        "anchor_scores_teacher": teacher_scores,
        "teacher_video_unit": taught.video,
        "teacher_class_unit": teacher_classes,
    }
    state = teacher.clip.state_dict()  # type: ignore[union-attr]
    out |= {f"teacher_after/{to_official(name)}": x for name, x in state.items()}
    with torch.no_grad():
        tests = torch.stack([student.encode_text(rows) for rows in g.inputs["eval_tokens"]])
        tested = unit(tests.mean(0))
        features = [student.encode(view) for view in g.inputs["eval_frames"].unbind(1)]
        projected = [task.specialise.features(student, one).video @ tested.T for one in features]
        without = torch.stack([100 * one.video @ tested.T for one in features]).mean(0)
        out |= {
            "eval_class_emb": tested,
            "eval_scores_with_projection": torch.stack(projected).softmax(-1).mean(0).softmax(-1),
            "eval_probs_without_projection": without.softmax(-1),
        }
    return out


@torch.enable_grad()
def si_path(g: Any) -> Outputs:
    """Two tasks, and the penalty between them. Task 2 is held by van de Ven's importance."""
    config, out = g.config, {}
    width = g.weights["fc1.weight"].shape
    net = nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(width[1], width[0]),
            act=nn.Tanh(),
            fc2=nn.Linear(width[0], len(g.weights["fc2.weight"])),
        )
    )
    strict_load(net, dict(g.weights))
    held: Consolidated | None = None
    omega: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}  # clipped or not
    for task in (1, 2):
        optimizer = torch.optim.AdamW(
            net.parameters(),
            lr=config["lr"],
            betas=(config["b1"], config["b2"]),
            eps=1e-6,
            weight_decay=config["wd"],
        )
        paths = {total: PathIntegral(net, held, total) for total in (True, False)}
        ces, penalties = [], []
        for x, y in zip(g.inputs[f"x{task}"], g.inputs[f"y{task}"], strict=True):
            ce = F.cross_entropy(net(x), y)
            penalty = held.of(net) if held is not None else torch.zeros(())
            optimizer.zero_grad()
            (ce + penalty).backward()
            for path in paths.values():
                path.before()
            optimizer.step()
            for path in paths.values():
                path.after()
            ces.append(ce)
            penalties.append(penalty / config["c"])
        out |= {f"task{task}/ce": torch.stack(ces), f"task{task}/penalty": torch.stack(penalties)}
        records = {total: path.record() for total, path in paths.items()}
        for name, weight in net.named_parameters():
            for clip in (True, False):
                record = records[not clip]
                omega[clip][name] = consolidate(
                    record[f"path/{name}"],
                    record[f"change/{name}"],
                    omega[clip].get(name),
                    config["xi"],
                    clip,
                )
            out |= {
                f"task{task}/weights_after/{name}": weight.detach().clone(),
                f"task{task}/path_integral/{name}": records[True][f"path/{name}"],
                f"task{task}/path_integral_unregularised/{name}": records[False][f"path/{name}"],
                f"task{task}/omega/{name}": omega[False][name],
                f"task{task}/omega_pathint/{name}": omega[True][name],
            }
        start = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        held = Consolidated(start, config["c"], dict(omega[False]))
        if task == 1:
            out |= probe(g, net, start, omega)
    return out


def probe(
    g: Any, net: nn.Module, start: dict[str, Tensor], omega: dict[bool, dict[str, Tensor]]
) -> Outputs:
    """Both penalties, and the gradient of one, a little away from the end of a task."""
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            weight.add_(g.inputs[f"delta/{name}"])
    penalties = {clip: Consolidated(start, 1.0, dict(omega[clip])) for clip in omega}
    out = {
        "probe/penalty": penalties[False].of(moved),
        "probe/penalty_pathint": penalties[True].of(moved),
    }
    gradients = torch.autograd.grad(out["probe/penalty"], list(moved.parameters()))
    for (name, weight), gradient in zip(moved.named_parameters(), gradients, strict=True):
        out[f"probe/grad/{name}"] = gradient
        torch.testing.assert_close(penalties[False].gradient(name, weight), gradient)
    return out


@torch.enable_grad()
def openmede_step(g: Any) -> Outputs:
    """The gradients of a meta step of the image tower, and the mean of the epochs."""
    config = g.config
    embed = g.weights["proj"].shape[1]
    text = {
        "positional_embedding": torch.zeros(4, 64),
        "token_embedding.weight": torch.zeros(9, 64),
        "text_projection": torch.zeros(64, embed),
    }
    visual = {f"visual.{name}": tensor for name, tensor in g.weights.items()}
    clip = CLIP(architecture_from_state_dict({**visual, **text})).eval()
    strict_load(
        clip.visual, {from_official(n).removeprefix("visual."): t for n, t in visual.items()}
    )
    clip.logit_scale.data.fill_(2.75)
    student = VideoCLIP(clip, "frame_unit")
    named = {to_official(f"visual.{n}"): p for n, p in clip.visual.named_parameters()}
    weights = list(named.values())

    def loss(part: str) -> Tensor:
        logits = student(g.inputs[f"{part}_frames"], g.inputs["class_unit"])
        return F.cross_entropy(logits, g.inputs[f"{part}_targets"])

    def gradients() -> dict[str, Tensor]:
        return {n.removeprefix("visual."): p.grad.clone() for n, p in named.items()}  # type: ignore[union-attr]

    support = loss("support")
    out: Outputs = {"loss_support": support, "loss_query_at_start": loss("query").detach()}
    support.backward()
    first = gradients()
    out |= {f"grad_support/{name}": x for name, x in first.items()}
    out["loss_query_at_fast"] = add_query_gradient(
        weights, lambda: loss("query"), config["delta"], config["alpha"]
    )
    for name, total in gradients().items():
        out[f"grad_total/{name}"] = total
        out[f"grad_query/{name}"] = (total - first[name]) / config["delta"]
    epochs = int(config["epochs"])
    recipe = Recipe(
        epochs=epochs,
        average_from=1,
        averaging="gaussian",
        average_mu=config["mu"],
        average_sigma=config["sigma"],
    )
    factors = torch.tensor([recipe.weight_of_epoch(t) for t in range(1, epochs + 1)])
    mean = RunningMean(recipe.weight_of_epoch)
    for epoch in g.inputs["gwa_epoch_parameters"]:
        mean.add({"all": epoch})
    return {**out, "gwa_weights": factors / factors.sum(), "gwa_average": mean.mean["all"]}
