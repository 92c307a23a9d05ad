"""What follows a result, such as a measurement or a picture: it is done if it can be, and never
takes the result away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from froster.errors import FrosterError, WriteError
from froster.utils.interrupt import Interrupted, check
from froster.utils.progress import console

Result = TypeVar("Result")


def leave_out(line: str) -> None:
    console.print(f"left out: {line}", style="yellow", soft_wrap=True)


def attempt(
    what: str, step: Callable[[], Result], say: Callable[[str], None] = leave_out
) -> Result | None:
    """What `step` returns; None where it fails, and a line that begins with `what` says why.

    Ctrl-C and a file that cannot be written (a full disk) are raised: what comes next would meet
    them too.
    """
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
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else ""
    return (
        line
        if isinstance(error, FrosterError)
        else f"{type(error).__name__}{f': {line}' if line else ''}"
    )
