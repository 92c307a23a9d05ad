"""What the annotation files of a data set say: which clips there are, their class and their split.

Each layout is one reader, from a folder of annotations to `Annotations`, or None where the folder
has none of its files. Where the videos lie is `tree.py`.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path

from froster.data.manifest import lines
from froster.data.public import DATASETS, TEST_SPLIT, classes, official, partition
from froster.data.tree import ListedClip, split_of, split_word, stem
from froster.errors import DataError
from froster.text.labels import csv_rows, parse_json, read_utf8


@dataclass
class Annotations:
    layout: str
    clips: list[ListedClip]
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
    annotations = reader(dataset, folder) or _lists(dataset, folder)
    if annotations is None:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        below = _lists_below(dataset, folder)
        raise DataError(
            f"{folder}: no annotations of {dataset}; expected {expected}, found {names}{below}"
        )
    if not annotations.clips:
        raise DataError(f"{folder}: the annotations ({annotations.layout}) list no clips")
    first: dict[str, ListedClip] = {}
    again = different = 0
    for clip in annotations.clips:
        kept = first.setdefault(clip.name, clip)
        again += kept is not clip
        different += (kept.label, kept.splits) != (clip.label, clip.splits)
    annotations.clips = list(first.values())
    if again:
        annotations.notes.append(
            f"{again} clips are listed twice; the first counts ({different} with another label or"
            " split)"
        )
    return annotations


def from_folders(dataset: str, files: Iterable[str]) -> Annotations:
    """Without annotations: `train/<class>/<file>`, with val and test alike; `files` are paths below
    the videos' folder."""
    clips, others, notes = [], [], []
    for path in files:
        label, split = official(dataset, Path(path).parent.name), split_of(path)
        if label and split:
            clips.append(ListedClip(path, label, (split,), (stem(path),)))
        else:
            others.append(path)
    if not clips:
        raise DataError(
            f"{dataset}: no annotations were given, and the videos do not lie in folders such as"
            f" train/{classes(dataset)[0]}{f', but as {others[0]}' if others else ''}; pass"
            " --annotations, or as --videos the folder above train and val"
        )
    if others:
        notes.append(
            f"{len(others)} videos are left out: their folders name no split and class, such as"
            f" {others[0]}"
        )
    return Annotations("split and class folders", clips, notes)


def _kinetics(dataset: str, folder: Path) -> Annotations | None:
    tables = [path for path in _files(folder, "*.csv") if {"label", "youtube_id"} <= _header(path)]
    clips: list[ListedClip] = []
    unlabelled = 0
    for path in sorted(tables, key=lambda path: (split_word(path.stem) or "", path)):
        for where, row in _table(path):
            label, video = row.get("label"), row.get("youtube_id")
            if not label or not video:
                unlabelled += 1
                continue
            split = split_word(row.get("split") or path.stem)
            if split is None:
                raise DataError(f"{where}: no split is said by a column or the file's name")
            names: tuple[str, ...] = (video,)
            if row.get("time_start") and row.get("time_end"):
                start, end = (_seconds(row[name], where) for name in ("time_start", "time_end"))
                names = (f"{video}_{start:06d}_{end:06d}", f"{video}_{start}_{end}", video)
            clips.append(ListedClip(names[0], _class(dataset, label, where), (split,), names))
    notes = [f"{unlabelled} rows without a label or an id are left out"] if unlabelled else []
    return Annotations("Kinetics CSV", clips, notes) if tables else None


def _ucf101(dataset: str, folder: Path) -> Annotations | None:
    splits: dict[str, list[str]] = {}
    missing = []
    for kind, n in product(("train", "test"), range(3)):
        name = f"{kind}list0{n + 1}.txt"
        paths = sorted(_files(folder, name), key=lambda path: len(path.parts))
        if not paths:
            missing.append(name)
        for path in paths[:1]:
            for _, line in lines(path, read_utf8(path)):
                splits.setdefault(line.split()[0], ["", "", ""])[n] = kind
    clips = [
        _clip(name, _class(dataset, name.partition("/")[0], "ucfTrainTestlist"), kinds)
        for name, kinds in splits.items()
    ]
    notes = [f"missing lists: {', '.join(missing)}"] if missing else []
    return Annotations("ucfTrainTestlist", clips, notes) if len(missing) < 6 else None


