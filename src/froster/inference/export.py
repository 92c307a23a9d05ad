"""A video network as a file for other runtimes: uint8 frames in, video embedding and logits out,
checked against PyTorch.

The folder holds `model.onnx`, or `model.xml` and `model.bin`; `export.json`, which says how videos
are read and what comes out; and, where labels were given, `classes.safetensors`. `docs/export.md`
shows how it is used.
"""

from __future__ import annotations

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from froster.encoders.int8 import check_int8
from froster.encoders.preprocessing import normalise
from froster.errors import FrosterError, UsageError, install, one_of
from froster.inference.recognizer import Recognizer, load
from froster.methods import VideoCLIP, method_dict
from froster.methods.base import plain
from froster.text.label_set import Labels, as_labels
from froster.utils import interrupt
from froster.utils import strict_json as json
from froster.utils.files import atomic_folder, refuse_current, sole_maker
from froster.utils.tensors import finite, save_tensors

Runtime = Callable[[np.ndarray], list[np.ndarray]]
"""uint8 frames (B, T, 3, S, S) -> the outputs, in their order."""
FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}

# A protobuf message, which an .onnx file is, ends at 2 GiB: larger weights go to a file beside it.
LARGEST_ONNX = 2**31 - 2**24
TOLERANCE = 1e-4
"""Largest difference to PyTorch in float32, as a share of the output's largest absolute value."""
CHECKED = (1, 3)
"""Batch sizes that are run, as the batch is dynamic: 1 is what a tracer most likely gets wrong."""


class Deployed(nn.Module):
    """What is exported: the video network with its normalisation, and the classes as constants."""

    classes: Tensor | None

    def __init__(self, model: VideoCLIP, classes: Tensor | None):
        super().__init__()
        self.model = model
        self.register_buffer("classes", classes)
        self.outputs = ["embedding"] if classes is None else ["embedding", "logits"]

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """uint8 frames (B, T, 3, S, S) -> embeddings (B, E) and, with classes, logits."""
        features = self.model.encode(normalise(frames, self.model.clip.config.preprocessing))
        if self.classes is None:
            return (features.video,)
        return features.video, self.model.logits(features.video, self.classes, features.context)


