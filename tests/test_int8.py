"""int8 is near the network that it was made of, whatever the method and however uneven its numbers,
through files and commands; where it is not, or cannot be, it says so in one line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

import froster
import froster.inference.int8
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.int8 import check_int8, modules_of
from froster.encoders.model import CLIP
from froster.encoders.vision import VisionTower
from froster.errors import CheckpointError, UsageError
from froster.inference.export import random_frames
from froster.inference.index import IndexSettings, index
from froster.inference.int8 import FILE, Int8, measure
from froster.inference.recognizer import Recognizer, load
from froster.methods.base import plain
from shared_files import World
from test_export import recognizer_of
from test_methods import T
from typed import one_line


def _reason() -> str:
    try:
        check_int8()
    except UsageError as error:
        return str(error)
    return ""


pytestmark = [
    pytest.mark.usefixtures("unchecked_shapes"),
    pytest.mark.skipif(bool(_reason()), reason=_reason() or "-"),
]
LABELS = "cat spinning, key pacing, moon glowing"


def distance(recognizer: Recognizer, dtype: torch.dtype = torch.float32) -> tuple[float, int]:
    """The largest 1 - cosine of frames that nothing was measured on, and the ranges there are."""
    clips = random_frames(4, T, recognizer.image_size).split(2)
    int8 = Int8(measure(recognizer, clips[:1])[0])
    recognizer.dtype = torch.float32
    with torch.no_grad():
        exact = recognizer.encode_clips(clips[1]).video
        recognizer.runtime, recognizer.dtype = int8, dtype
        near = recognizer.encode_clips(clips[1]).video
    return 1 - float(cosine_similarity(near.float(), exact).min()), len(int8.ranges)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("finetuned", "both"),
        ("vclip", "step1"),
        ("vclip", "mask"),
        ("lora", "r16-qkvo"),
        ("aim", "official"),
        ("xclip", "full"),
        ("stan", "third"),
        ("actionclip", "lstm"),
    ],
)
def test_every_method_is_near_its_network(name: str, variant: str, dtype: torch.dtype) -> None:
    """Two products a block, and the activation, are computed anew: of its own steps none is lost."""
    recognizer = recognizer_of(name, variant)
    far, ranges = distance(recognizer, dtype)
    assert far < 2e-3
    count = sum(1 for _ in modules_of(plain(recognizer.model).clip.visual))
    assert ranges > count  # of perceptrons both layers
    assert recognizer.inference is not recognizer.model


def tower(**changes: object) -> Recognizer:
    nano = load("nano", device="cpu")
    torch.manual_seed(0)
    vision = VisionConfig(32, 8, 128, 2, 2, **changes)  # type: ignore[arg-type]
    clip = CLIP(CLIPConfig(vision, TextConfig(77, nano.tokenizer.vocab_size, 64, 1, 1), 64))
    model = nano.config.method.build(clip)
    return Recognizer(model, nano.tokenizer, nano.config, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "changes",
    [{"activation": "gelu"}, {"activation": "gelu_tanh", "pool": "map"}, {"pool": "mean"}],
    ids=str,
)
def test_every_tower_is_near(changes: dict) -> None:
    assert distance(tower(**changes))[0] < 2e-3


def uneven_channels(visual: VisionTower) -> None:
    """As in a trained CLIP: a few channels of what the products are given are much larger."""
    for block in visual.transformer.blocks():
        for norm in (block.ln_1, block.ln_2):
            norm.weight[:3] *= 30
            norm.bias[3:6] += 20


def uneven_tokens(visual: VisionTower) -> None:
    """A hidden unit is huge for a few tokens, and nothing for the others."""
    mlp = visual.transformer.blocks()[0].mlp
    mlp.c_fc.weight[0] *= 2000
    mlp.c_fc.bias[0] -= 2000


@pytest.mark.parametrize(
    ("plant", "missing"), [(uneven_channels, 0), (uneven_tokens, 1)], ids=["channels", "tokens"]
)
@torch.no_grad()
def test_uneven_numbers_do_not_drown_the_others(
    plant: Callable[[VisionTower], None], missing: int
) -> None:
    recognizer = recognizer_of("finetuned")
    even = distance(recognizer)[1]
    plant(recognizer.clip.visual)
    recognizer = recognizer.with_network(recognizer.model, recognizer.config)
    far, ranges = distance(recognizer)
    assert far < 5e-3
    assert ranges == even - missing  # that second layer is left in bfloat16


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    world = World("base", 1)
    for number in range(6):
        world.write(number, folder / f"{number}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def exported(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from froster.data.listing import list_videos
    from froster.inference.int8 import export_int8

    folder = tmp_path_factory.mktemp("int8") / "out"
    nano = load("nano", device="cpu", precision="float32")
    export_int8(nano, folder, list_videos([videos]), LABELS.split(", "))
    return folder


def test_the_way_through_commands(run, videos: Path, tmp_path: Path) -> None:
    """Export, classify by it and without it: the same answers, of scores that are near and are not
    the same."""
    out, clips = tmp_path / "out", [videos / f"{number}.mp4" for number in range(3)]
    ask = ("export", "--model", "nano", "--to", "int8", "--out", out)
    result = run(*ask, "--labels", LABELS, "--videos", videos)
    assert result.code == 0, result.err
    words = " ".join(result.err.split())
    assert "6 of 6 parts of the image tower in int8, measured on 3 videos" in words
    assert "on 3 others the best label is float32's in" in words
    about = json.loads((out / "export.json").read_text())
    assert 0 < about["cosine_difference"]["largest"] < 1e-3
    classify = ("classify", *clips, "--model", "nano", "--labels", LABELS, "--json")
    plain, near = run(*classify).json, run(*classify, "--runtime", out).json
    for one, other in zip(plain["results"], near["results"], strict=True):
        assert one["answer"] == other["answer"]
        first, second = (x["scores"][0]["probability"] for x in (one, other))
        assert 0 < abs(first - second) < 0.05


def test_what_is_read_is_what_was_measured(exported: Path, videos: Path) -> None:
    """By Python too; the text is the model's own, and another device takes the model without it."""
    model = load("nano", device="cpu", runtime=exported)
    assert "in int8 and" in model.summary("nano")
    plain = load("nano", device="cpu")
    assert torch.equal(model.embed_text(["a cat"]), plain.embed_text(["a cat"]))
    first, second = (x.embed_video(videos / "0.mp4") for x in (model, plain))
    assert not torch.equal(first, second)
    assert cosine_similarity(first, second, dim=0) > 0.999
    model.runtime = None
    assert torch.equal(model.embed_video(videos / "0.mp4"), second)


