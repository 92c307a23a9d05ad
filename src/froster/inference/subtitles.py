"""A timeline as a file: JSON, CSV, or subtitles for any player (.srt, .vtt)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from froster.errors import UsageError
from froster.inference.timeline import Segment, Timeline
from froster.utils import strict_json as json
from froster.utils.files import cannot_write, csv_text, write_text

SUFFIXES = (".json", ".csv", ".srt", ".vtt", ".png")
"""A .png is drawn by `froster.inference.lanes`."""


def check_outputs(paths: Sequence[Path]) -> None:
    """Raises UsageError or FrosterError before an hour has been spent on what cannot be written."""
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--out is a file ending in {', '.join(SUFFIXES)}, not {path.name!r}")
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(21, "it is a folder"))


def write_timeline(timeline: Timeline, path: Path, about: dict[str, Any]) -> None:
    """`about`: what JSON says beside the timeline (video, model)."""
    kind = path.suffix.lower()
    if kind == ".json":
        text = json.dumps({**about, **timeline.to_dict()}, ensure_ascii=False) + "\n"
    else:
        text = {".csv": table, ".srt": srt, ".vtt": vtt}[kind](timeline.segments)
    write_text(path, text)


def table(segments: Sequence[Segment]) -> str:
    """CSV: start, end, label, score."""
    rows = [[f"{s.start:.3f}", f"{s.end:.3f}", s.label, f"{s.score:.4f}"] for s in segments]
    return csv_text([["start", "end", "label", "score"], *rows])


def srt(segments: Sequence[Segment]) -> str:
    """SubRip cannot escape: what players take for mark-up is replaced by what looks like it."""
    cues = [
        f"{number}\n{stamp(start, ',')} --> {stamp(end, ',')}\n{plain(text)}\n"
        for number, (start, end, text) in enumerate(_cues(segments), start=1)
    ]
    return "\n".join(cues)


def vtt(segments: Sequence[Segment]) -> str:
    cues = [
        f"\n{stamp(start, '.')} --> {stamp(end, '.')}\n{escaped(text)}\n"
        for start, end, text in _cues(segments)
    ]
    return "".join(["WEBVTT\n", *cues])


def stamp(milliseconds: int, point: str) -> str:
    """`stamp(3723004, ",")` -> `"01:02:03,004"`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"


def plain(text: str) -> str:
    return text.translate(str.maketrans("<>{}", "‹›()"))


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cues(segments: Sequence[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, rounded without overlap, and one line of text."""
    for segment in segments:
        start, end = max(0, round(1000 * segment.start)), round(1000 * segment.end)
        if end > start:
            yield start, end, f"{' '.join(segment.label.split())} ({100 * segment.score:.0f} %)"
