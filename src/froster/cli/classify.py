"""`froster classify`: which label fits each video, shown or written to a file that a stopped run
goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.common import (
    announce,
    batch_bar,
    device_of,
    engine_of,
    given_labels,
    listed,
    load_model,
    name_of,
    show_result,
    start_torch,
    tell_how_to_calibrate,
)
from froster.cli.options import MACHINE, number, option
from froster.errors import UsageError
from froster.utils.progress import console, output, print_table, progress, working
from froster.utils.text import short_names

if TYPE_CHECKING:
    from froster.data.listing import Listing
    from froster.inference import batch
    from froster.inference.recognizer import Recognizer
    from froster.inference.results import ResultRow


def classify(
    videos: options.Videos = None,
    /,
    *,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    classes: options.Classes = None,
    template: options.Templates = None,
    multi_label: options.MultiLabel = False,
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    out: Annotated[
        str | None,
        option(
            "Rows to a .csv, .jsonl or .parquet, or to a folder of Parquet parts (results/,"
            " s3://…); what it holds is not done again."
        ),
    ] = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    model: options.Model = None,
    views: options.Views = None,
    sampling: options.Sampling = None,
    transport: options.Transport = False,
    merge_tokens: options.MergeTokens = None,
    top: Annotated[int, number("Labels shown for each video.", 1)] = 5,
    truncate: options.Truncate = False,
    workers: options.Workers = None,
    batch_size: Annotated[
        int | None, number("Videos a batch; default: 1, or 8 on a GPU.", 1, group=MACHINE)
    ] = None,
    time_limit: options.TimeLimit = 300,
    device: options.Device = None,
    precision: options.Precision = "auto",
    runtime: options.Runtime = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Which of these labels fits each video?

    Example: froster classify holiday.mp4 --labels "surfing, skiing, cooking" --model nano
    """
    from froster.data.shards import parse_shard

    part = parse_shard(shard)
    if out is None and (part.count > 1 or retry_failed):
        raise UsageError("--shard and --retry-failed are about a file of results: give --out")
    every_class = classes is not None and labels is None and labels_file is None
    names: Sequence[str] = [] if every_class else given_labels(labels, labels_file)
    listing = listed(videos, files_from, root)
    start_torch()
    from froster.inference import batch
    from froster.inference.results import check_suffix

    by = engine_of(engine, address, "cpu" if runtime else device)
    if out is not None:
        check_suffix(out)
    device = device or device_of(part)
    recognizer = load_model(
        model,
        device,
        precision,
        classes=classes,
        templates=template,
        runtime=runtime,
        kind=sampling,
        views=views,
        merge_tokens=merge_tokens,
    )
    if every_class:
        assert recognizer.class_file is not None
        names = recognizer.class_file.names
    if transport:
        from froster.inference.transport import by_transport

        recognizer = by_transport(recognizer)
    asked = recognizer.with_background(names) if multi_label else names
    recognizer.class_embeddings(asked, truncate)  # once for all videos
    how = batch.ReadOptions(workers, batch_size, time_limit, top, truncate, multi_label, by)
    if out is None:
        results = answer_all(recognizer, names, listing, how)
        failed = any("error" in result for result in results)
        report: dict[str, Any] = {
            "model": name_of(model),
            "labels": list(names),
            "calibrated": recognizer.calibration.fitted is not None,
            "passed_over": dict(listing.passed_over),
            "results": results,
        }
    else:
        announce(recognizer, model)
        with batch_bar("classify") as on_progress:
            report = batch.classify(
                recognizer,
                listing,
                names,
                out,
                options=how,
                shard=part,
                retry_failed=retry_failed,
                on_progress=on_progress,
            )
        failed = report["failed"] > 0
    show_result(report, as_json, show_results if out is None else show_file)
    if not as_json:
        tell_how_to_calibrate(recognizer, model)
    if failed:  # a video that cannot be read is listed with its cause
        raise SystemExit(1)


def answer_all(
    recognizer: Recognizer, names: Sequence[str], videos: Listing, how: batch.ReadOptions
) -> list[dict[str, Any]]:
    """The answer to each video, or its error."""
    from froster.inference.batch import answers

    results: list[dict[str, Any]] = []
    one = len(videos) == 1
    with (
        progress(quiet=one) as bars,
        working(f"reading {videos[0].path.name}", None) if one else nullcontext(),
    ):
        bar = bars.add_task("classify", total=len(videos), note="")
        for answered in answers(recognizer, names, videos, how):
            for answer in answered:
                path = answer.row.path
                result: dict[str, Any] = {"video": str(path)}
                if answer.result is None:
                    result["error"] = f"{path}: {answer.error}"
                else:
                    result |= printed(answer.result)
                results.append(result)
            bars.update(bar, advance=len(answered), note=answered[-1].row.path.name[:40])
    return results


def printed(row: ResultRow) -> dict[str, Any]:
    """A row as it is printed: with every score the probability, which leaves room for "none of
    these" where there is a rule."""
    from froster.inference.batch import row_classification

    return row_classification(row).to_dict()


def show_results(report: dict[str, Any]) -> None:
    """The labels and "none of these", the likeliest first, the answer in bold; without a none rule
    the scores, and the best label's cosine. Then what failed."""
    from froster.evaluation.calibration import NONE, with_none

    results = report["results"]
    answered = [result for result in results if "error" not in result]
    ruled = any(result["none"] is not None or "answers" in result for result in answered)
    cosines = not ruled and any(result["cosine"] is not None for result in answered)
    columns = ["video", "label", "probability" if ruled else "score", ""]
    names = short_names([result["video"] for result in results])
    rows: list[list[str]] = []
    styles = []
    for name, result in zip(names, results, strict=True):
        if "error" in result:
            continue
        scores = [(entry["label"], entry["probability"]) for entry in result["scores"]]
        cosine = f"{result['cosine']:.3f}" if cosines else ""
        groups = [(f"{group}/", share) for group, share in result.get("groups", {}).items()]
        strong = result.get("answers", [result["answer"] or NONE])
        for label, share in [*groups, *with_none(scores, result["none"])]:
            rows.append([name, label, f"{100 * share:.1f} %", "█" * round(20 * share), cosine])
            styles.append("bold" if label in strong else "dim")
            name = cosine = ""
    columns = [*columns, "cosine"] if cosines else columns
    print_table(columns, [row[: len(columns)] for row in rows], styles)
    for result in results:
        if "error" in result:
            console.print(result["error"], style="red", soft_wrap=True)


def show_file(report: dict[str, Any]) -> None:
    why = f"; {report['failed']} failed, see {report['failures']}" if report["failed"] else ""
    output.print(f"{report['out']}: {report['rows']} of {report['videos']} videos{why}")
