"""What the annotation files of a data set say: which clips there are, their class and their split.

Each layout is one reader, from a folder of annotations to `Annotations`. Where the files lie is
`tree.py`.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from froster.data.names import DATASETS, TEST_SPLIT, classes, official, partition
from froster.data.tree import split_of, split_word, stem
from froster.errors import DataError
from froster.text.labels import parse_json, read_utf8


@dataclass(frozen=True)
class Clip:
    """One clip as the annotations know it."""

    name: str
    """Its path or id in the annotations."""
    label: str
    """The class, in the official spelling."""
    splits: tuple[str, ...]
    """One of train, val, test and "" (not used) for each official split; one for Kinetics and SSv2,
    three for the others."""
    files: tuple[str, ...]
    """File names without suffix under which it may be found, the most precise first."""


@dataclass
class Annotations:
    layout: str
    clips: list[Clip]
    notes: list[str] = field(default_factory=list)


def read_annotations(dataset: str, folder: Path) -> Annotations:
    """The clips of a data set from its official annotation files, or from the lists of FROSTER,
    Open-VCLIP or ViFi-CLIP.

    Each clip comes once, in the order of the files. Raises DataError where the folder holds
    neither, or what cannot be read, or a class that the data set does not have.
    """
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(
            f"{folder}: {what}; --annotations needs the folder of the annotation files of {dataset}"
        )
    expected, reader = _OFFICIAL[dataset]
    found = reader(dataset, folder) or _lists(dataset, folder)
    if found is None:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        below = _lists_below(dataset, folder)
        raise DataError(
            f"{folder}: no annotations of {dataset}; expected {expected}, found {there}{below}"
        )
    if not found.clips:
        raise DataError(f"{folder}: the annotations ({found.layout}) list no clips")
    return _each_once(found)


def from_folders(dataset: str, files: Iterable[str]) -> Annotations:
    """Without annotations: `train/<class>/<file>`, with val and test alike; `files` are paths below
    the videos' folder."""
    clips, left = [], []
    for path in files:
        label, split = official(dataset, Path(path).parent.name), split_of(path)
        if label and split:
            clips.append(Clip(path, label, (split,), (stem(path),)))
        else:
            left.append(path)
    if not clips:
        raise DataError(
            f"{dataset}: no annotations were given, and the videos do not lie in folders such as"
            f" train/{classes(dataset)[0]}{f', but as {left[0]}' if left else ''}; pass"
            " --annotations, or as --videos the folder above train and val"
        )
    found = Annotations("split and class folders", clips)
    if left:
        found.notes.append(
            f"{len(left)} videos are left out: their folders name no split and class, such as"
            f" {left[0]}"
        )
    return found


def _kinetics(dataset: str, folder: Path) -> Annotations | None:
    clips: list[Clip] = []
    unlabelled = 0
    tables = [
        path for path in _files(folder, "*.csv") if {"label", "youtube_id"} <= set(_header(path))
    ]
    for path in sorted(tables, key=lambda path: (split_word(path.stem) or "", path)):
        for line, row in _table(path):
            label, video = row.get("label", ""), row.get("youtube_id", "")
            if not label or not video:
                unlabelled += 1
                continue
            split = split_word(row.get("split") or path.stem)
            if split is None:
                raise DataError(
                    f"{path}, line {line}: no split is said, neither in a column nor by the file's"
                    " name"
                )
            names: tuple[str, ...] = (video,)
            if row.get("time_start") and row.get("time_end"):
                start, end = (
                    _seconds(row["time_start"], path, line),
                    _seconds(row["time_end"], path, line),
                )
                names = (f"{video}_{start:06d}_{end:06d}", f"{video}_{start}_{end}", video)
            label = _known(dataset, label, f"{path}, line {line}")
            clips.append(Clip(names[0], label, (split,), names))
    notes = [f"{unlabelled} rows without a label or an id are left out"] if unlabelled else []
    return Annotations("Kinetics CSV", clips, notes) if tables else None


def _ucf101(dataset: str, folder: Path) -> Annotations | None:
    splits: dict[str, list[str]] = {}
    lists = {
        (kind, n): _one(folder, f"{kind}list0{n}.txt")
        for kind in ("train", "test")
        for n in (1, 2, 3)
    }
    if not any(lists.values()):
        return None
    missing = [f"{kind}list0{n}.txt" for (kind, n), path in lists.items() if path is None]
    for (kind, n), path in lists.items():
        for line in read_utf8(path).split("\n") if path else []:
            if line.strip():
                splits.setdefault(line.split()[0], ["", "", ""])[n - 1] = kind
    clips = []
    for name, each in splits.items():
        label = _known(dataset, name.partition("/")[0], "ucfTrainTestlist")
        clips.append(Clip(name, label, tuple(each), (stem(name),)))
    notes = [f"missing lists: {', '.join(missing)}"] if missing else []
    return Annotations("ucfTrainTestlist", clips, notes)


