"""Labels to choose from, with what a model is asked for each: several prompts a label, and labels
in groups ("sport/archery")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, overload

from froster.errors import UsageError
from froster.text.labels import (
    check_labels,
    csv_rows,
    file_and_column,
    label_entries,
    parse_json,
    read_utf8,
)
from froster.utils.address import as_path

Labels = Sequence[str] | Mapping[str, Any]
"""Names, or a mapping of names: to a description, to a list of prompts, or to further names (a
group)."""
PROMPT_COLUMN = "prompt"
BETWEEN = "/"
_DEEPEST = 100
"""Groups within groups."""


class LabelSet(Sequence[str]):
    """The names, in order, each with its prompts: labels, "Name" or "Name: description", that are
    asked in its place.

    Raises UsageError on what is no label, on a name given twice, and on one prompt of two names.
    """

    def __init__(self, prompts: Mapping[str, Sequence[str]]) -> None:
        self.names = list(prompts)
        self.prompts = [list(texts) for texts in prompts.values()]
        check_labels(self.names)
        check_labels(self.texts, [f"a prompt of {name!r:.100}" for name in self.owners])

    @property
    def texts(self) -> list[str]:
        """All prompts, name by name."""
        return [text for texts in self.prompts for text in texts]

    @property
    def owners(self) -> list[str]:
        """The name of each prompt."""
        return [name for name, texts in zip(self.names, self.prompts, strict=True) for _ in texts]

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self.names[place]

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSet) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, list[str]]:
        return dict(zip(self.names, self.prompts, strict=True))


def as_labels(labels: Any) -> Sequence[str]:
    """Names as they are, or a `LabelSet` where they have prompts of their own: of a mapping, and of
    labels in groups, whose prompt is what follows the last "/". An array of names is their list.
    """
    if isinstance(labels, (LabelSet, Mapping)):
        return label_set(labels)
    if not _is_names(labels):
        return labels  # type: ignore[no-any-return]
    names = list(labels)
    if not in_groups(names):
        return names
    check_labels(names)
    return LabelSet(_leaves({name: [] for name in names}))


def label_set(labels: LabelSet | Mapping[str, Any]) -> LabelSet:
    if isinstance(labels, LabelSet):
        return labels
    flat = _flat(labels)
    return LabelSet(_leaves(flat) if in_groups(list(flat)) else flat)


def _is_names(labels: Any) -> bool:
    listed = isinstance(labels, Sized) and hasattr(labels, "__getitem__")
    texts = listed and not isinstance(labels, (str, bytes, Mapping))
    return texts and all(isinstance(label, str) for label in labels)


def _flat(labels: Mapping[Any, Any], above: str = "", depth: int = 0) -> dict[str, list[str]]:
    """Each name, after those of its groups, with its prompts; none where it is its own."""
    if depth > _DEEPEST:  # in YAML a group may hold itself
        raise UsageError(f"labels lie in more than {_DEEPEST} groups within groups")
    names: dict[str, list[str]] = {}
    for key, value in labels.items():
        if not isinstance(key, str):
            raise UsageError(f"a label is a text, not {key!r:.100}: put it in quotes")
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            if not value:
                raise UsageError(f"the group {name!r:.100} has no label")
            names |= _flat(value, f"{name}{BETWEEN}", depth + 1)
        elif isinstance(value, str):
            names[name] = [f"{key}: {' '.join(value.split())}" if value.strip() else key]
        elif value is None:
            names[name] = [key]
        elif _is_names(value) and len(value):
            names[name] = list(value)
        else:
            raise UsageError(
                f"the label {name!r:.100} needs a description, a list of prompts, or a group of"
                f" labels, not {value!r:.100}"
            )
    return names


def in_groups(names: Sequence[str]) -> bool:
    """Are these "group/label"? Each has a group, and two share one: a few labels that hold a "/",
    such as "closet/cabinet", are none."""
    groups = [name.partition(":")[0].rpartition(BETWEEN)[0] for name in names]
    tops = Counter(group.partition(BETWEEN)[0] for group in groups)
    return all(group.strip() for group in groups) and max(tops.values(), default=0) > 1


def groups_of(names: Sequence[str]) -> dict[str, list[int]]:
    """The places of the labels below each group, the outer groups first; none of plain labels."""
    groups: dict[str, list[int]] = {}
    if in_groups(names):
        for place, name in enumerate(names):
            parts = name.partition(":")[0].split(BETWEEN)
            for depth in range(1, len(parts)):
                groups.setdefault(BETWEEN.join(parts[:depth]), []).append(place)
    return dict(sorted(groups.items(), key=lambda group: group[0].count(BETWEEN)))


def _leaves(names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Labels in groups with their prompts: what follows the last "/", or, where two labels of
    different groups end alike, all of it as words."""
    ends = Counter(_end(name).casefold() for name in names)
    return {
        name: list(texts) if texts and texts != [_end(name)] else [_asked(name, ends)]
        for name, texts in names.items()
    }


