"""`froster demo`: the whole job on the nano CLIP and the world, offline, in about two minutes.

The world's classes have habits, as real ones have. Frozen CLIP, VCLIP without distillation and
VCLIP with it (FROSTER), tuned on 16 videos of each base class, are asked for base classes in their
usual scenes, for the same classes in scenes of others, and for classes that they were not tuned on.
Nothing here looks at the tests before the end, and numbers choose every sentence.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from froster.inference.recognizer import Recognizer, load
from froster.methods import VCLIP
from froster.methods.recipe import Recipe
from froster.report import page
from froster.report.accuracy import Column, accuracy_table
from froster.report.clips import Clip, Verdict, classified_clips
from froster.report.plots import Bars, accuracy_bars, training_curves
from froster.training.distill_options import distill_preset
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.measure import EvalRow, EvalSet, Measuring, change, measure
from froster.training.plan import SMALL_LR, default_recipe
from froster.training.reporter import Drawn, Reporter
from froster.training.trainer import Trained
from froster.training.weights import halfway, with_weights
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text
from froster.utils.progress import attempt, console, print_table, progress
from froster.utils.text import shell_command
from froster.world.clips import WorldClips
from froster.world.files import write_video
from froster.world.habits import Strength
from froster.world.sets import SETS, Videos, render_set, render_video

SHOTS = 16
TESTS_PER_CLASS = 10
TEST_SETS = {
    "base": "in usual scenes",
    "base-swapped": "in other scenes",
    "novel": "novel classes",
    "far": "far classes",
}
"""Set of the world -> what is asked of it."""
COLUMNS = [Column(name) for name in ("base", "base-swapped", "novel", "hm", "far")]
ARMS = {"finetuned": "none", "froster": "residual"}
WORDS = (
    "base: new videos of the classes tuned on, nine in ten in the usual scene of their class, with"
    " its usual bystander, camera and light. base-swapped: the same classes, which have exchanged"
    " these. novel: other classes, most of them other things doing the same. HM: the harmonic mean"
    " of base and novel. far: other things, with a colour in their names, doing what no base thing"
    " does."
)
NAMES = {"frozen": "frozen CLIP", "finetuned": "tuned alone", "froster": "FROSTER"}
KEPT = Strength(1.0, 1.0, 1.0, 1.0)
"""A video that keeps every habit of its class, to be shown."""


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
        rows = [EvalRow("frozen", "as shipped", measure(base, sets, how, NAMES["frozen"]))]
        students: dict[str, Recognizer] = {"frozen": base}
        for arm in ARMS:
            student, trained = tune(base, arm, train_set, seed, out, how.reporter)
            students[arm] = with_weights(student, trained.average)
            rows += arm_rows(base, arm, student, trained, sets, how)
            students[arm].save(out / arm, {"demo": True, "seed": seed, **rows[-2].to_dict()})
        label = most_misled(rows)
        shown = lambda: classify_pair(students, label, out / "videos", bars)  # noqa: E731
        return rows, attempt("a class in its usual scene and elsewhere", shown) or []


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
    """The epoch average (the row that counts), and half of it with half of CLIP."""
    half = halfway(base, student, trained.average)
    variants = [
        (arm, f"mean of {trained.averaged} epochs", trained.average),
        (f"{arm}_blend", "half the mean, half frozen", half),
    ]
    return [
        EvalRow(name, weights, measure(with_weights(student, state), sets, how, name))
        for name, weights, state in variants
    ]


def most_misled(rows: list[EvalRow]) -> int:
    """The base class that the two tuned models together name less often where its habits are
    exchanged: it favours neither of them."""
    falls = dict.fromkeys(SETS["base"].classes, 0.0)
    for row in (row for row in rows if row.method in ARMS):
        elsewhere = row.predictions["base-swapped"].per_class()
        for name, usual in row.predictions["base"].per_class().items():
            falls[name] += usual - elsewhere[name]
    return SETS["base"].classes.index(max(falls, key=lambda name: falls[name]))


def classify_pair(
    models: dict[str, Recognizer], label: int, folder: Path, bars: Progress
) -> list[Clip]:
    """Write a video of a base class with all of its habits, and one with all of another's, as files
    and classify the files among the base classes, as a user would."""
    classes = SETS["base"].classes
    bar = bars.add_task("classify videos as files", total=2, note="")
    clips = []
    for name, where in (("base", "in its usual scene"), ("base-swapped", "in another scene")):
        frames = render_video(name, label, TESTS_PER_CLASS, strength=KEPT)
        path = write_video(video_of(folder, classes[label], where), frames)
        verdicts = []
        for model_name, model in models.items():
            answer = model.classify(path, classes)
            verdicts.append(Verdict(NAMES[model_name], answer.labels[:5], answer.scores[:5]))
        shown = models["frozen"].read_views(path, 1)[0]
        clips.append(Clip(f"{classes[label]}, {where}", shown, classes[label], verdicts))
        bars.update(bar, advance=1)
    return clips


def video_of(folder: Path, label: str, where: str) -> Path:
    return folder / f"{label} {where}.mp4".replace(" ", "_")


def try_it(clips: list[Clip], out: Path) -> str | None:
    """A command that asks FROSTER for the video in another scene, among its label and those that
    the models gave. None where there is no video."""
    if not clips:
        return None
    clip = clips[-1]
    answers = [verdict.labels[0] for verdict in clip.verdicts] + list(clip.verdicts[-1].labels)
    labels = list(dict.fromkeys([clip.label or "", *answers]))[:4]
    video = video_of(out / "videos", clip.label or "", clip.title.partition(", ")[2])
    model = ("--model", out / "froster", "--labels", ", ".join(sorted(labels)))
    return shell_command("classify", video, *model)


def settings(base: Recognizer, seed: int) -> dict[str, Any]:
    return {
        "shots": SHOTS,
        "tests_per_class": TESTS_PER_CLASS,
        "recipe": dataclasses.asdict(recipe_of(base, seed)),
        "distill": {arm: dataclasses.asdict(distill_preset(kind)) for arm, kind in ARMS.items()},
    }


def show(rows: list[EvalRow], clips: list[Clip], out: Path, seconds: float) -> None:
    print_table(
        ["method", "weights", *(column.title for column in COLUMNS)],
        [[row.method, row.weights, *(f"{c.value(row):.1f}" for c in COLUMNS)] for row in rows],
        ["bold" if row.method in NAMES else "dim" for row in rows],
    )
    console.print()
    console.print(
        f"accuracy in per cent, one seed; one standard error is about {rows[0].error('novel'):.0f}"
        " points, so small differences mean nothing (docs/results has many seeds)"
    )
    console.print(WORDS)
    console.print()
    for line in findings(rows):
        console.print(line)
    console.print()
    console.tell(f"{seconds:.0f} s. Report: {out / 'report.html'}")
    if (pasted := try_it(clips, out)) is not None:
        console.print("try:")
        console.tell(pasted)


def main_rows(rows: list[EvalRow]) -> dict[str, EvalRow]:
    """Frozen CLIP and the mean of each arm's epochs, by their names here."""
    return {NAMES[row.method]: row for row in rows if row.method in NAMES}