def test_an_index_is_of_one_kind(exported: Path, videos: Path, tmp_path: Path) -> None:
    """But a text may be looked for in either: it has no part in int8."""
    pytest.importorskip("lance")
    model, plain = load("nano", device="cpu", runtime=exported), load("nano", device="cpu")
    index(model, [videos / "0.mp4"], tmp_path / "index", settings=IndexSettings())
    with pytest.raises(UsageError, match="was made with a --runtime"):
        index(plain, [videos / "1.mp4"], tmp_path / "index")
    index(model, [videos / "1.mp4"], tmp_path / "index")
    assert froster.search(tmp_path / "index", "a cat", model=plain).hits
    index(plain, [videos / "0.mp4"], tmp_path / "plain")
    with pytest.raises(UsageError, match="was made without --runtime"):
        index(model, [videos / "1.mp4"], tmp_path / "plain")


def damaged(exported: Path, folder: Path, file: str, content: bytes | None) -> Path:
    folder.mkdir()
    for name in (FILE, "export.json"):
        (folder / name).write_bytes((exported / name).read_bytes())
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    return folder


def test_mistakes(
    run, exported: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ("classify", videos / "0.mp4", "--labels", LABELS, "--model", "nano", "--runtime")
    one_line(run(*ask, tmp_path / "no"), 1, "export.json")
    half = (exported / FILE).read_bytes()[:99]
    for number, (file, content) in enumerate(
        [(FILE, None), (FILE, half), ("export.json", None), ("export.json", b"{")]
    ):
        one_line(run(*ask, damaged(exported, tmp_path / str(number), file, content)), 1, file)
    one_line(run(*ask, exported, "--merge-tokens", 2), 2, "do not go together")
    one_line(run(*ask, exported, "--transport"), 2, "int8 was compared without")
    other = damaged(exported, tmp_path / "onnx", "export.json", b'{"runtime": "onnx"}')
    one_line(run(*ask, other), 1, "no export to int8")
    nano, another = load("nano", device="cpu"), recognizer_of("finetuned")
    with pytest.raises(CheckpointError, match="another model"):
        another.use_runtime(exported)
    merging = load("nano", device="cpu", runtime=exported)
    merging.merge_tokens = 2
    with pytest.raises(UsageError, match="do not go together"):
        _ = merging.inference
    with pytest.raises(CheckpointError, match="those of another network"):
        Int8({"transformer.none.attn": torch.ones(2, 4)}).network(nano.model, torch.float32)
    export = ("export", "--model", "nano", "--to", "int8", "--out", tmp_path / "out")
    one_line(run(*export), 2, "--videos")
    one_line(run(*export, "--videos", videos), 2, "--labels")
    one_line(run(*export, "--labels", "a cat", "--videos", videos), 2, "two labels or more")
    one_line(run(*export, "--labels", LABELS, "--videos", videos / "0.mp4"), 2, "two or more")
    monkeypatch.setattr(froster.inference.int8, "LARGEST_DIFFERENCE", 1e-9)
    one_line(run(*export, "--labels", LABELS, "--videos", videos), 1, "int8 differs", "nothing")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    one_line(run(*export, "--labels", LABELS, "--videos", videos), 2, "AVX512-VNNI or AMX")
    one_line(run(*ask, exported), 2, "AVX512-VNNI or AMX")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["trained", "loaded for inference"])
