"""From a data set as it was downloaded to a manifest that holds what is there, and reports that say
what is not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from froster.data.annotations import Annotations, from_folders, read_annotations
from froster.data.diagnose import Needs, duplicates, problems_of
from froster.data.inspect import Inspection, beside, inspect_all
from froster.data.listing import ListedVideo
from froster.data.public import classes, official, partition, readable, unseen_k600
from froster.data.shards import Shard
from froster.data.tree import ListedClip, Tree
from froster.errors import DataError, UsageError
from froster.utils import strict_json as json
from froster.utils.files import sole_maker, write_csv, write_text
from froster.utils.work import Means

CATEGORIES = {
    "missing": "listed, but there is no such file; not in the manifest",
    "broken": "not one frame can be had; not in the manifest",
    "damaged": "cut off, or with frames that cannot be decoded",
    "short": f"shorter than the {Needs.seconds:.2f} s of a clip of 8 frames at stride 16",
    "duplicate": "the same bytes as an earlier file",
    "mislabelled": "in a folder that names another class than the annotations do",
}
CATEGORY_OF = {"broken": "broken", "truncated": "damaged", "damaged": "damaged", "short": "short"}
"""Kind of problem -> category. A video's other problems do not keep it from training."""

Reports = dict[str, list[dict[str, str]]]
"""Category -> a row for each clip."""


class Placed(NamedTuple):
    clip: ListedClip
    path: str | None  # of its file below the folder of the videos, where there is one


def prepare(
    dataset: str,
    videos: Path,
    annotations: Path | None,
    out: Path,
    *,
    means: Means,
    resume: bool,
    bars: Progress,
    shard: Shard = Shard(),  # noqa: B008
) -> dict[str, Any]:
    """Write the manifest `out` and, beside it, a list for each category and a summary, which is
    returned.

    The inspection of each file is kept in `<out>.checks.jsonl` as soon as it is made; `resume`
    takes over those of files that have not changed. A shard makes its part of the inspections and
    nothing else; without a shard those of all shards are taken over. Raises UsageError
    where `out` or its checks exist and `resume` is not given, or while another process writes
    them; DataError where not one video is found, or those of one class folder alone.
    """
    classes(dataset)
    checks = beside(out, "checks.jsonl")
    mine = shard.file(checks)
    with sole_maker(out if shard.count == 1 else mine):
        if not resume and (mine.exists() or (shard.count == 1 and out.exists())):
            raise UsageError(f"{out} has been prepared, in part at least: --resume goes on")
        tree, listed, placed = place(dataset, videos, annotations)
        paths = dict.fromkeys(item.path for item in placed if item.path)
        listed_videos = [ListedVideo(videos / path, path) for path in paths]
        files = inspect_all(listed_videos, checks, means, bars, shard)
        if shard.count > 1:
            return {
                "part": str(mine),
                "shard": str(shard),
                "videos": len(files),
                "errors": sum(bool(file.error) for file in files.values()),
            }
        usable = [item for item in placed if item.path and not files[item.path].error]
        if not usable:
            error = next(iter(files.values())).error
            raise DataError(f"{videos}: not one of {len(files)} files can be read: {error}")
        reports = categorise(placed, files, tree)
        report = summary(dataset, listed, tree, placed, usable, reports)
        report["reports"] = write_reports(out, reports)
        write_text(beside(out, "report.json"), json.dumps(report, indent=1) + "\n")
        write_csv(out, manifest(dataset, usable, files, videos))
    return {**report, "manifest": str(out)}


def place(
    dataset: str, videos: Path, annotations: Path | None
) -> tuple[Tree, Annotations, list[Placed]]:
    """The folder of the videos, what the annotations list, and the file of each listed clip."""
    tree = Tree(videos, dataset)
    if not tree.files:
        hint = unpack(tree) or f"--videos needs the folder of the videos of {dataset}"
        raise DataError(f"{videos}: no videos in this folder or below; {hint}")
    listed = (
        read_annotations(dataset, annotations) if annotations else from_folders(dataset, tree.files)
    )
    files = tree.place(listed.clips)
    placed = [Placed(clip, path) for clip, path in zip(listed.clips, files, strict=True)]
    if not any(files):
        hint = unpack(tree) or "are --videos and --annotations of the same data set?"
        raise DataError(
            f"{videos}: none of the {len(placed)} clips of the annotations is here; expected files"
            f" such as {placed[0].clip.name}, found {len(tree.files)} videos such as"
            f" {tree.files[0]}; {hint}"
        )
    folder = videos.resolve().name
    if {item.clip.label for item in placed if item.path} == {official(dataset, folder)}:
        alone = f"the videos of one class alone ({folder})"
        raise DataError(f"{videos}: {alone}; --videos needs the folder above")
    return tree, listed, placed


