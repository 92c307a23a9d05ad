"""What the data sets' classes are called, and which of them the published protocols learn and hold
out."""

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from froster.errors import one_of
from froster.utils import strict_json as json

DATASETS = ("k400", "k600", "ucf101", "hmdb51", "ssv2")
TEST_SPLIT = {"k400": "val", "k600": "val", "ucf101": "test", "hmdb51": "test", "ssv2": "val"}
"""The official split that the published tests are taken from."""

_RESPELT = {"barbecuing": "barbequing"}
_READABLE = {"YoYo": "Yoyo"}


class Partition(NamedTuple):
    """Official class names in the order of the published label ids, which begin at 0 in both."""

    base: list[str]
    novel: list[str]


def classes(dataset: str) -> list[str]:
    """The official class names in the order of their label ids. Raises UsageError for an unknown
    data set."""
    one_of("the data set", dataset, *DATASETS)
    return list(_data("classes")[dataset])


def partition(dataset: str) -> Partition:
    """The base and novel classes that ViFi-CLIP published and FROSTER took over. There is none for
    K600."""
    one_of("the data set of base and novel classes", dataset, *_data("partitions")["base_to_novel"])
    halves = _data("partitions")["base_to_novel"][dataset]
    return Partition(list(halves["base"]), list(halves["novel"]))


def unseen_k600() -> list[list[str]]:
    """Three draws (ER-ZSAR's) of 160 of the Kinetics-600 classes that Kinetics-400 lacks."""
    return [list(names) for names in _data("partitions")["k600_unseen"]]


def published_clips() -> dict[str, Any]:
    """How many videos the lists of the released code hold."""
    return dict(_data("counts"))


def official(dataset: str, name: str) -> str | None:
    """The official spelling of a class, or None. Case, blanks, underscores, articles and CamelCase
    do not matter."""
    return _by_key(dataset).get(key(name))


def readable(name: str) -> str:
    """`ApplyEyeMakeup` -> "Apply Eye Makeup", `brush_hair` -> "brush hair": the form that a text
    tower is asked for."""
    return _READABLE.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ")


def key(name: str) -> str:
    """Equal for all spellings of a class name, different for different classes."""
    words = re.findall(r"[a-z0-9]+", readable(name).lower().replace("'", ""))
    joined = "".join(word for word in words if word not in ("a", "an", "the"))
    return _RESPELT.get(joined, joined)


@cache
def _by_key(dataset: str) -> dict[str, str]:
    return {key(name): name for name in classes(dataset)}


@cache
def _data(name: str) -> Any:
    path = resources.files("froster.data") / "official" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))
