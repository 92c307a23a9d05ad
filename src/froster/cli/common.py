"""What several commands share: the model, the videos and the labels that they were given."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from froster.errors import UsageError
from froster.text.labels import check_labels, label_file, read_label_set, split_labels
from froster.utils import strict_json as json
from froster.utils.address import refuse_address
from froster.utils.progress import console, working

if TYPE_CHECKING:
    from froster.data.listing import Listing
    from froster.data.manifest import Items
    from froster.inference.recognizer import Recognizer


def load_model(
    source: str | None,
    device: str | None,
    precision: str,
    *,
    classes: Path | None = None,
    sampling: str | None = None,
    clamp: str | None = None,
    frames: int | None = None,
    views: int | None = None,
) -> Recognizer:
    """The model a command was given, with its way to take frames changed where the command says so."""
    from froster.inference.recognizer import DEFAULT_MODEL, load

    with working(f"loading {source or DEFAULT_MODEL}"):
        model = load(source or DEFAULT_MODEL, classes=classes, device=device, precision=precision)
    model.working = working
    asked = {"kind": sampling, "clamp": clamp, "frames": frames}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    model.config = dataclasses.replace(
        model.config,
        sampling=model.config.sampling.changed(**changes),
        views=views or model.config.views,
    )
    return model


def announce(model: Recognizer, source: str | None) -> None:
    """One line on what runs where."""
    vision = model.clip.config.vision
    dtype = str(model.dtype).removeprefix("torch.")
    console.print(
        f"model {name_of(source)} ({model.origin}; {model.config.method.name},"
        f" {vision.image_size} px, {model.config.sampling.frames} frames"
        f" {model.config.sampling.kind}) on {model.device} in {dtype}"
    )


def name_of(source: str | None) -> str:
    """What `--model` says, or the default."""
    from froster.inference.recognizer import DEFAULT_MODEL

    return source or DEFAULT_MODEL


def tell_how_to_calibrate(model: Recognizer, source: str | None) -> None:
    """One line for who is shown the scores of a model that nothing was fitted to."""
    from froster.inference.model_folder import folder_of

    if model.calibration.fitted is not None:
        return
    name = name_of(source)
    where = () if folder_of(name) else ("--out", "FOLDER")
    command = shlex.join(["froster", "calibrate", name, "--data", "YOUR_VIDEOS", *where])
    console.tell(f'not calibrated, so never "none of these": {command}')


def short_name(model: str) -> str:
    """What a model is called where there is little room: `runs/first/model` -> "first"."""
    path = Path(model)
    if path.name in ("model", "last") and path.parent.name:
        return path.parent.name
    return path.name or model


def mention(videos: Listing | Items) -> None:
    """Lines on standard error, before a model is loaded: files that were named and do not exist,
    and what was passed over.

    Raises UsageError where not one file that was named exists.
    """
    from froster.data.listing import Listing, passed_over

    lines = [passed_over(videos.passed_over)]
    if isinstance(videos, Listing):
        lines.insert(0, videos.check())
    elif videos.loose:
        lines.append(f"passed over, as they lie in no class folder: {videos.loose} videos")
    for text in filter(None, lines):
        console.tell(text)


def check_exists(video: str | Path) -> None:
    """Raises UsageError where there is no such file; an address is named as such."""
    from froster.data.listing import not_there

    refuse_address(video)
    if not os.path.exists(video):
        raise UsageError(not_there([Path(video)]))


def given_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    """The labels of `--labels` or `--labels-file`. Raises UsageError where it is not one of them."""
    if (labels is None) == (labels_file is None):
        raise UsageError('give the labels, either --labels "a, b, c" or --labels-file FILE')
    labels, labels_file = labels_file_of(labels, labels_file)
    if labels_file is not None:
        return read_label_set(labels_file)
    names = split_labels(labels or "")
    check_labels(names)
    return names


def labels_file_of(labels: str | None, labels_file: Path | None) -> tuple[str | None, Path | None]:
    """The two options, with a file that was given as `--labels` in its own place; a line says so."""
    if labels is None or labels_file is not None or (file := label_file(labels)) is None:
        return labels, labels_file
    console.print(f"--labels {file}: read as a file of labels", soft_wrap=True)
    return None, file


def parse_where(conditions: Sequence[str] | None) -> dict[str, str]:
    """`["dataset=UCF101"]` -> `{"dataset": "UCF101"}`."""
    pairs = [condition.partition("=") for condition in conditions or []]
    for column, equals, _ in pairs:
        if not column or not equals:
            raise UsageError(f"--where takes COLUMN=VALUE, not {column!r}")
    return {column.lower(): value for column, _, value in pairs}


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["radius=2", "pad=mask"]` -> `{"radius": 2, "pad": "mask"}`: numbers, true and false are
    read as such."""
    options = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--option takes NAME=VALUE, not {pair!r}")
        try:
            options[name.replace("-", "_")] = json.loads(
                value.lower() if value in ("True", "False") else value
            )
        except ValueError:
            options[name.replace("-", "_")] = value
    return options


def spare_cores() -> int:
    """Processes that may decode while the network computes."""
    from froster.utils import pool

    return pool.spare_cores()
