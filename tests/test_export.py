"""An exported network is the network: run by its own runtime, whatever the method, the batch and
the outputs."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import froster.inference.export
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.encoders.preprocessing import normalise
from froster.errors import FrosterError, UsageError
from froster.inference.export import (
    FILES,
    PACKAGES,
    Deployed,
    differences,
    export,
    open_file,
    random_frames,
)
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS
from froster.methods.weight_names import new_weights
from froster.text.label_set import LabelSet
from froster.training.fine_tune import student_of
from froster.video.sampling import Sampling
from shared_files import World
from test_encoder_uses import encoder
from test_methods import T, method_of
from typed import one_line

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("unchecked_shapes")
LABELS = ["cat", "dog", "key"]


def installed(target: str) -> bool:
    return all(importlib.util.find_spec(name) for name in PACKAGES[target])


TARGETS = [
    pytest.param(
        target,
        marks=pytest.mark.skipif(
            not installed(target), reason=f"not installed: pip install -e '.[{target}]'"
        ),
    )
    for target in FILES
]


def recognizer_of(name: str, variant: str = "", layers: int = 2) -> Recognizer:
    """A method on a tiny CLIP that reads nano's tokens; its new weights are drawn, so that what
    starts at zero shows."""
    nano = load("nano", device="cpu")
    torch.manual_seed(0)
    text = TextConfig(77, nano.tokenizer.vocab_size, 64, 1, 1)
    clip = CLIP(CLIPConfig(VisionConfig(32, 8, 128, layers, 2), text, embed_dim=64))
    method = method_of(name, variant)
    model = method.build(clip)
    new = new_weights(model)
    for weight, parameter in model.named_parameters():
        if weight in new:
            torch.nn.init.normal_(
                parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            )
    config = ModelConfig(method, Sampling("uniform", T))
    return Recognizer(
        model, nano.tokenizer, config, device=torch.device("cpu"), precision="float32"
    )


def check(recognizer: Recognizer, folder: Path, labels: list[str] | None, *batches: int) -> None:
    """The file in `folder`, run by its own runtime, says what the network says."""
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    classes = None if labels is None else recognizer.class_embeddings(labels)
    deployed = Deployed(recognizer.model, classes).eval()
    infer = open_file(about["runtime"], folder / about["file"])
    for count in batches:
        frames = random_frames(count, *(about["input"]["shape"][i] for i in (1, 3)))
        with torch.no_grad():
            expected = deployed(frames)
        found = infer(frames.numpy())
        assert [x.shape for x in found] == [tuple(x.shape) for x in expected]
        assert [x.shape[1:] for x in found] == [
            tuple(shape[1:]) for shape in about["outputs"].values()
        ]
        differences(list(about["outputs"]), [expected], [found])
        if labels is not None and about["logit_scale"] is not None:
            kept = load_file(folder / "classes.safetensors")["classes"].numpy()
            np.testing.assert_allclose(
                about["logit_scale"] * found[0] @ kept.T, found[1], rtol=1e-4, atol=1e-4
            )


FEW = [("xclip", "full")]
MORE = [
    ("vclip", "step1"),
    ("vclip", "mask"),
    ("finetuned", "both"),
    ("aim", "official"),
    ("st-adapter", "ssv2"),
    ("actionclip", "lstm"),
    ("actionclip", "conv1d-released"),
    ("stan", "third"),
    ("vita-clip", "generic"),
    ("lora", "r16-qkvo"),
    ("efficient-prompt", ""),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "variant"), FEW, ids=map("-".join, FEW))
def test_the_file_says_what_the_network_says(
    name: str, variant: str, target: str, tmp_path: Path
) -> None:
    says_the_same(recognizer_of(name, variant, layers=1), target, tmp_path / "out")


def says_the_same(recognizer: Recognizer, target: str, out: Path) -> None:
    about = export(recognizer, out, target, LABELS)
    check(recognizer, out, LABELS, 1, 2, 5)
    assert about["labels"] == LABELS
    assert about["parity"]["logits"]["difference"] < 1e-4 * about["parity"]["logits"]["largest"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "variant"), MORE, ids=map("-".join, MORE))
@pytest.mark.slow  # about 4 s each
def test_other_methods_say_it_too(name: str, variant: str, target: str, tmp_path: Path) -> None:
    says_the_same(recognizer_of(name, variant), target, tmp_path / "out")


def student(kind: str) -> Recognizer:
    return student_of(encoder(kind, layers=1), METHODS["vclip"](pad="mask"))  # type: ignore[call-arg]


# `test_without_labels_the_embedding_alone` runs PE-Core's kind, which has all that SigLIP's image
# tower has, and a class token and turned positions besides.
@pytest.mark.parametrize("kind", ["siglip", "pe"])
@pytest.mark.slow  # about 6 s each
def test_other_encoders_say_it_too(kind: str, tmp_path: Path) -> None:
    onnx_only()
    says_the_same(student(kind), "onnx", tmp_path / "out")


@pytest.mark.parametrize("target", TARGETS)
def test_without_labels_the_embedding_alone(target: str, tmp_path: Path) -> None:
    """It ranks labels that the file never heard of, as the network does."""
    recognizer = student("pe")
    about = export(recognizer, tmp_path / "out", target)
    check(recognizer, tmp_path / "out", None, 1, 4)
    assert about["labels"] is None and list(about["outputs"]) == ["embedding"]
    frames = random_frames(2, 4, 32)
    (embedding,) = open_file(target, tmp_path / "out" / FILES[target])(frames.numpy())
    logits = (
        about["logit_scale"] * torch.from_numpy(embedding.copy()) @ recognizer.embed_text(LABELS).T
    )
    with torch.no_grad():
        torch.testing.assert_close(
            logits, recognizer.model(normalise(frames), recognizer.class_embeddings(LABELS))
        )


def onnx_only() -> None:
    if not installed("onnx"):
        pytest.skip("not installed: pip install -e '.[onnx]'")


def test_labels_in_groups_are_asked_as_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as `classify` asks: what follows the "/"."""
    onnx_only()

    def told(self: Recognizer, labels: LabelSet, truncate: bool) -> None:
        raise UsageError(f"{labels.names} {labels.texts}")

    monkeypatch.setattr(Recognizer, "class_embeddings", told)
    with pytest.raises(UsageError, match=r"\['sky/sun', 'sky/bus'\] \['sun', 'bus'\]"):
        export(recognizer_of("finetuned"), tmp_path / "out", "onnx", ["sky/sun", "sky/bus"])


