"""How a training reports while it runs: in Python by nothing, in a command by bars and lines; of
each step and epoch in `metrics.jsonl`, and to loggers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from froster.errors import UsageError, install, one_of
from froster.utils import strict_json as json
from froster.utils.files import write_text, writing
from froster.utils.progress import console, progress, working

if TYPE_CHECKING:
    from froster.training.memory import Memory


class Bar(Protocol):
    """`bar()` for each step that is done; `note` is shown beside the bar until the next one."""

    def __call__(self, steps: int = 1, note: str | None = None) -> None: ...


def no_bar(steps: int = 1, note: str | None = None) -> None:
    """Draws nothing."""


class Reporter:
    """Tells nothing. A subclass overrides what it wants to show."""

    @contextmanager
    def bar(self, what: str, total: int | None = None, keep: bool = True) -> Iterator[Bar]:
        """A job of `total` steps, if that is known. `keep`: what is shown of it stays."""
        yield no_bar

    def say(self, line: str) -> None:
        """What a user wants to know."""

    def warn(self, line: str) -> None:
        """What may be wrong, or was left out."""

    def count(self, memory: Memory) -> None:
        """What the run would need, where only that was asked for."""
        for line in memory.lines():
            self.say(line)


class Drawn(Reporter):
    """Bars and lines on standard error. Without a live `display` the first bar that is to stay
    starts one, so that an error before it is the only line; the end of the context stops it."""

    def __init__(self, display: Any = None):
        self.display = display
        self.started = ExitStack()
        self.memory: Memory | None = None
        "what was counted"

    def __enter__(self) -> Drawn:
        return self

    def __exit__(self, *error: Any) -> None:
        self.started.close()

    @contextmanager
    def bar(self, what: str, total: int | None = None, keep: bool = True) -> Iterator[Bar]:
        if not keep:
            with working(what, total) as advance_by:
                yield lambda steps=1, note=None: advance_by(steps)
            return
        if self.display is None:
            self.display = self.started.enter_context(progress())
        display = self.display
        task = display.add_task(what, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            shown = {} if note is None else {"note": note}
            display.update(task, advance=steps, **shown)

        yield advance

    def say(self, line: str) -> None:
        console.print(line, soft_wrap=True)

    def warn(self, line: str) -> None:
        console.print(line, style="yellow", soft_wrap=True)

    def count(self, memory: Memory) -> None:
        self.memory = memory
        super().count(memory)


def place_of(line: str) -> tuple[float, float] | None:
    """A line's epoch and step, which is infinite for that of a whole epoch; None for a line that
    cannot be read."""
    try:
        values = json.loads(line)
        epoch, step = values["epoch"], values.get("step", math.inf)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (epoch, step) if all(isinstance(x, (int, float)) for x in (epoch, step)) else None


class MetricsLog:
    """`metrics.jsonl`: one object a line. Dropped are lines of steps that a resumed run will repeat
    and what cannot be read: a last line that a kill has cut off, and others (`lost`). `step` of the
    run, from 1, is the last that was done, where the epoch after `epochs_done` has begun."""

    def __init__(self, path: Path, epochs_done: int, active: bool, step: int = 0):
        self.path, self.epochs_done, self.active, self.step = path, epochs_done, active, step
        self.lost = 0
        if active:
            begun = path.exists() and (epochs_done or step)
            text = path.read_text(errors="replace") if begun else ""
            lines = [(line, place_of(line)) for line in text.split("\n") if line]
            self.lost = sum(place is None for _, place in lines[:-1])
            kept = (line for line, place in lines if place is not None and self.is_done(*place))
            write_text(path, "".join(line + "\n" for line in kept))

    def is_done(self, epoch: float, step: float) -> bool:
        return epoch <= self.epochs_done or (epoch == self.epochs_done + 1 and step <= self.step)

    def write(self, **values: Any) -> None:
        """Raises WriteError where the disk is full."""
        if not self.active:
            return
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def damage(self, passed_over: Sequence[str]) -> list[str]:
        """What cannot be read, in lines; `passed_over` are those of newer checkpoints."""
        place = f"epoch {self.epochs_done}{f', step {self.step}' if self.step else ''}"
        lines = [
            f"{line}: going on from {place}, the newest whole checkpoint" for line in passed_over
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
