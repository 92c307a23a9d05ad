"""How a training reports while it runs: in Python by nothing, in a command by bars and lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from froster.utils.progress import console, progress, working


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


class Drawn(Reporter):
    """Bars and lines on standard error. Without a live `display` the first bar that is to stay
    starts one, so that an error before it is the only line; the end of the context stops it."""

    def __init__(self, display: Any = None):
        self.display = display
        self.started = ExitStack()

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
