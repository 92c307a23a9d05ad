"""What is wrong with the files of a data set, and the tables that say so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from froster.data.inspect import Inspection
from froster.data.likeness import Likeness, pairs
from froster.data.listing import Listing
from froster.data.manifest import class_label
from froster.utils.files import write_csv

KINDS = {
    "broken": ("error", "cannot be opened or decoded, or no process survived it"),
    "truncated": ("warning", "ends before the length that it states"),
    "damaged": ("warning", "with parts that do not decode"),
    "short": ("warning", "shorter than a clip of the model: frames are shown more than once"),
    "variable-rate": ("warning", "frames at uneven times"),
    "rotated": ("warning", "to be turned when shown; froster does, other readers may not"),
    "mirrored": ("warning", "to be mirrored when shown; froster does, other readers may not"),
    "pixels-not-square": (
        "warning",
        "pixels that are wider or higher than square; froster reads them as square",
    ),
    "high-dynamic-range": (
        "warning",
        "brightness for HDR screens; froster reads it as any other: darker and paler than shown",
    ),
    "interlaced": (
        "warning",
        "frames of two moments each, a line from either; froster reads them as they are",
    ),
    "frozen": ("warning", "the picture stands still for half of the time or more"),
    "black": ("warning", "no picture for half of the time or more"),
    "duplicate": ("warning", "the same bytes as an earlier file"),
    "near-duplicate": (
        "warning",
        "the same recording as an earlier file, encoded or trimmed otherwise",
    ),
}
"""Kind -> severity and meaning."""
_CUT, _CUT_SECONDS = 0.9, 0.5
_UNEVEN = 0.02
_STILL = 0.5
_SQUARE = 0.01
_INTERLACED = 0.5
# FFmpeg filters that make of a transfer what other screens show; what PQ may have beyond white is
# brought down to it.
_LINEAR, _BT709 = (
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709",
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p",
)
_TO_BT709 = {
    "arib-std-b67": f"{_LINEAR},{_BT709}",
    "smpte2084": f"{_LINEAR},tonemap=hable,{_BT709}",
}


@dataclass(frozen=True)
class Needs:
    """What a video must have."""

    seconds: float = 8 * 16 / 30
    """A dense clip: 8 frames at every 16th of 30 a second."""
    frames: int = 8


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file."""

    path: str
    kind: str
    why: str
    other: str = ""
    """The earlier file, of duplicates."""

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]


def diagnose(
    files: Sequence[Inspection],
    needs: Needs,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Finding]:
    """The problems of all files, in their order. `columns` (path -> row) tells whether duplicates
    cross splits or labels."""
    columns = columns or {}
    twice = duplicates(files, columns)
    different = [file for file in files if not file.error and file.path not in twice]
    twice |= _near_duplicates(different, columns)
    findings = []
    for file in files:
        findings += problems_of(file, needs)
        if file.path in twice:
            findings.append(twice[file.path])
    return findings


def duplicates(
    files: Sequence[Inspection], columns: Mapping[str, Mapping[str, str]]
) -> dict[str, Finding]:
    """Path -> problem, of the files that have the same bytes as an earlier one."""
    first: dict[str, str] = {}
    return {
        file.path: _twice("duplicate", "the same as", file.path, other, columns)
        for file in files
        if not file.error and (other := first.setdefault(file.sha256, file.path)) != file.path
    }


def _near_duplicates(
    files: Sequence[Inspection], columns: Mapping[str, Mapping[str, str]]
) -> dict[str, Finding]:
    known = [
        Likeness.from_text(file.seconds, file.likeness) if file.likeness else None for file in files
    ]
    near: dict[str, Finding] = {}
    for pair in sorted(pairs(known)):
        path, other = files[pair.second].path, files[pair.first].path
        near.setdefault(
            path, _twice("near-duplicate", f"like ({pair.motion:.2f})", path, other, columns)
        )
    return near


