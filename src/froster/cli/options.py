"""Options that several commands have, each declared once. A command names them in its signature."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import Group, Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from froster.data.manifest import Items


DATA = Group("Videos and labels", sort_key=1)
MACHINE = Group("Machine", sort_key=8)
OUTPUT = Group("Output", sort_key=9)


def option(help: str, **more: Any) -> Parameter:
    return Parameter(help=help, **more)


def number(help: str, least: float | None, most: float | None = None, **more: Any) -> Parameter:
    """An option with a smallest and perhaps a largest value."""
    return Parameter(help=help, validator=Number(gte=least, lte=most), **more)


def at_least(least: float) -> Parameter:
    """For a field that is documented where it is defined."""
    return Parameter(validator=Number(gte=least))


def between(least: float, most: float) -> Parameter:
    return Parameter(validator=Number(gte=least, lte=most))


def seconds(help: str, least: float | None = None, **more: Any) -> Parameter:
    """An option in seconds; without `least` the function that takes them says what they may be."""
    return number(help, least, metavar="SECONDS", **more)


def switch(help: str, name: str, **more: Any) -> Parameter:
    """A flag that is on and is switched off by `--no-NAME`."""
    return Parameter(help=help, negative=f"--no-{name}", **more)


SPREAD = Parameter(name="*")
"""For a dataclass of options, each of which stands on the command line by its own name."""

Model = Annotated[
    str | None,
    option(
        "Model folder, hub id, checkpoint file, or nano (works offline).", name=("--model", "-m")
    ),
]
Device = Annotated[
    str | None, option("cpu, cuda, cuda:1 …; the default is CUDA if there is one.", group=MACHINE)
]
Precision = Annotated[
    str,
    option(
        "auto (bfloat16 where the chip has it), float32 (fp32) or bfloat16 (bf16).", group=MACHINE
    ),
]
Workers = Annotated[
    int | None, number("Processes that decode videos; default: by the cores.", 0, group=MACHINE)
]
TimeLimit = Annotated[
    float, seconds("Without progress, after which a file is given up.", 1, group=MACHINE)
]
Json = Annotated[
    bool, option("Print one JSON object on standard output.", name="--json", group=OUTPUT)
]

Videos = Annotated[
    list[Path] | None,
    option("Video files, folders with all below, manifests (.csv, .jsonl), - for a list."),
]
FilesFrom = Annotated[Path | None, option("A list of videos, one a line; - for standard input.")]
ListRoot = Annotated[
    Path | None, option("Folder that the paths of lists and manifests start from.")
]
RetryFailed = Annotated[bool, option("Also what failed before.")]
Shard = Annotated[
    str | None, option("This process's part, such as 0/4; auto: as torchrun or a job array says.")
]

Labels = Annotated[str | None, option('Between commas, or one a line: "surfing, skiing, cooking".')]
LabelsFile = Annotated[
    Path | None, option("A label a line, a .csv or .tsv (FILE.csv:COLUMN), a .json.")
]
Truncate = Annotated[bool, option("Cut labels that are too long for the text tower.")]

Views = Annotated[int | None, number("Clips taken from each video; the model says how many.", 1)]
Sampling = Annotated[
    Literal["dense", "uniform"] | None,
    option("A few seconds at a fixed rate, or the whole video; default: as the model does."),
]
Clamp = Annotated[
    Literal["released", "even"] | None, option("Of dense sampling; default: as the model does.")
]
Transport = Annotated[
    bool,
    option(
        "Match frames with each label's sentences (name: a; b | c; d) by optimal transport (OST)."
    ),
]
Window = Annotated[float | None, seconds("Seen at once; the model's sampling says how many.")]

Data = Annotated[
    Path, option("A folder of class folders, or a CSV / JSONL manifest: path,label[,split].")
]
Root = Annotated[
    Path | None, option("Folder that the manifest's paths start from; default: its own.")
]

LABELLED = "where root labels_json descriptions truncate"
"""Fields that tell how labelled videos are read."""
CHANGES: dict[str, Any] = {
    "where": list[str] | None,
    "workers": Annotated[int | None, at_least(0)],
    "views": at_least(1),
    "batch_size": at_least(1),
}


@dataclass(frozen=True)
class DataOptions:
    """How labelled videos are read."""

    where: Annotated[
        list[str] | None,
        option("Keep rows where COLUMN=VALUE, e.g. dataset=UCF101; may be repeated.", group=DATA),
    ] = None
    root: Annotated[Root, Parameter(group=DATA)] = None
    labels_json: Annotated[
        Path | None, option("Label JSON for lists with integer labels.", group=DATA)
    ] = None
    descriptions: Annotated[
        Path | None,
        option(
            "JSON of name: sentence; or kinetics400, kinetics600, ucf101, hmdb51, ssv2.", group=DATA
        ),
    ] = None
    truncate: Annotated[Truncate, Parameter(group=DATA)] = False

    def read(self, data: Path) -> Items:
        """The labelled videos, with a line on standard error on what was passed over."""
        from froster.cli.common import mention, parse_where
        from froster.data.manifest import read_items

        items = read_items(
            data, labels_json=self.labels_json, root=self.root, where=parse_where(self.where)
        )
        mention(items)
        return items

    def sentences(self) -> dict[str, str]:
        from froster.text.sentences import read_descriptions

        return read_descriptions(self.descriptions) if self.descriptions else {}


def arranged(options: type, panels: Mapping[Group | None, str], changes: Mapping[str, Any]) -> Any:
    """A dataclass of options from the one that a function of the library has: the fields, their
    defaults and the strings under them as help, in `panels` of the help page (None: the first).

    `changes` are bounds of a field, or the type of one that is typed in another form; that is None
    where it is not given.
    """
    hints, helps, fields = get_type_hints(options), helps_of(options), []
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
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


def helps_of(options: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (definition,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def typed(options: Any) -> dict[str, Any]:
    """What `arranged` options hold, as the library takes it."""
    from froster.cli.common import parse_where, spare_cores

    values = {**vars(options), "where": parse_where(options.where)}
    return {**values, "workers": spare_cores() if options.workers is None else options.workers}
