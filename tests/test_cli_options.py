"""The commands, their options and the defaults are a promise: `cli_options.txt` holds them, a
change of it is a line of CHANGELOG.

`python tests/test_cli_options.py` writes the file anew.
"""

from pathlib import Path

import typer

from froster.cli import app

FROZEN = Path(__file__).with_name("cli_options.txt")


def surface() -> str:
    """One line a parameter: command, names as they are typed, default."""
    lines = []
    for name, command in sorted(typer.main.get_command(app).commands.items()):
        for parameter in command.params:
            names = (
                " ".join(parameter.opts)
                if parameter.param_type_name == "option"
                else parameter.name.upper()
            )
            flag = " (flag)" if getattr(parameter, "is_flag", False) else ""
            required = " (required)" if parameter.required else ""
            default = "" if parameter.required else f" = {plain(parameter.default)}"
            lines.append(f"{name} {names}{flag}{required}{default}")
    return "\n".join(lines) + "\n"


def plain(default: object) -> str:
    return str(default) if isinstance(default, Path) else repr(default)


def test_options_are_what_was_promised() -> None:
    assert surface() == FROZEN.read_text()


if __name__ == "__main__":
    FROZEN.write_text(surface())
