"""One value of a config changed: one line that names the file, in about the time of a good load,
and nothing allocated."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import froster
from froster.cli.common import parse_options
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.inference.loading import NANO
from froster.methods import METHODS, method_from_dict
from froster.training.fine_tune import student_of
from hf_folder import save_hf_folder

WRONG = [0, -1, 7.5, 128.0, "64", True, None, [], {}, 10**9, 10**30, float("inf"), float("nan")]


def refused(source: Path, match: str | None = None) -> None:
    began = time.process_time()
    with pytest.raises(CheckpointError, match=match) as caught:
        froster.load(source, device="cpu")
    assert (
        "\n" not in str(caught.value)
        and len(str(caught.value)) < 600
        and str(source) in str(caught.value)
    )
    assert time.process_time() - began < 2


def edited(config: Path, keys: tuple[str, ...], value: Any) -> None:
    values = json.loads(config.read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    config.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A froster folder and a Hugging Face folder."""
    nano = froster.load("nano", device="cpu")
    torch.manual_seed(0)
    clip = CLIP(
        CLIPConfig(
            VisionConfig(32, 16, 64, 2, 2), TextConfig(64, nano.tokenizer.vocab_size, 64, 2, 2), 64
        )
    )
    folder = tmp_path_factory.mktemp("models")
    save_hf_folder(clip, nano.tokenizer, folder / "hf")
    student_of(froster.load(folder / "hf", device="cpu"), METHODS["vclip"].make()).save(
        folder / "own"
    )
    return folder / "own", folder / "hf"


SIZES = [
    *(
        ("architecture", "vision", name)
        for name in ("image_size", "patch_size", "width", "layers", "heads")
    ),
    *(("architecture", "text", name) for name in ("context", "vocab", "width", "layers", "heads")),
    ("architecture", "embed_dim"),
]
HF_SIZES = [
    *(
        ("vision_config", n)
        for n in (
            "image_size",
            "patch_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
        )
    ),
    *(
        ("text_config", n)
        for n in ("max_position_embeddings", "vocab_size", "hidden_size", "num_hidden_layers")
    ),
    ("text_config", "num_attention_heads"),
    ("projection_dim",),
]


