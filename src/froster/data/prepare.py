"""From a data set as it was downloaded to a manifest that holds what is there, and reports that say
what is not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from froster.data.check import Check, check_files
from froster.data.names import classes, official, partition, readable, unseen_k600
from froster.data.public import Annotations, Clip, from_folders, read_annotations
from froster.data.tree import Tree
from froster.errors import DataError, UsageError
from froster.utils import strict_json as json
from froster.utils.files import journal, read_entries, sole_maker, write_csv, write_text

SPAN_SECONDS = 8 * 16 / 30
"""What a dense clip covers, 8 frames at every 16th of 30 a second: a shorter video shows its last
frame several times."""

CATEGORIES = {
    "missing": "listed, but there is no such file; not in the manifest",
    "broken": "not one frame can be had; not in the manifest",
    "damaged": "cut off, or with frames that cannot be decoded",
    "short": f"shorter than the {SPAN_SECONDS:.2f} s that a clip of 8 frames at stride 16 covers",
    "duplicate": "the same bytes as an earlier file",
    "mislabelled": "in a folder that names another class than the annotations do",
}


@dataclass(frozen=True)
class Placed:
    """A listed clip and its file, where there is one."""

    clip: Clip
    path: str | None


def prepare(
    dataset: str,
    videos: Path,
    annotations: Path | None,
    out: Path,
    *,
    workers: int,
    resume: bool,
    bars: Progress,
) -> dict[str, Any]:
    """Write the manifest `out` and, beside it, a list for each category and a summary, which is
    returned.

    Each check is kept in `<out>.checks.jsonl` as soon as it is done; `resume` takes over those
    whose file has not changed. Raises UsageError where `out` or its checks exist and `resume` is
    not given, or while another process writes them; DataError where not one video is found, or
    those of one class folder alone.
    """
    classes(dataset)
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out must be a .csv file, not {out}")
    with sole_maker(out):
        return _prepare(dataset, videos, annotations, out, workers, resume, bars)


def _prepare(
    dataset: str,
    videos: Path,
    annotations: Path | None,
    out: Path,
    workers: int,
    resume: bool,
    bars: Progress,
) -> dict[str, Any]:
    done = beside(out, "checks.jsonl")
    if not resume and (out.exists() or done.exists()):
        raise UsageError(
            f"{out} has been prepared, in part at least: --resume goes on and keeps what was"
            " checked"
        )
    tree = Tree(videos, dataset)
    if not tree.files:
        unpacked = _archives(tree) or f"--videos needs the folder of the videos of {dataset}"
        raise DataError(f"{videos}: no videos in this folder or below; {unpacked}")
    found = (
        read_annotations(dataset, annotations) if annotations else from_folders(dataset, tree.files)
    )
    placed = [
        Placed(clip, path) for clip, path in zip(found.clips, tree.place(found.clips), strict=True)
    ]
    files = list(dict.fromkeys(item.path for item in placed if item.path))
    if not files:
        raise DataError(_nothing(tree, found))
    own = videos.resolve().name
    if {item.clip.label for item in placed if item.path} == {official(dataset, own)}:
        raise DataError(
            f"{videos}: the videos of one class alone ({own}); --videos needs the folder above,"
            " with all classes"
        )
    checks = read_entries(done, Check, lambda check: check.is_current(videos)) if resume else {}
    todo = [path for path in files if path not in checks]
    bar = bars.add_task("check", total=len(files), completed=len(files) - len(todo), note="")
    broken = 0
    with journal(done, checks.values()) as add:
        for check in check_files(videos, todo, workers):
            add(check)
            checks[check.path] = check
            broken += bool(check.error)
            bars.update(bar, advance=1, note=f"{broken} broken" if broken else "")
    lists = categories(placed, checks, tree)
    rows = [item for item in placed if item.path and not checks[item.path].error]
    if not rows:
        raise DataError(
            f"{videos}: not one of {len(files)} files can be read:"
            f" {next(iter(checks.values())).error}"
        )
    report = summary(dataset, found, tree, placed, rows, lists)
    for name, entries in lists.items():
        path = beside(out, f"{name}.csv")
        if entries:
            write_csv(path, [list(entries[0]), *(list(entry.values()) for entry in entries)])
        else:
            path.unlink(missing_ok=True)
    report["reports"] = {
        name: str(beside(out, f"{name}.csv")) for name, entries in lists.items() if entries
    }
    write_text(beside(out, "report.json"), json.dumps(report, indent=1) + "\n")
    write_csv(out, manifest(dataset, rows, checks, videos))
    return {**report, "manifest": str(out)}


def beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}.{ending}")


def categories(
    placed: Sequence[Placed], checks: dict[str, Check], tree: Tree
) -> dict[str, list[dict[str, Any]]]:
    """What is not as it should be, by category: a row of what is known for each clip."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CATEGORIES}
    earlier: dict[str, Placed] = {}
    for item in placed:
        split = "/".join(item.clip.splits)
        row = {
            "clip": item.clip.name,
            "label": item.clip.label,
            "split": split,
            "file": item.path or "",
        }
        if item.path is None:
            found["missing"].append({**row, "why": "no such file"})
            continue
        check = checks[item.path]
        if check.error:
            found["broken"].append({**row, "why": check.error})
            continue
        if check.damage:
            found["damaged"].append({**row, "why": check.damage})
        if check.seconds < SPAN_SECONDS:
            found["short"].append({**row, "why": f"{check.frames} frames, {check.seconds:.2f} s"})
        if (first := earlier.setdefault(check.digest, item)) is not item:
            where = f"{first.path} ({first.clip.label}, {'/'.join(first.clip.splits)})"
            found["duplicate"].append({**row, "why": f"the same as {where}"})
        folder = tree.folder_label(item.path)
        if folder is not None and folder != item.clip.label:
            found["mislabelled"].append({**row, "why": f"lies in the folder {folder}"})
    return found


