"""Metrics to TensorBoard or Weights & Biases, beside the `metrics.jsonl` that is always written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from froster.errors import UsageError, install

Log = Callable[[int, dict[str, float]], None]


def open_logger(kind: str | None, out: Path) -> Log | None:
    """A function (step, metrics), or None. Raises UsageError when the extra is not installed."""
    if kind is None:
        return None
    if kind not in ("tensorboard", "wandb"):
        raise UsageError(f"--logger must be tensorboard or wandb, not {kind!r}")
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
