"""`froster evaluate`: accuracy of a model on labelled videos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from froster.cli.common import announce, load_model, mention, parse_where, spare_cores
from froster.cli.evaluate_parts import Chosen, choose
from froster.data.dataset import VideoDataset
from froster.data.manifest import read_items
from froster.evaluation.metrics import Predictions, Scorer, evaluate, harmonic_mean, over_splits
from froster.evaluation.reliability import reliability
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.seen import report_of, seen_by
from froster.report.distance import confusion_matrix, confusion_picture
from froster.report.plots import coverage_figure
from froster.text.labels import check_labels, read_label_set
from froster.text.sentences import read_descriptions, with_descriptions
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text
from froster.utils.progress import attempt, console, output, progress


def run(
    *,
    data: Path,
    model: str | None,
    labels_file: Path | None,
    split: Sequence[str] | None,
    part: str | None,
    views: int | None,
    sampling: str | None,
    clamp: str | None,
    batch_size: int,
    workers: int | None,
    out: Path | None,
    where: Sequence[str] | None,
    root: Path | None,
    labels_json: Path | None,
    descriptions: Path | None,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster evaluate` does; the options are described there."""
    workers = spare_cores() if workers is None else workers
    items = read_items(data, labels_json=labels_json, root=root, where=parse_where(where))
    mention(items)
    classes = read_label_set(labels_file) if labels_file else sorted({item.label for item in items})
    check_labels(classes)
    texts = with_descriptions(classes, read_descriptions(descriptions)) if descriptions else classes
    known = report_of(model or DEFAULT_MODEL)  # may download the model
    with progress() as bars:
        bar = bars.add_task(
            "look for training videos",
            total=len(items),
            note="",
            visible=seen_by(known) is not None,
        )
        chosen = choose(items, split, part, known, lambda n: bars.update(bar, advance=n))
        bars.remove_task(bar)
    groups = base_and_novel(classes, known)
    recognizer = load_model(model, device, precision, sampling=sampling, clamp=clamp, views=views)
    size, config = recognizer.clip.config.vision.image_size, recognizer.config
    datasets = {
        name: VideoDataset(
            some,
            classes,
            config.sampling,
            size,
            views=config.views,
            train=False,
            how=recognizer.preprocessing,
        )
        for name, some in chosen.sets.items()
    }
    if out is not None:
        claim_folder(out, "evaluation.json", "choose another --out")
    with nullcontext() if out is None else sole_writer(out):
        announce(recognizer, model)
        for line in chosen.notes:
            console.print(line, style="yellow" if line.startswith("warning") else "")
        scorer = scorer_of(recognizer, classes, texts, groups, truncate)
        results: dict[str, Predictions] = {}
        with progress() as bars:
            bar = bars.add_task("evaluate", total=sum(map(len, chosen.sets.values())), note="")
            for name, dataset in datasets.items():
                (results[name],) = evaluate(
                    [scorer],
                    dataset,
                    classes,
                    names=[str(item.path) for item in chosen.sets[name]],
                    batch_size=batch_size,
                    workers=workers,
                    on_videos=lambda n: bars.update(bar, advance=n),
                    also=groups,
                )
        report = {
            **make_report(results, recognizer, chosen),
            "passed_over": dict(items.passed_over),
        }
        if out is not None:
            for name, predictions in results.items():
                predictions.save(out / f"predictions_{name}.csv")
            write_text(out / "evaluation.json", json.dumps(report, indent=2) + "\n")
            attempt("the pictures", lambda: draw(report, results, out))
    if as_json:
        print(json.dumps(report))
    else:
        show(report)


def draw(report: dict[str, Any], results: dict[str, Predictions], out: Path) -> None:
    curves = {name: result["reliability"]["coverage"] for name, result in report["splits"].items()}
    coverage_figure(curves, out / "coverage.png")
    for name, predictions in results.items():
        confusion_picture(
            confusion_matrix(predictions), predictions.classes, out / f"confusion_{name}.png", name
        )


def base_and_novel(classes: Sequence[str], report: dict[str, Any]) -> dict[str, list[str]]:
    """The classes that the model was trained on and the others, where there are both; else nothing."""
    trained = set(report.get("base_classes") or [])
    groups = {
        "base": [c for c in classes if c in trained],
        "novel": [c for c in classes if c not in trained],
    }
    return groups if all(groups.values()) else {}


def scorer_of(
    model: Recognizer,
    classes: Sequence[str],
    texts: Sequence[str],
    groups: dict[str, list[str]],
    truncate: bool,
) -> Scorer:
    every = model.class_embeddings(texts, truncate)
    own = [[classes.index(name) for name in group] for group in groups.values()]
    also = [
        (
            every[..., rows, :]
            if model.model.shared_prompts
            else model.class_embeddings([texts[i] for i in rows], truncate)
        )
        for rows in own
    ]
    return Scorer(model.inference, every, model.dtype, model.config.fusion, also)