def _end(name: str) -> str:
    first, colon, description = name.partition(":")
    return first.rpartition(BETWEEN)[2].strip() + colon + description


def _asked(name: str, ends: Mapping[str, int]) -> str:
    if ends[_end(name).casefold()] == 1:
        return _end(name)
    first, colon, description = name.partition(":")
    return " ".join(part.strip() for part in first.split(BETWEEN)) + colon + description


def read_label_set(path: str | Path) -> Sequence[str]:
    """The labels of a file to choose from, with their prompts where it has some.

    As `read_labels`, and a `.yaml` or `.json` mapping of names to lists of prompts or to groups; a
    `.csv` or `.tsv` with the columns label and prompt, a row a prompt. Raises UsageError on empty
    and repeated labels, naming their lines.
    """
    file, column = file_and_column(as_path(path))
    kind = file.suffix.lower()
    try:
        if kind in (".yaml", ".yml"):
            return _of_data(_parse_yaml(read_utf8(file), file), file)
        if kind == ".json":
            data = parse_json(read_utf8(file), file)
            if isinstance(data, dict) and any(isinstance(v, (list, dict)) for v in data.values()):
                return _of_data(data, file)
        if kind in (".csv", ".tsv") and column is None:
            table = _prompt_table(read_utf8(file), file)
            if table:
                return as_labels(table)
        entries = label_entries(as_path(path))
        check_labels([label for _, label in entries], [place for place, _ in entries])
        return as_labels([label for _, label in entries])
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith(str(file)) else f"{path}: {text}") from None


def read_names(path: str | Path) -> list[str]:
    """As `read_label_set`, where names alone are taken. Raises UsageError on several prompts."""
    labels = read_label_set(path)
    if isinstance(labels, LabelSet) and len(labels.texts) > len(labels):
        raise UsageError(
            f"{path}: several prompts a label are for classify, timeline and watch; here a label is"
            " its name"
        )
    return list(labels)


def _of_data(data: Any, file: Path) -> Sequence[str]:
    if isinstance(data, (dict, list)):
        labels = as_labels(data)
        check_labels(labels)
        return labels
    raise UsageError(f"{file}: expected a list of labels, or a mapping of them to prompts")


def _parse_yaml(text: str, file: Path) -> Any:
    import yaml  # slow, and few need it

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place else ""
        raise UsageError(f"{file}{where}: not valid YAML") from None
    except RecursionError:
        raise UsageError(f"{file}: not valid YAML (it is nested too deeply)") from None
    except ValueError as error:  # a date or a number that there is not
        raise UsageError(f"{file}: not valid YAML ({error})") from None


def _prompt_table(text: str, file: Path) -> dict[str, list[str]]:
    """The prompts of each label, of a table with the columns label and prompt; else nothing."""
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    table = csv_rows(text, file, delimiter=delimiter, skipinitialspace=True)
    rows = [row for _, row in table]
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if not {"label", PROMPT_COLUMN} <= set(head):
        return {}
    label, prompt = head.index("label"), head.index(PROMPT_COLUMN)
    prompts: dict[str, list[str]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row):
            if len(row) <= max(label, prompt) or not row[label].strip() or not row[prompt].strip():
                raise UsageError(f"row {number} needs a label and a prompt")
            prompts.setdefault(row[label].strip(), []).append(row[prompt].strip())
    return prompts