def test_xclip_needs_its_labels(tmp_path: Path) -> None:
    onnx_only()
    with pytest.raises(UsageError, match="more of a video than its embedding: give the labels"):
        export(recognizer_of("xclip"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


# `about` has what `differences` measured in every other test, and the line below measures it by itself.
@pytest.mark.slow  # 4 s
def test_a_network_that_differs_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_only()
    recognizer = recognizer_of("finetuned", layers=1)
    infer = lambda *_: lambda frames: [np.full((len(frames), 64), np.nan, np.float32)]  # noqa: E731
    monkeypatch.setattr(froster.inference.export, "open_file", infer)
    with pytest.raises(FrosterError, match="differs from PyTorch: embedding by nan"):
        export(recognizer, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx_only()
    recognizer = recognizer_of("finetuned", layers=1)
    plain = recognizer.model.encode_frames
    # By a value of the frames, as OST's solver: no graph can hold it, and PyTorch prints what it has.
    monkeypatch.setattr(
        recognizer.model, "encode_frames", lambda x: plain(x) * (2 if x.sum() > 0 else 3)
    )
    with pytest.raises(FrosterError, match="finetuned cannot be exported to onnx: ") as error:
        export(recognizer, tmp_path / "out")
    assert "\n" not in str(error.value) and capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_differences_are_measured_against_the_largest_value() -> None:
    expected = [[torch.tensor([[100.0, -200.0]])]]
    found = differences(["logits"], expected, [[np.array([[100.0, -200.01]], np.float32)]])
    assert found["logits"] == pytest.approx({"difference": 0.01, "largest": 200.0}, rel=1e-2)
    with pytest.raises(FrosterError, match=r"logits by 0\.03"):
        differences(["logits"], expected, [[np.array([[100.0, -200.03]], np.float32)]])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "clip.mp4"
    World("base", 1).write(0, path)
    return path


WORDS = ["cat spinning", "key pacing", "moon glowing"]


@pytest.mark.usefixtures("few_templates")
@pytest.mark.parametrize("target", TARGETS)
def test_the_command_and_the_page_on_it(
    run, target: str, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `docs/export.md` shows classifies a file as `froster classify` does. An earlier export is
    replaced."""
    out = tmp_path / "exported"
    out.mkdir()
    earlier = "model.onnx" if target == "openvino" else "model.xml"
    for name in ("export.json", "classes.safetensors", earlier):
        (out / name).write_text("earlier")
    result = run(
        "export", "--model", "nano", "--to", target, "--labels", ", ".join(WORDS), "--out", out
    )
    assert result.code == 0, result.err
    assert "largest difference to PyTorch, embedding" in " ".join(result.err.split())
    assert not (out / earlier).exists()
    about = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert about["outputs"] == {"embedding": ["batch", 128], "logits": ["batch", 3]}
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    code, openvino = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    if target == "openvino":
        code = re.sub(r"session = .*?\n.*?session.*?\n", lambda _: openvino, code)
        assert "onnxruntime.Inf" not in code
        code = code.replace("import onnxruntime\n", "")
    (tmp_path / "clip.mp4").write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "docs/export.md", "exec"), names)
    found = load("nano", precision="float32").classify(video, WORDS)
    scores = dict(zip(names["about"]["labels"], names["scores"].tolist(), strict=True))
    assert scores == pytest.approx(dict(zip(found.labels, found.scores, strict=True)), abs=1e-5)


def test_mistakes(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ("export", "--model", "nano", "--out")
    one_line(
        run(*ask, tmp_path / "out", "--to", "tflite"),
        2,
        "--to must be onnx, openvino or int8",
        "'tflite'",
    )
    for target, names in PACKAGES.items():
        with monkeypatch.context() as without:
            without.setitem(sys.modules, names[-1], None)
            for name in names[:-1]:
                without.setitem(sys.modules, name, sys)
            hints = f"pip install 'froster-video[{target}]'", f"pip install -e '.[{target}]'"
            one_line(run(*ask, tmp_path / "out", "--to", target), 2, names[-1], *hints)
    onnx_only()
    one_line(run(*ask, tmp_path / "out", "--labels", "a,,b"), 2, "empty")
    one_line(run(*ask, tmp_path / "out", "--labels", "a", "--labels-file", "b.txt"), 2, "either")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    one_line(run(*ask, tmp_path / "mine"), 2, "is no export", "--out")
    (tmp_path / "file").write_text("x")
    one_line(run(*ask, tmp_path / "file"), 2, "is a file")
    one_line(run(*ask, tmp_path / "file" / "below"), 1, "cannot write")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]
