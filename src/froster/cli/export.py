"""`froster export`: a model as a file for ONNX Runtime or OpenVINO, or in int8 for froster."""

from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import announce, given_labels, load_model, mention, show_result, start_torch
from froster.cli.options import ADDRESS, option
from froster.errors import UsageError
from froster.utils.progress import console, working


def export(
    *,
    out: Annotated[Path, option("Folder for the model, export.json and the class embeddings.")],
    to: Annotated[
        Literal["onnx", "openvino", "int8"],
        option("The runtime: each an extra, but for froster's own int8 on a CPU (--runtime)."),
    ] = "onnx",
    labels: Annotated[options.Labels, option("For a file that gives their logits.")] = None,
    labels_file: options.LabelsFile = None,
    videos: Annotated[
        list[Path] | None, ADDRESS, option("Some of yours, by which int8 is measured.")
    ] = None,
    model: options.Model = None,
    truncate: options.Truncate = False,
    as_json: options.Json = False,
) -> None:
    """A model as a file for ONNX Runtime or OpenVINO, or in int8 for --runtime, compared with
    PyTorch before it appears.

    Example: froster export --model runs/first --to openvino --labels-file labels.txt --out exported
    """
    start_torch()
    from froster.data.listing import list_videos
    from froster.inference import export as exporting

    exporting.check_target(to, out)  # before a model is loaded, or downloaded
    names = None if labels is None and labels_file is None else given_labels(labels, labels_file)
    if (to == "int8") != bool(videos):
        raise UsageError("--videos are for --to int8, which is measured on them")
    if to != "int8":
        recognizer = load_model(model, "cpu", "float32")
        announce(recognizer, model)
        with working(f"writing and comparing {out}"):
            about = exporting.export(recognizer, out, to, names, truncate=truncate)
        show_result({"folder": str(out), **about}, as_json, show)
        return
    if names is None:
        raise UsageError("--to int8 compares which label fits best: give --labels, yours or any")
    from froster.inference.int8 import export_int8

    listing = list_videos(videos or [])
    mention(listing)
    recognizer = load_model(model, "cpu", "float32")
    announce(recognizer, model)
    about = export_int8(recognizer, out, listing, names, truncate=truncate, working=working)
    show_result({"folder": str(out), **about}, as_json, show_int8)


def show(about: dict[str, Any]) -> None:
    shape = ", ".join(map(str, about["input"]["shape"]))
    console.print(
        f"{Path(about['folder'], about['file'])}: {about['input']['type']} frames ({shape}) ->"
        f" {', '.join(about['outputs'])}"
    )
    for name in about["outputs"]:
        parity = about["parity"][name]
        console.print(
            f"largest difference to PyTorch, {name}: {parity['difference']:.2g} (largest value"
            f" {parity['largest']:.3g})"
        )


def show_int8(about: dict[str, Any]) -> None:
    count, compared, parts = about["cosine_difference"], about["videos"], about["modules"]
    console.print(
        f"{about['folder']}: {parts['int8']} of {parts['all']} parts of the image tower in int8,"
        f" measured on {compared['measured']} videos"
    )
    console.print(
        f"on {compared['compared']} others the best label is float32's in"
        f" {100 * about['same_top1']:.1f} %, and cosines differ by at most {count['largest']:.2g}"
        f" (refused above {count['limit']:g})"
    )
