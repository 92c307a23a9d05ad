"""What is wrong with the files of a data set, and the tables that say so."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from froster.data.inspect import Inspection
from froster.data.likeness import Likeness, Pair, pairs
from froster.data.listing import MANIFESTS, Listing
from froster.data.manifest import class_label, read_rows
from froster.utils.address import is_address, whole_name
from froster.utils.files import write_csv

KINDS = {
    "broken": "cannot be opened or decoded, or no process survived it",
    "truncated": "ends before the length that it states",
    "damaged": "with parts that do not decode",
    "short": "shorter than a clip of the model: frames are shown more than once",
    "variable-rate": "frames at uneven times",
    "rotated": "to be turned when shown; froster does, other readers may not",
    "mirrored": "to be mirrored when shown; froster does, other readers may not",
    "pixels-not-square": "pixels wider or higher than square; froster reads them as square",
    "high-dynamic-range": "brightness for HDR screens; froster reads it as any other: darker and"
    " paler than shown",
    "interlaced": "frames of two moments each, a line from either; froster reads them as they are",
    "frozen": "the picture stands still for half of the time or more",
    "black": "no picture for half of the time or more",
    "duplicate": "the same bytes as an earlier file",
    "near-duplicate": "the same recording as an earlier file, encoded or trimmed otherwise",
}
"""Kind -> meaning."""
MEASURED = ("seconds", "fps", "frames", "width", "height", "codec", "size", "sha256")
_CUT, _CUT_SECONDS, _UNEVEN, _STILL, _SQUARE, _INTERLACED = 0.9, 0.5, 0.02, 0.5, 0.01, 0.5
# FFmpeg filters that make of a transfer what other screens show; what PQ may have beyond white is
# brought down to it.
_LINEAR = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709"
_BT709 = "zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
_TO_BT709 = {
    "arib-std-b67": f"{_LINEAR},{_BT709}",
    "smpte2084": f"{_LINEAR},tonemap=hable,{_BT709}",
}
Columns = Mapping[str, Mapping[str, str]]
"""The row of each video in the manifest, by its key in the listing."""


@dataclass(frozen=True)
class Needs:
    """What a video must have."""

    seconds: float = 8 * 16 / 30  # a dense clip: 8 frames at every 16th of 30 a second
    frames: int = 8


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file."""

    path: str
    kind: str
    why: str
    other: str = ""  # the earlier file, of duplicates

    @property
    def severity(self) -> str:
        return "error" if self.kind == "broken" else "warning"


def diagnose(files: Sequence[Inspection], needs: Needs, columns: Columns) -> list[Finding]:
    """The problems of all files, in their order. `columns` tell whether duplicates cross splits or
    labels."""
    twice = duplicates(files, columns)
    different = [file for file in files if not file.error and file.path not in twice]
    twice |= _near_duplicates(different, columns)
    findings = []
    for file in files:
        findings += problems_of(file, needs)
        if file.path in twice:
            findings.append(twice[file.path])
    return findings


def duplicates(files: Sequence[Inspection], columns: Columns) -> dict[str, Finding]:
    """Path -> problem, of the files that have the same bytes as an earlier one."""
    first: dict[str, str] = {}
    return {
        file.path: _twice("duplicate", "the same as", file.path, other, columns)
        for file in files
        if not file.error and (other := first.setdefault(file.sha256, file.path)) != file.path
    }


def _near_duplicates(files: Sequence[Inspection], columns: Columns) -> dict[str, Finding]:
    known = [
        Likeness.from_text(file.seconds, file.likeness) if file.likeness else None for file in files
    ]
    earliest: dict[int, Pair] = {}
    for pair in pairs(known):
        if pair.first < earliest.get(pair.second, pair).first or pair.second not in earliest:
            earliest[pair.second] = pair
    near: dict[str, Finding] = {}
    for pair in sorted(earliest.values()):
        path, other = files[pair.second].path, files[pair.first].path
        how = f"like ({pair.motion:.2f})"
        near[path] = _twice("near-duplicate", how, path, other, columns)
    return near


