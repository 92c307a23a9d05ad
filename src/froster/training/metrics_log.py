"""What a run says of each of its steps and epochs: `metrics.jsonl`, and loggers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from froster.errors import UsageError, install, one_of
from froster.utils import strict_json as json
from froster.utils.files import write_text, writing


def epoch_of(line: str) -> float | None:
    """A line's epoch; None for a line that cannot be read."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None
    return epoch if isinstance(epoch, (int, float)) else None


class MetricsLog:
    """`metrics.jsonl`: one object a line. Dropped are lines of epochs that a resumed run will
    repeat and what cannot be read: a last line that a kill has cut off, and others (`lost`)."""

    def __init__(self, path: Path, epochs_done: int, active: bool):
        self.path, self.epochs_done, self.active = path, epochs_done, active
        self.lost = 0
        if active:
            text = path.read_text(errors="replace") if path.exists() and epochs_done else ""
            lines = [(line, epoch_of(line)) for line in text.split("\n") if line]
            self.lost = sum(epoch is None for _, epoch in lines[:-1])
            kept = (line for line, epoch in lines if epoch is not None and epoch <= epochs_done)
            write_text(path, "".join(line + "\n" for line in kept))

    def write(self, **values: Any) -> None:
        """Raises WriteError where the disk is full."""
        if not self.active:
            return
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def damage(self, passed_over: Sequence[str]) -> list[str]:
        """What cannot be read, in lines; `passed_over` are those of newer checkpoints."""
        lines = [
            f"{line}: going on from epoch {self.epochs_done}, the newest whole checkpoint"
            for line in passed_over
        ]
        if self.lost:
            lines.append(f"{self.path}: {self.lost} lines cannot be read and are left out")
        return lines


Log = Callable[[int, dict[str, float]], None]


def open_logger(kind: str | None, out: Path) -> Log | None:
    """A function (step, metrics), or None. Raises UsageError when the extra is not installed."""
    if kind is None:
        return None
    one_of("--logger", kind, "tensorboard", "wandb")
    try:
        return _tensorboard(out) if kind == "tensorboard" else _wandb(out)
    except ImportError as error:
        raise UsageError(f"{kind} is not installed: {install(kind)}") from error


def _tensorboard(out: Path) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(out / "tensorboard")

    def log(step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(f"train/{name}", value, step)
        writer.flush()

    return log


def _wandb(out: Path) -> Log:
    import wandb

    run = wandb.init(project="froster", dir=str(out), name=out.name)
    return lambda step, metrics: run.log(metrics, step=step)
