"""One clip through the exported network, by ONNX Runtime and OpenVINO, and in int8, against PyTorch.

A vclip of CLIP's ViT-B/16 shape with random weights (speed does not depend on them), 8 frames of
224 px, 100 classes whose embeddings are known, on the CPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import Row, compare, interleave
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.int8 import check_int8
from froster.encoders.model import CLIP
from froster.encoders.precision import Precision, autocast, pick_dtype
from froster.encoders.preprocessing import normalise
from froster.errors import UsageError
from froster.inference.export import FILES, export, open_file, random_frames, require
from froster.inference.int8 import Int8, measure
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import VCLIP, Frozen, Method

BASE = "froster, PyTorch float32"
BF16 = "froster, PyTorch bfloat16"
INT8 = "froster, int8"
RUNTIMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
LABELS = [f"class {i}" for i in range(100)]


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    """Rows of each runtime and precision against PyTorch in float32; a runtime that is not
    installed is named in a note."""
    vision = VisionConfig(32, 8, 64, 2, 1) if toy else VisionConfig()
    torch_models = {"float32": network(vision, "float32"), "bfloat16": network(vision, "bfloat16")}
    frames = random_frames(1, 8, vision.image_size)
    expected = pytorch(torch_models["float32"], frames)()
    has_bf16 = pick_dtype(torch.device("cpu"), 768) == torch.bfloat16
    contenders: dict[str, Callable[[], Tensor]] = {BASE: pytorch(torch_models["float32"], frames)}
    notes = [
        f"{torch.get_num_threads()} threads, a clip at a time, from uint8 frames to the logits of"
        f" {len(LABELS)} classes. Seconds of the processor."
    ]
    if has_bf16:
        contenders[BF16] = pytorch(torch_models["bfloat16"], frames)
    else:
        notes.append("No bfloat16: the chip does not have it.")
    try:
        check_int8()
        contenders[INT8] = in_int8(network(vision, "auto"), frames)
    except UsageError as error:
        notes.append(f"No int8: {error}")
    with tempfile.TemporaryDirectory() as folder:
        for target, name in RUNTIMES.items():
            try:
                require(target)
            except UsageError as error:
                notes.append(f"{name} was not measured: {error}")
                continue
            export(torch_models["float32"], Path(folder) / target, target, LABELS)
            for precision, words in (("f32", "float32"), ("bf16", "bfloat16")):
                if precision == "f32" or (target == "openvino" and has_bf16):
                    file = Path(folder) / target / FILES[target]
                    contenders[f"{name} {words}"] = exported(target, file, precision, frames)
        differences = {
            name: float((logits() - expected).abs().max()) for name, logits in contenders.items()
        }
        seconds = interleave(contenders, rounds or (2 if toy else 9), clock=time.process_time)
    largest = float(expected.abs().max())
    rows = [
        compare(
            "one clip",
            seconds,
            name,
            BASE,
            note=f"logits within {differences[name]:.2g} of {largest:.3g}, the largest",
        )
        for name in contenders
        if name != BASE
    ]
    if BF16 in seconds and INT8 in seconds:
        rows.append(compare("one clip", seconds, INT8, BF16, 1.7))
        contenders = {
            BF16: pytorch(network(vision, "bfloat16", Frozen()), frames),
            INT8: in_int8(network(vision, "bfloat16", Frozen()), frames),
        }
        seconds = interleave(contenders, rounds or (2 if toy else 9), clock=time.process_time)
        rows.append(compare("one clip, a plain CLIP", seconds, INT8, BF16, 1.7))
    return rows, notes


def network(vision: VisionConfig, precision: Precision, method: Method | None = None) -> Recognizer:
    """The image tower in full; of the text tower, whose work is done beforehand, one layer and the
    nano's vocabulary."""
    tokenizer = load("nano", device="cpu").tokenizer
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(vision, TextConfig(vocab=tokenizer.vocab_size, layers=1)))
    config = ModelConfig(method or VCLIP())
    return Recognizer(
        config.method.build(clip),
        tokenizer,
        config,
        device=torch.device("cpu"),
        precision=precision,
    )


def pytorch(recognizer: Recognizer, frames: Tensor) -> Callable[[], Tensor]:
    """What `Recognizer.classify` does with frames that were read."""
    classes = recognizer.class_embeddings(LABELS)

    @torch.no_grad()
    def logits() -> Tensor:
        with autocast(recognizer.device, recognizer.dtype):
            features = recognizer.inference.encode(normalise(frames, recognizer.preprocessing))
        return recognizer.model.logits(features.video, classes).float()

    return logits


def in_int8(recognizer: Recognizer, frames: Tensor) -> Callable[[], Tensor]:
    recognizer.runtime = Int8(measure(recognizer, [random_frames(2, 8, frames.shape[-1])])[0])
    return pytorch(recognizer, frames)


def exported(target: str, file: Path, precision: str, frames: Tensor) -> Callable[[], Tensor]:
    infer, array = open_file(target, file, precision), frames.numpy()
    return lambda: torch.from_numpy(infer(array)[1].copy())