def problems_of(file: Inspection, needs: Needs) -> list[Finding]:
    """The problems of a file by itself."""
    if file.error:
        return [Finding(file.path, "broken", file.error)]
    reasons = {}
    if file.frames < _CUT * file.stated_frames:
        reasons["truncated"] = f"{file.frames} frames of the {file.stated_frames} that it states"
    elif file.seconds < min(_CUT * file.stated_seconds, file.stated_seconds - _CUT_SECONDS):
        reasons["truncated"] = (
            f"{file.seconds:.2f} s of the {file.stated_seconds:.2f} s that it states"
        )
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
        reasons["mirrored"] = _mirrored(file.turned)
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
    if file.black >= _STILL * file.seconds:
        reasons["black"] = f"for {file.black:.1f} of {file.seconds:.1f} s"
    elif file.frozen >= _STILL * file.seconds:
        reasons["frozen"] = f"for {file.frozen:.1f} of {file.seconds:.1f} s"
    return [Finding(file.path, kind, why) for kind, why in reasons.items()]


def _mirrored(turned: int) -> str:
    if turned == 180:
        return "top to bottom"
    return "left to right" + (f", then turned by {turned} degrees" if turned else "")


def _shown(file: Inspection) -> str:
    """The shape of the picture, no side smaller than it is stored."""
    wider = max(1.0, file.pixel_aspect)
    return f"{round(file.width * wider)} x {round(file.height * wider / file.pixel_aspect)}"


def _twice(
    kind: str, how: str, path: str, other: str, columns: Mapping[str, Mapping[str, str]]
) -> Finding:
    rows = columns.get(path, {}), columns.get(other, {})
    differ = [name for name in ("split", "label") if rows[0].get(name, "") != rows[1].get(name, "")]
    where = "; ".join(
        f"{name} {rows[0].get(name) or '–'} here, {rows[1].get(name) or '–'} there"
        for name in differ
    )
    return Finding(path, kind, f"{how} {other}" + (f" ({where})" if where else ""), other)


MEASURED = ("seconds", "fps", "frames", "width", "height", "codec", "size", "sha256")


def labels_of(listing: Listing) -> dict[str, dict[str, str]]:
    """The columns of every video: those of its manifest, or the folder's name as its label where
    every one lies in one."""
    inside = all(
        "/" in video.key and not video.columns and not Path(video.key).is_absolute()
        for video in listing
    )
    return {
        video.key: {"label": class_label(Path(video.key).parent)} if inside else dict(video.columns)
        for video in listing
    }


def write_manifest(
    out: Path,
    listing: Listing,
    files: Mapping[str, Inspection],
    problems: Sequence[Finding],
    columns: Mapping[str, Mapping[str, str]],
    drop: Collection[str],
) -> int:
    """CSV: path (whole), the columns of the input, what was measured, and the kinds of problems.
    Returns its rows."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.path, []).append(problem.kind)
    names = dict.fromkeys(name for row in columns.values() for name in row)
    given = [name for name in names if name not in ("path", "problems", *MEASURED)]
    rows: list[list[object]] = []
    for video in listing:
        file, problems_here = files[video.key], kinds.get(video.key, [])
        if file.error or set(problems_here) & set(drop):
            continue
        measured = [getattr(file, name) for name in MEASURED]
        row = [columns[video.key].get(name, "") for name in given]
        rows.append([os.path.abspath(video.path), *row, *measured, " ".join(problems_here)])
    write_csv(out, [["path", *given, *MEASURED, "problems"], *rows])
    return len(rows)


def write_findings(path: Path, problems: Sequence[Finding]) -> None:
    """CSV: path, severity, kind, why, other."""
    rows = [
        [problem.path, problem.severity, problem.kind, problem.why, problem.other]
        for problem in problems
    ]
    write_csv(path, [["path", "severity", "kind", "why", "other"], *rows])


def counts(problems: Sequence[Finding]) -> dict[str, int]:
    """Kind -> files."""
    return dict(Counter(kind for _, kind in {(problem.path, problem.kind) for problem in problems}))