def _hmdb51(dataset: str, folder: Path) -> Annotations | None:
    codes = {"0": "", "1": "train", "2": "test"}
    splits: dict[str, list[str]] = {}
    found: set[tuple[str, int]] = set()
    for path in _files(folder, "*_test_split[123].txt"):
        name, number = path.stem.rsplit("_test_split", 1)
        label = _known(dataset, name, str(path))
        found.add((label, int(number)))
        for line, content in enumerate(read_utf8(path).split("\n"), 1):
            video, _, code = content.strip().rpartition(" ")
            if content.strip():
                if code not in codes:
                    raise DataError(
                        f"{path}, line {line}: expected a file and 0, 1 or 2, found"
                        f" {content.strip()!r}"
                    )
                splits.setdefault(f"{label}/{video.strip()}", ["", "", ""])[int(number) - 1] = (
                    codes[code]
                )
    clips = [
        Clip(name, name.partition("/")[0], tuple(each), (stem(name),))
        for name, each in splits.items()
    ]
    missing = 3 * len(classes(dataset)) - len(found)
    notes = (
        [f"{missing} of 153 split files are missing, so the splits are not complete"]
        if missing
        else []
    )
    return Annotations("testTrainMulti_7030_splits", clips, notes) if found else None


def _ssv2(dataset: str, folder: Path) -> Annotations | None:
    clips: list[Clip] = []
    tables = {
        split: path
        for path in _files(folder, "*.json")
        if (split := split_word(path.stem)) in ("train", "val")
    }
    labels = [path for path in _files(folder, "*.json") if "labels" in path.stem]
    if not tables or not all(
        isinstance(parse_json(read_utf8(path), path), list) for path in tables.values()
    ):
        return None
    for path in labels:
        names = parse_json(read_utf8(path), path)
        if not isinstance(names, (dict, list)) or not all(isinstance(name, str) for name in names):
            raise DataError(
                f"{path}: expected the class names, as the keys of an object or as a list"
            )
        for name in names:
            _known(dataset, name, str(path))
    for split in sorted(tables):
        for number, entry in enumerate(parse_json(read_utf8(tables[split]), tables[split]), 1):
            if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
                raise DataError(
                    f"{tables[split]}, entry {number}: expected an object with id and template"
                )
            template = re.sub(r"[\[\]]", "", str(entry["template"]))
            label = _known(dataset, template, f"{tables[split]}, entry {number}")
            clips.append(Clip(f"{entry['id']}.webm", label, (split,), (str(entry["id"]),)))
    missing = [split for split in ("train", "val") if split not in tables]
    return Annotations("SSv2 JSON", clips, [f"there is no file for {split}" for split in missing])


_LISTS = {
    "train": ("train", "base"),
    "val": ("test", "base"),
    "test": ("test", "novel"),
    "base_train": ("train", "base"),
    "base_val": ("test", "base"),
    "novel_val": ("test", "novel"),
}


def _lists(dataset: str, folder: Path) -> Annotations | None:
    """`path,label` or `path label` with numbers for labels, beside files that name them, for base
    and novel alone or all."""
    clips: list[Clip] = []
    lists = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in (".csv", ".txt") and path.stem in _LISTS
    ]
    for path in sorted(lists, key=lambda path: list(_LISTS).index(path.stem)):
        word, half = _LISTS[path.stem]
        if dataset == "hmdb51" and word == "train":
            _of_base_classes(path)
        names = _list_names(path, half)
        for number, (video, label) in enumerate(list_rows(path), 1):
            if label not in names:
                raise DataError(
                    f"{path}, video {number}: label {label} is not in the label file ({len(names)}"
                    " names)"
                )
            known = _known(dataset, names[label], f"the label file of {path}")
            split = word if word == "train" else TEST_SPLIT[dataset]
            clips.append(Clip(video, known, (split,), (stem(video),)))
    return Annotations("lists of FROSTER, Open-VCLIP or ViFi-CLIP", clips) if lists else None


def _of_base_classes(path: Path) -> None:
    """Refuses a training list of all of HMDB51's classes. No published protocol trains on one, and
    those of the released hmdb_split folders hold the 1,666 clips that the split leaves out, not the
    ones it trains on."""
    found, base = len({label for _, label in list_rows(path)}), len(partition("hmdb51").base)
    if found > base:
        raise DataError(
            f"{path}: {found} classes, though training lists of hmdb51 have its {base} base classes"
            " (in the released hmdb_split folders they list what the split leaves out); pass the"
            " official testTrainMulti_7030_splits, or B2N_hmdb"
        )


def _lists_below(dataset: str, folder: Path) -> str:
    """Says which folders below hold such lists, those that may be of the data set if there are any."""
    below = sorted(
        {
            path.parent
            for end in ("csv", "txt")
            for path in _files(folder, f"*.{end}")
            if path.stem in _LISTS
        }
    )
    own = [path for path in below if dataset[:3] in path.name.lower()] or below
    names = ", ".join(str(path.relative_to(folder)) for path in own[:5])
    return f"; lists lie below it, so pass one of the folders {names}" if names else ""


