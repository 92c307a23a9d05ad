"""`froster rehearse`: ER-ZASR, in two stages, on labelled videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from froster.cli import options
from froster.cli.common import decoders, mention, show_result
from froster.cli.options import MACHINE, SPREAD, arranged, bounds, option
from froster.errors import UsageError
from froster.training.options import RehearsalOptions
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, refuse_current, sole_writer, write_text
from froster.utils.progress import console, print_table, working

REPORT = "rehearsal.json"
Asked = arranged(
    RehearsalOptions,
    {None: "epochs batch_size lr weight_decay negatives fusion width seed"},
    {"epochs": bounds(0), "batch_size": bounds(1), "negatives": bounds(0), "width": bounds(1)},
)


def rehearse(
    *,
    tsm: Annotated[Path, option("TSM-ResNet-50, as its authors release it (.pth).")],
    bit: Annotated[Path, option("BiT ResNet: its authors' .npz, or a folder or hub id of timm's.")],
    bert: Annotated[
        Path, option("BERT: a folder with config.json, weights and vocabulary, or a hub id.")
    ],
    concepts: Annotated[
        Path,
        option("A text for each of BiT's concepts, one a line; or timm's wheel or data/_info."),
    ],
    definitions: Annotated[
        Path, option('JSON: {"word": …, "cleaned_defn": …} of each class, or {class: definition}.')
    ],
    out: Annotated[Path, option("Folder of the head, the report and the predictions.")],
    data: Annotated[
        Path | None, options.ADDRESS, option("Labelled videos of the classes to train on.")
    ] = None,
    validation: Annotated[
        Path | None,
        options.ADDRESS,
        option("Labelled videos of other classes, which choose the epoch."),
    ] = None,
    novel: Annotated[
        Path | None, options.ADDRESS, option("Labelled videos of classes to be tested on.")
    ] = None,
    head: Annotated[
        Path | None, option("Start from this trained head (with --epochs 0: use it as it is).")
    ] = None,
    features: Annotated[
        Path | None, option("Folder where videos' features are kept; default: OUT/features.")
    ] = None,
    asked: Annotated[Asked, SPREAD] = Asked(),  # type: ignore[valid-type]  # noqa: B008
    workers: Annotated[int | None, bounds(0, help=options.WORKERS, group=MACHINE)] = None,
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """ER-ZASR, a system of before CLIP: features and objects of videos, then a head that compares
    them with definitions of the classes. Features are computed once and kept.

    Example: froster rehearse --tsm tsm.pth --bit bit.npz --bert bert-base-uncased --concepts
    concepts.txt --definitions classes.json --data train/ --novel test/ --out runs/er
    """
    from froster.data.manifest import read_items
    from froster.training import rehearsal

    given = RehearsalOptions(**vars(asked))
    if given.epochs and data is None:
        raise UsageError("there is nothing to train on: pass --data, or --head with --epochs 0")
    if not given.epochs and head is None:
        raise UsageError("--epochs 0 uses a trained head as it is: pass --head")
    if not given.epochs and novel is None:
        raise UsageError("--epochs 0 trains nothing: pass --novel, the videos to be tested on")
    refuse_current(out)
    sets = {}
    for name, path in (("base", data), ("validation", validation), ("novel", novel)):
        if path is not None and (name == "novel" or given.epochs):
            sets[name] = read_items(path)
            mention(sets[name])
    claim_folder(out, REPORT, "choose another --out")
    with sole_writer(out):
        result = rehearsal.rehearse(
            sets,
            rehearsal.Parts(tsm, bit, bert, concepts, definitions, head),
            features or out / "features",
            given,
            rehearsal.Running(device, decoders(workers), tell, working),
        )
        result.save(out / "model.safetensors")
        (out / "predictions.csv").unlink(missing_ok=True)  # an earlier run's
        if result.predictions is not None:
            result.predictions.save(out / "predictions.csv")
        write_text(out / REPORT, json.dumps(result.report, indent=2) + "\n")
    show_result(result.report, as_json, show)


def tell(epoch: dict[str, Any]) -> None:
    accuracy = epoch["validation"]
    words = "" if accuracy is None else f", validation {accuracy:.1f}"
    console.print(f"epoch {epoch['epoch']}: loss {epoch['loss']:.3f}{words}")


def show(report: dict[str, Any]) -> None:
    for error in report["unreadable"]:
        console.print(f"unreadable: {error}")
    novel = report["novel"]
    if novel is None:
        return
    top1 = f"{novel['top1']:.2f} ± {novel['standard_error']:.2f}"
    top5 = "–" if novel["top5"] is None else f"{novel['top5']:.2f}"
    columns = ("videos", "classes", "chance", "top-1", "top-5", "unreadable")
    row = (novel["videos"], novel["classes"], f"{novel['chance']:.1f}", top1, top5)
    print_table(columns, [(*row, novel["unreadable"])])