def _hmdb51(dataset: str, folder: Path) -> Annotations | None:
    codes = {"0": "", "1": "train", "2": "test"}
    splits: dict[str, list[str]] = {}
    files: set[tuple[str, int]] = set()
    for path in _files(folder, "*_test_split[123].txt"):
        name, number = path.stem.rsplit("_test_split", 1)
        label, n = _class(dataset, name, str(path)), int(number)
        files.add((label, n))
        for where, line in lines(path, read_utf8(path)):
            video, _, code = line.rpartition(" ")
            if code not in codes:
                raise DataError(f"{where}: expected a file and 0, 1 or 2, found {line!r}")
            clip = f"{label}/{video.strip()}"
            splits.setdefault(clip, ["", "", ""])[n - 1] = codes[code]
    clips = [_clip(name, name.partition("/")[0], kinds) for name, kinds in splits.items()]
    every, notes = 3 * len(classes(dataset)), []
    if missing := every - len(files):
        notes.append(
            f"{missing} of {every} split files are missing, so the splits are not complete"
        )
    return Annotations("testTrainMulti_7030_splits", clips, notes) if files else None


def _clip(name: str, label: str, kinds: list[str]) -> ListedClip:
    return ListedClip(name, label, tuple(kinds), (stem(name),))


def _ssv2(dataset: str, folder: Path) -> Annotations | None:
    paths = _files(folder, "*.json")
    tables = {split: path for path in paths if (split := split_word(path.stem)) in ("train", "val")}
    entries = {split: parse_json(read_utf8(path), path) for split, path in tables.items()}
    if not tables or not all(isinstance(rows, list) for rows in entries.values()):
        return None
    for path in paths:
        if "labels" in path.stem:
            names = parse_json(read_utf8(path), path)
            if not isinstance(names, (dict, list)) or not all(isinstance(n, str) for n in names):
                raise DataError(f"{path}: expected the class names, as keys or as a list")
            for name in names:
                _class(dataset, name, str(path))
    clips: list[ListedClip] = []
    for split in sorted(tables):
        for number, entry in enumerate(entries[split], 1):
            where = f"{tables[split]}, entry {number}"
            if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
                raise DataError(f"{where}: expected an object with id and template")
            label = _class(dataset, re.sub(r"[\[\]]", "", str(entry["template"])), where)
            clips.append(ListedClip(f"{entry['id']}.webm", label, (split,), (str(entry["id"]),)))
    missing = [split for split in ("train", "val") if split not in tables]
    return Annotations("SSv2 JSON", clips, [f"there is no file for {split}" for split in missing])


_KINETICS = "train.csv, val.csv … with the columns label, youtube_id, time_start, time_end, split"
_OFFICIAL = {
    "k400": (_KINETICS, _kinetics),
    "k600": (_KINETICS, _kinetics),
    "ucf101": ("trainlist01.txt … testlist03.txt (ucfTrainTestlist)", _ucf101),
    "hmdb51": ("<class>_test_split1.txt … (testTrainMulti_7030_splits)", _hmdb51),
    "ssv2": ("…train.json, …validation.json and …labels.json", _ssv2),
}
_LISTS = {
    "train": ("train", "base"),
    "val": ("test", "base"),
    "test": ("test", "novel"),
    "base_train": ("train", "base"),
    "base_val": ("test", "base"),
    "novel_val": ("test", "novel"),
}
"""Name of a list of the released code -> its split and half."""


def _lists(dataset: str, folder: Path) -> Annotations | None:
    """`path,label` or `path label` with numbers for labels, beside files that name them, for base
    and novel alone or all."""
    paths = [path for path in sorted(folder.iterdir()) if _is_list(path)]
    clips: list[ListedClip] = []
    for path in sorted(paths, key=lambda path: list(_LISTS).index(path.stem)):
        kind, half = _LISTS[path.stem]
        rows = list(list_rows(path))
        # No published protocol trains on all of HMDB51's classes, and the lists of the released
        # hmdb_split folders hold the 1,666 clips that the split leaves out, not what it trains on.
        count, base = len({label for _, label in rows}), len(partition("hmdb51").base)
        if dataset == "hmdb51" and kind == "train" and count > base:
            raise DataError(
                f"{path}: {count} classes, though training lists of hmdb51 have its {base} base"
                " classes (in the released hmdb_split folders they list what the split leaves"
                " out); pass the official testTrainMulti_7030_splits, or B2N_hmdb"
            )
        names = _list_names(path, half)
        split = kind if kind == "train" else TEST_SPLIT[dataset]
        for number, (video, label) in enumerate(rows, 1):
            if label not in names:
                raise DataError(f"{path}, video {number}: label {label} is not in the label file")
            name = _class(dataset, names[label], f"the label file of {path}")
            clips.append(ListedClip(video, name, (split,), (stem(video),)))
    return Annotations("lists of FROSTER, Open-VCLIP or ViFi-CLIP", clips) if paths else None


