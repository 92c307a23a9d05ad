"""How results look in a notebook: bars, frames, tables and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from froster.errors import UsageError
from froster.utils.text import printable
from froster.video.windows import Window

if TYPE_CHECKING:
    import pandas as pd

    from froster.inference.segments import Segment

PICTURES, SIDE = 4, 96
"""Frames that are shown of a video, and their side in pixels at most."""
MOST_PICTURES = 256
"""Of a long video: three quarters of a megabyte."""
BAR = "#0072b2"
_WIDEST = 160  # pixels of a bar
_ROWS = 20


def small_pictures(clips: UInt8[Tensor, "views time 3 size size"]) -> tuple[bytes, ...]:
    """A few frames of the middle view, as small JPEGs."""
    clip = clips[len(clips) // 2]
    spread = np.linspace(0, len(clip) - 1, min(PICTURES, len(clip))).round().astype(int)
    return tuple(small_picture(clip[place]) for place in spread.tolist())


def small_picture(frame: UInt8[Tensor, "3 size size"]) -> bytes:
    """A JPEG."""
    picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


class Album:
    """Small pictures of a long video by their time in seconds, evenly spread and never more than
    `MOST_PICTURES`."""

    def __init__(self) -> None:
        self.pictures: dict[float, bytes] = {}
        self._apart, self._next = 0.0, float("-inf")

    def add_newest(self, windows: Sequence[Window]) -> None:
        """The last frame of each, where its pixels are still there."""
        for newest in (window.samples[-1] for window in windows):
            if newest.pixels is not None:
                self.add(newest.time, newest.pixels)

    def add(self, time: float, frame: UInt8[Tensor, "3 size size"]) -> None:
        if time < self._next:
            return
        self.pictures[time] = small_picture(frame)
        if len(self.pictures) > MOST_PICTURES:
            for other in list(self.pictures)[1::2]:
                del self.pictures[other]
            times = list(self.pictures)
            self._apart = (times[-1] - times[0]) / (len(times) - 1)
        self._next = time + self._apart * 0.99


def filmstrip(pictures: Iterable[bytes]) -> str:
    """JPEGs in a row."""
    images = " ".join(image(data, 72) for data in pictures)
    return f"<div>{images}</div>" if images else ""


def image(data: bytes, height: int) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return f'<img alt="" height="{height}" style="display:inline-block" src="{source}">'


def bars(rows: Sequence[tuple[str, float, bool]]) -> str:
    """Labels, shares from 0 to 1 and whether each is the answer, as a table with bars."""
    cells = [(_name(label, strong), *_share(share)) for label, share, strong in rows[:_ROWS]]
    return table(cells, len(rows))


def segment_table(segments: Sequence[Segment], pictures: Mapping[float, bytes]) -> str:
    """Segments with their times, a picture and a bar each."""
    cells = []
    for segment in segments[:_ROWS]:
        middle = (segment.start + segment.end) / 2
        inside = [time for time in pictures if segment.start <= time < segment.end]
        near = min(inside, key=lambda time: abs(time - middle), default=None)
        picture = "" if near is None else image(pictures[near], 36)
        times = f"{segment.start:.1f} s", f"{segment.end:.1f} s"
        cells.append((*times, picture, _name(segment.label), *_share(segment.score)))
    return table(cells, len(segments))


def table(cells: Sequence[Sequence[str]], count: int) -> str:
    """Rows of cells, which are HTML, out of `count` rows."""
    lines = ["".join(f'<td style="text-align:left">{cell}</td>' for cell in row) for row in cells]
    if count > len(lines):
        lines.append(f"<td>… {count - len(lines)} more</td>")
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _name(label: str, strong: bool = False) -> str:
    """Labels may hold anything."""
    name = escape(printable(label))
    return f"<b>{name}</b>" if strong else name


def _share(share: float) -> tuple[str, str]:
    width = max(1, round(_WIDEST * min(max(share, 0.0), 1.0)))
    bar = f'<div style="width:{width}px;height:0.8em;background:{BAR}"></div>'
    return f"{100 * share:.1f} %", bar


def data_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Raises UsageError where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        raise UsageError(
            "a data frame needs pandas: pip install pandas; to_dict() needs nothing"
        ) from None
    return pd.DataFrame(list(rows))
