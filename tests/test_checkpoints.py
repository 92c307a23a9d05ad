"""Weights from elsewhere: every format gives the reference's outputs, and nothing wrong or harmful
is let in."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from froster.encoders.checkpoints import (
    architecture_from_state_dict,
    from_official,
    load_clip,
    strict_load,
    to_official,
)
from froster.encoders.config import ARCHITECTURES, CLIPConfig, TextConfig, VisionConfig
from froster.encoders.hf_config import config_from_hf
from froster.encoders.hf_names import hf_names
from froster.encoders.model import CLIP
from froster.encoders.tokenizer import Tokenizer
from froster.errors import CheckpointError, FrosterError, UsageError
from golden import clip_from, close, golden, part
from hf_folder import config_to_hf, save_hf_folder
from test_tokenizer import small_vocabulary

TINY = CLIPConfig(VisionConfig(32, 8, 128, 2, 2), TextConfig(16, 512 + 6, 64, 2, 1), embed_dim=48)
# OpenAI's archives stay what they are, however torch calls the tool that wrote them.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
Write = Callable[[dict[str, Tensor], Path], Path]


@pytest.fixture
def clip() -> CLIP:
    """Tiny, with nothing at zero, so that a swapped or transposed weight shows."""
    torch.manual_seed(0)
    clip = CLIP(TINY)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return clip


def official(clip: CLIP) -> dict[str, Tensor]:
    return {
        to_official(name): tensor.detach().clone() for name, tensor in clip.state_dict().items()
    }


def inputs(config: CLIPConfig) -> tuple[Tensor, Tensor]:
    """Images (2, 3, H, W) and rows of tokens with the end token at different places."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(
        2, 3, config.vision.image_size, config.vision.image_size, generator=generator
    )
    tokens = torch.randint(1, config.text.vocab - 2, (3, config.text.context), generator=generator)
    for row, end in enumerate((2, 7, config.text.context - 1)):
        tokens[row, end:] = 0
        tokens[row, end] = config.text.vocab - 1
    return images, tokens


@torch.no_grad()
def outputs(clip: CLIP) -> tuple[Tensor, Tensor]:
    images, tokens = inputs(clip.config)
    return clip.encode_image(images[:, None])[:, 0], clip.encode_text(tokens)


def same_outputs(found: CLIP, expected: CLIP, atol: float = 1e-6) -> None:
    for mine, theirs in zip(outputs(found), outputs(expected), strict=True):
        torch.testing.assert_close(mine, theirs, atol=atol, rtol=0)
    assert all(
        p.dtype == torch.float32 and p.requires_grad and not p.is_meta for p in found.parameters()
    )


# The reference implementations


def test_the_official_clip_of_the_golden_file() -> None:
    tensors = golden("clip_plain")
    clip = clip_from(part(tensors, "weights/"))
    with torch.no_grad():
        close(clip.encode_image(tensors["input/frames"]), tensors["output/frame_emb"])
        close(clip.encode_text(tensors["input/tokens"]), tensors["output/text_emb"])


def hugging_face(config: CLIPConfig) -> Any:
    transformers = pytest.importorskip("transformers")
    values = config_to_hf(config)
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=values["text_config"],
            vision_config=values["vision_config"],
            projection_dim=config.embed_dim,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


