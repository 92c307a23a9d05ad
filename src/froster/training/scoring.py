"""The videos of an evaluation, scored by the engine: each once, by this process, by shards or by a
cluster, and kept in a file until the report is written.

    scores.jsonl             what the scores were made with, then a line a video: its logits
    scores.0-of-4.jsonl      those of a shard, or of a process of torchrun

Without a shard what all these files say of videos that have not changed is taken over, so that the
command itself joins its shards.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from froster.data.dataset import ClipRequest, ReadClip, VideoDataset
from froster.data.shards import Shard, shard_files
from froster.errors import DataError, FrosterError, VideoError
from froster.evaluation.metrics import Predictions, predictions_of
from froster.evaluation.probes import Probe
from froster.inference.batch import ModelWork
from froster.inference.fingerprint import model_fingerprint
from froster.inference.recognizer import Recognizer
from froster.training.distributed import ranks, this_rank, to_rank_0
from froster.training.measure import EvalSet, Measuring, class_source, scorer_of, texts_of
from froster.training.probes import Measured, orders_of
from froster.utils import strict_json as json
from froster.utils.engine import run
from froster.utils.files import Appender, json_line, read_lines, write_text
from froster.utils.progress import reason
from froster.utils.work import LOCAL, End, Engine, Means
from froster.video.container import file_state

SCORES = "scores.jsonl"


@dataclass(frozen=True)
class Clips:
    """A row: one video of one set."""

    key: str
    """The set, the path, and the part of the video."""
    path: str
    number: int
    """Among the videos of all sets."""
    request: ClipRequest


def rows_of(sets: Sequence[EvalSet]) -> list[Clips]:
    rows = list[Clips]()
    for s in sets:
        assert isinstance(s.dataset, VideoDataset)
        for index in range(len(s.dataset)):
            clip = s.dataset.clip(index)
            span = "" if clip.span is None else f" {clip.span}"
            rows.append(Clips(f"{s.name}/{clip.path}{span}", clip.path, len(rows), clip))
    return rows


def read_clips(clip: ClipRequest, reader: ReadClip) -> Iterator[np.ndarray]:
    """uint8 (V, T, 3, S, S). Raises VideoError."""
    sample = reader(clip)
    if sample.frames is None:
        raise VideoError(sample.error or "")
    yield sample.frames.numpy()


class ScoreVideos(ModelWork[Clips, np.ndarray]):
    """From a video to the logits of its views, float32 (orders, V, columns): those of the sets' own
    classes, then of each other set of labels."""

    def __init__(
        self,
        model: Recognizer,
        sets: Sequence[EvalSet],
        orders: Sequence[Probe | None],
        how: Measuring,
    ) -> None:
        first = sets[0]
        assert isinstance(first.dataset, VideoDataset)
        super().__init__(model, partial(read_clips, reader=first.dataset.reader), how.batch_size)
        classes = class_source(model, texts_of(sets), how.truncate)
        self.classes = [classes(labels) for labels in (first.classes, *first.also.values())]
        self.orders = orders

    def task(self, row: Clips) -> ClipRequest:
        return row.request

    def size_on(self, device: torch.device) -> int:
        return self._asked or max(1, 32 // self.model.config.views)

    def start(self, device: torch.device) -> None:
        super().start(device)
        self.classes = [classes.to(device) for classes in self.classes]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"classes": [classes.cpu() for classes in self.classes]}

    @torch.no_grad()
    def compute(self, parts: list[np.ndarray]) -> Sequence[np.ndarray]:
        views = torch.from_numpy(np.stack(parts))
        logits = [scorer_of(self.model, self.classes, order)(views) for order in self.orders]
        return list(torch.stack(logits, dim=1).numpy())


class _Scores:
    """The store: logits in memory and, with a folder, in a file of it."""

    def __init__(
        self, rows: Sequence[Clips], path: Path | None, shard: Shard, made: str, joins: bool
    ) -> None:
        """`joins`: what all shards have written is taken over."""
        self.rows, self.errors = dict[int, np.ndarray](), dict[int, str]()
        self._appender: Appender | None = None
        if path is None:
            return
        mine, length = shard.file(path), None
        if made_with(mine) != made:
            write_text(mine, json_line({"made_with": made}))
        files = [mine]
        if joins:
            files += [file for file in (path, *shard_files(path)) if file != mine and file.exists()]
        numbers = {row.key: row.number for row in rows}
        for file in files:
            lines, size = read_lines(file)
            length = size if file == mine else length
            for line in lines[1:] if lines and lines[0].get("made_with") == made else ():
                number = numbers.get(line["key"])
                if number is not None and state_of(line["path"]) == line["state"]:
                    data = np.frombuffer(base64.b64decode(line["logits"]), np.float32)
                    self.rows[number] = data.reshape(line["shape"])
        self._appender = Appender(mine, keep=length)

    def has(self, row: Clips) -> bool:
        return row.number in self.rows

    def has_failed(self, row: Clips) -> bool:
        return row.number in self.errors

    def add(self, ends: Sequence[End[Clips, np.ndarray]]) -> None:
        for end in ends:
            row, logits = end.row, end.result
            if logits is None:
                self.errors[row.number] = f"{row.path}: {end.error.removeprefix(f'{row.path}: ')}"
                continue
            self.rows[row.number] = logits
            if self._appender is not None:
                text = base64.b64encode(logits.tobytes()).decode()
                line = {"key": row.key, "path": row.path, "state": state_of(row.path)}
                line |= {"shape": list(logits.shape), "logits": text}
                self._appender.add(json_line(line))

    def take(self, parts: Sequence[Any], failure: Exception | None) -> None:
        """The scores and errors of all ranks, and what ended the work of each."""
        if failure is not None:
            raise failure
        for rank, (why, rows, errors) in enumerate(parts):
            if why is not None:
                raise FrosterError(f"process {rank} could not score its videos: {why}")
            self.rows |= rows
            self.errors |= errors

    def close(self) -> None:
        if self._appender is not None:
            self._appender.close()


def state_of(path: str) -> list[int] | None:
    """Size and time of a file, as JSON has them."""
    with suppress(OSError, ValueError):
        return list(file_state(path))
    return None


def made_with(path: Path) -> str | None:
    """What the scores in a file were made with; None where there are none."""
    with suppress(DataError, IndexError):
        return str(read_lines(path)[0][0].get("made_with"))
    return None


def remove_scores(folder: Path) -> None:
    """Once the report says what they said."""
    for file in (folder / SCORES, *shard_files(folder / SCORES)):
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Scoring:
    """How the videos are scored."""

    folder: Path | None = None
    shard: Shard = Shard()  # noqa: RUF009
    engine: Engine = LOCAL


def score_sets(
    model: Recognizer,
    sets: Sequence[EvalSet],
    how: Measuring,
    probes: Sequence[Probe],
    scoring: Scoring,
) -> tuple[Measured, dict[Probe, Measured]] | dict[str, Any]:
    """The predictions as usual, and those of each probe, from one decode of every video, of sets
    that have the same classes; of a shard, which file its scores are in, and how many. Several
    processes of torchrun score a share each, in the batches of one, and all but the first return
    nothing."""
    rows, orders = rows_of(sets), orders_of(model, probes)
    work, shard = ScoreVideos(model, sets, orders, how), scoring.shard
    mine: Sequence[Clips] = shard.of(rows) if shard.count > 1 else rows
    if ranks() > 1:
        shard, size = Shard(this_rank(), ranks()), work.size_on(model.device)
        batches = [rows[first : first + size] for first in range(0, len(rows), size)]
        mine = [row for batch in batches[shard.index :: shard.count] for row in batch]
    path, made = scoring.folder and scoring.folder / SCORES, fingerprint(model, sets, orders, how)
    store = _Scores(mine, path, shard, made, joins=scoring.shard.count == 1)
    means, failure = Means(scoring.engine, how.workers), None
    with how.reporter.bar("evaluate videos", len(mine)) as bar:
        before = 0

        def advance(done: int, total: int, failed: int) -> None:
            nonlocal before
            bar(done - before)
            before = done

        try:
            run(work, mine, store, means, advance)
        except Exception as error:
            failure = error
    if scoring.shard.count > 1 and failure is None:
        assert path is not None
        counts = {"videos": len(mine), "errors": len(store.errors)}
        return {"part": str(shard.file(path)), "shard": str(shard), **counts}
    store.take(to_rank_0((failure and reason(failure), store.rows, store.errors)), failure)
    if this_rank() > 0:
        return {}
    by_order = [predictions(model, sets, store, n) for n in range(len(orders))]
    usual = by_order[0]
    return usual, {p: by_order[orders.index(p)] if p in orders else usual for p in probes}


def predictions(
    model: Recognizer, sets: Sequence[EvalSet], store: _Scores, order: int
) -> dict[str, Predictions]:
    """Of each set, from the logits of all."""
    result, first = {}, 0
    for s in sets:
        count = len(s.dataset)  # type: ignore[arg-type]
        logits = logits_of(store.rows, range(first, first + count), order, s)
        errors = [(n - first, e) for n, e in sorted(store.errors.items()) if 0 <= n - first < count]
        assert isinstance(s.dataset, VideoDataset)
        labels = torch.tensor([s.dataset.label(i) for i in range(count)])
        result[s.name] = predictions_of(
            s.classes, labels, logits, model.config.fusion, errors, s.videos, s.also
        )
        first += count
    return result


def logits_of(
    rows: dict[int, np.ndarray], numbers: range, order: int, s: EvalSet
) -> Float[Tensor, "videos views columns"]:
    """NaN of what could not be read."""
    columns = len(s.classes) + sum(map(len, s.also.values()))
    views = next((len(rows[n][order]) for n in numbers if n in rows), 1)
    logits = torch.full((len(numbers), views, columns), float("nan"))
    for place, number in enumerate(numbers):
        if number in rows:
            logits[place] = torch.tensor(rows[number][order])
    return logits


def fingerprint(
    model: Recognizer, sets: Sequence[EvalSet], orders: Sequence[Probe | None], how: Measuring
) -> str:
    """Of all that decides the logits of a video."""
    config, file = model.config.to_dict(), model.class_file
    network, dtype = type(model.model).__name__, str(model.dtype)
    made = [model_fingerprint(model), network, dtype, None if file is None else file.digest]
    settings = {name: config[name] for name in ("sampling", "views")}
    labels = [texts_of(sets), sets[0].classes, dict(sets[0].also), how.truncate, list(orders)]
    text = json.dumps([made, settings, labels], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