@pytest.mark.parametrize("keys", SIZES, ids=".".join)
def test_sizes_of_our_own_folder(
    keys: tuple[str, ...], tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    for value in [*WRONG, *([3, 7] if keys[-1] == "heads" else [])]:
        folder = shutil.copytree(tiny[0], tmp_path / "m", dirs_exist_ok=True)
        edited(folder / "config.json", keys, value)
        refused(folder, r"config\.json|model\.safetensors")


@pytest.mark.parametrize("keys", HF_SIZES, ids=".".join)
def test_sizes_of_a_hugging_face_folder(
    keys: tuple[str, ...], tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    for value in [*WRONG, *([3, 7] if "heads" in keys[-1] else [])]:
        folder = shutil.copytree(tiny[1], tmp_path / "m", dirs_exist_ok=True)
        edited(folder / "config.json", keys, value)
        refused(folder)


@pytest.mark.parametrize("value", WRONG)
def test_the_heads_of_an_open_clip_config(
    value: Any, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    clip = froster.load(tiny[1], device="cpu").clip
    official = {
        name.removeprefix("text."): tensor.contiguous()
        for name, tensor in clip.state_dict().items()
    }
    save_file(official, tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": {"vision_cfg": {"head_width": 64}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert froster.load(tmp_path, device="cpu").clip.config.vision.heads == 1
    edited(tmp_path / "open_clip_config.json", ("model_cfg", "vision_cfg", "head_width"), value)
    if value is True:  # one number a head: strange, and possible
        return
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json"):
        froster.load(tmp_path, device="cpu")


OPTIONS = [
    (name, field)
    for name in (
        "vclip",
        "actionclip",
        "xclip",
        "efficient-prompt",
        "text4vis",
        "aim",
        "st-adapter",
        "adaptformer",
        "stan",
        "lora",
    )
    for field in METHODS[name].__dataclass_fields__
    if isinstance(getattr(METHODS[name], field), (int, type(None)))
    and not isinstance(getattr(METHODS[name], field), bool)
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_options_of_a_method(
    name: str, option: str, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    """Counts, widths, ranks, frames: a file may not ask for more than its weights are."""
    base = froster.load(tiny[1], device="cpu")
    saved = student_of(base, METHODS[name].make(next(iter(METHODS[name].variants), None))).save(
        tmp_path / "m"
    )
    for value in (-1, 7.5, "64", True, [], 10**9, 10**5, 65536, float("inf")):
        edited(saved / "config.json", ("method", option), value)
        if option == "depth" and value == 65536:  # at most as many as the tower has
            continue
        refused(saved)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("views",), 0),
        (("views",), True),
        (("views",), 10**9),
        (("views",), "3"),
        (("sampling", "frames"), 0),
        (("sampling", "frames"), 8.5),
        (("sampling", "frames"), 10**9),
        (("sampling", "frames"), True),
        (("sampling", "frames"), None),
        (("sampling", "rate"), 10**400),
        (("sampling", "target_fps"), float("inf")),
        (("sampling", "target_fps"), "30"),
        (("fusion",), "banana"),
        (("fusion",), []),
        (("templates",), 5),
        (("templates",), [5]),
        (("method",), "vclip"),
        (("method", "name"), []),
        (("method", "name"), "banana"),
        (("architecture", "activation"), "relu"),
        (("architecture", "vision", "stem"), 1),
        (("architecture",), []),
    ],
)
def test_everything_else_of_our_own_folder(
    keys: tuple[str, ...], value: Any, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny[0], tmp_path / "m")
    edited(folder / "config.json", keys, value)
    refused(folder, r"config\.json")


def test_a_good_config_is_as_good_as_before(tiny: tuple[Path, Path]) -> None:
    own, hugging = (froster.load(folder, device="cpu") for folder in tiny)
    assert torch.equal(own.embed_text(["a cat"]), hugging.embed_text(["a cat"]))
    assert froster.load(NANO, device="cpu").config == froster.load("nano", device="cpu").config


def test_a_name_with_a_billion_in_it_makes_no_billion_layers(
    tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    """The head of a release is as long as the largest number in its names."""
    state = {
        name.removeprefix("text."): t
        for name, t in froster.load(tiny[1], device="cpu").clip.state_dict().items()
    }
    head = {"fusion_model.transformer.resblocks.999999999.ln_1.weight": torch.ones(64)}
    torch.save({"model_state_dict": {**state, **head}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "option", ["heads=7", "heads=-1", "layers=-1", "layers=1e999", "radius=65", "scale=NaN"]
)
def test_options_on_the_way_in(option: str) -> None:
    name = {"radius": "vclip", "scale": "aim"}.get(option.partition("=")[0], "actionclip")
    nano = froster.load("nano", device="cpu")
    with pytest.raises(UsageError):
        student_of(nano, method_from_dict({"name": name, **parse_options([option])}))


DEEP = "[" * 100_000
BROKEN = {
    "deep": DEEP.encode(),
    "deep object": b'{"a":' * 100_000,
    "empty": b"",
    "nul": b'{"a": "\0"}',
    "utf-16": '{"a": 1'.encode("utf-16"),
    "cut": b'{"format": "froster"',
    "long number": b'{"format": "froster", "views": ' + b"9" * 400 + b"}",
    "list": b"[]",
    "null": b"null",
    "not utf-8": b'{"format": "\xff"}',
    "a word": b"froster",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "calibration.json"])
def test_a_broken_file_of_a_model_folder(
    name: str, content: bytes, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    for source in tiny:
        folder = shutil.copytree(source, tmp_path / source.name)
        (folder / name).write_bytes(content)
        if name == "calibration.json" and source.name == "hf":
            continue
        try:  # a tokenizer that is not there is an error where a label is read
            model = froster.load(folder, device="cpu")
            assert name == "tokenizer.json"
            with pytest.raises(FrosterError, match="tokenizer"):
                model.embed_text(["a cat"])
        except CheckpointError as error:
            assert name in str(error) and "\n" not in str(error) and len(str(error)) < 600


def test_a_config_with_a_byte_order_mark_is_read(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    for source in tiny:
        folder = shutil.copytree(source, tmp_path / source.name)
        (folder / "config.json").write_bytes(
            b"\xef\xbb\xbf" + (source / "config.json").read_bytes()
        )
        assert (
            froster.load(folder, device="cpu").clip.config
            == froster.load(source, device="cpu").clip.config
        )


def test_weights_of_a_type_that_torch_has_not(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny[0], tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor.to(torch.uint8) for name, tensor in state.items()},
        folder / "model.safetensors",
    )
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data.replace(b'"U8"', b'"F4"'))
    refused(folder, r"model\.safetensors")
