"""What a finished training run left behind: its weights, epoch by epoch, and how to take its data
apart once more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from froster.data.fingerprint import list_fingerprint
from froster.data.items import Item, Items, label_counts
from froster.data.manifest import read_items
from froster.data.splits import Split, has_split, split
from froster.errors import CheckpointError, DataError, UsageError
from froster.inference.model_folder import is_model_folder
from froster.inference.recognizer import Recognizer
from froster.training.checkpoint import Checkpoints, RunningMean
from froster.training.weights import check_same_keys
from froster.utils import strict_json as json
from froster.utils.address import as_path, is_address
from froster.utils.files import absolute
from froster.utils.tensors import StateDict, cpu_state


@dataclass(frozen=True)
class RunInputs:
    """Where a run's CLIP and videos came from, as `report.json` holds it."""

    model: str
    weights: str
    """`weights_fingerprint` of the CLIP."""
    data: str
    root: str | None
    labels_json: str | None
    where: dict[str, str]
    descriptions: str | None
    truncate: bool
    holdout: float
    shots: int | None
    split_seed: int
    training: str
    """`list_fingerprint` of the training videos."""
    watch: float | None = 0.0
    """Share of the training videos for validation; None: what neither trains nor tests."""
    every_novel: bool = False
    """All novel videos test where the data has no split; older versions held out a share."""
    trained_on: str | None = None
    """The training videos by `file_fingerprint`, with those of a tuned model that it started from.
    """
    watched_by: str | None = None
    """The validation videos, likewise."""
    preprocessing: dict[str, Any] | None = None
    """How the CLIP's frames are prepared; this and the next are missing in older versions."""
    architecture: dict[str, Any] | None = None
    classes: str | None = None
    """The file of class embeddings that stood in the place of the text tower."""

    @property
    def class_file(self) -> Path | None:
        return None if self.classes is None else as_path(self.classes)

    def items(self, data: Path | None = None, root: Path | None = None) -> Items:
        """The run's videos, or those of the same manifest elsewhere. Raises DataError when they are
        not there."""
        source = absolute(data) or self.data
        if not is_address(source) and not os.path.exists(source):
            hint = "; the run was trained on it: say with --data (and --root) where it is now"
            raise DataError(f"{source} does not exist{'' if data else hint}")
        root_there = self.root and (is_address(self.root) or os.path.isdir(self.root))
        known = self.root if root_there else None
        return read_items(
            source, labels_json=self.labels_json, root=absolute(root) or known, where=self.where
        )

    def split(self, items: Sequence[Item], base: Sequence[str], novel: Sequence[str]) -> Split:
        """Base and novel videos as the run had them. Raises DataError when these are not the run's
        videos."""
        gone = sorted({*base, *novel} - label_counts(items).keys())
        if gone:
            raise DataError(
                f"this is not the data of the run: it has no video of {', '.join(gone[:3])}"
                f" ({len(gone)} classes)"
            )
        parts = split(
            items,
            novel=novel,
            holdout=self.holdout,
            shots=self.shots,
            split_seed=self.split_seed,
            validation=self.watch,
        )
        if list_fingerprint(parts.train) != self.training:
            raise DataError(
                f"this is not the data of the run: its split gives {len(parts.train)} training"
                " videos that differ from the run's in name, label or order"
            )
        if not self.every_novel and novel and not has_split(items):
            raise DataError(
                "the run is of an older froster, which tested fewer novel videos: froster train"
                " with the same options and --resume measures it anew without training"
            )
        return parts


def whereabouts(name: str | Path) -> str:
    """The whole path of a file or folder; names such as nano, kinetics400 or a hub id stay."""
    return str(absolute(name)) if Path(name).exists() and str(name) != "nano" else str(name)


@dataclass(frozen=True)
class Run:
    """The output folder of `froster train`."""

    folder: Path
    report: dict[str, Any]
    source: RunInputs

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints")

    @property
    def epochs(self) -> int:
        """How many were done: the recipe's, or fewer where the run was stopped early."""
        return self.report.get("epochs", self.report["recipe"]["epochs"])

    def tuned(
        self, student: Recognizer, epochs: tuple[int, int] | None = None
    ) -> tuple[StateDict, str]:
        """The run's own weights before any share of CLIP's was mixed in, or the uniform mean of the
        checkpoints of epochs A to B, and what they are in words. `student` is the run's model.
        Raises CheckpointError where one is missing, UsageError where the run has no such epoch."""
        if epochs is None and not student.config.method.patch:
            return cpu_state(student.model), self.report["rows"][1]["weights"]
        if epochs is None:  # `model/` holds a share of CLIP already, the last checkpoint the mean
            self.demand([self.epochs])
            averaged = self.checkpoints.state(self.epochs)["averaged"]
            if not averaged:  # it was stopped early, before the first epoch of the mean
                return self.weights(self.epochs, "student", student), "last epoch"
            return self.weights(self.epochs, "average", student), f"mean of {averaged} epochs"
        first, last = epochs
        self.demand(range(first, last + 1))
        mean = RunningMean()
        for epoch in range(first, last + 1):
            mean.add(self.weights(epoch, "student", student))
        words = f"epoch {first}" if first == last else f"mean of epochs {first}-{last}"
        return mean.weights(like=student.model.state_dict()), words

    def demand(self, epochs: Sequence[int]) -> None:
        kept, total = self.checkpoints.epochs(), self.epochs
        if max(epochs) > total:
            raise UsageError(
                f"the run in {self.folder} has {total} epochs: there is no epoch {max(epochs)}"
            )
        missing = [str(epoch) for epoch in epochs if epoch not in kept]
        if missing:
            word = ", ".join(map(str, kept)) or "none"
            raise CheckpointError(
                f"{self.checkpoints.folder} has no checkpoint of epoch {', '.join(missing[:10])};"
                f" of the run's {total} it holds {word}; train with --keep 0 to keep them all"
            )

    def weights(self, epoch: int, name: str, student: Recognizer) -> StateDict:
        state = self.checkpoints.tensors(epoch, name, self.checkpoints.state(epoch))
        check_same_keys(student.model.state_dict(), state)
        return state


def read_run(folder: Path) -> Run:
    """Raises UsageError where `folder` is no finished run, or one of an older version."""
    report = folder / "report.json"
    if (folder / "checkpoints").is_dir() and not report.is_file():
        raise UsageError(
            f"the run in {folder} has not finished: froster train with the same options and"
            " --resume ends it"
        )
    if not report.is_file() or not is_model_folder(folder / "model"):
        raise UsageError(
            f"{folder} is no output folder of froster train: it needs report.json and model/"
        )
    try:
        values = json.loads(report.read_text(encoding="utf-8"))
        if isinstance(values, dict) and "taught" in values:
            raise UsageError(
                f"{folder} was taught by froster teach, which leaves no run to take apart: give the"
                " model with --model and videos with --data, where the command has these"
            )
        stated = values["source"]
        known = [f.name for f in fields(RunInputs) if f.name in stated or f.default is MISSING]
        source = RunInputs(**{name: stated[name] for name in known})
    except KeyError as error:
        raise UsageError(
            f"{report} does not say how the data was split (no {error}), being of an older froster:"
            " froster train with the same options and --resume writes it anew without training"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{report}: cannot be read: {error}") from error
    return Run(folder, values, source)
