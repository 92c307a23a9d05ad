"""A model taught by one of the methods of `froster teach`, from inputs that are there already."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from froster.data.manifest import Item
from froster.encoders.blank import blank
from froster.encoders.last_map import LastMap
from froster.encoders.model import CLIP, unit
from froster.errors import UsageError
from froster.inference.recognizer import Recognizer
from froster.methods.closed_set import LPNet, LPPlusPlus, TaughtMethod, TipAdapter, TipNet
from froster.text.labels import names_of
from froster.training.lp_plus import fit_lp
from froster.training.options import TeachOptions
from froster.training.plan import is_small
from froster.training.prolip import ProjectionRecipe, strength_of, train_projection
from froster.training.teach_inputs import Inputs
from froster.training.tip_adapter import EPOCHS, fill_cache, train_keys

SMALL_LR = 1e-3
"""Of a small network such as the nano, whose weights are larger."""
STEPS = 300


@dataclass(frozen=True)
class TeachPlan:
    """What will be done."""

    method: str
    projection: ProjectionRecipe
    steps: int

    @classmethod
    def of(cls, base: Recognizer, asked: TeachOptions, videos: int, classes: int) -> TeachPlan:
        """Raises UsageError where the strength is none."""
        method = asked.method or "prolip"
        shots = videos / classes
        projection = ProjectionRecipe(
            lr=asked.lr or (SMALL_LR if is_small(base) else ProjectionRecipe.lr),
            steps=asked.steps or STEPS,
            strength=strength_of(asked.strength or "1/shots", shots),
            hold=asked.hold or "weights",
        )
        steps = {"tip": 0, "tip-f": EPOCHS}.get(method, projection.steps)
        return cls(method, projection, steps)

    def words(self) -> str:
        if self.method == "prolip":
            p = self.projection
            held = {
                "weights": f"its weights held with {p.strength:.3g}",
                "features": f"the frames' features held with {p.distill.beta_v:g}",
                "both": f"weights held with {p.strength:.3g}, features with {p.distill.beta_v:g}",
                "none": "nothing held",
            }[p.hold]
            return f"prolip: the last map alone, {p.steps} steps, learning rate {p.lr:g}, {held}"
        if self.method == "lp++":
            return f"lp++: a classifier of these classes alone, {self.steps} steps"
        trained = ", whose keys are trained" if self.method == "tip-f" else ""
        return f"{self.method}: a cache of the examples{trained}; these classes alone"

    def to_dict(self) -> dict[str, Any]:
        if self.method == "prolip":
            return {"name": self.method, **dataclasses.asdict(self.projection)}
        return {"name": self.method, "steps": self.steps}


def check_base(base: Recognizer) -> None:
    """Raises UsageError where nothing can be taught on top of a model."""
    if base.config.method.closed:
        raise UsageError(
            f"this model ({base.config.method.name}) knows its own classes alone: teach the model"
            " that it was made from"
        )


@dataclass(frozen=True)
class Lesson:
    """What is taught: labelled videos, and the class embeddings (K, E) of their classes."""

    items: Sequence[Item]
    classes: Sequence[str]
    table: Tensor

    @property
    def labels(self) -> Tensor:
        """Of each video the place of its class, (N,) int64."""
        places = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([places[i.label] for i in self.items], device=self.table.device)


def taught_model(
    base: Recognizer,
    plan: TeachPlan,
    inputs: Inputs,
    lesson: Lesson,
    on_step: Callable[[float], None],
) -> Recognizer:
    """The base is left as it is."""
    if plan.method == "prolip":
        return with_projection(base, plan.projection, inputs, lesson, on_step)
    items, classes, table, labels = lesson.items, lesson.classes, lesson.table, lesson.labels
    with torch.no_grad():
        videos = [inputs.videos(base.model, item.place, False) for item in items]
    if plan.method == "lp++":
        counts = torch.tensor([len(rows) for rows in videos], device=base.device)
        rows, of_rows = unit(torch.cat(videos)), labels.repeat_interleave(counts)
        weight = fit_lp(rows.double(), of_rows, table.double(), plan.steps, on_step).float()
        model = with_classifier(base, LPPlusPlus, classes)
        assert isinstance(model.model, LPNet)
        model.model.closed.weight.copy_(weight)
        return model
    # An index has as many segments of a video as it is long: their mean stands for it.
    even = [unit(rows.mean(0, keepdim=True)) if inputs.from_index else rows for rows in videos]
    stacked = torch.stack(even)
    model = with_classifier(base, TipAdapter, classes, keys=len(items))
    assert isinstance(model.model, TipNet)
    fill_cache(model.model, stacked, labels, table)
    if plan.method == "tip-f":
        train_keys(model.model, stacked, labels, epochs=plan.steps, on_step=on_step)
    return model


def with_projection(
    base: Recognizer,
    recipe: ProjectionRecipe,
    inputs: Inputs,
    lesson: Lesson,
    on_step: Callable[[float], None],
) -> Recognizer:
    """ProLIP: the same network with another last map."""
    network = copy.deepcopy(base.model)
    last = LastMap(network.clip.visual)
    dtype = torch.bfloat16 if base.dtype == torch.bfloat16 else last.weight.dtype
    kept = torch.stack([inputs.taught[item.place] for item in lesson.items]).to(dtype)
    last.set(train_projection(network, kept, lesson.labels, lesson.table, recipe, on_step))
    return base.with_network(network, base.config)


def with_classifier(
    base: Recognizer, kind: type[TaughtMethod], classes: Sequence[str], **sizes: Any
) -> Recognizer:
    """The same network with a classifier of these classes, still empty. Raises UsageError where its
    embeddings are compared in another way than CLIP's."""
    method = base.config.method
    options = tuple(dataclasses.asdict(method).items())
    made = kind(network=method.name, options=options, known=names_of(classes), **sizes)
    with blank():
        network = made.build(CLIP(base.clip.config))
    empty = {
        name: torch.zeros(weight.shape)
        for name, weight in network.state_dict().items()
        if name.startswith("closed.")
    }
    state = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    network.load_state_dict({**state, **empty}, assign=True)
    return base.with_network(network, dataclasses.replace(base.config, method=made))
