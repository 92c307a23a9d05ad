"""The rounds of `froster teach`: what was taught before, and what is added to it.

OUT/teach.json          model and options, which the next round takes
OUT/examples.jsonl      the labelled videos of all rounds
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.errors import DataError, UsageError
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.store import Store
from froster.training.examples import (
    FILE,
    ExampleFile,
    Marked,
    Videos,
    examples_of,
    index_at,
    marked,
    read_videos,
)
from froster.training.reporter import Reporter
from froster.training.teach_options import TeachOptions
from froster.utils import strict_json as json
from froster.utils.files import absolute, claim_folder, sole_writer, write_json

SETTINGS = "teach.json"
GOES_ON: tuple[str, ...] = (
    *("method", "hold", "strength", "lr", "steps", "views", "holdout", "novel_fraction"),
    *("split_seed", "shots", "features", "descriptions", "truncate"),
)
"""What another round of corrections takes from the first, unless it is asked for otherwise."""


@dataclass(frozen=True)
class Round:
    """What a round starts from."""

    asked: TeachOptions
    model: str
    """By name; empty for one that was given as it is."""
    index: Path | None
    out: Path | None
    examples: list[Marked]
    new: int
    """Corrections of this round."""


def first_or_next(
    videos: Videos | None,
    out: Path | None,
    model: Recognizer | str | None,
    asked: TeachOptions,
    reporter: Reporter,
    held: ExitStack,
) -> Round:
    """The examples of all rounds, which are on the disk before anything is computed. Raises
    UsageError where there is nothing to go on from."""
    if videos is None and (out is None or not (out / FILE).exists()):
        raise UsageError(
            "give labelled videos (a folder of class folders, a manifest, an index); only an --out"
            " that was taught before goes on without"
        )
    items = None if videos is None else read_videos(videos, asked, reporter)
    more = (
        []
        if asked.more is None
        else read_videos(asked.more, dataclasses.replace(asked, labels=None), reporter)
    )
    index = None if videos is None else index_at(videos)
    name = model.source or "" if isinstance(model, Recognizer) else model
    if name is None and index is not None:
        name = Store(index).source
    if out is None:
        examples = [*examples_of(items or [], 0), *examples_of(more, 1)]
        name = DEFAULT_MODEL if name is None else name
        return Round(asked, name, index, out, marked(examples, reporter), len(more))
    claim_folder(out, FILE, "choose another --out")
    held.enter_context(sole_writer(out))
    settings = settings_of(out)
    if items is None:
        earlier = TeachOptions(**settings.get("options", {}))
        asked = went_on(earlier, asked)
        index = index_of(settings)
        name = settings.get("model") if name is None else name
    name = DEFAULT_MODEL if name is None else name
    file = ExampleFile(out)
    if items is not None:
        file.begin(items)
        if file.rounds > 1:
            later = sum(example.round > 0 for example in file.examples)
            reporter.say(f"{later} corrections of earlier rounds are kept")
    if more:
        file.add(more)
    options = {
        key: str(value) if isinstance(value, Path) else value
        for key in GOES_ON
        if (value := getattr(asked, key)) is not None
    }
    about = {"made_by": "froster teach", "model": name, "options": options}
    write_json(out / SETTINGS, {**about, "index": None if index is None else absolute(index)})
    return Round(asked, name, index, out, marked(file.examples, reporter), len(more))


def settings_of(out: Path) -> dict[str, Any]:
    """What the rounds before were asked for. Raises DataError where that cannot be read."""
    path = out / SETTINGS
    if not path.exists():
        return {}
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    return values


def index_of(settings: dict[str, Any]) -> Path | None:
    return Path(settings["index"]) if settings.get("index") else None


def went_on(earlier: TeachOptions, asked: TeachOptions) -> TeachOptions:
    """What was asked for, and else what was asked for before."""
    default = TeachOptions()
    changes = {
        name: getattr(earlier, name)
        for name in GOES_ON
        if getattr(asked, name) == getattr(default, name)
    }
    if asked.method not in (None, "prolip", earlier.method):
        changes |= dict.fromkeys(("hold", "strength", "lr"))
    return dataclasses.replace(asked, **changes)
