"""Timelines as files: for programs, players, eyes and label tools, by the ending of the file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.label_tools import ENDINGS, LabelledSpan, LabelTool, SegmentedVideo, tool_of
from froster.errors import UsageError
from froster.evaluation.calibration import NONE
from froster.inference.subtitles import srt, vtt
from froster.inference.timeline import Timeline
from froster.utils import strict_json as json
from froster.utils.address import Address, is_address
from froster.utils.files import NAME_ERRORS, cannot_write, csv_text, write_text
from froster.utils.text import printable
from froster.video.cut import clip_codec, clip_name, cut
from froster.video.reader import Video


@dataclass(frozen=True)
class VideoTimeline:
    """The timeline of a video: its path, and what it is called in results."""

    path: Path
    key: str
    timeline: Timeline


About = Mapping[str, Any]
"""What JSON says beside the timelines (model)."""


def _json_text(results: Sequence[VideoTimeline], about: About, several: bool) -> str:
    rows = [{"video": str(one.path), **one.timeline.to_dict()} for one in results]
    data = (
        {**about, "results": rows} if several else {"video": rows[0]["video"], **about, **rows[0]}
    )
    return json.dumps(data, ensure_ascii=False) + "\n"


def _csv_text(results: Sequence[VideoTimeline], about: About, several: bool) -> str:
    """CSV: start, end, label, score; of several videos after the column video."""
    rows = [
        [
            *([str(one.path)] if several else []),
            f"{s.start:.3f}",
            f"{s.end:.3f}",
            s.label,
            f"{s.score:.4f}",
        ]
        for one in results
        for s in one.timeline
    ]
    return csv_text([[*(["video"] if several else []), "start", "end", "label", "score"], *rows])


def _srt_text(results: Sequence[VideoTimeline], about: About, several: bool) -> str:
    return srt(results[0].timeline.segments)


def _vtt_text(results: Sequence[VideoTimeline], about: About, several: bool) -> str:
    return vtt(results[0].timeline.segments)


@dataclass(frozen=True)
class SegmentFile:
    """A form of file. `text` is None for a picture and for label tools, which need more."""

    ending: str
    several: bool
    """One file may be about several videos; else each has its own."""
    text: Callable[[Sequence[VideoTimeline], About, bool], str] | None = None
    tool: LabelTool | None = None


FORMS = (
    *(
        SegmentFile(ending, tool.several, tool=tool)
        for ending in ENDINGS
        if (tool := tool_of(Path(f"a{ending}")))
    ),
    SegmentFile(".json", True, _json_text),
    SegmentFile(".csv", True, _csv_text),
    SegmentFile(".srt", False, _srt_text),
    SegmentFile(".vtt", False, _vtt_text),
    SegmentFile(".png", False),
)
"""The longer endings first."""


def form_of(path: Path) -> SegmentFile:
    """Raises UsageError on another ending."""
    name = path.name.lower()
    for form in FORMS:
        if name.endswith(form.ending) and len(name) > len(form.ending):
            return form
    endings = ", ".join(form.ending for form in reversed(FORMS))
    raise UsageError(f"--out is a file ending in {endings}, not {path.name!r}")


def check_outputs(paths: Sequence[Path], clips: Path | None = None) -> None:
    """Raises UsageError or FrosterError before an hour has been spent on what cannot be written."""
    for path in paths:
        form_of(path)
        if path.is_dir():
            raise cannot_write(path, IsADirectoryError(21, "it is a folder"))
    if clips is not None:
        clip_codec()
        if clips.exists() and not clips.is_dir():
            raise UsageError(f"--clips is a folder, and {clips} is a file")


def write_timelines(
    results: Sequence[VideoTimeline], path: Path, about: About, several: bool
) -> list[Path]:
    """The files. Of several videos, what holds one alone has a file each: `found.srt` stands for
    the folder `found` with `clip.mp4.srt`."""
    form = form_of(path)
    if form.several or not several:
        _write(results, path, form, about, several)
        return [path]
    folder = path.with_name(path.name[: -len(form.ending)])
    files = []
    for one in results:
        files.append(folder / f"{_below(one.key)}{form.ending}")
        _write([one], files[-1], form, about, False)
    return files


def _write(
    results: Sequence[VideoTimeline], path: Path, form: SegmentFile, about: About, several: bool
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if form.tool is not None:
        write_text(path, form.tool.write([segmented(one, path.parent) for one in results]))
    elif form.text is not None:
        # Bytes of names are no text: JSON has a form for them, and CSV the bytes.
        errors = NAME_ERRORS if form.ending == ".csv" else "backslashreplace"
        write_text(path, form.text(results, about, several), errors)
    else:
        from froster.inference.lanes import draw_timeline

        draw_timeline(results[0].timeline, results[0].path.name, path)


def segmented(one: VideoTimeline, folder: Path) -> SegmentedVideo:
    """As label tools have it: named from the folder of their file, without "none of these"."""
    with Video(one.path) as video:
        spans = [
            LabelledSpan(s.start, s.end, printable(s.label), s.score)
            for s in one.timeline
            if s.label != NONE
        ]
        name = url = str(one.path)
        if not isinstance(one.path, Address):
            file = os.path.abspath(one.path)
            name, url = os.path.relpath(file, os.path.abspath(folder)), Path(file).as_uri()
            name = Path(name).as_posix()
        seconds, size = one.timeline.end, (video.width, video.height)
        return SegmentedVideo(name, spans, seconds, video.fps, video.num_frames, *size, url)


def _below(key: str) -> str:
    """A key as a path below a folder: of s3://bucket/a.mp4 bucket/a.mp4."""
    if not is_address(key):
        return key.lstrip("/")
    place = re.sub(r'[?#:*\\"<>|]', "_", key.partition("://")[2])
    return "/".join(part for part in place.split("/") if part not in ("", ".", ".."))


def clip_folders(keys: Sequence[str], folder: Path) -> dict[str, Path]:
    """Of each video, by its key, the folder of its clips: its name without its ending, or with it
    where two videos have one name."""
    places = {key: folder / _below(key) for key in keys}
    count = Counter(place.with_suffix("") for place in places.values())
    return {
        key: short if count[short := place.with_suffix("")] == 1 else place
        for key, place in places.items()
    }


def cut_clips(one: VideoTimeline, place: Path) -> list[Path]:
    """The segments of a video as files in a folder, but for "none of these"."""
    stretches = [
        (s.start, s.end, place / clip_name(s.start, s.end, s.label))
        for s in one.timeline
        if s.label != NONE
    ]
    place.mkdir(parents=True, exist_ok=True)
    return cut(one.path, stretches) if stretches else []
