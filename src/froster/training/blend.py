"""The straight line in weight space from a tuned network to CLIP (weight interpolation): measured
point by point, and one point chosen.

W(r) = r * CLIP + (1 - r) * tuned. The ratio r counts as in Open-VCLIP, which takes 0.5; WiSE-FT
(Wortsman et al., CVPR 2022) and PAINT (Ilharco et al., NeurIPS 2022) write alpha = 1 - r.
`docs/blend.md` has the rule and its reasons. `blend` is what `froster blend` does to a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Bool
from torch import Tensor

from froster.errors import CheckpointError, UsageError
from froster.evaluation.calibration import Calibration
from froster.evaluation.metrics import Predictions, Scorer, harmonic_mean, percent, standard_error
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.model_report import inherited
from froster.inference.recognizer import Recognizer, load
from froster.text.sentences import read_descriptions
from froster.training.fine_tune import use_of_weights
from froster.training.held_out import HeldOut, of_run
from froster.training.measure import EvalSet, Measuring, eval_sets, scored, scorer_of, videos_of
from froster.training.reporter import Reporter
from froster.training.run_folder import Run, read_run
from froster.training.weights import towards
from froster.utils.files import claim_folder, sole_writer, write_json
from froster.utils.tensors import StateDict

Rule = Literal["one-se", "best"]


@dataclass(frozen=True)
class Known:
    """What was measured before, of the very videos and labels that a line is measured on, by the
    names of the sets."""

    frozen: dict[str, Predictions]
    points: dict[float, dict[str, Predictions]]
    """By their ratios."""


class Line:
    """All networks W(r) in the memory of one: `student`'s weights are set anew for every ratio.
    Ratio 1 has CLIP's weights in the student's network (VCLIP's frames still see their neighbours).
    """

    def __init__(self, base: Recognizer, student: Recognizer, tuned: StateDict):
        self.base, self.student = base, student
        self.known = Known({}, {})
        self.start = {f"clip.{name}": tensor for name, tensor in base.clip.state_dict().items()}
        self.tuned = {name: tensor.to(student.device) for name, tensor in tuned.items()}

    def move_to(self, ratio: float) -> Recognizer:
        """The student, now with the weights W(ratio)."""
        state = towards(self.start, self.tuned, ratio, self.student.config.method.output_layers)
        self.student.files = None  # which hold other weights from now on
        self.student.model.load_state_dict(state)
        return self.student


class PointScorer(Scorer):
    """Scores with the weights of one point of a line."""

    def __init__(self, line: Line, ratio: float, texts: Sequence[str], truncate: bool):
        student = line.move_to(ratio)
        classes = student.class_embeddings(texts, truncate)
        super().__init__(student.model, classes, student.dtype, student.config.fusion)
        self.line, self.ratio = line, ratio

    def __call__(self, views: Tensor) -> Tensor:
        self.line.move_to(self.ratio)
        return super().__call__(views)


def measure_line(
    line: Line, ratios: Sequence[float], sets: Sequence[EvalSet], how: Measuring
) -> tuple[dict[str, Predictions], list[dict[str, Predictions]]]:
    """Frozen CLIP, and the network at each ratio, on every set, which share one decode; what the
    line has `known` is not measured again."""
    base, known = line.base, line.known
    frozen = dict(known.frozen)
    points = {ratio: dict(known.points.get(ratio, {})) for ratio in ratios}
    with how.reporter.bar(f"evaluate {len(ratios)} ratios", videos_of(sets)) as bar:
        for s in sets:
            texts = s.texts or s.classes
            bar(0, f"{s.name}: class texts")
            todo = [ratio for ratio in ratios if s.name not in points[ratio]]
            scorers: list[Scorer] = [
                PointScorer(line, ratio, texts, how.truncate) for ratio in todo
            ]
            if s.name not in frozen:
                classes = base.class_embeddings(texts, how.truncate)
                scorers.append(scorer_of(base, [classes]))
            bar(0, s.name)
            measured = scored(scorers, dataclasses.replace(s, also={}), how, bar)
            if s.name not in frozen:
                frozen[s.name] = measured.pop()
            for ratio, predictions in zip(todo, measured, strict=True):
                points[ratio][s.name] = predictions
        bar(0, "")
    return frozen, [points[ratio] for ratio in ratios]


def choose(ratios: Sequence[float], accuracies: Sequence[float], videos: int, rule: Rule) -> float:
    """The ratio that `accuracies` (per cent of `videos` held-out base videos) speak for: the
    largest (nearest to CLIP) of the highest accuracy (`best`), or of one that is at most one
    standard error below it (`one-se`)."""
    best = max(accuracies)
    floor = best - (standard_error(best, videos) if rule == "one-se" else 0.0)
    return max(r for r, accuracy in zip(ratios, accuracies, strict=True) if accuracy >= floor)


def curve(
    line: Line,
    held: HeldOut,
    sets: Sequence[EvalSet],
    how: Measuring,
    points: int = 11,
    rule: Rule = "one-se",
) -> dict[str, Any]:
    """All points of the line, evenly from 0 to 1, and the choice between them, for `blend.json`."""
    assert held.chooses is not None
    chooses, ratios = held.chooses, [i / (points - 1) for i in range(points)]
    frozen, by_ratio = measure_line(line, ratios, sets, how)
    measured = [
        {"ratio": r, **accuracies(p, chooses)} for r, p in zip(ratios, by_ratio, strict=True)
    ]
    choosing, videos = [p["choosing"] for p in measured], int(chooses.sum())
    best = max(choosing)
    return {
        "ratio": choose(ratios, choosing, videos, rule),
        "rule": rule,
        "choosing": {
            "videos": videos,
            "of": held.source,
            "best": best,
            "standard_error": standard_error(best, videos),
        },
        "reported": {
            "base": len(chooses) - videos,
            "novel": len(held.parts.novel_test) if "novel" in frozen else 0,
        },
        "frozen": accuracies(frozen, chooses),
        "points": measured,
        "unreadable": [message for p in frozen.values() for _, message in p.errors],
    }


def accuracies(
    predictions: dict[str, Predictions], chooses: Bool[Tensor, " videos"]
) -> dict[str, Any]:
    """On the choosing base videos, on the others, and on the novel ones, if there are some."""
    hit = predictions["base"].ranks() < 1
    base = percent(hit[~chooses]) if (~chooses).any() else None
    novel = predictions["novel"].top(1) if "novel" in predictions else None
    hm = harmonic_mean(base, novel) if base is not None and novel is not None else None
    return {"choosing": percent(hit[chooses]), "base": base, "novel": novel, "hm": hm}


FILE = "blend.json"


@dataclass(frozen=True)
class BlendOptions:
    """What a run is blended by. Raises UsageError where ratio or points are none."""

    data: Path | None = None
    """The run's data, if it lies elsewhere now."""
    root: Path | None = None
    model: str | None = None
    """The run's CLIP, if it lies elsewhere now."""
    epochs: tuple[int, int] | None = None
    """Of the checkpoints to average; None: the run's mean."""
    points: int = 11
    rule: Rule = "one-se"
    ratio: float | None = None
    """The share of CLIP; None: that which held-out base videos choose."""
    workers: int = 0
    device: str | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise UsageError(f"--ratio lies between 0 (tuned) and 1 (CLIP), not {self.ratio:g}")
        if self.points < 2:
            raise UsageError(f"--points must be 2 or more (ratio 0 and ratio 1), not {self.points}")


def blend(
    folder: Path, out: Path, options: BlendOptions, reporter: Reporter | None = None
) -> dict[str, Any]:
    """The report, which `out` gets too, beside the model at the ratio. Raises FrosterError where
    the run cannot be blended."""
    asked, reporter = options, reporter or Reporter()
    run = read_run(folder)
    held = of_run(run, asked.data, asked.root) if asked.ratio is None else None
    name = asked.model or run.source.model
    base = loaded(name, run, asked, reporter)
    check_start(base, name, run, asked)
    student = loaded(str(folder / "model"), run, asked, reporter)
    student.calibration = Calibration()  # the run's is of other weights
    tuned, words = run.tuned(student, asked.epochs)
    line = Line(base, student, tuned)
    claim_folder(out, FILE, "choose another --out")
    report: dict[str, Any] = {"run": str(folder), "tuned": words, "ratio": asked.ratio}
    with sole_writer(out):
        if held is not None:
            reporter.say(base.summary(name))
            report |= measured(line, held, run, asked, reporter)
        line.move_to(report["ratio"]).save(out / "model", {**inherited(run.report), **report})
        write_json(out / FILE, report)
    return report


def loaded(name: str, run: Run, asked: BlendOptions, reporter: Reporter) -> Recognizer:
    with reporter.bar(f"loading {name}", keep=False):
        return load(
            name, classes=run.source.class_file, device=asked.device, precision=asked.precision
        )


def check_start(base: Recognizer, name: str, run: Run, asked: BlendOptions) -> None:
    """Raises CheckpointError where it is not what the run started from."""
    if weights_fingerprint(base) != run.source.weights:
        hint = (
            "the run did not start from"
            if asked.model
            else "has changed since the run: pass --model"
        )
        raise CheckpointError(f"{name} holds another CLIP, which {hint}")
    for key, value in use_of_weights(base).items():
        if getattr(run.source, key) not in (None, value):
            raise CheckpointError(
                f"{name} has another {key} than the CLIP that the run started from"
            )


def measured(
    line: Line, held: HeldOut, run: Run, asked: BlendOptions, reporter: Reporter
) -> dict[str, Any]:
    """All points, and the ratio that is chosen."""
    source = run.source
    sentences = read_descriptions(source.descriptions) if source.descriptions else {}
    sets = eval_sets(line.student, line.student.config, held.parts, sentences)
    how = Measuring(asked.workers, source.truncate, reporter)
    return curve(line, held, sets, how, asked.points, asked.rule)
