"""`froster export`: a model as a file for ONNX Runtime or OpenVINO."""

from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import announce, given_labels, load_model, show_result
from froster.cli.options import option
from froster.utils.progress import console, working


def export(
    *,
    out: Annotated[Path, option("Folder for the model, export.json and the class embeddings.")],
    to: Annotated[Literal["onnx", "openvino"], option("The runtime; each is an extra.")] = "onnx",
    labels: Annotated[options.Labels, option("For a file that gives their logits.")] = None,
    labels_file: options.LabelsFile = None,
    model: options.Model = None,
    truncate: options.Truncate = False,
    as_json: options.Json = False,
) -> None:
    """A model as a file for ONNX Runtime or OpenVINO, checked against PyTorch before it appears.

    Example: froster export --model runs/first --to openvino --labels-file labels.txt --out exported
    """
    from froster.inference import export as exporting

    exporting.check_target(to, out)  # before a model is loaded, or downloaded
    names = None if labels is None and labels_file is None else given_labels(labels, labels_file)
    recognizer = load_model(model, "cpu", "float32")
    announce(recognizer, model)
    with working(f"writing and comparing {out}"):
        about = exporting.export(recognizer, out, to, names, truncate=truncate)
    show_result({"folder": str(out), **about}, as_json, show)


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
