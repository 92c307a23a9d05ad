"""What is done with the arguments of every command before it begins: `--config` is read, addresses
are refused, and a mistake becomes one sentence."""

import datetime
import difflib
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, ArgumentCollection
from cyclopts.argument import Argument, update_argument_collection
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from froster.cli.options import as_paths
from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.address import as_path, refuse_address

NO_FILES = ("labels", "text", "source", "endpoint", "webhook", "template", "address")
"""Arguments in which an address may stand. Every other one that is a text names a file, or is
nothing like an address."""
FILES = (("describe", "labels"),)
"""Command and argument: a file after all."""
ADDRESSES = (("classify", "out"),)
"""Command and argument: a file, which may lie at an address."""
INDEXES = (("index", "out"), ("search", "index"), ("label", "index"))
"""Command and argument: an index may lie in an object store."""
OBJECT_STORES = ("s3", "gs", "az")
MODELS = ("model", "models")
"""Arguments that name models, which may be at an address."""
NAMED = ("index", "out", "compare", "from_file")
"""Other arguments that are texts and name a file, a folder or a model."""
LISTED: dict[str, Callable[[list[str]], str]] = {"labels": json.dumps, "models": ",".join}
"""Arguments that are one text of several names, and how it is made of a list."""
PLAIN = (str, int, float, datetime.date, datetime.time)
"""What may stand behind a name in a config, alone or in a list."""
YAML_SWITCHES = {"on": "true", "off": "false"}
"""The other words for it are those of the command line."""
SECOND_TASK = "; a second task is learnt with --model RUN, and held to the first with --hold si"
"""For who asks for `train --from RUN --keep si`."""


def read_config(name: str) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """What sets the options that a YAML or TOML file (by its suffix) holds by their names, such as
    `batch-size: 8`. A value of YAML is the text that is typed there, for a label or a name may be
    `no` or `007`. Raises UsageError where it is not such a file."""
    import yaml

    class AsTyped(yaml.SafeLoader):
        """All plain words but null are texts."""

    AsTyped.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag.endswith((":null", ":merge"))]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    refuse_address(name)
    path = Path(name)
    is_toml = path.suffix.lower() == ".toml"
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if is_toml else yaml.load(text, AsTyped) or {}
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {path}: not UTF-8 text") from None
    except RecursionError:
        raise UsageError(f"--config {path}: it is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UsageError(f"--config {path} must hold options by their names, such as batch-size: 8")

    def give(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        # cyclopts' own passes over each name that a command has too, such as `models`.
        given = {key: _config_value(path, key, values[key], commands, arguments) for key in values}
        given = {key: value for key, value in given.items() if value is not None}  # left open
        stack = app.app_stack.stack[-1]
        update_argument_collection(
            given, str(path), arguments, stack, root_keys=(), allow_unknown=False
        )

    return give


def _config_value(
    path: Path, key: str, value: Any, commands: tuple[str, ...], arguments: ArgumentCollection
) -> Any:
    """A value of a config as cyclopts takes it. Raises UsageError where the command has no such
    option, or it takes no such value."""
    names = {name: argument for argument in arguments for name in argument.names}
    argument = names.get(f"--{key.replace('_', '-')}")
    if argument is None:
        long = [name[2:] for name in names if name.startswith("--")]
        near = difflib.get_close_matches(key, long, 1)
        hint = f": did you mean {near[0]}?" if near else ""
        if key.upper().replace("-", "_") in names:
            hint = ": it is typed, without a name, on the command line"
        raise UsageError(f"{path}: {' '.join(('froster', *commands))} has no option {key!r}{hint}")
    if f"--{key.replace('_', '-')}" in argument.negatives:
        raise UsageError(f"{path}: {key} is said as {argument.name.lstrip('-')}: false")
    if bool in (get_args(argument.hint) or (argument.hint,)) and isinstance(value, str):
        value = YAML_SWITCHES.get(value.lower(), value)
    takes_several = argument.token_count()[1]
    if isinstance(value, list) and not takes_several:
        as_text = LISTED.get(argument.field_info.name)
        if as_text is None or not all(isinstance(name, str) for name in value):
            raise UsageError(f"{path}: {key} takes one value, not a list")
        return as_text(value)
    items = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, PLAIN) for item in items):
        raise UsageError(f"{path}: {key} takes a value, not others by their names")
    return value


def refuse_addresses(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raises UsageError where an address stands for a file of this machine; of it, `Path` would
    make "s3:/"."""
    for argument in arguments:
        name = argument.field_info.name
        if name in NO_FILES and (*commands, name) not in FILES:
            continue
        if (*commands, name) in ADDRESSES or is_stored_index(commands, argument):
            continue
        may_be = argument.parameter.converter is as_paths
        may_be |= name in MODELS and commands[-1:] not in (("calibrate",), ("serve",))
        for token in argument.tokens:
            for text in filter(None, token.value.split(",")):
                if may_be:
                    as_path(text)
                else:
                    refuse_address(text)


def refuse_nothing(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raises UsageError where an empty text stands for a file, a folder or a model: a variable of a
    shell that is not set would be this folder, or the default model."""
    for argument in arguments:
        named = "Path" in str(argument.hint) or argument.field_info.name in (*MODELS, *NAMED)
        if named and any(token.value == "" for token in argument.tokens):
            raise UsageError(f"{argument.name} is empty: a file, a folder or a model is missing")


def refuse_fractions(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Raises UsageError where a whole number is asked for and another stands, which cyclopts would
    round."""
    for argument in arguments:
        kinds = get_args(argument.hint) or (argument.hint,)
        if int not in kinds or float in kinds:
            continue
        for token in argument.tokens:
            with suppress(ValueError):  # no number: cyclopts says it
                if "." in token.value and not float(token.value).is_integer():
                    raise UsageError(f"{argument.name} takes a whole number, not {token.value!r}")


def is_stored_index(commands: tuple[str, ...], argument: Argument) -> bool:
    """Whether it is an index in an object store."""
    schemes = [token.value.partition("://")[0] for token in argument.tokens]
    name = argument.field_info.name
    return (*commands, name) in INDEXES and all(scheme in OBJECT_STORES for scheme in schemes)


def sentence(error: CycloptsError) -> str:
    """What is wrong with the arguments."""
    error.verbose = False
    argument = error.argument
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}"
    if isinstance(error, MissingArgumentError) and argument and error.keyword is None:
        where = " ".join(("froster", *(error.command_chain or ())))
        _, asked, hint = str(error).partition(" Did you mean ")
        return f"{where} needs {argument.name}" + (f".{asked}{hint}" if hint else "")
    unknown = error.token.keyword if isinstance(error, UnknownOptionError) else None
    if unknown == "--from" and "train" in (error.command_chain or ()):
        return f"unknown option --from{SECOND_TASK}"
    if isinstance(error, CoercionError) and argument and error.token:
        value, choices = error.token.value, argument.get_choices(force=True)
        if choices and value not in choices:
            return (
                f"{argument.name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}"
            )
        if error.target_type is bool:
            return f"{argument.name} takes true or false, not {value!r}"
        if error.target_type in (int, float):
            number = "a whole number" if error.target_type is int else "a number"
            hint = SECOND_TASK if argument.name == "--keep" else ""
            return f"{argument.name} takes {number}, not {value!r}{hint}"
    return str(error)
