"""Which label now: a rolling window over a source that never ends."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.errors import VideoError
from froster.evaluation.calibration import NONE, answers
from froster.inference.recognizer import Recognizer
from froster.inference.scorer import ScoreFunction, WindowScorer, columns
from froster.text.label_set import Labels, as_labels, read_label_set
from froster.text.labels import file_and_column
from froster.utils.interrupt import check
from froster.utils.progress import reason
from froster.video.live import Arrival, Live, Policy, StreamSource
from froster.video.windows import HeldFrame, Window, WindowPlan, spread

_POLL = 0.1  # seconds after which notes and limits are seen to
_POLL_LABELS = 0.25  # seconds after which a file of labels is looked at again
_MARGIN = 2.0  # seconds that a first try may take beyond `Policy.stall` until it is given up


@dataclass(frozen=True)
class WatchResult:
    """What a source shows at a moment."""

    time: float
    """Of the newest frame, in seconds from the first one; between two connections time goes on."""
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

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON."""
        scores = [round(score, 4) for score in self.scores]
        return {
            "time": round(self.time, 3),
            "label": self.label,
            "answer": self.answer,
            "score": round(self.score, 4),
            "calibrated": self.calibrated,
            "none": None if self.none is None else round(self.none, 4),
            "cosine": None if self.cosine is None else round(self.cosine, 4),
            "lag": round(self.lag, 3),
            "dropped": self.dropped,
            "skipped": self.skipped,
            "scores": dict(zip(self.labels, scores, strict=True)),
        }

    @property
    def _place(self) -> int:
        return int(answers(torch.tensor(self.scores), self.labels))


class Watch:
    """Iterate to get a `WatchResult` a stride; a context manager, or to be closed with `close`.

    Iteration ends when a file ends, or after `seconds`; it raises VideoError where a source cannot
    be opened, or not any more, and calls `on_note` with what happens to the source.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        source: str,
        labels: Labels,
        *,
        window: float | None = None,
        stride: float | None = None,
        truncate: bool = False,
        scores: ScoreFunction | None = None,
        seconds: float | None = None,
        policy: Policy | None = None,
        on_note: Callable[[str], None] = lambda note: None,
    ):
        self.recognizer, self.truncate, self.on_note = recognizer, truncate, on_note
        self.scores = scores
        self.plan = WindowPlan.of(recognizer.config.sampling, window, stride)
        self.scorer = WindowScorer(recognizer)
        stream = StreamSource(source)
        self.skipped = 0
        self._until = float("inf") if seconds is None else time.monotonic() + seconds
        self._current: tuple[list[str], Tensor]
        self.relabel(labels)
        self._window: deque[HeldFrame] = deque(maxlen=self.plan.frames)
        self._next = 0.0  # the time from which on a stride is due
        policy = policy or Policy()
        # FFmpeg cannot be interrupted everywhere, in the look-up of a name for instance.
        limit = float("inf") if stream.is_file else policy.stall + _MARGIN
        self._opened_by = time.monotonic() + limit
        step, frames, patience = self.plan.step, self.plan.frames, max(self.plan.stride, 0.5)
        self.live = Live(stream, step, frames, self.scorer.keep, policy, patience)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.live.close()

    def relabel(self, labels: Labels) -> None:
        """Other labels from the next stride on, from any thread; only the text is encoded. Raises
        UsageError, and the old ones stay."""
        labels = as_labels(labels)
        self._current = list(labels), self.recognizer.class_embeddings(labels, self.truncate)

    def __iter__(self) -> Iterator[WatchResult]:
        while not self.live.ended and time.monotonic() < self._until:
            if self.live.connections == 0 and time.monotonic() > self._opened_by:
                name, limit = self.live.source.name, self.live.policy.stall
                raise VideoError(f"{name}: could not be opened within {limit:g} s")
            arrivals = self.live.take(_POLL)
            check()
            for note in self.live.new_notes():
                self.on_note(note)
            for arrival in arrivals:
                self._add(arrival)
            if arrivals and self._window[-1].time > self._next - self.plan.step / 2:
                yield self._result(arrivals[-1])
        for note in self.live.new_notes():
            self.on_note(note)
        if self.live.error is not None:
            raise self.live.error
        if self.live.connections == 0:
            name = self.live.source.name
            raise VideoError(f"{name}: could not be opened before the time was over")

    def _add(self, arrival: Arrival) -> None:
        now = arrival.sample.time
        if arrival.fresh or (self._window and now - self._window[-1].time > self.plan.window):
            self._window.clear()  # what was before a gap is another scene
            self._next = now
        self._window.append(arrival.sample)

    def _result(self, newest: Arrival) -> WatchResult:
        window, plan = list(self._window), self.plan
        now = window[-1].time
        strides = int((now - self._next) / plan.stride + 0.5)
        self.skipped += strides
        self._next = max(self._next + (strides + 1) * plan.stride, now + plan.step / 2)
        labels, classes = self._current
        logits = self.scorer([Window(window[0].time, spread(window, plan.frames))], classes)
        outputs = self.recognizer.score(logits[:, None])
        scores = (self.scores(logits) if self.scores else columns(outputs))[0]
        cosine = None if outputs.cosine is None else float(outputs.cosine[0])
        return WatchResult(
            now,
            [*labels, NONE][: len(scores)],
            scores.tolist(),
            time.monotonic() - newest.due,
            self.live.dropped,
            self.skipped,
            self.scores is None and self.recognizer.calibration.fitted is not None,
            cosine,
        )


class LabelFile:
    """A file of labels that may change while a source is watched: a thread calls `apply` with its
    labels whenever they have changed, and `note` with what was done, or why nothing was."""

    def __init__(
        self,
        path: Path,
        labels: Sequence[str],
        apply: Callable[[Sequence[str]], None],
        note: Callable[[str], None],
    ):
        self.path, self.labels, self.apply, self.note = path, labels, apply, note
        self._stop = threading.Event()
        self._applied = self._state()
        threading.Thread(target=self._run, name=f"labels of {path}", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(file_and_column(self.path)[0])
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _run(self) -> None:
        previous = self._applied
        while not self._stop.wait(_POLL_LABELS):
            state = self._state()
            if state == previous and state != self._applied:  # nobody is still writing
                self._applied = state
                self._apply()
            previous = state

    def _apply(self) -> None:
        try:
            labels = read_label_set(self.path)
            if labels == self.labels:
                return
            self.apply(labels)
        except Exception as error:  # also out of memory: the labels and this thread stay
            self.note(f"labels not changed: {reason(error)}")
            return
        self.labels = labels
        self.note(f"{len(labels)} labels from now on: {', '.join(labels)}")
