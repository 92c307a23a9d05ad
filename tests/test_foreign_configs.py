"""What a foreign config says and froster does not know is refused by name, by whatever way the
config is found."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import froster
from froster.encoders.checkpoints import from_official, load_clip, strict_load, to_official
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.hf_config import config_from_hf
from froster.encoders.model import CLIP
from froster.errors import CheckpointError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import VCLIP
from hf_folder import config_to_hf, save_hf_folder
from test_checkpoints import outputs, same_outputs

NANO = froster.load("nano", device="cpu")
TINY = CLIPConfig(
    VisionConfig(32, 8, 128, 2, 2),
    TextConfig(64, NANO.tokenizer.vocab_size, 64, 2, 1),
    embed_dim=48,
)
SAYS = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
    "text_cfg": {
        "context_length": 64,
        "vocab_size": TINY.text.vocab,
        "width": 64,
        "heads": 1,
        "layers": 2,
    },
}


@pytest.fixture
def clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(dataclasses.replace(TINY, activation="gelu"))


def official(clip: CLIP) -> dict[str, Tensor]:
    return {
        to_official(name): tensor.detach().clone() for name, tensor in clip.state_dict().items()
    }


def open_clip_folder(folder: Path, clip: CLIP, model_cfg: dict[str, Any], **others: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(official(clip), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, **others}))
    return folder


def with_(part: str, **more: Any) -> dict[str, Any]:
    return {**SAYS, **more} if part == "model_cfg" else {**SAYS, part: {**SAYS[part], **more}}  # type: ignore[dict-item]


def refused(source: Path, *words: str) -> str:
    for load in (load_clip, froster.load):
        with pytest.raises(CheckpointError) as caught:
            load(source)
        message = str(caught.value)
        assert "\n" not in message and str(source) in message
        for word in words:
            assert word in message, message
    return message


STRANGE = [
    ("text_cfg", "pool_type", "first"),
    ("text_cfg", "no_causal_mask", "yes"),
    ("vision_cfg", "timm_pool", "map"),
    ("vision_cfg", "timm_proj", "none"),
    ("vision_cfg", "timm_proj_bias", True),
    ("text_cfg", "hf_model_name", "xlm-roberta-base"),
    ("text_cfg", "hf_pooler_type", "cls_pooler"),
    ("text_cfg", "norm_kwargs", {"eps": 1e-6, "bias": False}),
    ("vision_cfg", "act_kwargs", {"approximate": "erf"}),
    ("vision_cfg", "ls_init_value", 0.1),
    ("vision_cfg", "attentional_pool", True),
    ("text_cfg", "embed_cls", True),
    ("text_cfg", "eos_id", 49407),
    ("text_cfg", "pad_id", 1),
    ("vision_cfg", "pool_type", "avg"),
    ("vision_cfg", "pos_embed_type", "sin_cos_2d"),
    ("vision_cfg", "qk_norm", True),
    ("text_cfg", "proj_type", "none"),
    ("text_cfg", "tokenizer_kwargs", {"clean": "upper"}),
    ("model_cfg", "multimodal_cfg", {"width": 64}),
    ("vision_cfg", "something_new", 3),
    ("model_cfg", "audio_cfg", {"a": 1}),
]


@pytest.mark.parametrize(("part", "key", "value"), STRANGE)
def test_open_clip_configs(part: str, key: str, value: Any, clip: CLIP, tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "m", clip, with_(part, **{key: value}))
    message = refused(folder, f"{part}.{key} is {value!r:.60}", "open_clip_config.json")
    with pytest.raises(CheckpointError) as caught:
        load_clip(folder / "open_clip_model.safetensors")
    assert (
        f"{part}.{key} is" in str(caught.value)
        and "froster's CLIP cannot be this network" in message
    )
    torch.save(official(clip), folder / "any name.pt")
    with pytest.raises(CheckpointError) as caught:
        load_clip(folder / "any name.pt")
    assert f"{part}.{key} is" in str(caught.value)


def test_all_that_is_strange_is_named_together(clip: CLIP, tmp_path: Path) -> None:
    said = with_(
        "text_cfg",
        pool_type="first",
        no_causal_mask=None,
        embed_cls=True,
        norm_kwargs={"bias": False},
        proj_type="none",
        pad_id=1,
    )
    refused(open_clip_folder(tmp_path / "m", clip, said), "embed_cls", "pad_id", "and 1 more")
    refused(
        open_clip_folder(tmp_path / "n", clip, SAYS, extra_cfg={"a": 1}), "extra_cfg is {'a': 1}"
    )
    refused(
        open_clip_folder(tmp_path / "o", clip, SAYS, preprocess_cfg={"resize_mode": "tiles"}),
        "resize is 'tiles'",
    )


def test_neutral_values_and_what_does_not_matter(clip: CLIP, tmp_path: Path) -> None:
    said = {
        **SAYS,
        "quick_gelu": False,
        "custom_text": False,
        "init_logit_scale": 2.6,
        "init_logit_bias": None,
        "nonscalar_logit_scale": False,
        "vision_cfg": {
            **SAYS["vision_cfg"],
            "pool_type": "tok",
            "mlp_ratio": 4,
            "timm_model_name": None,
            "head_width": 64,
            "ls_init_value": None,
            "patch_dropout": 0.0,
            "output_tokens": True,
            "norm_kwargs": {},
        },
        "text_cfg": {
            **SAYS["text_cfg"],
            "pool_type": "argmax",
            "no_causal_mask": False,
            "eos_id": 2,
            "pad_id": 0,
            "embed_cls": False,
            "proj_bias": False,
            "hf_model_name": None,
        },
    }
    found, report = load_clip(open_clip_folder(tmp_path / "m", clip, said))
    assert report.notes == []
    same_outputs(found, clip)


@pytest.mark.parametrize(
    ("part", "key", "value", "there"),
    [
        ("vision_cfg", "layers", 12, "2"),
        ("vision_cfg", "width", 768, "128"),
        ("vision_cfg", "patch_size", 16, "8"),
        ("vision_cfg", "image_size", 224, "4² patches"),
        ("vision_cfg", "image_size", [32, 64], "4² patches"),
        ("text_cfg", "vocab_size", 7, str(TINY.text.vocab)),
        ("text_cfg", "context_length", 32, "64"),
        ("text_cfg", "layers", 3, "2"),
        ("text_cfg", "width", 32, "64"),
        ("model_cfg", "embed_dim", 512, "48"),
        ("vision_cfg", "head_width", 0, "width of 128"),
        ("text_cfg", "heads", 5, "width of 64"),
        ("vision_cfg", "mlp_ratio", 4.9231, "the weights have 512"),
        ("text_cfg", "mlp_ratio", 3.0, "the weights have 256"),
        ("text_cfg", "mlp_ratio", float("inf"), "mlp_ratio is inf, the weights have 256"),
        ("text_cfg", "proj_bias", True, "the weights have False"),
        ("model_cfg", "init_logit_bias", -10, "the weights have no bias"),
        ("vision_cfg", "timm_model_name", "vit_base_patch16_siglip_224", "do not have timm's"),
    ],
)
def test_sizes_that_are_not_the_weights(
    part: str, key: str, value: Any, there: str, clip: CLIP, tmp_path: Path
) -> None:
    refused(open_clip_folder(tmp_path / "m", clip, with_(part, **{key: value})), key, there)


def test_what_a_file_lacks_is_a_damage_unless_the_config_says_so(
    clip: CLIP, tmp_path: Path
) -> None:
    said = with_("vision_cfg", no_ln_pre=True)
    refused(open_clip_folder(tmp_path / "m", clip, said), "2 unexpected (visual.ln_pre.bias")
    for gone in ("visual.ln_pre.", "visual.class_embedding", "visual.proj", "text_projection"):
        folder = open_clip_folder(tmp_path / gone, clip, SAYS)
        weights = load_file(folder / "open_clip_model.safetensors")
        kept = {name: t for name, t in weights.items() if not name.startswith(gone)}
        save_file(kept, folder / "open_clip_model.safetensors")
        refused(folder, gone)
        (folder / "open_clip_config.json").unlink()
        refused(folder / "open_clip_model.safetensors", gone)


def test_what_only_the_config_knows(clip: CLIP, tmp_path: Path) -> None:
    """Heads of another width in both towers, and a picture that is no multiple of the patch."""
    torch.manual_seed(1)
    other = CLIP(
        CLIPConfig(
            VisionConfig(36, 8, 128, 2, 4), dataclasses.replace(TINY.text, heads=2), 48, "gelu"
        )
    )
    said = {
        **SAYS,
        "vision_cfg": {**SAYS["vision_cfg"], "image_size": [36, 36], "head_width": 32},
        "text_cfg": {**SAYS["text_cfg"], "heads": 2},
    }
    found, _ = load_clip(open_clip_folder(tmp_path / "m", other, said))
    assert found.config == other.config
    same_outputs(found, other)


# Hugging Face

STRANGE_HF = [
    ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
    ({"auto_map": {"AutoModel": "modeling.MyCLIP"}}, "auto_map is"),
    ({"architectures": ["LongCLIPModel"]}, "architectures is ['LongCLIPModel']"),
    ({"vision_config": {"rope_theta": 100}}, "vision_config.rope_theta is 100"),
    ({"vision_config": {"pool_type": "avg"}}, "vision_config.pool_type is 'avg'"),
    ({"text_config": {"is_causal": False}}, "text_config.is_causal is False"),
    ({"text_config": {"dropout": 0.1}}, "text_config.dropout is 0.1"),
    ({"vision_config": {"attention_dropout": 0.5}}, "vision_config.attention_dropout is 0.5"),
    ({"text_config_dict": {"no_causal_mask": True}}, "text_config_dict.no_causal_mask is True"),
    ({"text_config": {"pruned_heads": {"0": [1]}}}, "text_config.pruned_heads is"),
    (
        {"vision_config": {"model_type": "siglip_vision_model"}},
        "vision_config.model_type is 'siglip_vision_model'",
    ),
    ({"logit_bias": -10}, "logit_bias is -10"),
]


@pytest.mark.parametrize(("change", "named"), STRANGE_HF)
def test_hugging_face_configs(
    change: dict[str, Any], named: str, clip: CLIP, tmp_path: Path
) -> None:
    save_hf_folder(clip, NANO.tokenizer, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    values = json.loads(path.read_text())
    for key, value in change.items():
        values[key] = (
            {**values.get(key, {}), **value} if isinstance(value, dict) and key in values else value
        )
    path.write_text(json.dumps(values))
    refused(tmp_path / "m", named, "config.json")
    with pytest.raises(CheckpointError) as caught:
        load_clip(tmp_path / "m" / "model.safetensors")
    assert named in str(caught.value)


def test_hugging_face_configs_of_all_ages() -> None:
    """transformers' own dumps: today's, whole, and with the generation settings of 2022."""
    transformers = pytest.importorskip("transformers")
    config = dataclasses.replace(TINY, activation="gelu")
    values = config_to_hf(config)
    dumped = transformers.CLIPConfig(
        text_config=values["text_config"], vision_config=values["vision_config"], projection_dim=48
    ).to_dict()
    assert config_from_hf(dumped) == config_from_hf(values) == config
    old = {
        "_name_or_path": "",
        "add_cross_attention": False,
        "attention_dropout": 0.0,
        "bad_words_ids": None,
        "bos_token_id": 0,
        "chunk_size_feed_forward": 0,
        "diversity_penalty": 0.0,
        "do_sample": False,
        "dropout": 0.0,
        "early_stopping": False,
        "exponential_decay_length_penalty": None,
        "id2label": {"0": "LABEL_0"},
        "initializer_factor": 1.0,
        "is_decoder": False,
        "is_encoder_decoder": False,
        "length_penalty": 1.0,
        "max_length": 20,
        "min_length": 0,
        "num_beams": 1,
        "output_attentions": False,
        "prefix": None,
        "pruned_heads": {},
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "torch_dtype": None,
        "torchscript": False,
        "top_k": 50,
        "typical_p": 1.0,
        "use_bfloat16": False,
        "transformers_version": "4.16.0",
    }
    for name in ("text_config", "vision_config"):
        values[f"{name}_dict"] = dict(values[name])
        values[name] = {**old, **values[name]}
    assert (
        config_from_hf({**values, "transformers_version": None, "logit_scale_init_value": 2.6592})
        == config
    )


# Our own


def test_our_own_config(tmp_path: Path) -> None:
    NANO.save(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    whole = json.loads(path.read_text())
    assert froster.load(tmp_path / "m", device="cpu").config == NANO.config
    for place, named in (
        ((), "ropes is 1"),
        (("architecture",), "architecture.ropes is 1"),
        (("architecture", "vision"), "architecture.vision.ropes is 1"),
        (("architecture", "text"), "architecture.text.ropes is 1"),
        (("sampling",), "sampling.ropes is 1"),
        (("method",), "'ropes'"),
        (("preprocessing",), "preprocessing.ropes is 1"),
    ):
        values = json.loads(json.dumps(whole))
        inner = values
        for name in place:
            inner = inner[name]
        inner["ropes"] = 1
        path.write_text(json.dumps(values))
        with pytest.raises(CheckpointError) as caught:
            froster.load(tmp_path / "m")
        assert (
            named in str(caught.value)
            and "config.json" in str(caught.value)
            and "\n" not in str(caught.value)
        )
    path.write_text(json.dumps({**whole, "version": 2, "ropes": 1}))
    with pytest.raises(
        CheckpointError, match=r"version 2, and this froster reads 1: a newer froster wrote it"
    ):
        froster.load(tmp_path / "m")


# Lone files


def lone(path: Path, content: Any) -> tuple[CLIP, list[str]]:
    torch.save(content, path)
    found, report = load_clip(path)
    assert froster.load(path, device="cpu").provenance.count("assumed") == len(report.notes)
    return found, report.notes


FLAT = {
    "input_resolution": torch.tensor(32),
    "context_length": torch.tensor(64),
    "vocab_size": torch.tensor(TINY.text.vocab),
}


@pytest.mark.parametrize(
    ("name", "wrap", "quick"),
    [
        ("vit.pt", lambda w: w, True),
        ("vit.pth", lambda w: {f"module.{n}": t for n, t in w.items()}, True),
        ("vit.pt", lambda w: w | FLAT, True),
        ("open_clip_pytorch_model.bin", lambda w: w, False),
        (
            "epoch_3.pt",
            lambda w: {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in w.items()}},
            False,
        ),
        ("epoch_3.pt", lambda w: {"state_dict": w, "name": "ViT-B-16-quickgelu"}, True),
        ("b16_fullcc2.5b.pt", lambda w: {"epoch": 1, "state_dict": w}, True),
        ("l14_400m.pt", lambda w: {"state_dict": w}, True),
        ("MetaCLIP-b16.pt", lambda w: {"state_dict": w}, True),
        ("c.pt", lambda w: {"epoch": 1, "model_state_dict": w}, True),
    ],
)
def test_a_guessed_activation_is_always_said(
    name: str, wrap: Any, quick: bool, clip: CLIP, tmp_path: Path
) -> None:
    found, (note,) = lone(tmp_path / name, wrap(official(clip)))
    assert found.config.activation == ("quick_gelu" if quick else "gelu")
    assert note.startswith(
        f"no open_clip_config.json beside the file: {'QuickGELU' if quick else 'GELU'} assumed"
    )
    assert '{"model_cfg": {"quick_gelu": true}}' in note, "the way to say it is named"
    for stated in (True, False):
        (tmp_path / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": {"quick_gelu": stated}})
        )
        found, notes = lone(tmp_path / name, wrap(official(clip)))
        assert found.config.activation == ("quick_gelu" if stated else "gelu") and notes == []


def test_a_vocabulary_that_does_not_tell_where_texts_end(tmp_path: Path) -> None:
    """MetaCLIP 2's is larger than CLIP's, and its end token is not the last."""
    with torch.device("cpu"):
        clip = CLIP(CLIPConfig(VisionConfig(16, 8, 64, 1, 1), TextConfig(16, 49500, 64, 1, 1), 48))
    torch.save({"state_dict": official(clip)}, tmp_path / "worldwide.pt")
    words = (
        "with 49500 tokens the weights do not tell how a text ends",
        "open_clip_config.json with a text_cfg",
    )
    refused(tmp_path / "worldwide.pt", *words)
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    refused(tmp_path / "worldwide.pt", *words)


def test_one_tower_alone(clip: CLIP, tmp_path: Path) -> None:
    weights = official(clip)
    for name, keep, words in (
        ("image.pt", lambda n: n.startswith("visual."), "an image tower alone"),
        ("text.pt", lambda n: not n.startswith("visual."), "a text tower alone"),
    ):
        torch.save({n: t for n, t in weights.items() if keep(n)}, tmp_path / name)
        refused(tmp_path / name, words)
    save_hf_folder(clip, NANO.tokenizer, tmp_path / "hf")
    whole = load_file(tmp_path / "hf" / "model.safetensors")
    for start, words in (
        ("vision_model.", "an image tower alone"),
        ("text_model.", "a text tower alone"),
    ):
        save_file(
            {n: t for n, t in whole.items() if n.startswith(start)},
            tmp_path / "hf" / "model.safetensors",
        )
        refused(tmp_path / "hf", words)
    for kind, words in (
        ("clip_text_model", "a text tower alone"),
        ("clip_vision_model", "an image tower alone"),
    ):
        (tmp_path / "hf" / "config.json").write_text(json.dumps({"model_type": kind}))
        refused(tmp_path / "hf", f"of type '{kind}', {words}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "the folder is empty"),
        ({"README.md": "# hi"}, "it holds README.md"),
        (
            {
                "adapter_config.json": '{"base_model_name_or_path": "a/b"}',
                "adapter_model.safetensors": "",
            },
            "a PEFT adapter",
        ),
        ({"adapter_config.json": "{"}, "adapter_config.json"),
        (
            {"model_index.json": '{"_class_name": "FluxPipeline"}'},
            "a diffusers pipeline ('FluxPipeline')",
        ),
        ({"modules.json": "[]", "0_CLIPModel/config.json": "{}"}, "pass its folder 0_CLIPModel"),
        (
            {"config_sentence_transformers.json": "{}", "config.json": '{"model_type": "bert"}'},
            "a sentence-transformers model",
        ),
        ({"a.gguf": "GGUF"}, "a GGUF file"),
        ({"model.onnx": ""}, "an ONNX file"),
        ({"export.json": "{}", "model.onnx": ""}, "an export of froster"),
        (
            {
                "config.json": '{"architecture": "vit_tiny", "num_classes": 0}',
                "model.safetensors": "",
            },
            "timm's, of 'vit_tiny'",
        ),
        ({"open_clip_config.json": "{}"}, "half a model"),
        (
            {"config.json": '{"model_type": "metaclip_2"}', "model.safetensors": ""},
            "not a whole safetensors file",
        ),
        (
            {"config.json": '{"model_type": "aimv2"}', "model.safetensors": ""},
            "this is AIMv2 (model_type 'aimv2'), which froster does not have",
        ),
    ],
)
def test_folders_of_something_else_are_one_line(
    files: dict[str, str], words: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    refused(tmp_path, words)


def test_files_of_something_else_are_one_line(tmp_path: Path) -> None:
    for name, words in (
        ("a.gguf", "a GGUF file"),
        ("a.onnx", "an ONNX file"),
        ("a.msgpack", "Flax weights"),
        ("a.h5", "TensorFlow"),
    ):
        (tmp_path / name).write_bytes(b"\0" * 64)
        refused(tmp_path / name, words)


# Our own weights by the name of their file


@pytest.fixture
def ours(tmp_path: Path) -> tuple[Recognizer, Path]:
    torch.manual_seed(0)
    method = VCLIP()
    model = Recognizer(
        method.build(CLIP(TINY)), NANO.tokenizer, ModelConfig(method), device=torch.device("cpu")
    )
    return model, model.save(tmp_path / "run" / "model")


def test_a_file_of_a_model_folder_means_the_folder(ours: tuple[Recognizer, Path]) -> None:
    model, folder = ours
    shutil.copytree(folder, folder.parent / "last")
    frames = torch.randint(
        0, 256, (1, 8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    expected = model.embed_clips(frames)
    for source in (
        folder,
        folder.parent,
        folder / "model.safetensors",
        folder / "config.json",
        folder.parent / "last" / "model.safetensors",
    ):
        found = froster.load(source, device="cpu")
        assert (found.provenance, found.config.method.name) == ("froster", "vclip")
        assert torch.equal(found.embed_clips(frames), expected)
    torch.save(official(model.clip), folder / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt lies in the folder of a froster model"):
        froster.load(folder / "other.pt")


def test_our_weights_without_their_config(ours: tuple[Recognizer, Path], tmp_path: Path) -> None:
    model, folder = ours
    shutil.copy(folder / "model.safetensors", tmp_path / "copied.safetensors")
    refused(
        tmp_path / "copied.safetensors", "the names of a froster model, without the config.json"
    )
    save_file(
        {n: t.contiguous() for n, t in model.model.state_dict().items()},
        tmp_path / "student.safetensors",
    )
    refused(tmp_path / "student.safetensors", "a checkpoint of froster train")
    custom = {from_official(name): tensor for name, tensor in official(model.clip).items()}
    save_file(custom, tmp_path / "open_clip_model.safetensors")
    assert "GELU assumed" in load_clip(tmp_path / "open_clip_model.safetensors")[1].notes[0], (
        "open_clip's custom text"
    )


# Read once


@pytest.mark.parametrize("kind", ["hf", "bin", "open_clip", "lone"])
def test_weights_are_read_once(
    kind: str, clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import froster.encoders.reading as reading

    if kind in ("hf", "bin"):
        save_hf_folder(clip, NANO.tokenizer, tmp_path / "m")
    else:
        open_clip_folder(tmp_path / "m", clip, SAYS)
        NANO.tokenizer.save(tmp_path / "m" / "tokenizer.json")
    if kind == "bin":
        torch.save(
            load_file(tmp_path / "m" / "model.safetensors"), tmp_path / "m" / "pytorch_model.bin"
        )
        (tmp_path / "m" / "model.safetensors").unlink()
    source = tmp_path / "m"
    if kind == "lone":
        source = tmp_path / "m" / "vit.pt"
        torch.save(official(clip), source)
    reads: list[Any] = []
    for where, name in ((reading, "load_file"), (torch, "load")):
        real = getattr(where, name)
        monkeypatch.setattr(
            where, name, lambda *a, real=real, **k: (reads.append(a[0]), real(*a, **k))[1]
        )
    found = froster.load(source, device="cpu")
    assert len(reads) == 1, reads
    for mine, theirs in zip(outputs(found.clip), outputs(clip), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_shards_in_torchs_own_format(clip: CLIP, tmp_path: Path) -> None:
    save_hf_folder(clip, NANO.tokenizer, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {
        "pytorch_model-00001-of-00002.bin": names[::2],
        "pytorch_model-00002-of-00002.bin": names[1::2],
    }
    for file, part in parts.items():
        torch.save({name: weights[name] for name in part}, tmp_path / "m" / file)
    index = tmp_path / "m" / "pytorch_model.bin.index.json"
    index.write_text(
        json.dumps(
            {
                "metadata": {},
                "weight_map": {name: file for file, part in parts.items() for name in part},
            }
        )
    )
    found, _ = load_clip(tmp_path / "m")
    expected = CLIP(found.config)
    strict_load(expected, clip.state_dict())
    same_outputs(found, expected)
    (tmp_path / "m" / "pytorch_model-00002-of-00002.bin").unlink()
    refused(tmp_path / "m", "pytorch_model-00002-of-00002.bin")
    for broken in ("{}", '{"weight_map": {"a": 3}}', "[]", "{"):
        index.write_text(broken)
        refused(tmp_path / "m", "pytorch_model.bin.index.json: not a readable index")
