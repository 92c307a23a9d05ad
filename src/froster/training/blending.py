"""A run and a point of the line to CLIP, from its folder to a model: what `froster blend` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.errors import CheckpointError, UsageError
from froster.evaluation.calibration import Calibration
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.model_report import inherited
from froster.inference.recognizer import Recognizer, load
from froster.text.sentences import read_descriptions
from froster.training.blend import Line, Rule, curve
from froster.training.fine_tune import use_of_weights
from froster.training.held_out import HeldOut, of_run
from froster.training.measure import Measuring, eval_sets
from froster.training.reporter import Reporter
from froster.training.run_folder import Run, read_run
from froster.utils.files import claim_folder, sole_writer, write_json

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
