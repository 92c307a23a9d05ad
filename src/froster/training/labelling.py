"""The labels that a person gives the segments of an index, one after the other; the model is taught
after each and says what to ask next.

    OUT.jsonl               a manifest: path, label, start, end of a segment a line
    OUT.skipped.jsonl       the segments that were passed over

Every answer is on the disk before anything is computed with it.
"""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from froster.encoders.model import unit
from froster.errors import DataError, UsageError
from froster.inference.index import check_comparable, check_model, check_not_empty
from froster.inference.recognizer import Recognizer
from froster.inference.store import Store
from froster.text.label_set import LabelSet
from froster.text.labels import check_labels
from froster.training.asking import around_mean, choose, fit_answers
from froster.training.taught import check_base
from froster.utils import strict_json as json
from froster.utils.files import Appender, json_line, read_lines, whole_lines
from froster.utils.text import printable

_LONGEST = 1000
"""Characters of a label."""


class AnswerFile:
    """Lines of JSON that are added and taken back at the end, each on the disk at once. Raises
    DataError where the file holds something else."""

    def __init__(self, path: Path, labels: bool = True):
        """`labels`: each line has one."""
        self.path = path
        self._complete_last_line()
        self.rows, _ = read_lines(path)
        for number, row in enumerate(self.rows, 1):
            label = row.get("label", None if labels else "")
            if not isinstance(row.get("path"), str) or not isinstance(label, str):
                raise DataError(f"{path}, line {number}: not a labelled segment (path, label)")
        self._ends = [0]
        for line in whole_lines(path):
            self._ends.append(self._ends[-1] + len(line))

    def _complete_last_line(self) -> None:
        """An editor may leave a last line without its end; what a kill has cut off is no JSON."""
        if not self.path.exists():
            return
        _, end = read_lines(self.path)
        try:
            last = json.loads(self.path.read_bytes()[end:])
        except ValueError:
            return
        if isinstance(last, dict):
            self._write("\n", None)

    def _write(self, text: str, keep: int | None) -> None:
        appender = Appender(self.path, keep)
        try:
            if text:
                appender.add(text)
        finally:
            appender.close()

    def add(self, row: dict[str, Any]) -> None:
        line = json_line(row)
        self._write(line, self._ends[-1])
        self.rows.append(row)
        self._ends.append(self._ends[-1] + len(line.encode()))

    def undo(self) -> None:
        """Takes the last line back."""
        self._write("", self._ends[-2])
        self._ends.pop()
        self.rows.pop()


@dataclass(frozen=True)
class AskedSegment:
    """A segment of an index; `row` counts all of them."""

    row: int
    key: str
    """The video's name in the index."""
    start: float
    end: float
    """Seconds."""

    def to_row(self) -> dict[str, Any]:
        return {"path": self.key, "start": self.start, "end": self.end}


