"""How a training tells what it does while it runs: who calls it from Python hears nothing, a command
draws bars and prints lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from froster.utils.progress import console, progress, working


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
    """Bars and lines on standard error, as a command shows them.

    Without a live `display` one is started by the first bar that is to stay, so that an error before
    it is the only line; as a context manager it is stopped at the end.
    """

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
