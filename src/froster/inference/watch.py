"""Which label now: a rolling window over a source that never ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from froster.errors import VideoError
from froster.evaluation.calibration import NONE, answers
from froster.inference.recognizer import Recognizer
from froster.inference.scorer import Scores, WindowScorer, columns
from froster.utils.interrupt import check
from froster.video.live import Arrival, Live, Policy, StreamSource
from froster.video.windows import HeldFrame, Window, WindowPlan, spread

_POLL = 0.1  # seconds between looks at what else happened
_MARGIN = 2.0  # seconds that a first try may take beyond `Policy.stall` until it is given up


@dataclass(frozen=True)
class Sighting:
    """What a source shows at a moment."""

    time: float
    """Of the newest frame that was looked at, in seconds from the first one; between two
    connections time goes on."""
    labels: list[str]
    """Those asked for and, of a model with a rule for it, `NONE`."""
    scores: list[float]
    """In the order of `labels`."""
    lag: float
    """Seconds from when the newest frame was there to this result."""
    dropped: int
    """Frames dropped so far."""
    skipped: int
    """Strides so far that passed without a result, because the one before took longer."""

    calibrated: bool = False
    cosine: float | None = None
    """Of the best label; None where the network's logits are no cosines."""

    @property
    def label(self) -> str:
        return self.labels[self._place]

    @property
    def score(self) -> float:
        return self.scores[self._place]

    @property
    def answer(self) -> str | None:
        """As `Classification.answer`: None where it is more likely that none of the labels fits."""
        return None if self.label == NONE else self.label

    @property
    def none(self) -> float | None:
        """How likely it is that none of the labels fits; None of a model without a rule for it."""
        return self.scores[-1] if self.labels[-1] == NONE else None

    @property
    def _place(self) -> int:
        return int(answers(torch.tensor(self.scores), self.labels))


class Watch:
    """Iterate to get a `Sighting` a stride; a context manager, or to be closed with `close`.

    `on_note` is told, while iterating, what happens to the source. Iteration ends when a file ends,
    or after `seconds`; it raises VideoError where a source cannot be opened, or not any more.
    `relabel` may be called at any time, from any thread.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        source: str,
        labels: Sequence[str],
        *,
        window: float | None = None,
        stride: float | None = None,
        truncate: bool = False,
        scores: Scores | None = None,
        seconds: float | None = None,
        policy: Policy | None = None,
        on_note: Callable[[str], None] = lambda note: None,
    ):
        self.recognizer, self.truncate, self.on_note = recognizer, truncate, on_note
        self.scores = scores
        self.plan = WindowPlan.of(recognizer.config.sampling, window, stride)
        self.scorer = WindowScorer(recognizer)
        where = StreamSource(source)
        self.skipped = 0
        self._until = float("inf") if seconds is None else time.monotonic() + seconds
        self._current: tuple[list[str], Tensor]
        self.relabel(labels)
        self._window: deque[HeldFrame] = deque(maxlen=self.plan.frames)
        self._next = 0.0  # the time from which on a stride is due
        policy = policy or Policy()
        # FFmpeg cannot be interrupted everywhere, in the look-up of a name for instance.
        self._opened_by = (
            float("inf") if where.is_file else time.monotonic() + policy.stall + _MARGIN
        )
        self.live = Live(
            where,
            self.plan.step,
            self.plan.frames,
            self.scorer.keep,
            policy,
            max(self.plan.stride, 0.5),
        )

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.live.close()

    def relabel(self, labels: Sequence[str]) -> None:
        """Other labels from the next stride on; only the text is encoded. Raises UsageError, and
        the old ones stay."""
        self._current = list(labels), self.recognizer.class_embeddings(labels, self.truncate)

    def __iter__(self) -> Iterator[Sighting]:
        while not self.live.ended and time.monotonic() < self._until:
            if self.live.connections == 0 and time.monotonic() > self._opened_by:
                raise VideoError(
                    f"{self.live.source.name}: could not be opened within"
                    f" {self.live.policy.stall:g} s"
                )
            arrivals = self.live.take(_POLL)
            check()
            for note in self.live.told():
                self.on_note(note)
            for arrival in arrivals:
                self._add(arrival)
            if arrivals and self._window[-1].time > self._next - self.plan.step / 2:
                yield self._look(arrivals[-1])
        for note in self.live.told():
            self.on_note(note)
        if self.live.error is not None:
            raise self.live.error
        if self.live.connections == 0:
            raise VideoError(
                f"{self.live.source.name}: could not be opened before the time was over"
            )

    def _add(self, arrival: Arrival) -> None:
        now = arrival.sample.time
        if arrival.fresh or (self._window and now - self._window[-1].time > self.plan.window):
            self._window.clear()  # what was before a gap is another scene
            self._next = now
        self._window.append(arrival.sample)

    def _look(self, newest: Arrival) -> Sighting:
        window = list(self._window)
        strides = int((window[-1].time - self._next) / self.plan.stride + 0.5)
        self.skipped += strides
        self._next = max(
            self._next + (strides + 1) * self.plan.stride, window[-1].time + self.plan.step / 2
        )
        labels, classes = self._current
        logits = self.scorer([Window(window[0].time, spread(window, self.plan.frames))], classes)
        judged = self.recognizer.judge(logits[:, None])
        scores = (self.scores(logits) if self.scores else columns(judged))[0]
        named = [*labels, NONE][: len(scores)]
        cosine = None if judged.cosine is None else float(judged.cosine[0])
        return Sighting(
            window[-1].time,
            named,
            scores.tolist(),
            time.monotonic() - newest.due,
            self.live.dropped,
            self.skipped,
            self.scores is None and self.recognizer.calibration.fitted is not None,
            cosine,
        )
