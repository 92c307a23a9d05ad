"""The runtimes that an exported network is for, ONNX Runtime and OpenVINO: how each file is
written, and how it is run.

Both are extras, so their packages are imported on use.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from froster.errors import UsageError, install, one_of

Run = Callable[[np.ndarray], list[np.ndarray]]

FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}

# A protobuf message, which an .onnx file is, ends at 2 GiB: larger weights go to a file beside it.
LARGEST_ONNX = 2**31 - 2**24


def require(target: str) -> None:
    """Raises UsageError on a target that does not exist, or whose packages are not installed."""
    one_of("--to", target, *FILES)
    # OpenVINO's converter reports its use over the network if it finds this package, and works
    # without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    for name in PACKAGES[target]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(f"--to {target} needs {name} ({error}): {install(target)}") from error


def versions(target: str) -> dict[str, str]:
    return {name: version(name) for name in ("torch", *PACKAGES[target])}


def write(target: str, program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> None:
    """Put FILES[target], and what belongs to it, into `folder`. The program's input is `frames`,
    its batch dynamic."""
    (write_onnx if target == "onnx" else write_openvino)(program, folder, outputs)


def write_onnx(program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> None:
    onnx = torch.onnx.export(
        program,
        input_names=["frames"],
        output_names=list(outputs),
        dynamic_shapes={"frames": {0: "batch"}},
        dynamo=True,
        verbose=False,
    )
    assert onnx is not None
    weights = [weight.const_value for weight in onnx.model.graph.initializers.values()]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    onnx.save(folder / FILES["onnx"], external_data=size > LARGEST_ONNX)


def write_openvino(program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> None:
    import openvino

    (frames,) = (node.meta["val"] for node in program.graph.nodes if node.name == "frames")
    model = openvino.convert_model(program, input=[openvino.PartialShape([-1, *frames.shape[1:]])])
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(model, folder / FILES["openvino"], compress_to_fp16=False)


def open_file(target: str, file: Path, precision: str = "f32") -> Run:
    """uint8 frames (B, T, 3, S, S) -> the outputs, in their order, on the CPU. `precision` is
    OpenVINO's hint, f32 or bf16."""
    if target == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda frames: session.run(None, {"frames": frames})
    import openvino

    # Left to itself OpenVINO computes in bfloat16 where the chip has it.
    compiled: Any = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": precision}
    )
    return lambda frames: list(compiled(frames).values())


@contextmanager
def hushed() -> Iterator[None]:
    """The exporters warn of what concerns their authors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