def findings(rows: list[EvalRow]) -> list[str]:
    """A sentence for each set, and one on what the other scenes cost each model."""
    frozen, alone, froster = main_rows(rows).values()
    lines = []
    for name, what in TEST_SETS.items():
        before, tuned, both = (row.predictions[name] for row in (frozen, alone, froster))
        teacher = change(tuned, both)
        lines.append(
            f"{what} ({name}): frozen CLIP {before.top(1):.1f}, tuned alone {tuned.top(1):.1f}"
            f" ({change(before, tuned).points}), FROSTER {both.top(1):.1f}"
            f" ({change(before, both).points}); FROSTER less tuned alone {teacher.points},"
            f" {teacher.words}"
        )
    costs = [f"{name} {swap(row)}" for name, row in main_rows(rows).items()]
    return [*lines, f"from usual to other scenes, in points: {', '.join(costs)}"]


def swap(row: EvalRow) -> str:
    """What exchanged habits do to a model, in points, with one standard error of these videos."""
    usual, other = row.predictions["base"], row.predictions["base-swapped"]
    error = (usual.error**2 + other.error**2) ** 0.5
    return f"{other.top(1) - usual.top(1):+.1f} ± {error:.1f}"


def write_report(out: Path, rows: list[EvalRow], clips: list[Clip], seed: int) -> None:
    main = main_rows(rows)
    figures, report = out / "figures", out / "report.html"
    bars = [
        Bars(name, [row.top1(s) for s in TEST_SETS], [row.error(s) for s in TEST_SETS])
        for name, row in main.items()
    ]
    chance = [rows[0].predictions[name].chance for name in TEST_SETS]
    chart = accuracy_bars(list(TEST_SETS.values()), bars, figures / "accuracy.png", chance)
    metrics = {NAMES[arm]: out / "runs" / arm / "metrics.jsonl" for arm in ARMS}
    curves = training_curves(metrics, figures / "training.png")
    tests = ", ".join(f"{name} {len(rows[0].predictions[name].labels)}" for name in TEST_SETS)
    caption = (
        "Top-1 accuracy with one standard error of test sampling; dashed what guessing gets. Test"
        f" videos: {tests}."
    )
    about = (
        "In a rendered world, as in real collections, classes have habits: each is mostly filmed in"
        f" its usual scene. A nano CLIP, pretrained on still images of that world, was tuned on"
        f" {SHOTS} videos of each of {len(SETS['base'].classes)} base classes (seed {seed}), once"
        " alone and once with a frozen CLIP as its teacher (FROSTER's residual feature"
        " distillation). What does each know where the habits do not hold?"
    )
    caution = (
        f"One run of one seed, at the learning rate {SMALL_LR:g} of small"
        " networks: differences of a few points change sign from seed to seed, and at smaller rates"
        " less is forgotten. docs/results has many seeds, and what they show."
    )
    in_short = [
        page.paragraph(about),
        *pair_parts(rows, clips, out, report),
        page.figure(chart, report, caption),
        *(page.paragraph(f"{line[0].upper()}{line[1:]}.") for line in findings(rows)),
        page.paragraph(caution, "note"),
    ]
    table = [
        accuracy_table(rows, COLUMNS, [i for i, row in enumerate(rows) if row.method in NAMES]),
        page.paragraph(WORDS, "note"),
    ]
    training = [page.figure(curves, report, "Running means over the steps.")]
    sections = [("", in_short), ("All numbers", table), ("Training", training)]
    if (pasted := try_it(clips, out.absolute())) is not None:
        sections.append(("Use the model", [page.code(f"{pasted}\n")]))
    page.write_page(report, "froster demo", sections)


def pair_parts(rows: list[EvalRow], clips: list[Clip], out: Path, report: Path) -> list[page.Part]:
    """One class in two scenes, and how often each model names it; nothing without a video."""
    if not clips:
        return []
    label = clips[0].label or ""
    picture = classified_clips(clips, out / "figures" / "clips.png")
    shares = [
        f"{name} {row.predictions['base'].per_class()[label]:.0f} and"
        f" {row.predictions['base-swapped'].per_class()[label]:.0f} %"
        for name, row in main_rows(rows).items()
    ]
    caption = (
        f"Two videos of one class, written as files, and what each model says of them among the"
        f" {len(SETS['base'].classes)} base classes. Green: the right label. Of all base classes it"
        " is the one that the two tuned models together lose most often in other scenes. Named"
        f" right of its {TESTS_PER_CLASS} test videos in usual scenes and of as many in others:"
        f" {', '.join(shares)}."
    )
    return [page.figure(picture, report, caption)]
