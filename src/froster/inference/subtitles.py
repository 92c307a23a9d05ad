"""A timeline as subtitles for any player (.srt, .vtt)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from froster.inference.segments import Segment


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
