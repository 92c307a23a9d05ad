"""A timeline as a file: JSON, CSV, subtitles or a picture, by the file's suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from froster.errors import UsageError
from froster.inference.label_segments import Segment
from froster.inference.subtitles import srt, vtt
from froster.inference.timeline import Timeline
from froster.utils import strict_json as json
from froster.utils.files import cannot_write, csv_text, write_text

SUFFIXES = (".json", ".csv", ".srt", ".vtt", ".png")


def check_outputs(paths: Sequence[Path]) -> None:
    """Raises UsageError or FrosterError before an hour has been spent on what cannot be written."""
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--out is a file ending in {', '.join(SUFFIXES)}, not {path.name!r}")
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(21, "it is a folder"))


def write(timeline: Timeline, path: Path, about: dict[str, Any]) -> None:
    """`about`: what JSON says beside the timeline (video, model), and the picture in its title."""
    kind = path.suffix.lower()
    if kind == ".png":
        from froster.report.lanes import draw_timeline

        draw_timeline(timeline, Path(about["video"]).name, path)
        return
    texts = {
        ".json": lambda: (
            json.dumps({**about, **timeline.to_dict()}, indent=None, ensure_ascii=False) + "\n"
        ),
        ".csv": lambda: table(timeline.segments),
        ".srt": lambda: srt(timeline.segments),
        ".vtt": lambda: vtt(timeline.segments),
    }
    write_text(path, texts[kind]())


def table(segments: Sequence[Segment]) -> str:
    """CSV: start, end, label, score."""
    rows = [[f"{s.start:.3f}", f"{s.end:.3f}", s.label, f"{s.score:.4f}"] for s in segments]
    return csv_text([["start", "end", "label", "score"], *rows])