def check_target(target: str, folder: Path) -> None:
    """Raises UsageError where the runtime is unknown or not installed, or the folder is taken."""
    if target == "int8":
        check_int8()
    else:
        require(target)
    refuse_current(folder)
    if folder.is_file():
        raise UsageError(f"{folder} is a file; --out needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "export.json").is_file():
        raise UsageError(
            f"{folder} exists and is no export: it is not overwritten, choose another --out"
        )


@torch.no_grad()
def export(
    recognizer: Recognizer | str | Path,
    folder: str | Path,
    target: str = "onnx",
    labels: Labels | None = None,
    *,
    truncate: bool = False,
) -> dict[str, Any]:
    """Write the network for `target`, "onnx" or "openvino", and return what `export.json` says.

    `recognizer` is a model on the CPU in float32, or what `load` takes. The file is run by its own
    runtime on random frames; `folder` appears only if it agrees with PyTorch in float32. Raises
    UsageError on a wrong request, FrosterError where the network cannot be exported or differs.
    """
    folder = Path(folder)
    check_target(target, folder)
    if not isinstance(recognizer, Recognizer):
        recognizer = load(recognizer, device="cpu", precision="float32")
    if recognizer.device.type != "cpu":
        raise UsageError(
            'the export is made and checked on the CPU: load the model with device="cpu"'
        )
    model, config = recognizer.model, recognizer.config
    T, size = config.sampling.frames, recognizer.clip.config.vision.image_size
    labels = None if labels is None else as_labels(labels)
    classes = recognizer.class_embeddings(labels, truncate) if labels is not None else None
    net = Deployed(model, classes).eval()
    batches = [random_frames(count, T, size) for count in CHECKED]
    how = recognizer.preprocessing
    if classes is None and model.encode(normalise(batches[0], how)).context is not None:
        raise UsageError(
            f"{config.method.name} compares labels with more of a video than its embedding: give"
            " the labels to export them with it"
        )
    expected = [tuple(finite(x, "outputs") for x in net(frames)) for frames in batches]
    with sole_maker(folder), atomic_folder(folder) as part:
        with explained(f"{config.method.name} cannot be exported to {target}"):
            # LoRA's `index_add` the ONNX exporter gets wrong (torch 2.13), OpenVINO's lacks it.
            program = graph(Deployed(plain(model), classes).eval(), batches[-1])
            (_write_onnx if target == "onnx" else _write_openvino)(program, part, net.outputs)
        with explained(f"the exported {FILES[target]} does not run"):
            run = open_file(target, part / FILES[target])
            outputs = [run(frames.numpy()) for frames in batches]
        parity = differences(net.outputs, expected, outputs)
        about = {
            "format": "froster-export",
            "version": 1,
            "runtime": target,
            "file": FILES[target],
            "method": method_dict(config.method),
            "input": {
                "name": "frames",
                "type": "uint8",
                "shape": ["batch", T, 3, size, size],
                "frames": f"RGB, not normalised; {how.describe(size)}",
                "preprocessing": how.to_dict(),
            },
            "outputs": {
                name: ["batch", *x.shape[1:]]
                for name, x in zip(net.outputs, expected[0], strict=True)
            },
            "sampling": asdict(config.sampling),
            "views": config.views,
            "fusion": config.fusion,
            "labels": None if labels is None else list(labels),
            "logit_scale": logit_scale(model),
            "parity": {"batches": CHECKED, "tolerance": TOLERANCE, **parity},
            "made_with": {name: version(name) for name in ("torch", *PACKAGES[target])},
        }
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (part / "export.json").write_text(text + "\n", encoding="utf-8")
        if classes is not None:
            save_tensors({"classes": classes.contiguous()}, part / "classes.safetensors")
    return about


def random_frames(count: int, frames: int, size: int) -> Tensor:
    """(count, frames, 3, size, size) uint8, the same at every call."""
    generator, shape = torch.Generator().manual_seed(count), (count, frames, 3, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def graph(net: Deployed, frames: Tensor) -> ExportedProgram:
    """The network as one graph for any number of clips. Strict: the towers say `len(x)` of a batch,
    a constant for every tracer but the one that reads Python's bytecode."""
    return torch.export.export(
        net, (frames,), dynamic_shapes={"frames": {0: Dim("batch", min=1)}}, strict=True
    )


def differences(
    names: Sequence[str],
    expected: Sequence[Sequence[Tensor]],
    outputs: Sequence[Sequence[np.ndarray]],
) -> dict[str, dict[str, float]]:
    """For every output over all batches: the largest absolute difference, and the largest absolute
    value expected. Raises FrosterError beyond the tolerance."""
    parity = {}
    for i, name in enumerate(names):
        pairs = [(x[i].numpy(), y[i]) for x, y in zip(expected, outputs, strict=True)]
        difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
        largest = max(float(np.abs(ours).max()) for ours, _ in pairs)
        # The floor is for a single label's log-probabilities, 0 but for rounding. NaN is refused.
        if not difference <= TOLERANCE * max(largest, 0.01):
            raise FrosterError(
                f"the exported network differs from PyTorch: {name} by {difference:.2g} where the"
                f" largest is {largest:.3g}, more than {TOLERANCE:g} of it; nothing was written"
            )
        parity[name] = {"difference": difference, "largest": largest}
    return parity


def logit_scale(model: VideoCLIP) -> float | None:
    """s of logits = s * embedding @ classes.T; None of networks that compare otherwise."""
    return model.logit_scale if type(model).classes is VideoCLIP.classes else None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Exporters and runtimes raise whatever they like: their first line, after ours."""
    try:
        with hushed():
            yield
    except (FrosterError, OSError, MemoryError):
        raise
    except Exception as error:
        interrupt.check()
        lines = str(error).strip().splitlines()
        raise FrosterError(f"{what}: {lines[0] if lines else type(error).__name__}") from error


def require(target: str) -> None:
    """Raises UsageError on a target that does not exist, or whose packages are not installed."""
    one_of("--to", target, *FILES)
    # With this package OpenVINO's converter reports its use over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    for name in PACKAGES[target]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(f"--to {target} needs {name} ({error}): {install(target)}") from error


def _write_onnx(program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> None:
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


def _write_openvino(program: ExportedProgram, folder: Path, outputs: Sequence[str]) -> None:
    import openvino

    (frames,) = (node.meta["val"] for node in program.graph.nodes if node.name == "frames")
    model = openvino.convert_model(program, input=[openvino.PartialShape([-1, *frames.shape[1:]])])
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(model, folder / FILES["openvino"], compress_to_fp16=False)


def open_file(target: str, file: Path, precision: str = "f32") -> Runtime:
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
    """The exporters warn of what concerns their authors, and print a graph that they gave up."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
