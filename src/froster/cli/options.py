"""Options that several commands have, each declared once. A command names them in its signature."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

from cyclopts import Group, Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from froster.data.manifest import Items

T = TypeVar("T")
PACKAGE = Path(__file__).parents[1]

DATA = Group("Videos and labels", sort_key=1)
MACHINE = Group("Machine", sort_key=8)
OUTPUT = Group("Output", sort_key=9)


def option(help: str, **more: Any) -> Parameter:
    return Parameter(help=help, **more)


def number(help: str, least: float, most: float | None = None, **more: Any) -> Parameter:
    """An option with a smallest and perhaps a largest value."""
    return Parameter(help=help, validator=Number(gte=least, lte=most), **more)


def at_least(least: float, **more: Any) -> Parameter:
    """For a field that is documented where it is defined."""
    return Parameter(validator=Number(gte=least), **more)


def seconds(help: str, least: float = 0.0, **more: Any) -> Parameter:
    """An option in seconds."""
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
Window = Annotated[float | None, seconds("Seen at once; the model's sampling says how many.")]

Data = Annotated[
    Path, option("A folder of class folders, or a CSV / JSONL manifest: path,label[,split].")
]
Root = Annotated[
    Path | None, option("Folder that the manifest's paths start from; default: its own.")
]


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


def given(options: Any) -> dict[str, Any]:
    """The fields of a dataclass of options that were given: what is None was not."""
    return {name: value for name, value in vars(options).items() if value is not None}


def documented_by(path: str, name: str) -> Callable[[type[T]], type[T]]:
    """Give each field of a dataclass of options the help that stands under the field of that name
    of class `name` in the module at `path`, which is parsed and not imported: it needs PyTorch."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    (body,) = (
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name
    )
    helps = {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }

    def documented(options: type[T]) -> type[T]:
        hints = get_type_hints(options, include_extras=True)
        options.__annotations__ = {
            field: Annotated[hint, Parameter(help=helps[field])] for field, hint in hints.items()
        }
        return options

    return documented