def categorise(placed: Sequence[Placed], files: Mapping[str, Inspection], tree: Tree) -> Reports:
    """What is not as it should be."""
    clips = {item.path: item.clip for item in placed if item.path}
    columns = {
        path: {"label": clip.label, "split": "/".join(clip.splits)} for path, clip in clips.items()
    }
    twice = duplicates([files[path] for path in clips], columns)
    reports: Reports = {name: [] for name in CATEGORIES}
    for item in placed:
        clip, path = item.clip, item.path
        reasons: dict[str, str] = {}
        if path is None:
            reasons["missing"] = "no such file"
        else:
            for problem in problems_of(files[path], Needs()):
                if problem.kind in CATEGORY_OF:
                    reasons.setdefault(CATEGORY_OF[problem.kind], problem.why)
            if path in twice:
                reasons["duplicate"] = twice[path].why
            folder = tree.folder_label(path)
            if not files[path].error and folder not in (None, clip.label):
                reasons["mislabelled"] = f"lies in the folder {folder}"
        row = {"clip": clip.name, "label": clip.label, "split": "/".join(clip.splits)}
        for category, why in reasons.items():
            reports[category].append({**row, "file": path or "", "why": why})
    return reports


def write_reports(out: Path, reports: Reports) -> dict[str, str]:
    """A CSV for each category that has clips; returns where they are. A list of an earlier run does
    not stay."""
    paths = {name: beside(out, f"{name}.csv") for name in reports}
    for name, rows in reports.items():
        if rows:
            write_csv(paths[name], [list(rows[0]), *(list(row.values()) for row in rows)])
        else:
            paths.pop(name).unlink(missing_ok=True)
    return {name: str(path) for name, path in paths.items()}


def summary(
    dataset: str,
    listed: Annotations,
    tree: Tree,
    placed: Sequence[Placed],
    usable: Sequence[Placed],
    reports: Reports,
) -> dict[str, Any]:
    clips_of = count_splits(placed)
    missing = count_splits([item for item in placed if item.path is None])
    notes = list(listed.notes)
    if missing and tree.archives:
        notes.append(
            f"{missing.total()} clips are missing, and {unpack(tree)}, then run again with --resume"
        )
    notes += [
        f"no video of {split} is here; if --videos is the folder of one split, pass the folder"
        " above it"
        for split, count in clips_of.items()
        if split != "unused" and missing[split] == count
    ]
    labels = {item.clip.label for item in usable}
    return {
        "dataset": dataset,
        "layout": listed.layout,
        "listed": len(placed),
        "videos": len(usable),
        "splits": dict(count_splits(usable)),
        "counts": {name: len(rows) for name, rows in reports.items()},
        "missing_by_split": dict(missing),
        "unlisted": len(tree.files) - len({item.path for item in placed if item.path}),
        "classes_without_videos": [name for name in classes(dataset) if name not in labels],
        "notes": notes,
    }


def count_splits(items: Sequence[Placed]) -> Counter[str]:
    """Clips by their first official split."""
    return Counter(item.clip.splits[0] or "unused" for item in items)


def manifest(
    dataset: str, items: Sequence[Placed], files: Mapping[str, Inspection], videos: Path
) -> list[list[object]]:
    """Rows of a CSV: path (absolute), label (readable), split …, zone or unseen1 … unseen3,
    official, frames, fps."""
    splits = ["split", "split2", "split3"][: len(items[0].clip.splits)]
    if dataset == "k600":
        marks = ["unseen1", "unseen2", "unseen3"]
        sets = [dict.fromkeys(names, "yes") for names in unseen_k600()]
    else:
        marks = ["zone"]
        base, novel = partition(dataset)
        sets = [dict.fromkeys(base, "base") | dict.fromkeys(novel, "novel")]
    root = videos.resolve()
    rows: list[list[object]] = [["path", "label", *splits, *marks, "official", "frames", "fps"]]
    for item in items:
        assert item.path is not None
        clip, file = item.clip, files[item.path]
        marked = [marks_of.get(clip.label, "") for marks_of in sets]
        row = [root / item.path, readable(clip.label), *clip.splits, *marked, clip.label]
        rows.append([*row, file.frames, f"{file.fps:.3f}"])
    return rows


def unpack(tree: Tree) -> str:
    """What to do about the archives in the folder of the videos, if there are any."""
    count = len(tree.archives)
    if count > 1:
        return f"there are {count} archives not extracted, such as {tree.archives[0]}: extract them"
    return f"there is 1 archive not extracted, {tree.archives[0]}: extract it" if count else ""
