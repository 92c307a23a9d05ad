"""`froster export`: a model as a file for ONNX Runtime or OpenVINO."""

from __future__ import annotations

from pathlib import Path

from froster.cli.classify import given_labels
from froster.cli.common import announce, load_model
from froster.inference.export import check_target, export
from froster.utils import strict_json as json
from froster.utils.files import sole_maker
from froster.utils.progress import console, working


def run(
    *,
    to: str,
    out: Path,
    labels: str | None,
    labels_file: Path | None,
    model: str | None,
    truncate: bool,
    as_json: bool,
) -> None:
    """Everything `froster export` does; the options are described there."""
    check_target(to, out)  # before a model is loaded, or downloaded
    names = None if labels is None and labels_file is None else given_labels(labels, labels_file)
    recognizer = load_model(model, "cpu", "float32")
    announce(recognizer, model)
    with sole_maker(out), working(f"writing and comparing {out}"):
        about = export(recognizer, out, to, names, truncate=truncate)
    if as_json:
        print(json.dumps({"folder": str(out), **about}))
        return
    shape = ", ".join(map(str, about["input"]["shape"]))
    console.print(
        f"{out / about['file']}: {about['input']['type']} frames ({shape}) ->"
        f" {', '.join(about['outputs'])}"
    )
    for name in about["outputs"]:
        found = about["parity"][name]
        console.print(
            f"largest difference to PyTorch, {name}: {found['difference']:.2g} (largest value"
            f" {found['largest']:.3g})"
        )
