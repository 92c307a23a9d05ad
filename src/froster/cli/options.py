"""Options that several commands have, each declared once. A command names them in its signature."""

import ast
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Group, Parameter, Token
from cyclopts.validators import Number

from froster.training.options import EvaluateOptions
from froster.utils.address import as_path

DATA = Group("Videos and labels", sort_key=1)
MACHINE = Group("Machine", sort_key=8)
OUTPUT = Group("Output", sort_key=9)


def option(help: str, **more: Any) -> Parameter:
    return Parameter(help=help, **more)


def as_paths(kind: Any, tokens: Sequence[Token]) -> Path | list[Path]:
    """The path or paths that an option was given, each of this machine or an address."""
    paths = [as_path(token.value) for token in tokens]
    return paths if "list" in str(kind) else paths[-1]


ADDRESS = Parameter(converter=as_paths)
"""For an option whose files may be at an address: all others refuse one."""


def bounds(least: float | None, most: float | None = None, **more: Any) -> Parameter:
    """An option with a smallest and perhaps a largest value."""
    return Parameter(validator=Number(gte=least, lte=most), **more)


def number(help: str, least: float | None, most: float | None = None, **more: Any) -> Parameter:
    return bounds(least, most, help=help, **more)


def seconds(help: str, least: float | None = None, **more: Any) -> Parameter:
    """An option in seconds; without `least` the function that takes them says what they may be."""
    return number(help, least, metavar="SECONDS", **more)


def switch(help: str, name: str) -> Parameter:
    """A flag that is on and is switched off by `--no-NAME`."""
    return Parameter(help=help, negative=f"--no-{name}")


def helps_of(options: type) -> dict[str, str]:
    """The string under each field of a dataclass and of what it extends."""
    definitions = (ast.parse(inspect.getsource(kind)).body[0] for kind in options.__mro__[:-1])
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for definition in definitions
        for field, text in pairwise(getattr(definition, "body", ()))
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


HELPS = helps_of(EvaluateOptions)
SPREAD = Parameter(name="*")
"""For a dataclass of options, each of which stands on the command line by its own name."""

MODEL = (
    "Model folder, hub id, short name (froster models), checkpoint file, or nano (works offline)."
)
Model = Annotated[str | None, option(MODEL, name=("--model", "-m"))]
Device = Annotated[str | None, option(HELPS["device"], group=MACHINE)]
Precision = Annotated[str, option(HELPS["precision"], group=MACHINE)]
RUNTIME = "Folder of froster export --to int8: the image tower in int8, on the CPU."
Runtime = Annotated[Path | None, option(RUNTIME, group=MACHINE)]
WORKERS = "Processes that decode videos; default: by the cores."
Workers = Annotated[int | None, number(WORKERS, 0, group=MACHINE)]
INSPECTORS = "Processes that check videos; default: one a core."
Inspectors = Annotated[int | None, number(INSPECTORS, 0, group=MACHINE)]
TIME_LIMIT = "Without progress, after which a file is given up."
TimeLimit = Annotated[float, seconds(TIME_LIMIT, 1, group=MACHINE)]
JSON = "Print one JSON object on standard output."
Json = Annotated[bool, option(JSON, name="--json", group=OUTPUT)]

VIDEOS = "Video files, folders with all below, manifests (.csv, .jsonl), - for a list."
Videos = Annotated[list[Path] | None, ADDRESS, option(VIDEOS)]
FILES_FROM = "A list of videos, one a line; - for standard input."
FilesFrom = Annotated[Path | None, ADDRESS, option(FILES_FROM)]
LIST_ROOT = "Folder that the paths of lists and manifests start from."
ListRoot = Annotated[Path | None, ADDRESS, option(LIST_ROOT)]
RetryFailed = Annotated[bool, option("Also what failed before.")]
SHARD = "This process's part, such as 0/4; auto: as torchrun or a job array says."
Shard = Annotated[str | None, option(SHARD)]