def make_report(
    results: dict[str, Predictions], recognizer: Recognizer, chosen: Chosen
) -> dict[str, Any]:
    splits = {name: predictions.summary() for name, predictions in results.items()}
    for name, predictions in results.items():
        assert predictions.views is not None
        splits[name]["reliability"] = reliability(
            recognizer.judge(predictions.views), predictions.labels
        )
        splits[name]["errors"] = [message for _, message in predictions.errors]
        splits[name]["trained_on"] = None if chosen.trained is None else chosen.scored_trained[name]
        splits[name] |= groups_of(predictions)
    report: dict[str, Any] = {
        "calibrated": recognizer.calibration.fitted is not None,
        "part": chosen.part,
        "trained_on": chosen.trained,
        "watched_by": chosen.watched,
        "notes": chosen.notes,
        "splits": splits,
    }
    if len(results) > 1:
        report["over_splits"] = {
            key: over_splits([s[key] for s in splits.values()])
            for key in ("top1", "top5")
            if all(s[key] is not None for s in splits.values())
        }
    return report


def groups_of(found: Predictions) -> dict[str, Any]:
    """Of the classes trained on (base) and the others (novel): among their own labels, and among
    all labels together."""
    groups: dict[str, Any] = {}
    for name, own in found.also.items():
        every = found.rows(found.places(own.classes))
        if not len(every.labels):
            return {}
        groups[name] = {
            "videos": len(every.labels),
            "classes": len(own.classes),
            "chance": own.chance,
            "top1": own.top(1) if len(own.classes) > 1 else None,
            "standard_error": own.error if len(own.classes) > 1 else None,
            "together": {"top1": every.top(1), "standard_error": every.error},
        }
    if not groups:
        return {}
    base, novel = groups["base"], groups["novel"]
    together = {name: group["together"]["top1"] for name, group in groups.items()}
    both = base["top1"] is not None and novel["top1"] is not None
    return {
        **groups,
        "hm": harmonic_mean(base["top1"], novel["top1"]) if both else None,
        "generalised": {**together, "hm": harmonic_mean(together["base"], together["novel"])},
    }


def show(report: dict[str, Any]) -> None:
    top5 = [result["top5"] is not None for result in report["splits"].values()]
    columns = [
        "videos",
        "labels",
        "chance",
        "top-1",
        *(["top-5"] if any(top5) else []),
        "calibration error",
        "unreadable",
    ]
    table = Table("split", *columns, box=None, pad_edge=False)
    for name, result in report["splits"].items():
        best = [f"{result['top5']:.2f}" if result["top5"] is not None else "–"] if any(top5) else []
        table.add_row(
            name,
            str(result["videos"]),
            str(result["classes"]),
            f"{result['chance']:.1f}",
            with_error(result),
            *best,
            "–" if (ece := result["reliability"]["ece"]) is None else f"{ece:.1f}",
            str(result["unreadable"]),
        )
        for group in ("base", "novel") if "generalised" in result else ():
            own = result[group]
            if own["top1"] is not None:
                table.add_row(
                    f"{name}, {group}",
                    str(own["videos"]),
                    str(own["classes"]),
                    f"{own['chance']:.1f}",
                    with_error(own),
                )
            table.add_row(
                f"{name}, {group}",
                str(own["videos"]),
                str(result["classes"]),
                f"{result['chance']:.1f}",
                with_error(own["together"]),
            )
    output.print(table)
    for name, result in report["splits"].items():
        if "generalised" in result:
            own = "" if result["hm"] is None else f"{result['hm']:.1f} among their own labels, "
            console.print(
                f"{name}: harmonic mean of base (trained on) and novel classes"
                f" {own}{result['generalised']['hm']:.1f} among all {result['classes']} labels"
                " together"
            )
    if "over_splits" in report:
        top1 = report["over_splits"]["top1"]
        console.print(f"top-1 over {top1['splits']} splits: {top1['mean']:.2f} ± {top1['std']:.2f}")
    classes = Table("class", "top-1", box=None, pad_edge=False)
    for name, accuracy in next(iter(report["splits"].values()))["per_class"].items():
        classes.add_row(name, f"{accuracy:.1f}")
    output.print(classes)
    for result in report["splits"].values():
        for message in result["errors"]:
            console.print(f"unreadable, scored wrong: {message}")


def with_error(result: dict[str, Any]) -> str:
    return f"{result['top1']:.2f} ± {result['standard_error']:.2f}"