@torch.no_grad()
def test_weights_that_may_change_unseen_are_int8_too(how: str) -> None:
    with torch.inference_mode(how == "loaded for inference"):
        recognizer = recognizer_of("finetuned")
    recognizer.model.requires_grad_(how == "trained")
    clips = random_frames(1, T, recognizer.image_size)
    exact = recognizer.encode_clips(clips).video
    recognizer.runtime = Int8(measure(recognizer, [clips])[0])
    near = recognizer.encode_clips(clips).video
    assert not torch.equal(near, exact)
    assert cosine_similarity(near, exact).min() > 0.99


def test_another_machine_that_cannot_says_so(
    exported: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an actor of a cluster takes the model to: in our words and not in oneDNN's, and on a
    GPU not in another precision unasked."""
    sent = pickle.dumps(load("nano", device="cpu", runtime=exported))
    assert "in int8 and" in pickle.loads(sent).summary("nano")
    with pytest.raises(UsageError, match="for the CPU"):
        pickle.loads(sent).on(torch.device("meta"))
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(UsageError, match="AVX512-VNNI or AMX"):
        pickle.loads(sent).embed_video(videos / "0.mp4")


def test_a_served_model_says_that_it_is_int8(
    run, exported: Path, videos: Path, tmp_path: Path
) -> None:
    """Of two models both are; a second one that the ranges do not fit is refused by its name."""
    pytest.importorskip("fastapi", reason="the server needs froster-video[web]")
    from server import serving

    quick, plain = load("nano", device="cpu", runtime=exported), load("nano", device="cpu")
    with serving(quick, plain) as (client, _):
        models = client.get("/healthz").json()["models"]
    assert [model["int8"] for model in models] == [True, False]
    recognizer_of("finetuned").save(tmp_path / "other")
    ask = ("serve", "--model", "nano", "--compare", tmp_path / "other", "--port", "0")
    one_line(run(*ask, "--runtime", exported), 1, "another model than", "other")


def test_a_chip_without_amx_says_the_same(exported: Path, videos: Path) -> None:
    """oneDNN is told to do without, before it is asked for the first time."""
    code = (
        "import sys, froster; model = froster.load('nano', device='cpu', precision='float32',"
        " runtime=sys.argv[1]); print(model.embed_video(sys.argv[2]).tolist())"
    )
    without = subprocess.run(
        [sys.executable, "-c", code, exported, videos / "0.mp4"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
        capture_output=True,
        text=True,
        check=True,
    )
    second = torch.tensor(json.loads(without.stdout))
    model = froster.load("nano", device="cpu", precision="float32", runtime=str(exported))
    first = model.embed_video(str(videos / "0.mp4"))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
