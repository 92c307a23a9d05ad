"""A stretch of a video, as if it were a video of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from torch import Tensor

from froster.video.reader import Video
from froster.video.sampling import Timing


class VideoPart:
    """The frames that are shown from `start` to `end`, in seconds after the first frame of the
    video; one at least."""

    def __init__(self, video: Video, start: float, end: float) -> None:
        self._video = video
        self._first = video.index_at(start)
        last = max(self._first + 1, bisect_left(video.times(), end - 1e-6))
        self.num_frames = min(last, video.num_frames) - self._first

    @property
    def timing(self) -> Timing:
        """It states no length, so that dense clips have even steps in it."""
        whole_video = self._video.timing
        pts = whole_video.pts[self._first : self._first + self.num_frames]
        return Timing(pts, whole_video.fps)

    def at(self, indices: Sequence[int]) -> Tensor:
        """uint8 (n, H, W, 3), as `Video.read`, of indices in the part."""
        last = self._video.num_frames - 1
        return self._video.read([min(self._first + index, last) for index in indices])
