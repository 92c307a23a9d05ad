"""What several commands share: the model, the videos and the labels that they were given, and how
they print: one JSON object or tables without lines on standard output, bars on standard error."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from froster.errors import UsageError
from froster.text.label_set import as_labels, read_label_set
from froster.text.labels import check_labels, label_file, split_labels
from froster.utils import strict_json as json
from froster.utils.address import is_address
from froster.utils.progress import at_once, console, output, progress, working

if TYPE_CHECKING:
    from froster.data.listing import Listing
    from froster.data.manifest import Items
    from froster.data.shards import Shard
    from froster.inference.recognizer import Recognizer
    from froster.inference.results import BatchProgress, OnProgress
    from froster.utils.work import Engine


def start_torch() -> None:
    """Imports PyTorch, a second or two, in which a person sees that something goes on. What can be
    refused without it is refused before."""
    with at_once("starting"):
        import torch  # noqa: F401


def listed(
    videos: Sequence[Path] | None,
    files_from: Path | None,
    root: Path | None,
    base: Path | None = None,
) -> Listing:
    """The videos that a command was given (`list_videos`). Lines on standard error say which do not
    exist, and what was passed over."""
    with at_once("starting"):  # NumPy and FFmpeg take as long as all that is imported before
        from froster.data.listing import list_videos

        listing = list_videos(videos or [], files_from=files_from, root=root, base=base)
    mention(listing)
    return listing


def load_model(
    source: str | None,
    device: str | None,
    precision: str,
    *,
    classes: Path | None = None,
    templates: Sequence[str] | None = None,
    runtime: Path | None = None,
    views: int | None = None,
    merge_tokens: int | None = None,
    **sampling: Any,
) -> Recognizer:
    """The model a command was given, with its views and its sampling (kind, frames) changed where
    the command says so."""
    from froster.inference.recognizer import load
    from froster.inference.weight_files import state_of_files

    name = name_of(source)
    with working(f"loading {name}"):
        files = state_of_files(name)  # before they are read: a later change is a change
        model = load(
            name,
            classes=classes,
            templates=templates,
            device=device,
            precision=precision,
            merge_tokens=merge_tokens or 0,
        )
    # What a release borrows of another model may be another one tomorrow.
    model.files = None if " of the CLIP" in model.provenance else files
    model.working = working
    if runtime is not None:
        with working(f"making {name} int8"):
            model.use_runtime(runtime)
    changes = {name: value for name, value in sampling.items() if value is not None}
    model.config = dataclasses.replace(
        model.config,
        sampling=model.config.sampling.changed(**changes),
        views=views or model.config.views,
    )
    return model


def engine_of(name: Literal["local", "ray"], address: str | None, device: str | None) -> Engine:
    """Raises UsageError, before anything is read, where there is no such engine."""
    from froster.utils.engine import checked
    from froster.utils.work import Engine

    return checked(Engine(name, address, device))


def device_of(part: Shard) -> str | None:
    """The GPU that torchrun gives this process, where there is one."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if part.count > 1 and local.isdecimal() and torch.cuda.is_available():
        return f"cuda:{int(local) % torch.cuda.device_count()}"
    return None


def show_shard(report: dict[str, Any]) -> None:
    """A part that is done, where the command itself is to join the parts."""
    broken = f", {report['errors']} broken" if report["errors"] else ""
    output.print(
        f"{report['part']}: {report['videos']} videos of shard {report['shard']}{broken}; the"
        " same command without --shard joins the shards"
    )


def announce(model: Recognizer, source: str | None) -> None:
    """One line on what runs where."""
    console.print(model.summary(name_of(source)))


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
    and what was passed over. Raises UsageError where not one file that was named exists."""
    for note in videos.notes():
        console.tell(note)


def check_exists(video: str | Path) -> None:
    """Raises UsageError where there is no such file on this machine."""
    with at_once("starting"):
        from froster.data.listing import not_there
        from froster.video.tar_shards import is_file

    if not (is_address(video) or os.path.exists(video) or is_file(video)):
        raise UsageError(not_there([Path(video)]))


def check_png(path: Path | None) -> None:
    if path is not None and path.suffix.lower() != ".png":
        raise UsageError(f"--out is a .png, not {path.name}")


def given_labels(labels: str | None, labels_file: Path | None) -> Sequence[str]:
    """The labels of `--labels` or `--labels-file`. Raises UsageError unless it is one of them."""
    if (labels is None) == (labels_file is None):
        raise UsageError('give the labels, either --labels "a, b, c" or --labels-file FILE')
    labels, labels_file = labels_file_of(labels, labels_file)
    if labels_file is not None:
        return read_label_set(labels_file)
    names = split_labels(labels or "")
    check_labels(names)
    return as_labels(names)


def labels_file_of(labels: str | None, labels_file: Path | None) -> tuple[str | None, Path | None]:
    """Both options; a file that was given as `--labels` stands in its own place, and a line says
    so."""
    if labels is None or labels_file is not None or (file := label_file(labels)) is None:
        return labels, labels_file
    console.tell(f"--labels {file}: read as a file of labels")
    return None, file


def parse_where(conditions: Sequence[str] | None) -> dict[str, str]:
    """`["dataset=UCF101"]` -> `{"dataset": "UCF101"}`."""
    return {column.lower(): value for column, value in pairs("--where", "COLUMN", conditions)}


def parse_options(options: Sequence[str] | None) -> dict[str, Any]:
    """`["radius=2", "pad=mask"]` -> `{"radius": 2, "pad": "mask"}`: numbers, true and false are
    read as such."""
    values: dict[str, Any] = {}
    for name, value in pairs("--option", "NAME", options):
        try:
            parsed = json.loads(value.lower() if value in ("True", "False") else value)
        except ValueError:
            parsed = value
        values[name.replace("-", "_")] = parsed
    return values


def pairs(option: str, left: str, texts: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{option} takes {left}=VALUE, not {text!r}")
        yield name, value


def decoders(workers: int | None) -> int:
    """Processes that decode while the network computes."""
    from froster.utils.pool import spare_cores

    return spare_cores() if workers is None else workers


def show_result(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        show(result)


@contextmanager
def batch_bar(what: str) -> Iterator[OnProgress]:
    """A bar for work on many videos, which tells how many have failed."""
    with progress() as bars:
        bar = bars.add_task(what, total=None, note="")

        def on_progress(now: BatchProgress) -> None:
            note = f"{now.failed} failed" if now.failed else ""
            bars.update(bar, completed=now.done, total=now.total, note=note)

        yield on_progress