def list_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Video and label of each line of such a list."""
    for place, line in lines(path, read_utf8(path)):
        row = re.fullmatch(r"(.+?)(?:\s*,\s*|\s+)(\d+)", line)
        if not row:
            expected = "expected 'path,number' or 'path number'"
            raise DataError(f"{place}: {expected}, found {line[:80]!r}")
        yield row[1], row[2]


def _is_list(path: Path) -> bool:
    return path.suffix in (".csv", ".txt") and path.stem in _LISTS


def _lists_below(dataset: str, folder: Path) -> str:
    """The folders below that hold such lists: those that may be of the data set, else all."""
    below = sorted({path.parent for path in _files(folder, "*.*") if _is_list(path)})
    likely = [path for path in below if dataset[:3] in path.name.lower()] or below
    names = ", ".join(str(path.relative_to(folder)) for path in likely[:5])
    return f"; lists lie below it, so pass one of the folders {names}" if names else ""


def _list_names(source: Path, half: str) -> dict[str, str]:
    """Number -> class name, from the label file that lies beside a list: the one of its half, or
    one for all classes."""
    candidates = [
        path
        for path in source.parent.iterdir()
        if path.suffix in (".json", ".csv")
        and re.search("label|rephrased|idx2cls|index2cls", path.stem)
    ]
    words = "train|base" if half == "base" else "test|novel"
    of_half = [path for path in candidates if re.search(words, path.stem)]
    of_all = [path for path in candidates if not re.search("train|base|test|novel", path.stem)]
    # The released raw_… files are cut at commas.
    order = lambda path: ("raw" in path.stem, path.suffix != ".json", path)  # noqa: E731
    path = min(of_half or of_all, key=order, default=None)
    if path is None:
        raise DataError(
            f"{source}: its labels are numbers; copy the file that names them here, as labels.json "
            f'({{"0": "name"}}) or labels.csv (id,name)'
        )
    if path.suffix == ".json":
        table = parse_json(read_utf8(path), path)
        table = dict(enumerate(table)) if isinstance(table, list) else table
        if not isinstance(table, dict):
            raise DataError(f'{path}: expected {{"0": "name", …}}')
        return {str(number): str(name).partition(":")[0].strip() for number, name in table.items()}
    rows = [row for _, row in csv_rows(read_utf8(path), path) if len(row) > 1]
    names = {row[0].strip(): ",".join(row[1:]).strip() for row in rows}
    return {number: name for number, name in names.items() if number.isdecimal()}


def _class(dataset: str, label: str, where: str) -> str:
    """The official spelling of a class. Raises DataError, which names the place where the label was
    read."""
    name = official(dataset, label)
    if name is None:
        near = difflib.get_close_matches(label, classes(dataset), n=1, cutoff=0.0)[0]
        others = [other for other in DATASETS if official(other, label)]
        hint = f"it is one of {others[0]}" if others else f"the nearest is {near!r}"
        raise DataError(f"{where}: {dataset} has no class {label!r}; {hint}")
    return name


def _seconds(text: str, where: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise DataError(f"{where}: expected a time in seconds, found {text!r}") from None


def _files(folder: Path, pattern: str) -> list[Path]:
    """In the folder or below; archives made on a Mac bring hidden doubles of every file."""
    return sorted(
        path for path in folder.rglob(pattern) if not path.name.startswith(".") and path.is_file()
    )


def _header(path: Path) -> set[str]:
    return {name.strip() for _, row in islice(csv_rows(read_utf8(path), path), 1) for name in row}


def _table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where it stands and the cells, of every row of a CSV, blanks stripped."""
    rows = csv_rows(read_utf8(path), path)
    names = [name.strip() for name in next(rows, (0, []))[1]]
    for number, row in rows:
        if row:
            cells = {name: cell.strip() for name, cell in zip(names, row, strict=False)}
            yield f"{path}, line {number}", cells