@torch.no_grad()
def same_as_hugging_face(clip: CLIP, model: Any, atol: float) -> None:
    images, tokens = inputs(clip.config)
    mine = outputs(clip)
    theirs = (model.get_image_features(images), model.get_text_features(tokens))
    for ours, other in zip(mine, theirs, strict=True):
        other = other if isinstance(other, Tensor) else other.pooler_output
        torch.testing.assert_close(ours, other, atol=atol, rtol=0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_hugging_face_folder(activation: Any, tmp_path: Path) -> None:
    model = hugging_face(dataclasses.replace(TINY, activation=activation))
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    buffer = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    torch.save(model.state_dict() | buffer, tmp_path / "old" / "pytorch_model.bin")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for source in (*tmp_path.iterdir(), tmp_path / "whole" / "model.safetensors"):
        clip, report = load_clip(source)
        assert (report.format, report.method) == ("huggingface", "frozen")
        assert report.ignored == (list(buffer) if source.name == "old" else [])
        assert clip.config.activation == activation
        same_as_hugging_face(clip, model, atol=1e-5)


@pytest.mark.slow
def test_a_whole_vit_b_16_with_random_weights(tmp_path: Path) -> None:
    """About ten seconds, 1.5 GB of memory and 600 MB of disk."""
    model = hugging_face(ARCHITECTURES["ViT-B/16"])
    model.save_pretrained(tmp_path)
    clip, _ = load_clip(tmp_path)
    assert clip.config == ARCHITECTURES["ViT-B/16"]
    same_as_hugging_face(clip, model, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_and_shapes_of_the_released_sizes(name: str) -> None:
    """On the meta device: against Hugging Face's own modules, and back from the weights to the
    sizes."""
    transformers = pytest.importorskip("transformers")
    config = ARCHITECTURES[name]
    with torch.device("meta"):
        clip, model = (
            CLIP(config),
            transformers.CLIPModel(transformers.CLIPConfig(**config_to_hf(config))),
        )
    theirs = {
        key: tensor.shape for key, tensor in model.state_dict().items() if "position_ids" not in key
    }
    ours = {key: tensor.shape for key, tensor in clip.state_dict().items()}
    names = dict(hf_names(config))
    assert names.keys() == ours.keys()
    assert sorted(key for parts in names.values() for key in parts) == sorted(theirs)
    for key, parts in names.items():
        shape = ours[key][::-1] if key in ("visual.proj", "text.text_projection") else ours[key]
        assert sum(theirs[part].numel() for part in parts) == shape.numel()
        assert theirs[parts[0]][1:] == shape[1:]
    assert (
        architecture_from_state_dict({to_official(k): t for k, t in clip.state_dict().items()})
        == config
    )
    assert config_from_hf(config_to_hf(config)) == config


def test_what_a_hugging_face_config_leaves_out_has_its_default() -> None:
    assert config_from_hf({"model_type": "clip"}) == ARCHITECTURES["ViT-B/32"]


# Every format, written tiny


class Tree(nn.Module):
    """A module whose state dict has the given names, to be scripted."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        for child in sorted({name.split(".")[0] for name in state if "." in name}):
            prefix = f"{child}."
            inner = {
                name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)
            }
            setattr(self, child, Tree(inner))
        for name, tensor in state.items():
            if "." not in name and tensor.is_floating_point():
                setattr(self, name, nn.Parameter(tensor))
            elif "." not in name:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x


SIZES = {
    "input_resolution": torch.tensor(32),
    "context_length": torch.tensor(16),
    "vocab_size": torch.tensor(518),
}


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def write_torchscript(state: dict[str, Tensor], folder: Path) -> Path:
    torch.jit.save(torch.jit.script(Tree(half(state) | SIZES)), folder / "ViT.pt")
    return folder / "ViT.pt"


def write_plain(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state | SIZES, folder / "ViT.pt")
    return folder / "ViT.pt"


def write_legacy_pickle(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "ViT.pt", _use_new_zipfile_serialization=False)
    return folder / "ViT.pt"


def write_released(state: dict[str, Tensor], folder: Path) -> Path:
    weights = {f"model.{name}": tensor for name, tensor in state.items()}
    weights |= {f"raw_model.{name}": torch.zeros(1) for name in state}
    weights |= {f"projector_{tower}.0.weight": torch.zeros(2, 2) for tower in "vt"}
    content = {
        "epoch": 3,
        "model_state": weights,
        "optimizer_state": {"state": {}},
        "cfg": "TRAIN: true",
    }
    torch.save(content, folder / "froster.pyth")
    return folder / "froster.pyth"


@pytest.mark.parametrize("write", [write_torchscript, write_plain, write_legacy_pickle])
def test_openai_files(write: Write, clip: CLIP, tmp_path: Path) -> None:
    found, report = load_clip(write(official(clip), tmp_path))
    assert (report.format, report.method) == ("openai", "frozen")
    assert set(report.ignored) == (set() if write is write_legacy_pickle else set(SIZES))
    assert found.config == TINY
    if write is write_torchscript:
        clip = clip.half().float()
    same_outputs(found, clip)


def test_a_traced_archive_with_masks_and_constants(clip: CLIP, tmp_path: Path) -> None:
    tree = Tree(official(clip))
    tree.transformer.resblocks.attn_mask = torch.zeros(2, 2)  # type: ignore[union-attr]  # no parameter, no buffer
    torch.jit.save(torch.jit.trace(tree, torch.zeros(1)), tmp_path / "ViT.pt")
    same_outputs(load_clip(tmp_path / "ViT.pt")[0], clip)


def test_released_froster_and_open_vclip(clip: CLIP, tmp_path: Path) -> None:
    found, report = load_clip(write_released(official(clip), tmp_path))
    assert (report.format, report.method) == ("froster-released", "vclip")
    assert {name.split(".")[0] for name in report.ignored} == {
        "raw_model",
        "projector_v",
        "projector_t",
    }
    same_outputs(found, clip)


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("config", [None, {"quick_gelu": True}, {}])
def test_open_clip_files(
    config: dict[str, Any] | None, custom_text: bool, clip: CLIP, tmp_path: Path
) -> None:
    state = official(clip) | {"attn_mask": torch.zeros(16, 16)}
    if custom_text:
        state = {from_official(name): tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    if config is not None:
        values = {"model_cfg": {"vision_cfg": {"width": 128}, **config}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(values))
    activation = "quick_gelu" if config else "gelu"
    expected = CLIP(dataclasses.replace(TINY, activation=activation))
    strict_load(expected, clip.state_dict())
    for source in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        found, report = load_clip(source)
        assert report.format == "open_clip"
        assert bool(report.notes) == (config is None)
        assert found.config.activation == activation
        same_outputs(found, expected)


def test_an_open_clip_training_checkpoint(clip: CLIP, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in official(clip).items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "epoch_1.pt")
    found, report = load_clip(tmp_path / "epoch_1.pt")
    assert (report.format, found.config.activation) == ("open_clip", "gelu")


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("nest", [None, "net", "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "model.", "module.", "module.model.", "model.module.", "clip.", "model.clip."),
        *("_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod."),
    ],
)
def test_what_a_training_loop_wraps_round_a_clip(
    nest: str | None, prefix: str, clip: CLIP, tmp_path: Path
) -> None:
    state = under(prefix, official(clip) | SIZES)
    torch.save({nest: state, "epoch": 1} if nest else state, tmp_path / "run.pt")
    found, report = load_clip(tmp_path / "run.pt")
    assert report.method == "frozen"
    for name, tensor in clip.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_mean_that_pytorch_has_taken_of_a_clip(clip: CLIP, tmp_path: Path) -> None:
    state = torch.optim.swa_utils.AveragedModel(torch.nn.ParameterDict()).state_dict()
    torch.save(state | under("module.", official(clip)), tmp_path / "swa.pt")
    found, report = load_clip(tmp_path / "swa.pt")
    assert report.ignored == ["n_averaged"]
    same_outputs(found, clip)


@pytest.mark.parametrize("other", ["teacher.visual.proj", "visual.proj", "head.weight"])
def test_weights_beside_those_of_a_wrapped_clip_are_refused(
    other: str, clip: CLIP, tmp_path: Path
) -> None:
    torch.save(
        {"net": under("model.", official(clip)) | {other: torch.zeros(2, 2)}}, tmp_path / "run.pt"
    )
    with pytest.raises(CheckpointError, match=r"run\.pt"):
        load_clip(tmp_path / "run.pt")


def test_heads_that_the_weights_do_not_tell_must_be_told(tmp_path: Path) -> None:
    wide = CLIP(CLIPConfig(VisionConfig(16, 8, 1280, 1, 16), TINY.text, 48, "gelu"))
    save_file(official(wide), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json"):
        load_clip(tmp_path)
    values = {"model_cfg": {"vision_cfg": {"head_width": 80}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(values))
    same_outputs(load_clip(tmp_path)[0], wide)


# Saving as Hugging Face does


def test_a_saved_hugging_face_folder_loads_there_and_here(clip: CLIP, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vocab, merges = small_vocabulary()
    tokenizer = Tokenizer.build(vocab, merges)
    assert tokenizer.vocab_size == TINY.text.vocab
    save_hf_folder(clip, tokenizer, tmp_path / "hf")
    same_as_hugging_face(
        clip, transformers.CLIPModel.from_pretrained(tmp_path / "hf").eval(), atol=1e-5
    )
    found, _ = load_clip(tmp_path / "hf")
    assert found.config == TINY
    same_outputs(found, clip)

    text = "Archery, in a ring"
    expected = [tokenizer.start, *tokenizer.encode(text), tokenizer.end]
    assert (
        transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")(text)["input_ids"] == expected
    )
    assert Tokenizer.find(tmp_path / "hf").encode(text) == tokenizer.encode(text)
    assert (
        transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf").crop_size["height"] == 32
    )


def test_what_is_no_plain_clip_is_not_saved_as_one(clip: CLIP, tmp_path: Path) -> None:
    tokenizer = Tokenizer.build(*small_vocabulary())
    stem = CLIP(CLIPConfig(VisionConfig(24, 12, 64, 1, 1, stem=True), TINY.text, 48))
    with pytest.raises(UsageError, match="convolutional stem"):
        save_hf_folder(stem, tokenizer, tmp_path / "hf")
    clip.visual.adapter = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"2 weights.*visual\.adapter\.bias"):
        save_hf_folder(clip, tokenizer, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


# Strictness and safety


def test_keys_and_shapes_that_do_not_fit_are_named(clip: CLIP) -> None:
    state = clip.state_dict()
    del state["visual.proj"]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(5)}
    state["logit_scale"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as caught:
        strict_load(CLIP(TINY), state)
    message = str(caught.value)
    assert "1 missing (visual.proj)" in message
    assert "5 unexpected (extra.0, extra.1, extra.2, …)" in message
    assert "1 of another shape (logit_scale (2,) instead of ())" in message


@pytest.mark.parametrize("write", [write_torchscript, write_plain, write_released])
def test_a_file_with_a_missing_or_unknown_weight_is_refused(
    write: Write, clip: CLIP, tmp_path: Path
) -> None:
    state = official(clip)
    with pytest.raises(
        CheckpointError, match=r"ViT\.pt|froster\.pyth.*unexpected \(visual\.adapter"
    ):
        load_clip(write(state | {"visual.adapter": torch.zeros(1)}, tmp_path))
    del state["ln_final.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing \(text\.ln_final\.bias\)"):
        load_clip(write(state, tmp_path))


class Bomb:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


class WritesOnLoad(nn.Module):
    """TorchScript that creates a file when `torch.jit.load` restores it."""

    def __init__(self, path: str):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        self.path = state[1]
        self.training = state[2]
        self.weight = state[0] + torch.from_file(state[1], True, 2, dtype=torch.float32)


def one_line(source: str | Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load_clip(source)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_file_is_run(clip: CLIP, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "bomb.pt"
    for zipped in (True, False):
        torch.save({"weights": Bomb(trap)}, path, _use_new_zipfile_serialization=zipped)
        one_line(path, r"bomb\.pt.*only tensors are loaded")

    torch.jit.save(torch.jit.script(WritesOnLoad(str(trap))), path)
    trap.unlink(missing_ok=True)  # scripting may have run it
    one_line(path, r"bomb\.pt")
    assert not trap.exists()
    torch.jit.load(path)
    assert trap.exists(), "the trap works"
    trap.unlink()

    import pickle
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Bomb(trap), protocol=2))
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/code/__torch__.py", "")
    one_line(path, r"bomb\.pt")
    assert not trap.exists()


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("write", [write_torchscript, write_plain, write_legacy_pickle])
def test_a_cut_off_file_is_named(write: Write, share: float, clip: CLIP, tmp_path: Path) -> None:
    path = write(official(clip), tmp_path)
    cut(path, share)
    one_line(path, r"ViT\.pt")


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.999])
def test_a_cut_off_hugging_face_folder_is_named(share: float, clip: CLIP, tmp_path: Path) -> None:
    save_hf_folder(clip, Tokenizer.build(*small_vocabulary()), tmp_path / "hf")
    cut(tmp_path / "hf" / "model.safetensors", share)
    one_line(tmp_path / "hf", r"model\.safetensors: not a whole")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.pt", b"", "empty"),
        ("a.safetensors", b"", "empty"),
        ("a.pt", b"these are not weights", "neither safetensors nor"),
        ("a.safetensors", b"these are not weights", "not a whole safetensors file"),
        ("a.safetensors", struct.pack("<Q", 2**60) + b"{}", "not a whole safetensors file"),
        ("config.json", b"{", r"config\.json: not a readable"),
        ("config.json", b"[]", r"config\.json: not a readable"),
        ("config.json", b'{"model_type": "flava"}', r"config\.json: its config is of type 'flava'"),
        ("config.json", b'{"format": "froster"}', "a froster model"),
        ("config.json", b'{"model_type": "clip"}', r"no model\.safetensors"),
        ("other.txt", b"", r"no config\.json"),
    ],
)
def test_what_is_no_model_is_named(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    one_line(tmp_path if name.endswith(("json", "txt")) else tmp_path / name, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vision_config": {"intermediate_size": 0}}, "intermediate_size is 0"),
        ({"vision_config": {"num_channels": 1}}, "num_channels is 1"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
        ({"text_config": {"eos_token_id": 7}}, "eos_token_id is 7"),
    ],
)
def test_a_clip_that_ours_cannot_be_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        config_from_hf({"model_type": "clip", **change})


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"layer.weight": torch.zeros(2, 2)}, r"no CLIP.*visual\.conv1\.weight"),
        ({"epoch": 3}, "found also epoch"),
        ([torch.zeros(1)], "found list"),
        ({"model_state": {}}, "expected a dictionary"),
    ],
)
def test_weights_of_something_else_are_named(state: Any, match: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pt")
    one_line(tmp_path / "a.pt", r"a\.pt.*" + match)


def test_a_resnet_clip_is_refused(clip: CLIP, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in official(clip).items() if "positional" not in name}
    torch.save(
        state | {"visual.attnpool.positional_embedding": torch.zeros(50, 64)}, tmp_path / "RN50.pt"
    )
    one_line(tmp_path / "RN50.pt", "no CLIP with a vision transformer")


@pytest.mark.parametrize("source", ["missing.pt", "/no/such/folder", "a/b/c", "some.safetensors"])
def test_a_missing_path_is_no_hub_id(source: str) -> None:
    one_line(source, "no such file or folder")


def test_an_unreachable_hub_says_how_else_to_get_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        FrosterError, match=r"openai/x .*ConnectionError.*pass the folder, or use --model nano"
    ) as caught:
        load_clip("openai/x")
    assert "\n" not in str(caught.value)


def test_loaded_weights_are_saved_again_unchanged(clip: CLIP, tmp_path: Path) -> None:
    """Weights taken over from a memory-mapped file must outlive a later write to the same place."""
    tokenizer = Tokenizer.build(*small_vocabulary())
    save_hf_folder(clip, tokenizer, tmp_path / "hf")
    first = load_file(tmp_path / "hf" / "model.safetensors")
    found, _ = load_clip(tmp_path / "hf")
    save_hf_folder(found, tokenizer, tmp_path / "hf")
    second = load_file(tmp_path / "hf" / "model.safetensors")
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
