"""Which label when, over a video of any length: decoded once, in memory for a window of frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from froster.errors import UsageError
from froster.evaluation.calibration import NONE
from froster.evaluation.metrics import Fusion, fuse
from froster.inference.answering import labels_shown
from froster.inference.inputs import GivenFile, VideoFile, as_file, as_videos
from froster.inference.notebook import Album, data_frame, segment_table
from froster.inference.recognizer import Recognizer, as_recognizer
from froster.inference.scorer import ScoreFunction, WindowScorer, chunked, columns
from froster.inference.segments import Segment, by_label, merged
from froster.text.label_set import Labels, as_labels
from froster.text.labels import check_texts
from froster.utils.interrupt import check
from froster.utils.progress import progress as bars_shown
from froster.video.stream import Stream
from froster.video.transforms import described
from froster.video.windows import SlidingWindows, WindowPlan

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Timeline:
    """Times are seconds from the start of the video, as players show them."""

    labels: list[str]
    segments: list[Segment]
    edges: list[float]
    """The moments' edges (m + 1): moment i goes from edges[i] to edges[i + 1], a stride later."""
    scores: Float[Tensor, "moments labels"]
    """In the order of `labels`."""
    plan: WindowPlan
    damaged: int
    """Packets and frames that could not be read or decoded."""
    stated: float | None
    """The length in seconds that the file states, which a cut file does not have."""
    complete: bool
    """False where it was stopped before the end of the video."""
    calibrated: bool = False
    cosine: Float[Tensor, " moments"] | None = None
    """Of the best label of each moment; None where the network's logits are no cosines."""
    pictures: Mapping[float, bytes] = field(default_factory=dict, compare=False)
    """Small JPEGs of some moments by their time, where `timeline` made this."""
    thresholds: list[float] | None = None
    """Of each label by itself, the score from which on it fits; segments may overlap then. None:
    the labels share a moment, and the segments the video."""

    @property
    def none(self) -> Float[Tensor, " moments"] | None:
        """How likely it is that none of the labels fits; None of a model without a rule for it."""
        return self.scores[:, -1] if self.labels[-1] == NONE else None

    @property
    def start(self) -> float:
        return self.edges[0]

    @property
    def end(self) -> float:
        return self.edges[-1]

    def at(self, seconds: float) -> Segment | None:
        """The segment of a time, of several the first; None where there is none."""
        inside = (segment for segment in self.segments if segment.start <= seconds < segment.end)
        return next(inside, None)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, label: str) -> list[Segment]:
        """The segments of a label. Raises UsageError on one that was not asked for."""
        if label not in self.labels:
            raise UsageError(f"{label!r:.100} is none of the labels: {', '.join(self.labels):.300}")
        return [segment for segment in self.segments if segment.label == label]

    def __repr__(self) -> str:
        rows = [f"{s.start:.1f}-{s.end:.1f} s {s.label!r} {s.score:.2f}" for s in self.segments[:5]]
        more = f", … {len(self) - 5} more" if len(self) > 5 else ""
        return f"Timeline({', '.join(rows)}{more})"

    def to_df(self) -> pd.DataFrame:
        """A row a segment: start, end, label, score. Raises UsageError where pandas is not
        installed."""
        return data_frame([segment.to_dict() for segment in self.segments])

    def plot(self, title: str = "") -> Figure:
        """The picture that `froster timeline --out FILE.png` writes; a notebook shows it."""
        from froster.inference.lanes import timeline_figure

        return timeline_figure(self, title)

    def _repr_html_(self) -> str:
        return segment_table(self.segments, self.pictures)

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON."""

        def rounded(values: Tensor | None) -> Any:
            return None if values is None else [round(x, 4) for x in values.tolist()]

        return {
            "labels": self.labels,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "window": round(self.plan.window, 3),
            "stride": round(self.plan.stride, 3),
            "frames": self.plan.frames,
            "calibrated": self.calibrated,
            "complete": self.complete,
            "damaged": self.damaged,
            "stated": self.stated,
            "segments": [segment.to_dict() for segment in self.segments],
            "times": [round(edge, 3) for edge in self.edges[:-1]],
            "none": rounded(self.none),
            "cosine": rounded(self.cosine),
            "scores": [rounded(row) for row in self.scores],
            **({} if self.thresholds is None else {"thresholds": self.thresholds}),
        }


class Scan:
    """One pass over a video, whose result so far can be asked for at any time."""

    def __init__(
        self,
        recognizer: Recognizer,
        labels: Labels,
        *,
        window: float | None = None,
        stride: float | None = None,
        shortest: float = 0.0,
        batch_size: int = 8,
        truncate: bool = False,
        scores: ScoreFunction | None = None,
        album: Album | None = None,
        multi_label: bool = False,
    ):
        """`album`: where small pictures of the video are to go."""
        labels = as_labels(labels)
        check_texts(labels)
        if batch_size < 1 or not shortest >= 0:
            raise UsageError("batch_size is 1 or more, and min_segment seconds of zero or more")
        if scores is not None and multi_label:
            raise UsageError("multi_label makes the scores itself: leave scores out")
        self.multi_label = multi_label
        self.recognizer, self.labels, self.shortest = recognizer, list(labels), shortest
        self.scores, self.album = scores, album
        self.plan = WindowPlan.of(recognizer.config.sampling, window, stride)
        asked = recognizer.with_background(labels) if multi_label else labels
        self.classes = recognizer.class_embeddings(asked, truncate)
        self.scorer = WindowScorer(recognizer, batch_size)
        self.stream: Stream | None = None
        self.windows: SlidingWindows | None = None
        self.logits: list[Tensor] = []
        """Batches (n, K) of the windows seen so far."""
        self.complete = False

    def run(self, path: str | Path) -> Iterator[float]:
        """Yields how far it is, in seconds. Raises VideoError where no frame can be read."""
        yield from self._run(path)
        assert self.windows is not None
        length = self.windows.end - self.windows.start
        # Of a video that is shorter than a window: all frames of one, spread over it.
        if length < self.plan.window - self.plan.step / 2:
            self.plan = WindowPlan(length, min(self.plan.stride, length), self.plan.frames)
            self.logits.clear()
            yield from self._run(path)
        self.complete = True

    def _run(self, path: str | Path) -> Iterator[float]:
        self.scorer.squares.broken = 0
        with Stream.of_file(path) as self.stream:
            self.windows = SlidingWindows(self.stream, self.plan, self.scorer.keep)
            for part in chunked(self.windows, self.scorer.batch):
                check()
                if self.album is not None:
                    self.album.add_newest(part)
                self.logits.append(self.scorer(part, self.classes))
                yield self.windows.end

    def result(self) -> Timeline:
        """Raises UsageError before the end of the first window."""
        if not self.logits or self.windows is None or self.stream is None:
            raise UsageError("stopped before the first window had been seen: nothing was found yet")
        start, end, stride = self.windows.start, self.windows.end, self.plan.stride
        windows = torch.cat(self.logits)
        if not self.complete:
            end = min(end, start + (len(windows) - 1) * stride + self.plan.window)
        model, fusion = self.recognizer, self.recognizer.config.fusion
        logits = smoothed(windows, self.plan, end - start, fusion)
        mean = logits if fusion == "logits" else smoothed(windows, self.plan, end - start, "logits")
        cosine, thresholds = None, None
        if self.multi_label:
            scores = model.calibration.multi_label(mean)
            thresholds = model.calibration.multi_label.of(self.labels)
        else:
            outputs = model.calibration.score_fused(logits, mean, model.logit_scale)
            scores, cosine = (
                self.scores(logits) if self.scores else columns(outputs),
                outputs.cosine,
            )
        calibrated = self.scores is None and model.calibration.fitted is not None
        labels = [*self.labels, NONE][: scores.shape[1]]
        edges = [start + i * stride for i in range(len(scores))] + [end]
        segments = (
            merged(scores, edges, labels, self.shortest)
            if thresholds is None
            else by_label(scores, edges, labels, thresholds, self.shortest)
        )
        return Timeline(
            labels,
            segments,
            edges,
            scores,
            self.plan,
            self.stream.damaged + self.scorer.squares.broken,
            self.stream.duration,
            self.complete,
            calibrated,
            cosine,
            {} if self.album is None else self.album.pictures,
            thresholds,
        )


def timeline(
    model: Recognizer | str | Path,
    video: VideoFile,
    labels: Labels,
    *,
    window: float | None = None,
    stride: float | None = None,
    min_segment: float = 0.0,
    batch_size: int = 8,
    truncate: bool = False,
    scores: ScoreFunction | None = None,
    multi_label: bool = False,
    progress: bool = False,
) -> Timeline:
    """Which of `labels` fits when, in a video file of any length: a path, an address, the bytes of
    a file, or a file opened in binary mode.

    Windows of `window` seconds slide by `stride` seconds; by default the model's sampling says how
    long they are. The logits of all windows that cover a moment are joined as `classify` joins
    views, `scores` makes probabilities of them (by default as `classify` does), and moments with
    the same answer become one segment. With `multi_label` each label stands by itself: it has
    segments where it reaches its threshold, whichever others do. `progress`: a bar on standard
    error. Raises VideoError where no frame can be read, UsageError on labels, window or stride that
    cannot be.
    """
    videos, one = as_videos(video)
    file = videos[0] if one else None
    if not isinstance(file, GivenFile):
        raise UsageError(f"a timeline is of one video file, and this is {described(video)}")
    recognizer = as_recognizer(model)
    with labels_shown(recognizer, progress):
        scan = Scan(
            recognizer,
            labels,
            window=window,
            stride=stride,
            shortest=min_segment,
            batch_size=batch_size,
            truncate=truncate,
            scores=scores,
            album=Album(),
            multi_label=multi_label,
        )
    with as_file(file) as path:
        follow(scan, path, quiet=not progress)
    return scan.result()


def follow(scan: Scan, path: str | Path, quiet: bool = False) -> None:
    """The scan, with a bar in seconds of the video. Where the file states no length, its bytes tell
    how much is left."""
    second = 0.0
    with bars_shown(quiet) as bars:
        bar = bars.add_task("timeline, seconds of video", total=None, note="")
        for second in scan.run(path):
            stream = scan.stream
            total = stream.duration if stream else None
            if stream and total is None and stream.share:
                total = second / stream.share
            total = None if total is None else max(round(total), round(second))
            bars.update(bar, completed=round(second), total=total)
        bars.update(bar, total=round(second), completed=round(second))


def smoothed(
    logits: Float[Tensor, "windows labels"], plan: WindowPlan, duration: float, fusion: Fusion
) -> Float[Tensor, "moments labels"]:
    """Logits of windows -> of moments, each a stride long: the windows that cover the middle of a
    moment are its views."""
    moments = []
    for moment in range(max(1, -int(-(duration - 1e-6) // plan.stride))):
        middle = min((moment + 0.5) * plan.stride, duration)
        last = min(int(middle / plan.stride), len(logits) - 1)
        first = min(max(0, int((middle - plan.window) // plan.stride) + 1), last)
        moments.append(fuse(logits[first : last + 1], fusion))
    return torch.stack(moments)