def problems_of(file: Inspection, needs: Needs) -> list[Finding]:
    """The problems of a file by itself."""
    if file.error:
        return [Finding(file.path, "broken", file.error)]
    reasons = {}
    if file.frames < _CUT * file.stated_frames:
        reasons["truncated"] = f"{file.frames} frames of the {file.stated_frames} that it states"
    elif file.seconds < min(_CUT * file.stated_seconds, file.stated_seconds - _CUT_SECONDS):
        stated = f"{file.stated_seconds:.2f} s that it states"
        reasons["truncated"] = f"{file.seconds:.2f} s of the {stated}"
    if file.damaged:
        reasons["damaged"] = (
            f"{file.damaged} packets or frames cannot be decoded properly, {file.frames} can"
        )
    if file.seconds < needs.seconds or file.frames < needs.frames:
        reasons["short"] = f"{file.frames} frames, {file.seconds:.2f} s"
    if file.uneven > _UNEVEN:
        reasons["variable-rate"] = (
            f"{100 * file.uneven:.0f} % of the intervals between frames are not the usual one"
        )
    if file.mirrored:
        then = f", then turned by {file.turned} degrees" if file.turned else ""
        reasons["mirrored"] = "top to bottom" if file.turned == 180 else f"left to right{then}"
    elif file.turned:
        reasons["rotated"] = f"by {file.turned} degrees"
    if abs(file.pixel_aspect - 1) > _SQUARE:
        reasons["pixels-not-square"] = f"shown {_shown(file)}, read {file.width} x {file.height}"
    if file.transfer:
        command = f"ffmpeg -i IN -vf {_TO_BT709[file.transfer]} OUT"
        reasons["high-dynamic-range"] = f"transfer {file.transfer}; for other screens: {command}"
    if file.interlaced > _INTERLACED:
        reasons["interlaced"] = (
            f"{100 * file.interlaced:.0f} % of the frames; made single: ffmpeg -i IN -vf bwdif OUT"
        )
    for kind, seconds in (("black", file.black), ("frozen", file.frozen)):
        if seconds >= _STILL * file.seconds and "black" not in reasons:
            reasons[kind] = f"for {seconds:.1f} of {file.seconds:.1f} s"
    return [Finding(file.path, kind, why) for kind, why in reasons.items()]


def _shown(file: Inspection) -> str:
    """The shape of the picture, no side smaller than it is stored."""
    wider = max(1.0, file.pixel_aspect)
    return f"{round(file.width * wider)} x {round(file.height * wider / file.pixel_aspect)}"


def _twice(kind: str, how: str, path: str, other: str, columns: Columns) -> Finding:
    rows = columns.get(path, {}), columns.get(other, {})
    differ = [
        f"{name} {rows[0].get(name) or '–'} here, {rows[1].get(name) or '–'} there"
        for name in ("split", "label")
        if rows[0].get(name, "") != rows[1].get(name, "")
    ]
    crossed = f" ({'; '.join(differ)})" if differ else ""
    return Finding(path, kind, f"{how} {other}{crossed}", other)


def labels_of(listing: Listing) -> Columns:
    """The columns of every video: those of its manifest, or the folder's name as its label where
    every one lies in one."""
    base = f"{str(listing.root).rstrip('/')}/"
    below = {v.key: v.key.removeprefix(base) if is_address(v.key) else v.key for v in listing}
    inside = all(
        "/" in below[video.key]
        and not video.columns
        and not is_address(below[video.key])
        and not Path(below[video.key]).is_absolute()
        for video in listing
    )
    return {
        video.key: {"label": class_label(Path(below[video.key]).parent)}
        if inside
        else video.columns
        for video in listing
    }


def rows_of(
    listing: Listing, columns: Columns, sources: Sequence[Path], root: Path | None
) -> list[tuple[str, Mapping[str, str]]]:
    """The rows of a manifest to come, each with the key of its video: of a video in a manifest all
    that it has there, for it may be labelled more than once; of any other one its `columns`."""
    many = defaultdict(list)
    for source in sources:
        if source.suffix.lower() in MANIFESTS and source.is_file():
            for path, fields in read_rows(source, root):
                many[whole_name(path)].append(fields)
    return [
        (video.key, fields)
        for video in listing
        for fields in many.get(whole_name(video.path), [columns[video.key]])
    ]


def write_manifest(
    out: Path,
    listing: Listing,
    files: Mapping[str, Inspection],
    problems: Sequence[Finding],
    given: Sequence[tuple[str, Mapping[str, str]]],
    drop: Collection[str],
) -> int:
    """CSV: path (from the top), the columns of the input, what was measured, and the kinds of
    problems. `given`: the rows of the input, each the key of a video and its columns; of a video
    all that differ, which are its parts or its labels. Returns the number of videos."""
    kinds = defaultdict(list)
    for problem in problems:
        kinds[problem.path].append(problem.kind)
    names = dict.fromkeys(name for _, fields in given for name in fields)
    names_given = [name for name in names if name not in ("path", "problems", *MEASURED)]
    head: list[object] = ["path", *names_given, *MEASURED, "problems"]
    kept = {
        video.key: whole_name(video.path)
        for video in listing
        if not files[video.key].error and not set(kinds[video.key]) & set(drop)
    }
    rows: dict[tuple[object, ...], None] = {}
    for key, fields in given:
        if key in kept:
            measured = [getattr(files[key], name) for name in MEASURED]
            values = [fields.get(name, "") for name in names_given]
            rows[kept[key], *values, *measured, " ".join(kinds[key])] = None
    write_csv(out, [head, *map(list, rows)])
    return len(kept)


def write_findings(path: Path, problems: Sequence[Finding]) -> None:
    names = ["path", "severity", "kind", "why", "other"]
    rows = [[getattr(problem, name) for name in names] for problem in problems]
    write_csv(path, [names, *rows])
