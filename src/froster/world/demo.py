"""`froster demo`: the whole job on the nano CLIP and the world, offline, in about two minutes.

Frozen CLIP, VCLIP without distillation and VCLIP with it (FROSTER), tuned on 16 videos of each base
class, measured on base, novel and the cross-dataset sets. Settings are the study's (`docs/lab.md`),
chosen on held-out base videos; nothing here looks at the other sets before the end.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from froster.inference.recognizer import Recognizer, load
from froster.methods import VCLIP
from froster.methods.recipe import Recipe
from froster.report import page
from froster.report.accuracy import Column, accuracy_chart, accuracy_table
from froster.report.clips import Clip, Verdict, classified_clips
from froster.report.plots import training_curves
from froster.training.distill import distill_preset
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.measure import (
    EvalRow,
    EvalSet,
    Measuring,
    asked_together,
    change_lines,
    measure,
)
from froster.training.plan import default_recipe
from froster.training.reporter import Drawn, Reporter
from froster.training.trainer import Trained
from froster.training.weights import halfway, with_weights
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text
from froster.utils.progress import attempt, console, output, progress
from froster.utils.text import shell_command
from froster.world.clips import WorldClips
from froster.world.files import write_video
from froster.world.sets import SETS, Videos, render_set

SHOTS = 16
TESTS_PER_CLASS = 10
TEST_SETS = ("base", "novel", "near", "mid", "far")
COLUMNS = [Column(name) for name in ("base", "novel", "hm", "near", "mid", "far")]
TOGETHER = [Column(name, together=True) for name in ("base", "novel", "hm")]
ARMS = {"finetuned": "none", "froster": "residual"}
WORDS = (
    "base: the classes tuned on. novel: others, most of them doing what base things do. hm: the"
    " harmonic mean of both. near, mid and far: labels ever less like base ones (near: base things"
    " in new pairings; mid: novel and far things in dim light; far: other things, with a colour in"
    " their names, doing what no base thing does)."
)
ASKED = (
    "With *: base and novel videos, asked for the labels of both together, as a user asks who does"
    " not know which they are."
)
NAMES = {"frozen": "frozen CLIP", "finetuned": "fine-tuned (VCLIP)", "froster": "FROSTER"}


def run(seed: int, out: Path, *, as_json: bool = False) -> dict[str, Any]:
    """Run the demo and write its folder. Returns (and with `as_json` prints) the result."""
    began = time.monotonic()
    claim_folder(out, "demo.txt", "choose another --out, or remove it")
    with sole_writer(out):
        write_text(out / "demo.txt", f"Written by: froster demo --seed {seed}\n")
        base = load("nano")
        rows, clips = measured(base, seed, out)
        seconds = round(time.monotonic() - began, 1)
        result = {"seed": seed, "rows": [row.to_dict() for row in rows], "seconds": seconds}
        report = {**result, "settings": settings(base, seed)}
        write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
        attempt("report.html", lambda: write_report(out, rows, clips, seed))
    if as_json:
        print(json.dumps(result))
    else:
        show(rows, clips, out, seconds)
    return result


def measured(base: Recognizer, seed: int, out: Path) -> tuple[list[EvalRow], list[Clip]]:
    """The rows of frozen CLIP and of each arm, which is tuned for them, and the videos of novel
    classes, if these worked."""
    with progress() as bars:
        videos, sampling = render(seed, bars), base.config.sampling
        how = Measuring(reporter=Drawn(bars))
        train_set = WorldClips(videos["train"], sampling, train=True, seed=seed)
        tests = {name: WorldClips(videos[name], sampling, train=False) for name in TEST_SETS}
        sets = [EvalSet(name, clips, clips.videos.classes) for name, clips in tests.items()]
        sets = asked_together(sets)
        rows = [EvalRow("frozen", "as shipped", measure(base, sets, how, "frozen CLIP"))]
        students: dict[str, Recognizer] = {"frozen": base}
        for arm in ARMS:
            student, trained = tune(base, arm, train_set, seed, out, how.reporter)
            students[arm] = with_weights(student, trained.average)
            rows += arm_rows(base, arm, student, trained, sets, how)
            students[arm].save(out / arm, {"demo": True, "seed": seed, **rows[-3].to_dict()})
        novel = videos["novel"]
        shown = lambda: classify_novel(students, novel, out / "videos", bars)  # noqa: E731
        return rows, attempt("videos of novel classes", shown) or []


def render(seed: int, bars: Progress) -> dict[str, Videos]:
    """The training videos, drawn by the seed, and the fixed test videos of every set."""
    tested = sum(len(SETS[name].classes) for name in TEST_SETS)
    total = SHOTS * len(SETS["base"].classes) + TESTS_PER_CLASS * tested
    bar = bars.add_task("render the world", total=total, note="")
    tick = lambda _: bars.update(bar, advance=1)  # noqa: E731
    videos = {"train": render_set("base", SHOTS, seed, "train", tick)}
    for name in TEST_SETS:
        videos[name] = render_set(name, TESTS_PER_CLASS, split="test", progress=tick)
    return videos


def recipe_of(base: Recognizer, seed: int) -> Recipe:
    return dataclasses.replace(default_recipe(base), seed=seed)


def tune(
    base: Recognizer, arm: str, train_set: WorldClips, seed: int, out: Path, reporter: Reporter
) -> tuple[Recognizer, Trained]:
    distill, classes = distill_preset(ARMS[arm]), train_set.videos.classes
    how = FineTuning(VCLIP(), distill, recipe_of(base, seed), name=NAMES[arm])
    return fine_tune(base, how, train_set, classes, out / "runs" / arm, Hooks(reporter))


def arm_rows(
    base: Recognizer,
    arm: str,
    student: Recognizer,
    trained: Trained,
    sets: list[EvalSet],
    how: Measuring,
) -> list[EvalRow]:
    """The epoch average (the row that counts), the last epoch, and half the average with half of
    CLIP."""
    half = halfway(base, student, trained.average)
    variants = [
        (arm, f"mean of {trained.averaged} epochs", trained.average),
        (f"{arm}_last", "last epoch", trained.last),
        (f"{arm}_blend", "half the mean, half frozen", half),
    ]
    return [
        EvalRow(name, weights, measure(with_weights(student, state), sets, how, name))
        for name, weights, state in variants
    ]


def classify_novel(
    models: dict[str, Recognizer], novel: Videos, folder: Path, bars: Progress
) -> list[Clip]:
    """Write three held-out videos of novel classes as files and classify the files, as a user
    would."""
    picked = [len(novel) // 6, len(novel) // 2, 5 * len(novel) // 6]
    bar = bars.add_task("classify videos of novel classes", total=len(picked), note="")
    clips = []
    for index in picked:
        label = novel.classes[int(novel.labels[index])]
        path = write_video(video_of(folder, label), novel.frames[index])
        verdicts = []
        for name, model in models.items():
            answer = model.classify(path, novel.classes)
            verdicts.append(Verdict(NAMES[name], answer.labels[:5], answer.scores[:5]))
        frames = models["frozen"].read_views(path, 1)[0]
        clips.append(Clip(f"{path.name}  (right: {label})", frames, label, verdicts))
        bars.update(bar, advance=1)
    return clips


def video_of(folder: Path, label: str) -> Path:
    return folder / f"{label.replace(' ', '_')}.mp4"


def try_it(clips: list[Clip], out: Path) -> str | None:
    """A command that asks FROSTER for one of the videos, one that it named right if there is one,
    among the labels of all. None where there is no video."""
    if not clips:
        return None
    right = [clip for clip in clips if clip.verdicts[-1].labels[0] == clip.label]
    label = (right or clips)[0].label or ""
    labels = ", ".join(sorted(clip.label or "" for clip in clips))
    return shell_command(
        "classify", video_of(out / "videos", label), "--model", out / "froster", "--labels", labels
    )


def settings(base: Recognizer, seed: int) -> dict[str, Any]:
    return {
        "shots": SHOTS,
        "tests_per_class": TESTS_PER_CLASS,
        "recipe": dataclasses.asdict(recipe_of(base, seed)),
        "distill": {arm: dataclasses.asdict(distill_preset(kind)) for arm, kind in ARMS.items()},
    }


def show(rows: list[EvalRow], clips: list[Clip], out: Path, seconds: float) -> None:
    table = Table("method", "weights", *(c.name for c in COLUMNS), box=None, pad_edge=False)
    for row in rows:
        style = "bold" if row.method in NAMES else "dim"
        values = (f"{column.value(row):.1f}" for column in COLUMNS)
        table.add_row(row.method, row.weights, *values, style=style)
    output.print(table)
    console.print()
    console.print(
        f"accuracy in per cent, one seed; one standard error is about {rows[0].error('novel'):.0f}"
        " points, so small differences mean nothing (docs/lab.md has many seeds)"
    )
    console.print(WORDS)
    console.print()
    for row in (row for row in rows if row.method in ARMS):
        console.print(f"{NAMES[row.method]}:")
        for line in change_lines(rows[0], row):
            console.print(f"  {line}")
    console.print()
    console.tell(f"{seconds:.0f} s. Report: {out / 'report.html'}")
    if (pasted := try_it(clips, out)) is not None:
        console.print("try:")
        console.tell(pasted)


def write_report(out: Path, rows: list[EvalRow], clips: list[Clip], seed: int) -> None:
    main = {NAMES[row.method]: row for row in rows if row.method in NAMES}
    columns, figures, report = [*COLUMNS, *TOGETHER], out / "figures", out / "report.html"
    chart = accuracy_chart(main, columns, figures / "accuracy.png")
    metrics = {NAMES[arm]: out / "runs" / arm / "metrics.jsonl" for arm in ARMS}
    curves = training_curves(metrics, figures / "training.png")
    tests = ", ".join(f"{name} {len(rows[0].predictions[name].labels)}" for name in TEST_SETS)
    caption = (
        "Top-1 accuracy with one standard error of test sampling; dashed what guessing gets. Test"
        f" videos: {tests}. {ASKED}"
    )
    about = (
        f"A nano CLIP, pretrained on still images of a rendered world, was tuned on {SHOTS} videos"
        f" of each of {len(SETS['base'].classes)} base classes (seed {seed}), once without"
        " distillation and once with FROSTER's residual feature distillation. Every set is scored"
        " against its own class names; novel, near, mid and far were never seen in training nor"
        " used to choose anything."
    )
    caution = (
        "One run of one seed shows how the parts work together, not which method is better:"
        " differences of a few points change sign from seed to seed. docs/lab.md holds the study"
        " over many seeds."
    )
    in_short = [
        page.paragraph(about),
        page.figure(chart, report, caption),
        page.paragraph(WORDS, "note"),
        accuracy_table(rows, columns, [i for i, row in enumerate(rows) if row.method in NAMES]),
        page.paragraph(caution, "note"),
    ]
    training = [page.figure(curves, report, "Running means over the steps.")]
    sections = [("", in_short), ("Training", training), *novel_sections(clips, out, report)]
    page.write_page(report, "froster demo", sections)


def novel_sections(clips: list[Clip], out: Path, report: Path) -> list[page.Section]:
    """The videos of novel classes, and the command to ask for one; nothing where there are none."""
    pasted = try_it(clips, out.absolute())
    if pasted is None:
        return []
    strips = classified_clips(clips, out / "figures" / "clips.png")
    caption = (
        "Held-out videos, written as files, classified among the novel classes. Green: the right"
        " label."
    )
    return [
        ("Videos of novel classes", [page.figure(strips, report, caption)]),
        ("Use the model", [page.code(f"{pasted}\n")]),
    ]