def summary(
    dataset: str,
    found: Annotations,
    tree: Tree,
    placed: Sequence[Placed],
    rows: Sequence[Placed],
    lists: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    listed, missing = (
        Counter(item.clip.splits[0] or "unused" for item in items)
        for items in (placed, [item for item in placed if item.path is None])
    )
    there = {item.clip.label for item in rows}
    unlisted = len(tree.files) - len({item.path for item in placed if item.path})
    notes = list(found.notes)
    if missing and tree.archives:
        notes.append(
            f"{missing.total()} clips are missing, and {_archives(tree)}, then run again with"
            " --resume"
        )
    for split in listed:
        if split != "unused" and missing[split] == listed[split]:
            notes.append(
                f"no video of {split} is here; if --videos is the folder of one split, pass the"
                " folder above it"
            )
    return {
        "dataset": dataset,
        "layout": found.layout,
        "listed": len(placed),
        "videos": len(rows),
        "splits": dict(Counter(item.clip.splits[0] or "unused" for item in rows)),
        "counts": {name: len(entries) for name, entries in lists.items()},
        "missing_by_split": dict(missing),
        "unlisted": unlisted,
        "classes_without_videos": [name for name in classes(dataset) if name not in there],
        "notes": notes,
    }


def manifest(
    dataset: str, rows: Sequence[Placed], checks: dict[str, Check], videos: Path
) -> list[list[object]]:
    """Rows of a CSV: path (absolute), label (readable), split …, zone or unseen1 … unseen3,
    official, frames, fps."""
    splits = ["split", "split2", "split3"][: len(rows[0].clip.splits)]
    marks: defaultdict[str, list[str]]
    if dataset == "k600":
        extra = ["unseen1", "unseen2", "unseen3"]
        marks = defaultdict(lambda: ["", "", ""])
        for number, names in enumerate(unseen_k600()):
            for name in names:
                marks[name][number] = "yes"
    else:
        extra = ["zone"]
        base, novel = partition(dataset)
        marks = defaultdict(
            list, {**{name: ["base"] for name in base}, **{name: ["novel"] for name in novel}}
        )
    root = videos.resolve()
    lines: list[list[object]] = []
    for item in rows:
        assert item.path is not None
        clip, check = item.clip, checks[item.path]
        measured = [check.frames, f"{check.fps:.3f}"]
        lines.append(
            [
                root / item.path,
                readable(clip.label),
                *clip.splits,
                *marks[clip.label],
                clip.label,
                *measured,
            ]
        )
    return [["path", "label", *splits, *extra, "official", "frames", "fps"], *lines]


def _nothing(tree: Tree, found: Annotations) -> str:
    unpacked = _archives(tree) or "are --videos and --annotations of the same data set?"
    return (
        f"{tree.root}: none of the {len(found.clips)} clips of the annotations is here; expected"
        f" files such as {found.clips[0].name}, found {len(tree.files)} videos such as"
        f" {tree.files[0]}; {unpacked}"
    )


def _archives(tree: Tree) -> str:
    """What to do about them, if there are any."""
    count = len(tree.archives)
    if count == 1:
        return f"there is 1 archive not extracted, {tree.archives[0]}: extract it"
    return (
        f"there are {count} archives not extracted, such as {tree.archives[0]}: extract them"
        if count
        else ""
    )
