"""How a training tells what it does while it runs: who calls it from Python hears nothing, a command
draws bars and prints lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    """`bar()` for each step that is done; `note` is shown beside the bar until the next one."""

    def __call__(self, steps: int = 1, note: str | None = None) -> None: ...


def no_bar(steps: int = 1, note: str | None = None) -> None:
    """The bar of who does not look."""


class Reporter:
    """Tells nothing. A subclass overrides what it wants to show."""

    @contextmanager
    def bar(self, what: str, total: int | None = None, keep: bool = True) -> Iterator[Bar]:
        """A job of `total` steps, if that is known. `keep`: what is shown of it stays when it is done."""
        yield no_bar

    def say(self, line: str) -> None:
        """What a user wants to know."""

    def warn(self, line: str) -> None:
        """What may be wrong, or was left out."""


class Drawn(Reporter):
    """Bars and lines on a live display of rich (`utils.progress.progress`)."""

    def __init__(self, display: Any):
        self.display = display

    @contextmanager
    def bar(self, what: str, total: int | None = None, keep: bool = True) -> Iterator[Bar]:
        task = self.display.add_task(what, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            shown = {} if note is None else {"note": note}
            self.display.update(task, advance=steps, **shown)

        try:
            yield advance
        finally:
            if not keep:
                self.display.remove_task(task)

    def say(self, line: str) -> None:
        self.display.console.print(line, soft_wrap=True)

    def warn(self, line: str) -> None:
        self.display.console.print(line, style="yellow", soft_wrap=True)
