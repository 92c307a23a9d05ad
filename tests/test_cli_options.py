"""The commands, their options and the defaults are a promise: `cli_options.txt` holds them, a change
of it is a line of CHANGELOG.

`python tests/test_cli_options.py` brings it up to date: lines that hold keep their place.
"""

from collections.abc import Iterator
from pathlib import Path

from cyclopts.argument import Argument

from froster.cli import COMMANDS
from typed import arguments

FROZEN = Path(__file__).with_name("cli_options.txt")


def surface() -> list[str]:
    """One line a parameter: command, names as they are typed, default."""
    lines = []
    for name in sorted(name for names in COMMANDS.values() for name in names):
        lines += [f"{name} {line}" for argument in arguments(name) for line in lines_of(argument)]
        lines.append(f"{name} --config = None")
    return lines


def lines_of(argument: Argument) -> Iterator[str]:
    field = argument.field_info
    flag = " (flag)" if argument.is_flag() else ""
    default = None if field.default is field.empty else field.default
    value = " (required)" if field.required else f" = {plain(default)}"
    if field.is_positional:
        yield f"{field.name.upper()}{flag}{value}"
    positive = [name for name in argument.names if name not in argument.negatives]
    if field.is_keyword:
        yield f"{' '.join(positive)}{flag}{value}"


def plain(default: object) -> str:
    return str(default) if isinstance(default, Path) else repr(default)


def test_options_are_what_was_promised() -> None:
    assert sorted(surface()) == sorted(FROZEN.read_text().splitlines())


if __name__ == "__main__":
    now, before = surface(), FROZEN.read_text().splitlines()
    lines = [line for line in before if line in now] + [line for line in now if line not in before]
    FROZEN.write_text("\n".join(lines) + "\n")