def list_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Video and label of each line of such a list."""
    for line, content in enumerate(read_utf8(path).split("\n"), 1):
        if content.strip():
            found = re.fullmatch(r"(.+?)(?:\s*,\s*|\s+)(\d+)", content.strip())
            if not found:
                raise DataError(
                    f"{path}, line {line}: expected 'path,number' or 'path number', found"
                    f" {content.strip()[:80]!r}"
                )
            yield found[1], found[2]


def _list_names(source: Path, half: str) -> dict[str, str]:
    """Number -> class name, from the label file that lies beside a list: the one of its half, or
    one for all classes."""
    candidates = [
        path
        for path in sorted(source.parent.iterdir())
        if path.suffix in (".json", ".csv")
        and re.search("label|rephrased|idx2cls|index2cls", path.stem)
    ]
    whole = [path for path in candidates if not re.search("train|test|base|novel", path.stem)]
    own = [
        path
        for path in candidates
        if re.search({"base": "train|base", "novel": "test|novel"}[half], path.stem)
    ]
    # The released raw_… files are cut at commas.
    chosen = sorted(own or whole, key=lambda path: ("raw" in path.stem, path.suffix != ".json"))
    if not chosen:
        raise DataError(
            f"{source}: its labels are numbers; copy the file that names them here, as labels.json "
            f'({{"0": "name"}}) or labels.csv (id,name)'
        )
    path = chosen[0]
    if path.suffix == ".json":
        table = parse_json(read_utf8(path), path)
        if isinstance(table, list):
            table = dict(enumerate(table))
        if not isinstance(table, dict):
            raise DataError(f'{path}: expected {{"0": "name", …}}')
        return {str(number): str(name).partition(":")[0].strip() for number, name in table.items()}
    rows = [
        row
        for row in csv.reader(read_utf8(path).split("\n"))
        if len(row) > 1 and row[0].strip().isdecimal()
    ]
    return {row[0].strip(): ",".join(row[1:]).strip() for row in rows}


def _each_once(found: Annotations) -> Annotations:
    first: dict[str, Clip] = {}
    again = different = 0
    for clip in found.clips:
        kept = first.setdefault(clip.name, clip)
        again += kept is not clip
        different += (kept.label, kept.splits) != (clip.label, clip.splits)
    notes = (
        [
            f"{again} clips are listed twice; the first counts ({different} with another label or"
            " split)"
        ]
        if again
        else []
    )
    return Annotations(found.layout, list(first.values()), found.notes + notes)


def _known(dataset: str, label: str, where: str) -> str:
    """The official spelling. Raises DataError, which names the place where the label was read."""
    name = official(dataset, label)
    if name is None:
        near = difflib.get_close_matches(label, classes(dataset), n=1, cutoff=0.0)[0]
        others = [other for other in DATASETS if official(other, label)]
        hint = f"it is one of {others[0]}" if others else f"the nearest is {near!r}"
        raise DataError(f"{where}: {dataset} has no class {label!r}; {hint}")
    return name


def _seconds(text: str, path: Path, line: int) -> int:
    try:
        return int(float(text))
    except ValueError:
        raise DataError(
            f"{path}, line {line}: expected a time in seconds, found {text!r}"
        ) from None


def _files(folder: Path, pattern: str) -> list[Path]:
    """Here or below; archives made on a Mac bring hidden doubles of every file."""
    return sorted(
        path for path in folder.rglob(pattern) if not path.name.startswith(".") and path.is_file()
    )


def _one(folder: Path, name: str) -> Path | None:
    return min(_files(folder, name), key=lambda path: len(path.parts), default=None)


def _header(path: Path) -> list[str]:
    return [name.strip() for name in next(csv.reader(read_utf8(path).split("\n")), [])]


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(read_utf8(path).split("\n"))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    for row in reader:
        yield (
            reader.line_num,
            {
                name: (value or "").strip()
                for name, value in row.items()
                if name and isinstance(value, str)
            },
        )


_OFFICIAL: dict[str, tuple[str, Callable[[str, Path], Annotations | None]]] = {
    "k400": (
        "train.csv, val.csv … with the columns label, youtube_id, time_start, time_end, split",
        _kinetics,
    ),
    "k600": (
        "train.csv, val.csv … with the columns label, youtube_id, time_start, time_end, split",
        _kinetics,
    ),
    "ucf101": ("trainlist01.txt … testlist03.txt (ucfTrainTestlist)", _ucf101),
    "hmdb51": ("<class>_test_split1.txt … (testTrainMulti_7030_splits)", _hmdb51),
    "ssv2": ("…train.json, …validation.json and …labels.json", _ssv2),
}
