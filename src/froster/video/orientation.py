"""How a picture is to be mirrored and turned before it is shown, as its file or the stream itself
asks."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type

# An axis may be off by about half a degree: writers compute their matrices.
_OFF = 0.01


class Orientation(NamedTuple):
    """One of the eight: rows and columns change places or not, and then either axis may run
    backwards."""

    transposed: bool = False
    left_right: bool = False
    top_bottom: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a turn."""
        return self.transposed ^ self.left_right ^ self.top_bottom

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise, after a mirroring from left to right if it is `mirrored`."""
        if self.transposed:
            return 90 if self.top_bottom != self.mirrored else 270
        return 180 if self.top_bottom else 0

    def stored(self, width: int, height: int) -> tuple[int, int]:
        """Width and height before, of a picture that is shown as `width` x `height`; and the other
        way round."""
        return (height, width) if self.transposed else (width, height)

    def applied(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, …) as stored -> the same as shown, (W, H, …) where it is transposed; a view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.left_right:
            picture = picture[:, ::-1]
        return picture[::-1] if self.top_bottom else picture

    @classmethod
    def of_matrix(cls, a: int, b: int, c: int, d: int) -> Orientation:
        """Of a display matrix: x' = a x + c y, y' = b x + d y, y downwards.

        It says where pixels go, so that its scale is not looked at. One that is singular (all
        zeros, as some writers leave it) or not along the axes asks for nothing that can be done
        here: upright, as FFmpeg does with the former.
        """
        if a and d and max(abs(b), abs(c)) < _OFF * min(abs(a), abs(d)):
            return cls(False, a < 0, d < 0)
        if b and c and max(abs(a), abs(d)) < _OFF * min(abs(b), abs(c)):
            return cls(True, c < 0, b < 0)
        return UPRIGHT


UPRIGHT = Orientation()
# By the degrees that PyAV states.
_TURNS = {90: Orientation(True, False, True), -90: Orientation(True, True, False)}
_TURNS |= dict.fromkeys((180, -180), Orientation(False, True, True))


class Orientations:
    """The orientation of the frames of one decoding, one after the other as they are shown.

    What a file asks for FFmpeg states with every frame; what the stream asks for, by a message,
    with every following frame of HEVC but in H.264 with the one alone that it came with. There it
    holds for those that follow until another comes or a key frame begins a sequence anew.
    """

    def __init__(self) -> None:
        self._held = UPRIGHT

    def of(self, frame: av.VideoFrame) -> Orientation:
        stated = _stated(frame)
        if stated is not None:
            self._held = stated
        elif frame.key_frame:
            self._held = UPRIGHT
        return self._held


def _stated(frame: av.VideoFrame) -> Orientation | None:
    try:
        data: Any = frame.side_data
    except ValueError:  # holds something that PyAV does not know
        return _TURNS.get(frame.rotation)
    if not len(data):  # almost always, and asked of every frame
        return None
    matrix = next((each for each in data if each.type is Type.DISPLAYMATRIX), None)
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return Orientation.of_matrix(a, b, c, d)