class Labelling:
    """The state of `froster label`, of one index and one file of labels, for several threads.

    Raises UsageError where the index is of another model, DataError where it has no segment
    that is not labelled."""

    def __init__(self, store: Store, model: Recognizer, out: Path, names: Sequence[str] = ()):
        if out.suffix != ".jsonl":
            raise UsageError(f"--out is a .jsonl, not {out.name}")
        check_not_empty(store)
        check_comparable(model)
        check_base(model)
        check_model(store, model)
        self.store, self.model, self.out = store, model, out
        self._load_segments()
        self._lock = threading.Lock()
        self.labelled = AnswerFile(out)
        self.skipped = AnswerFile(out.with_suffix(".skipped.jsonl"), labels=False)
        self.token = secrets.token_hex(4)
        self.names: list[str] = []
        sets = names.to_dict() if isinstance(names, LabelSet) else {}
        self._prompts = {_clean(name): texts for name, texts in sets.items()}
        self._text = torch.empty(0, self.features.shape[1])
        given = [*names, *(row["label"] for row in self.labelled.rows if row.get("label"))]
        self._add_names(given)
        self._first_names = len(self.names)
        self.answers: dict[int, int] = {}
        """Row of a segment -> place of its label; -1: skipped."""
        self.elsewhere = 0
        """Labels of segments that the index does not have."""
        self._history: list[tuple[AnswerFile, int | None]] = []
        for row in self.skipped.rows:
            place = self._row_of(row)
            if place is not None:
                self.answers[place] = -1
        for row in self.labelled.rows:
            place = self._row_of(row)
            self._history.append((self.labelled, place))
            if place is None:
                self.elsewhere += 1
            else:
                self.answers[place] = self._place_of(row["label"])
        if len(self.answers) == len(self.features):
            raise DataError(f"{store.folder}: all {len(self.features)} segments are in {out}")
        self._teach()

    def _load_segments(self) -> None:
        parts, self._places, self._firsts, first = [], [], [], 0
        for video in self.store.videos().values():
            parts.append(video.vectors)
            self._places.append(video.entry)
            self._firsts.append(first)
            first += len(video.rows)
        self.features = unit(torch.cat(parts).float())
        self._around_mean = around_mean(self.features)
        self._by_key = {
            entry.path: (first, entry)
            for first, entry in zip(self._firsts, self._places, strict=True)
        }

    def _row_of(self, row: dict[str, Any]) -> int | None:
        first, entry = self._by_key.get(row["path"], (0, None))
        starts = [] if entry is None else list(entry.starts)
        return first + starts.index(row["start"]) if row.get("start") in starts else None

    def segment(self, name: str) -> AskedSegment:
        """By the name that `question` gave it. Raises UsageError for one of an earlier start."""
        token, _, number = name.partition("-")
        if token != self.token or not number.isdecimal() or int(number) >= len(self.features):
            raise UsageError("this page is of an earlier start of froster label: reload it")
        return self._segment(int(number))

    def _segment(self, row: int) -> AskedSegment:
        video = bisect_right(self._firsts, row) - 1
        entry, at = self._places[video], row - self._firsts[video]
        return AskedSegment(row, entry.path, entry.starts[at], entry.ends[at])

    def _place_of(self, name: str) -> int:
        """Of a label that is there already, case and white space aside; -1 where it is not."""
        key = _clean(name).casefold()
        return next((i for i, known in enumerate(self.names) if known.casefold() == key), -1)

    def _add_names(self, names: Iterable[str]) -> None:
        """Raises UsageError where one is no label."""
        once = {_clean(name).casefold(): _clean(name) for name in names}
        new = [name for name in once.values() if self._place_of(name) < 0]
        if not new:
            return
        check_labels([*self.names, *new])
        for name in new:
            if len(name) > _LONGEST or not name.isprintable():
                raise UsageError(f"a label is a line of at most {_LONGEST} characters")
        prompts = {name: self._prompts.get(name, [name]) for name in new}
        text = self.model.class_embeddings(prompts).float().cpu()
        self._text = torch.cat([self._text, text])
        self.names += new

    def _teach(self, asked: int | None = None) -> None:
        """Teaches all answers, scores all segments, and chooses what is asked next: `asked` or what
        is worth most."""
        begun = time.monotonic()
        rows = [row for row, place in self.answers.items() if place >= 0]
        labels = torch.tensor([self.answers[row] for row in rows], dtype=torch.long)
        scale = self.model.logit_scale or 1.0
        weight = fit_answers(self.features[rows], labels, self._text, scale)
        self.scores = self.features @ weight.T
        known = torch.zeros(len(self.features), dtype=torch.bool)
        known[list(self.answers)] = True
        if asked is None:
            asked = next(iter(choose(self._around_mean, self.scores, known)), None)
        self.asked = asked
        self.seconds = time.monotonic() - begun

    def question(self) -> dict[str, Any]:
        """What is asked now: a segment, None where none is left, and the labels in their order with
        how often each was given and its probability."""
        with self._lock:
            return self._question()

    def _question(self) -> dict[str, Any]:
        counts = Counter(self.answers.values())
        asked = None
        shares = [0.0] * len(self.names)
        if self.asked is not None:
            segment = self._segment(self.asked)
            times = {"start": segment.start, "end": segment.end}
            asked = {"id": f"{self.token}-{segment.row}", "video": printable(segment.key), **times}
            shares = self.scores[self.asked].softmax(-1).tolist()
        return {
            "segment": asked,
            "labels": [
                {"name": name, "count": counts[place], "share": share}
                for place, (name, share) in enumerate(zip(self.names, shares, strict=True))
            ],
            "labelled": sum(counts.values()) - counts[-1],
            "skipped": counts[-1],
            "left": len(self.features) - len(self.answers),
            "seconds": round(self.seconds, 2),
        }

    def answer(self, name: str, label: str | None) -> dict[str, Any]:
        """Writes the label of a segment, or that it is skipped, teaches it, and asks the next.
        Raises UsageError where it has an answer already or the label is none, WriteError."""
        with self._lock:
            segment = self.segment(name)
            if segment.row in self.answers:
                raise UsageError("this segment was answered already: reload the page")
            file, row, place = self.skipped, segment.to_row(), -1
            if label is not None:
                self._add_names([label])
                place = self._place_of(label)
                file, row = self.labelled, {**row, "label": self.names[place]}
            file.add(row)
            self.answers[segment.row] = place
            self._history.append((file, segment.row))
            self._teach()
            return self._question()

    def undo(self) -> dict[str, Any]:
        """Takes the last answer back, and asks it again. Raises UsageError where there is none."""
        with self._lock:
            if not self._history:
                raise UsageError("there is nothing to undo")
            file, row = self._history[-1]
            if row is None:
                raise UsageError("the label before is of a segment that this index does not have")
            file.undo()
            self._history.pop()
            place = self.answers.pop(row)
            last = len(self.names) - 1
            if place == last >= self._first_names and place not in self.answers.values():
                self.names.pop()  # a new label, perhaps misspelt
                self._text = self._text[:last]
            earlier = [line for line in self.labelled.rows if self._row_of(line) == row]
            if earlier:  # the segment stood in the file twice, and has the label before again
                self.answers[row] = self._place_of(earlier[-1]["label"])
            self._teach(None if earlier else row)
            return self._question()


def _clean(name: str) -> str:
    return " ".join(name.split())
