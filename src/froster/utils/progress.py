"""Progress bars and the two consoles of all commands; steps that may fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from froster.errors import FrosterError, WriteError
from froster.utils.interrupt import Interrupted, check
from froster.utils.text import printable


class Plain(Console):
    """Shows texts as they are: square brackets and colons of names and labels mean nothing, and
    controls are written out, line ends too, so that each `print` is one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Tables measure and print their cells through this too."""
        return super().render_str(printable(text), **options)

    def tell(self, text: str) -> None:
        """One line however long, for programs as well as for people."""
        self.print(text, soft_wrap=True)


console = Plain(stderr=True)
output = Plain()
"""For what a command was asked for, on standard output."""
_WIDEST = 1000
"""Characters of a line that a terminal may break."""


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    styles: Iterable[str | None] = (),
    *,
    wide: bool = False,
) -> None:
    """A row a line, under the names of the columns if one has a name; nothing if there is no row.

    `styles` are rich's, one a row; rows without one are plain. A `wide` table has one line a row
    also where that is longer than the terminal's.
    """
    table = Table(*columns, box=None, pad_edge=False, show_header=any(columns))
    rest = iter(styles)
    for row in rows:
        table.add_row(*map(str, row), style=next(rest, None))
    if table.row_count:
        (Plain(width=_WIDEST) if wide else output).print(table)


class _PlainColumn(TextColumn):
    """Texts beside the bars come from names and labels as well."""

    def render(self, task: Task) -> Text:
        return Text(printable(self.text_format.format(task=task)))


def _bars(**options: Any) -> Progress:
    numbers = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    before, after = _PlainColumn("{task.description}"), _PlainColumn("{task.fields[note]}")
    return Progress(before, *numbers, after, console=console, **options)


_shown: list[Progress] = []
"""The display that is live, or will be in a moment, if there is one: there can be no second one."""


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A live display, for `add_task(what, total=…)` and `update(task, advance=…, note=…)`."""
    with _bars(disable=quiet) as display:
        if quiet:
            yield display
            return
        _shown.append(display)
        try:
            yield display
        finally:
            _shown.remove(display)


SILENT_SECONDS = 1.0
Working = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""`with working("encoding 400 labels", 29) as advance:` and `advance(1)` for each of the 29 steps.
"""


@contextmanager
def silently(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """The `Working` of who calls froster from Python."""
    yield lambda steps: None


@contextmanager
def working(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """The `Working` of commands: what takes longer than a second says what it is, by a bar, or in a
    log by a line."""
    if _shown:
        display = _shown[-1]
        task = display.add_task(what, total=total, note="")
        try:
            yield lambda steps: display.update(task, advance=steps)
        finally:
            display.remove_task(task)
    elif os.environ.get("RANK", "0") != "0":  # of torchrun's processes the first speaks for all
        yield lambda steps: None
    else:
        with _after_a_second(what, total) as advance:
            yield advance


@contextmanager
def at_once(what: str) -> Iterator[None]:
    """On a terminal, a line that says what is going on from the first moment on; nothing in a
    log."""
    if _shown or not console.is_terminal:
        yield
        return
    with _bars(transient=True) as bars:
        bars.add_task(what, total=None, note="")
        yield


@contextmanager
def _after_a_second(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    bars = _bars(transient=True)
    task = bars.add_task(what, total=total, note="")
    lock, over = threading.Lock(), False

    def show() -> None:
        with lock:
            if over:
                return
            if console.is_terminal:
                bars.start()
            else:
                console.tell(f"{what} …")

    timer = threading.Timer(SILENT_SECONDS, show)
    timer.daemon = True
    timer.start()
    if console.is_terminal:  # in a log what is done within has a line of its own
        _shown.append(bars)
    try:
        yield lambda steps: bars.update(task, advance=steps)
    finally:
        timer.cancel()
        with lock:
            over = True
            if bars in _shown:
                _shown.remove(bars)
            if bars.live.is_started:
                bars.stop()


Result = TypeVar("Result")


def leave_out(line: str) -> None:
    console.print(f"left out: {line}", style="yellow", soft_wrap=True)


def attempt(
    what: str, step: Callable[[], Result], say: Callable[[str], None] = leave_out
) -> Result | None:
    """What `step` returns; None where it fails, and a line that begins with `what` says why.
    Ctrl-C and a full disk are raised: what comes next would meet them too."""
    try:
        return step()
    except (Interrupted, WriteError):
        raise
    except Exception as error:  # whatever it is, the result before it is worth more
        check()
        say(f"{what}: {reason(error)}")
        return None


def reason(error: Exception) -> str:
    """An error in one line; one that is not ours with its type, as its message alone may say
    little."""
    line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, FrosterError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
