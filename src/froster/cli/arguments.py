"""What is done with the arguments of every command before it begins: `--config` is read, addresses
are refused, and a mistake becomes one sentence."""

import tomllib
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnusedCliTokensError,
)

from froster.errors import UsageError
from froster.utils.address import refuse_address

NO_FILES = ("labels", "text", "source", "endpoint")
"""Arguments in which an address may stand. Every other one that is a text names a file, or is
nothing like an address."""
FILES = (("describe", "labels"),)
"""Command and argument: a file after all."""


def read_config(name: str) -> Dict:
    """The options that a YAML or TOML file (by its suffix) holds by their names, such as
    `batch-size: 8`. Raises UsageError where it is not such a file."""
    refuse_address(name)
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix.lower() == ".toml" else read_yaml(text)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--config {path}: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UsageError(f"--config {path} must hold options by their names, such as batch-size: 8")
    return Dict(values, use_commands_as_keys=False, source=str(path))


def read_yaml(text: str) -> Any:
    """Raises ValueError."""
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def refuse_addresses(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raises UsageError where an address stands for a file; of it, `Path` would make "s3:/"."""
    for argument in arguments:
        name = argument.field_info.name
        if name not in NO_FILES or (*commands, name) in FILES:
            for token in argument.tokens:
                refuse_address(*token.value.split(","))


def sentence(error: CycloptsError) -> str:
    """What is wrong with the arguments."""
    error.verbose = False
    argument = error.argument
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}"
    if isinstance(error, MissingArgumentError) and argument and error.keyword is None:
        where = " ".join(("froster", *(error.command_chain or ())))
        return f"{where} needs {argument.name}{suggestion(error)}"
    if isinstance(error, CoercionError) and argument and error.token:
        value, choices = error.token.value, argument.get_choices(force=True)
        if choices and value not in choices:
            return (
                f"{argument.name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}"
            )
        if error.target_type in (int, float):
            number = "a whole number" if error.target_type is int else "a number"
            return f"{argument.name} takes {number}, not {value!r}"
    return str(error)


def suggestion(error: MissingArgumentError) -> str:
    """What follows "Did you mean" in cyclopts' own words."""
    _, _, hint = str(error).partition(" Did you mean ")
    return f". Did you mean {hint}" if hint else ""