EngineName = Annotated[
    Literal["local", "ray"],
    option("local: processes of this machine; ray: actors of a cluster.", group=MACHINE),
]
CLUSTER = "HOST:PORT of a cluster of Ray; default: this machine as one."
Address = Annotated[str | None, option(CLUSTER, group=MACHINE)]

Labels = Annotated[str | None, option('Between commas, or one a line: "surfing, skiing, cooking".')]
LABELS_FILE = "A label a line, a .csv or .tsv (FILE.csv:COLUMN), a .json or .yaml."
LabelsFile = Annotated[Path | None, ADDRESS, option(LABELS_FILE)]
TEMPLATE = "A sentence with {} for the label, in place of the model's; may be repeated."
Templates = Annotated[list[str] | None, option(TEMPLATE, name="--template")]
Classes = Annotated[Path | None, ADDRESS, option(HELPS["classes"])]
MULTI_LABEL = "Each label by itself: any number may fit (froster calibrate fits from where)."
MultiLabel = Annotated[bool, option(MULTI_LABEL)]
Truncate = Annotated[bool, option(HELPS["truncate"])]

Views = Annotated[int | None, number("Clips taken from each video; the model says how many.", 1)]
Sampling = Annotated[Literal["dense", "uniform"] | None, option(HELPS["sampling"])]
MergeTokens = Annotated[int | None, number(HELPS["merge_tokens"], 0)]
Transport = Annotated[bool, option(HELPS["transport"])]
Stride = Annotated[float | None, seconds("Between windows; default: a quarter of one.")]
Window = Annotated[float | None, seconds("Seen at once; the model's sampling says how many.")]

DATA_HELP = "A folder of class folders, or a CSV / JSONL manifest: path,label[,split]."
Data = Annotated[Path, ADDRESS, option(DATA_HELP)]
Root = Annotated[Path | None, ADDRESS, option(HELPS["root"])]

LABELLED = "where root labels_json descriptions truncate"
"""Fields that tell how labelled videos are read."""
CHANGES: dict[str, Any] = {
    **dict.fromkeys(("root", "labels_json", "classes"), ADDRESS),
    "where": list[str] | None,
    "workers": Annotated[int | None, bounds(0)],
    "views": bounds(1),
    "merge_tokens": bounds(0),
    "batch_size": bounds(1),
}


def arranged(
    options: type,
    panels: Mapping[Group | None, str],
    changes: Mapping[str, Any],
    also: type | None = None,
) -> Any:
    """A dataclass of options from the one that a function of the library has: the fields, their
    defaults and the strings under them as help, in `panels` of the help page (None: the first).

    `changes` are bounds of a field, or the type of one that is typed in another form; that is None
    where it is not given. `also` is a dataclass whose fields are options too, None where they are
    not given.
    """
    hints, helps, fields = get_type_hints(options), helps_of(options), []
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    if also is not None:
        hints |= {name: hint | None for name, hint in get_type_hints(also).items()}
        helps |= helps_of(also)
        defaults |= {field.name: None for field in dataclasses.fields(also)}
    for panel, names in panels.items():
        for name in names.split():
            hint, change = hints[name], changes.get(name, Parameter())
            if isinstance(change, Parameter):
                hint, default = Annotated[hint, change], defaults[name]
            else:
                hint, default = change, None
            place = option(helps[name], group=panel) if panel else option(helps[name])
            fields.append((name, Annotated[hint, place], default))
    made = dataclasses.make_dataclass(options.__name__, fields, frozen=True)
    made.__module__ = options.__module__  # else cyclopts takes it for a type of Python's own
    return made


def typed(options: Any) -> dict[str, Any]:
    """What `arranged` options hold, as the library takes it."""
    from froster.cli.common import decoders, parse_where

    values = {**vars(options), "where": parse_where(options.where)}
    return values | ({"workers": decoders(options.workers)} if "workers" in values else {})
