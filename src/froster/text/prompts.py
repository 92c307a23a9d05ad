"""Labels, and the sentences by which a text tower is asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import froster.strict_json as json
from froster.errors import UsageError, one_of

_MEDIA = ("photo", "video", "example", "demonstration")
_VERBS = ("using", "doing", "during", "performing", "practicing")
_TAILS = ("{}.", "a person {}.", *(f"a person {verb} {{}}." for verb in _VERBS))

KINETICS_28 = tuple(f"a {medium} of {tail}" for medium, tail in product(_MEDIA, _TAILS))
"""The 28 templates of the released code, in its order ("a example" is its spelling, and weights were trained on it)."""


@dataclass(frozen=True)
class Prompting:
    """How a label becomes the texts that a model is asked for."""

    templates: tuple[str, ...] = KINETICS_28
    """Sentences with a `{}` for the label."""
    form: Literal["froster", "plain"] = "froster"
    """`froster`, as released: a template is filled with the label's name, followed by the whole label ("a photo of archery.
    archery: a person shoots …"), and the bare label is one prompt more. `plain`: the template filled with the label."""

    def __post_init__(self) -> None:
        one_of("prompt form", self.form, "froster", "plain")
        if self.form == "plain" and not self.templates:
            raise UsageError("plain prompts need a template; {} alone is the label itself")
        for template in self.templates:
            if "{}" not in template:
                raise UsageError(f"the prompt template {template!r} has no {{}} to put the label's name in")

    def prompts(self, labels: Sequence[str]) -> list[list[str]]:
        """All prompts of all labels, template by template; in FROSTER's form the bare labels come last.

        A label is "Name" or "Name: description", the name being all before the first colon.
        """
        # str.format would also read other braces of a template.
        if self.form == "plain":
            return [[template.replace("{}", label) for label in labels] for template in self.templates]
        names = [label.partition(":")[0] for label in labels]
        rows = [
            [f"{template.replace('{}', name)} {label}" for name, label in zip(names, labels, strict=True)]
            for template in self.templates
        ]
        return [*rows, list(labels)]


FROSTER_PROMPTS = Prompting()


def check_texts(labels: Any) -> None:
    """Raises UsageError unless it is a list of texts that can be written as UTF-8."""
    listed = hasattr(labels, "__getitem__") and isinstance(labels, Sized)  # an array of names will do
    if not listed or isinstance(labels, (str, bytes, Mapping)):
        raise UsageError(f"labels must be a list of names, not {labels!r:.200}")
    for position, label in enumerate(labels, start=1):
        if not isinstance(label, str):
            raise UsageError(f"label {position} of {len(labels)} is no text: {label!r:.200}")
        if any("\ud800" <= character <= "\udfff" for character in label):
            raise UsageError(f"label {position} of {len(labels)} holds half a character: {label!r:.200}")


def check_labels(labels: Sequence[str]) -> None:
    """Raises UsageError on what is no text, no labels, a label without a name, or one given twice (case and white space
    aside)."""
    check_texts(labels)
    if len(labels) == 0:
        raise UsageError("no labels were given: at least one is needed")
    seen: dict[str, str] = {}
    repeated = []
    for position, label in enumerate(labels, start=1):
        if not label.partition(":")[0].strip():
            raise UsageError(f"label {position} of {len(labels)} is empty" + (f": {label!r}" if label.strip() else ""))
        key = " ".join(label.casefold().split())
        if key in seen:
            repeated.append(f"{seen[key]!r} and {label!r}" if seen[key] != label else repr(label))
        seen.setdefault(key, label)
    if repeated:
        raise UsageError(f"labels given more than once: {'; '.join(dict.fromkeys(repeated))}")


def split_labels(text: str) -> list[str]:
    """`"archery, tai chi"` -> `["archery", "tai chi"]`. A label that holds a comma needs a file."""
    return [label.strip() for label in text.split(",")] if text.strip() else []


def read_labels(path: str | Path) -> list[str]:
    """The labels of a file, in order: one a line in a text file, or a `.json` list or object `{"0": label, …}`.

    Blank lines are skipped. Raises UsageError when the file is missing, not UTF-8, or of another form.
    """
    path = Path(path)
    text = read_utf8(path)
    if path.suffix.lower() != ".json":
        return [line.strip() for line in text.split("\n") if line.strip()]
    labels = parse_json(text, path)
    if isinstance(labels, dict):
        if set(labels) != {str(index) for index in range(len(labels))}:
            raise UsageError(
                f"{path}: an object of labels needs the keys "
                f'"0" to "{len(labels) - 1}"; give sentences by class name as descriptions'
            )
        labels = [labels[str(index)] for index in range(len(labels))]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UsageError(f'{path}: expected a JSON list of labels, or an object {{"0": label, …}}')
    return labels


def parse_json(text: str, path: Path) -> Any:
    """Raises UsageError naming the file and the place."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not valid JSON ({error})") from None


def read_utf8(path: Path) -> str:
    """A text file with `\\n` line ends, without a byte-order mark. Raises UsageError naming the line that is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}, line {line}: not UTF-8 text; if it is Latin-1, convert it: "
            f"iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}"
        ) from None
