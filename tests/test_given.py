"""What is handed to a model (frames, a precision, a device, damaged weights), and what it
remembers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import froster
from froster.data.dataset import VideoDataset
from froster.data.manifest import Item
from froster.encoders.precision import parse_precision, pick_device
from froster.errors import CheckpointError, UsageError
from froster.inference.export import export
from froster.inference.loading import NANO
from froster.inference.recognizer import Recognizer
from froster.methods.recipe import Recipe
from froster.report.attention import cls_attention
from froster.text.prompts import Prompting
from froster.text.sentences import read_descriptions
from froster.training.measure import EvalSet, measure
from froster.world.files import write_video
from froster.world.sets import render_set
from shared_files import World
from typed import one_line

LABELS = ["cat spinning", "boat pacing"]


def nano() -> Recognizer:
    return froster.load("nano", device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World("base", 1).write(0, tmp_path_factory.mktemp("given") / "clip.mp4")


# Precision and device


@pytest.mark.parametrize("spelt", ["bf16", "BF16", "bfloat16", "torch.bfloat16", torch.bfloat16])
def test_spellings_of_bfloat16(spelt: Any) -> None:
    model = froster.load("nano", device="cpu", precision=spelt)
    assert (model.dtype, model.precision) == (torch.bfloat16, "bfloat16")
    assert Recipe(precision=spelt).precision == "bfloat16"


@pytest.mark.parametrize(
    "spelt", ["fp32", "f32", "float32", "float", "torch.float32", torch.float32, torch.float]
)
def test_spellings_of_float32(spelt: Any) -> None:
    model = froster.load("nano", device="cpu", precision=spelt)
    assert (model.dtype, model.precision) == (torch.float32, "float32")


@pytest.mark.parametrize(
    "spelt", ["fp16", "half", "float64", "banana", "", 5, None, torch.float16, ["bf16"]]
)
def test_there_is_no_other_precision(spelt: Any) -> None:
    for ask in (
        parse_precision,
        lambda p: Recipe(precision=p),
        lambda p: froster.load("no/such", precision=p),
    ):
        with pytest.raises(UsageError, match=r"auto, float32 \(fp32\) or bfloat16 \(bf16\)"):
            ask(spelt)


@pytest.mark.parametrize("name", ["cuda:99", "banana", "mps", "meta", "xpu", "vulkan", "", 5.0])
def test_there_is_no_such_device(name: Any) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    for ask in (pick_device, lambda device: froster.load("no/such", device=device)):
        with pytest.raises(UsageError, match="here: there is cpu") as caught:
            ask(name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_precision_and_device_on_the_command_line(run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(f"{clip},a\n{clip},b\n")
    labels, data = ("--labels", "a, b"), ("--data", tmp_path / "data.csv")
    commands = [
        ("classify", clip, *labels),
        ("timeline", clip, *labels),
        ("watch", clip, *labels),
        ("index", clip, "--out", tmp_path / "i"),
        ("evaluate", *data),
        ("train", *data, "--out", tmp_path / "t"),
    ]
    for command in commands:
        one_line(run(*command, "--model", "nano", "--precision", "fp16"), 2, "bfloat16 (bf16)")
        one_line(run(*command, "--model", "nano", "--device", "banana"), 2, "there is cpu")
    found = run(
        "classify",
        clip,
        *labels,
        "--model",
        "nano",
        "--workers",
        0,
        "--precision",
        "bf16",
        "--json",
    )
    assert found.code == 0 and found.json["results"][0]["label"]


# Frames


def frames(height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)


def test_frames_of_numpy_and_torch_are_the_same() -> None:
    model, video = nano(), frames()
    found, embedding = (
        model.classify(torch.from_numpy(video), LABELS),
        model.embed_video(torch.from_numpy(video)),
    )
    read_only = video.copy()
    read_only.setflags(write=False)
    wide = np.repeat(video, 2, axis=2)[:, :, ::2]
    fortran = np.asfortranarray(video)
    backwards = video[:, ::-1].copy()[:, ::-1]
    as_stored = torch.from_numpy(np.ascontiguousarray(video.transpose(0, 3, 1, 2))).permute(
        0, 2, 3, 1
    )
    for same in (
        video,
        read_only,
        wide,
        fortran,
        backwards,
        video.view(np.ndarray),
        np.ma.asarray(video),
        as_stored,
    ):
        assert model.classify(same, LABELS) == found
        assert torch.equal(model.embed_video(same), embedding)
    assert model.classify(video[::-1], LABELS) == model.classify(
        torch.from_numpy(video[::-1].copy()), LABELS
    )
    assert np.array_equal(video, frames())


@pytest.mark.parametrize(
    ("video", "found"),
    [
        (frames()[0], r"\(40, 56, 3\) uint8"),
        (frames()[None], r"\(1, 8, 40"),
        (frames().astype(np.float32), "float32"),
        (frames().astype(np.int64), "int64"),
        (frames().astype(object), "object"),
        (frames().transpose(0, 3, 1, 2), r"\(8, 3, 40, 56\)"),
        (np.zeros((8, 0, 5, 3), np.uint8), r"\(8, 0, 5, 3\)"),
        (torch.from_numpy(frames()).float(), "torch.float32"),
        (None, "None"),
        (5, "5"),
        ({"frames": 1}, "a dict of 1"),
    ],
)
def test_frames_that_are_none_are_described_and_not_shown(video: Any, found: str) -> None:
    for ask in (lambda v: nano().classify(v, LABELS), nano().embed_video):
        with pytest.raises(UsageError, match=found) as caught:
            ask(video)
        assert (
            "\n" not in str(caught.value)
            and len(str(caught.value)) < 300
            and "T, H, W, 3" in str(caught.value)
        )


def test_clips_of_numpy_and_torch() -> None:
    model = nano()
    clips = np.random.default_rng(1).integers(0, 256, (2, 8, 3, 60, 60), dtype=np.uint8)
    classes = model.class_embeddings(LABELS)
    assert torch.equal(model.embed_clips(clips), model.embed_clips(torch.from_numpy(clips)))
    judged = [
        model.score_clips(each[:, None], classes).scores
        for each in (clips, torch.from_numpy(clips))
    ]
    assert torch.equal(*judged)
    wrong = [
        clips[0],
        clips[..., :59],
        clips.astype(np.float32),
        clips[:0],
        clips.transpose(0, 1, 3, 4, 2),
        list(clips),
        None,
    ]
    for bad in wrong:
        with pytest.raises(
            UsageError, match=r"expected uint8 clips \(B, T, 3, 60, 60\), got"
        ) as caught:
            model.embed_clips(bad)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    with pytest.raises(UsageError, match=r"\(B, V, T, 3, 60, 60\)"):
        model.score_clips(clips, classes)


# What a model remembers


def test_class_embeddings_are_those_of_the_weights_prompts_and_tokenizer_of_now() -> None:
    model, other = nano(), nano()
    state = {key: 1.1 * weight for key, weight in model.model.state_dict().items()}
    before = model.class_embeddings(LABELS)
    assert model.class_embeddings(LABELS) is before
    other.model.load_state_dict(state)
    right = other.class_embeddings(LABELS)
    assert not torch.allclose(before, right, atol=1e-3)
    model.model.load_state_dict(state)
    assert torch.equal(model.class_embeddings(LABELS), right)
    model.model.load_state_dict(nano().model.state_dict(), assign=True)
    assert torch.equal(model.class_embeddings(LABELS), before)
    with torch.no_grad():
        model.clip.text.text_projection.mul_(-1)
    assert torch.allclose(model.class_embeddings(LABELS), -before, atol=1e-6)
    model.clip.text.text_projection.data = -model.clip.text.text_projection.data
    assert torch.equal(model.class_embeddings(LABELS), before)
    model.model = other.model
    assert torch.equal(model.class_embeddings(LABELS), right)
    model = nano()
    model.class_embeddings(LABELS)
    object.__setattr__(model.config, "prompting", Prompting(("a {}",), "plain"))
    changed = model.class_embeddings(LABELS)
    assert not torch.allclose(changed, before, atol=1e-3)
    model.dtype = torch.bfloat16
    assert not torch.equal(model.class_embeddings(LABELS), changed)
    model.dtype, model.config = torch.float32, nano().config
    model.class_embeddings(LABELS)[0] = 0  # the caller's, to do with as they like
    assert torch.equal(model.class_embeddings(LABELS), before)

    class Backwards:
        def __init__(self, own: Any):
            self.own = own

        def __getattr__(self, name: str) -> Any:
            return getattr(self.own, name)

        def __call__(self, texts: list[str], *rest: Any) -> Any:
            return self.own(list(texts)[::-1], *rest)

    model.tokenizer_source = Backwards(model.tokenizer)  # type: ignore[assignment]
    assert torch.allclose(model.class_embeddings(LABELS), before.flip(0), atol=1e-5)


def test_a_cast_network_is_that_of_the_weights_of_now() -> None:
    model = froster.load("nano", device="cpu", precision="bf16")
    other = froster.load("nano", device="cpu", precision="bf16")
    state = {key: 1.1 * weight for key, weight in model.model.state_dict().items()}
    first = model.embed_video(frames())
    for assign in (False, True):
        model.model.load_state_dict(state, assign=assign)
        other.model.load_state_dict(state)
        assert torch.equal(model.embed_video(frames()), other.embed_video(frames()))
        assert not torch.equal(model.embed_video(frames()), first)
        model.model.load_state_dict(nano().model.state_dict(), assign=assign)


def test_what_inference_mode_made_serves_outside_of_it() -> None:
    model = nano()
    with torch.inference_mode():
        model.class_embeddings(LABELS)
    weight = torch.ones(model.clip.config.embed_dim, requires_grad=True)
    (model.class_embeddings(LABELS) * weight).sum().backward()


# Damaged weights


@pytest.fixture(
    scope="module", params=["visual.ln_post.weight", "text.ln_final.weight", "logit_scale"]
)
def damaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(NANO, tmp_path_factory.mktemp("damaged") / "model")
    state = load_file(folder / "model.safetensors")
    state[request.param] = torch.full_like(
        state[request.param], float("inf" if request.param == "logit_scale" else "nan")
    )
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.usefixtures("few_templates")
def test_no_label_without_a_score(run, clip: Path, damaged: Path, tmp_path: Path) -> None:
    labels, model = ("--labels", "surfing, walking"), ("--model", damaged)
    (tmp_path / "data.csv").write_text(f"{clip},a\n{clip},b\n")
    data = ("--data", tmp_path / "data.csv")
    commands = [
        ("classify", clip, *labels, "--workers", 0),
        ("classify", clip, *labels, "--json", "--workers", 0),
        ("classify", clip.parent, *labels, "--out", tmp_path / "r.csv", "--workers", 0),
        ("timeline", clip, *labels),
        ("timeline", clip, *labels, "--json"),
        ("watch", clip, *labels),
        ("watch", clip, *labels, "--json"),
        ("evaluate", *data),
        ("evaluate", *data, "--json"),
    ]
    for command in commands:
        result = run(*command, *model)
        one_line(result, 1, "not finite numbers")
        assert "nan" not in result.out.lower()
    assert (
        not (tmp_path / "r.csv").exists() or len((tmp_path / "r.csv").read_text().splitlines()) <= 1
    )


def test_no_numbers_of_damaged_weights(clip: Path, damaged: Path, tmp_path: Path) -> None:
    model = froster.load(damaged, device="cpu")
    item = VideoDataset(
        [Item(str(clip), "a")], ["a", "b"], model.config.sampling, 60, views=1, train=False
    )
    asks = [
        lambda: model.classify(frames(), LABELS),
        lambda: froster.timeline(model, clip, LABELS),
        lambda: (
            export(model, tmp_path / "e", labels=LABELS)
            if have_onnx()
            else model.classify(frames(), LABELS)
        ),
        lambda: measured(model, EvalSet("a", item, ["a", "b"])),
    ]
    broken = {
        key for key, weight in model.model.state_dict().items() if not weight.isfinite().all()
    }
    if "clip.visual.ln_post.weight" in broken:
        asks += [lambda: model.embed_video(frames()), lambda: model.embed_video(clip)]
    if "clip.text.ln_final.weight" in broken:
        asks += [lambda: model.embed_text(LABELS), lambda: model.class_embeddings(LABELS)]
    for ask in asks:
        with pytest.raises(CheckpointError, match="not finite numbers") as caught:
            ask()
        assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def measured(model: Recognizer, data: EvalSet) -> Any:
    return measure(model, [data])


def have_onnx() -> bool:
    try:
        import onnx  # noqa: F401
    except ImportError:
        return False
    return True


def test_no_attention_of_damaged_weights() -> None:
    model = nano()
    with torch.no_grad():
        model.clip.visual.ln_pre.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="attention outputs are not finite"):
        cls_attention(model.model, torch.zeros(2, 3, 60, 60))


@pytest.mark.usefixtures("few_templates")
def test_a_loss_that_is_none_ends_the_training(run, tmp_path: Path, damaged: Path) -> None:
    videos = render_set("base", 2, split="train")
    rows = []
    for number, frames_ in enumerate(videos.frames[:8]):
        write_video(tmp_path / f"{number}.mp4", frames_)
        rows.append(f"{number}.mp4,{videos.classes[int(videos.labels[number])]}")
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    ask = (
        "train",
        "--data",
        tmp_path / "data.csv",
        "--model",
        damaged,
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
        "--workers",
        0,
    )
    result = run(*ask, "--no-look", "--validation", 0)
    one_line(result, 1, "not finite")
    assert not (tmp_path / "run" / "model").exists()


def test_json_has_no_number_that_is_none() -> None:
    from froster.utils import strict_json

    written = strict_json.dumps(
        {"a": float("nan"), "b": [1.5, float("inf"), (2, float("-inf"))], "c": "NaN"}
    )
    assert json.loads(written, parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, [2, None]],
        "c": "NaN",
    }
    assert strict_json.loads('\ufeff{"a": 1}') == {"a": 1}
    for bad in ("[" * 100_000, '{"a":' * 100_000, "9" * 301, "", "{", "\0", b"\xff\xfe\x00"):
        with pytest.raises(ValueError):
            strict_json.loads(bad)


def test_labels_and_options_nested_too_deeply(run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("[" * 100_000)
    for command in ("classify", "timeline"):
        one_line(
            run(command, clip, "--labels-file", tmp_path / "labels.json", "--model", "nano"),
            2,
            "labels.json",
        )
    with pytest.raises(UsageError, match=r"labels\.json"):
        read_descriptions(tmp_path / "labels.json")
    (tmp_path / "data.jsonl").write_text("[" * 100_000 + "\n")
    one_line(run("evaluate", "--data", tmp_path / "data.jsonl", "--model", "nano"), 1, "data.jsonl")
