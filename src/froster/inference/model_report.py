"""What the report beside a model says: above all which videos the model has learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from froster.data.fingerprint import file_fingerprints
from froster.data.manifest import Item
from froster.inference.model_folder import is_model_folder, resolve
from froster.utils import strict_json as json

Part = Literal["test", "trained", "validation"]
TRAINING = (
    *("base_classes", "novel_classes", "training_videos", "watched_videos", "epochs"),
    *("recipe", "distill", "augment"),
)
"""What a report says of the training."""


@dataclass(frozen=True)
class ReportedVideos:
    """The videos of a model's training, by `file_fingerprint`."""

    trained: frozenset[str]
    validated: frozenset[str]
    """The validation videos."""

    def part(self, mark: str | None) -> Part:
        return (
            "trained"
            if mark in self.trained
            else "validation"
            if mark in self.validated
            else "test"
        )

    def parts(
        self, items: Sequence[Item], on_videos: Callable[[int], None] = lambda n: None
    ) -> list[Part]:
        if not self.trained and not self.validated:
            return ["test"] * len(items)
        return [self.part(mark) for mark in file_fingerprints(items, on_videos)]


def written(marks: Sequence[str | None] | frozenset[str]) -> str:
    """As a report has them: in order, between blanks."""
    return " ".join(sorted({mark for mark in marks if mark}))


def reported_videos(report: dict[str, Any]) -> ReportedVideos | None:
    """None where a report does not say which videos these were."""
    source = report.get("source")
    if not isinstance(source, dict):
        return None
    trained, validated = source.get("trained_on"), source.get("watched_by")
    if not isinstance(trained, str) or not isinstance(validated, str):
        return None
    return ReportedVideos(frozenset(trained.split()), frozenset(validated.split()))


def report_of(model: str | Path) -> dict[str, Any]:
    """The report beside the weights of the model that `froster.load` reads by this name, which may
    be downloaded; empty where there is none. Raises CheckpointError without such a model,
    FrosterError without the hub."""
    if str(model) == "nano":
        return {}
    folder = resolve(model)
    return read_report(folder / "report.json") if is_model_folder(folder) else {}


def read_report(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def inherited(report: dict[str, Any]) -> dict[str, Any]:
    """What the report of a model says too that is made of this one's weights."""
    return {name: report[name] for name in ("source", *TRAINING) if name in report}


def counted(parts: Sequence[Part]) -> tuple[int, int]:
    """How many were trained on, and how many validated the training."""
    counts = Counter(parts)
    return counts["trained"], counts["validation"]
