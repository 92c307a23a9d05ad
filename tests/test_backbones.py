"""Encoders of other families than OpenAI's: loaded from files as their authors publish them, they
compute what the reference implementations do, and keep doing so in froster's own folders, in
bfloat16 and on the CPU's fast paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import froster
from froster.encoders import kernels
from froster.encoders.block import Attention
from froster.encoders.checkpoints import LoadReport, load_clip
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.hf_config import config_from_hf
from froster.encoders.mlp import GatedMLP
from froster.encoders.model import CLIP
from froster.encoders.precision import autocast, with_cast_weights
from froster.encoders.rope import Rotary, angles
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.inference.model_folder import LoadedModel, ModelConfig, load_folder, save_folder
from froster.methods import VCLIP, Frozen
from froster.methods.lora import LoRA, LoRANet
from golden import SHARED, close, shared, write_checkpoint
from hf_folder import save_hf_folder
from parity import Golden, backbone

FAMILIES = [
    "clipa",
    "eva02_clip",
    "metaclip2",
    "mobileclip2_b",
    "mobileclip2_l",
    "openclip_vit",
    "pe_core",
    "pe_core_openclip",
    "siglip",
    "siglip_openclip",
]
TOKENIZER = froster.load("nano", device="cpu").tokenizer
SIGLIP_VISION: dict[str, Any] = {
    "class_token": False,
    "patch_bias": True,
    "pre_norm": False,
    "pool": "map",
    "projection": "none",
    "eps": 1e-6,
}


def read(name: str) -> Golden:
    return Golden.read(shared("fixtures", f"backbone_{name}.safetensors"))


def loaded(g: Golden, folder: Path, **others: Any) -> tuple[CLIP, LoadReport]:
    clip, report = load_clip(write_checkpoint(g.config, g.weights, folder, **others))
    return clip.eval(), report


@torch.no_grad()
def check(clip: CLIP, g: Golden) -> None:
    """Embeddings of pictures and of texts are the golden ones."""
    close(clip.encode_image(g.inputs["frames"]), g.outputs["frame_emb"])
    close(clip.encode_text(g.inputs["tokens"]), g.outputs["text_emb"])


@pytest.mark.parametrize("name", FAMILIES)
def test_golden_numbers_from_files(name: str, tmp_path: Path) -> None:
    g = read(name)
    clip, _ = loaded(g, tmp_path)
    check(clip, g)
    for output, expected in backbone(g).items():
        if output in g.outputs:
            close(g.outputs[output], expected, atol=2e-4 if "logits" in output else 5e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_froster_folder_keeps_the_numbers(name: str, tmp_path: Path) -> None:
    g = read(name)
    clip, _ = loaded(g, tmp_path)
    model = LoadedModel(VCLIP().build(clip), TOKENIZER, ModelConfig(VCLIP()))
    save_folder(tmp_path / "saved", model, {})
    found = load_folder(tmp_path / "saved").network.clip.eval()
    assert found.config == clip.config
    frames, tokens = g.inputs["frames"], g.inputs["tokens"]
    with torch.no_grad():
        assert torch.equal(found.encode_image(frames), clip.encode_image(frames))
        assert torch.equal(found.encode_text(tokens), clip.encode_text(tokens))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_plain_way_gives_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the CPU's kernels, with gradients, and with every block's output asked for."""
    g = read(name)
    clip, _ = loaded(g, tmp_path)
    fast = clip.encode_image(g.inputs["frames"])
    monkeypatch.setattr(kernels, "ENABLED", False)
    layers: list[Tensor] = []
    close(clip.encode_image(g.inputs["frames"], layers), fast.detach())
    assert len(layers) == clip.config.vision.layers
    assert layers[0].shape[1] == clip.config.vision.tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_cast_once_compute_as_autocast_does(name: str, tmp_path: Path) -> None:
    g = read(name)
    clip, _ = loaded(g, tmp_path)
    network = Frozen().build(clip).eval()
    cast = with_cast_weights(network, torch.bfloat16)
    with torch.no_grad(), autocast(torch.device("cpu"), torch.bfloat16):
        expected = network.encode_frames(g.inputs["frames"])
        found = cast.encode_frames(g.inputs["frames"])
    assert torch.equal(found, expected)
    exact = g.outputs["frame_emb"]
    assert float((found.float() - exact).norm() / exact.norm()) < 0.03
    for module in cast.modules():
        if isinstance(module, Attention):
            assert module.in_proj_weight.dtype == torch.bfloat16
        if isinstance(module, Rotary):
            assert module.table.dtype == torch.float32


@pytest.mark.parametrize("name", ["siglip", "metaclip2"])
def test_saved_in_the_familys_own_format(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    g = read(name)
    clip, _ = loaded(g, tmp_path)
    save_hf_folder(clip, TOKENIZER, tmp_path / "hf")
    found, report = load_clip(tmp_path / "hf")
    assert report.notes == [] and found.config == clip.config
    check(found.eval(), g)
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        image = theirs.get_image_features(pixel_values=g.inputs["frames"].flatten(0, 1))
        text = theirs.get_text_features(input_ids=g.inputs["tokens"])
    close(image.pooler_output, g.outputs["frame_emb"].flatten(0, 1))
    close(text.pooler_output, g.outputs["text_emb"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pe_core", "rotary positions"),
        ("eva02_clip", "rotary positions"),
        ("mobileclip2_b", "convolutional stem"),
        ("clipa", "neither CLIP's nor SigLIP's"),
        ("mobileclip2_l", "neither CLIP's nor SigLIP's"),
    ],
)
def test_no_hugging_face_class_for_it(name: str, reason: str, tmp_path: Path) -> None:
    clip, _ = loaded(read(name), tmp_path)
    with pytest.raises(UsageError, match=reason):
        save_hf_folder(clip, TOKENIZER, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("name", "family"), [("siglip2_naflex", "NaFlex"), ("chinese_clip", "BERT")]
)
def test_families_that_froster_does_not_have(name: str, family: str, tmp_path: Path) -> None:
    g = read(name)
    with pytest.raises(CheckpointError, match=family) as caught:
        loaded(g, tmp_path)
    assert "\n" not in str(caught.value) and "google/siglip2-base-patch16-224" in str(caught.value)


@pytest.mark.parametrize(
    ("tower", "words"),
    [
        ("naflexvit_base_patch16_siglip", "NaFlex"),
        ("fastvit_mci2", "FastViT"),
        ("convnext_base", "ConvNeXt"),
        ("eva_giant_patch14_clip_224", "EVA01"),
        ("eva02_enormous_patch14_clip_224", "post-norm"),
        ("resnet50", "vision transformer"),
        ("something_new_patch16", "does not know"),
    ],
)
def test_towers_of_timm_that_froster_does_not_have(tower: str, words: str, tmp_path: Path) -> None:
    g = read("siglip_openclip")
    config = json.loads(json.dumps(g.config))
    config["open_clip"]["vision_cfg"]["timm_model_name"] = tower
    with pytest.raises(CheckpointError, match=words) as caught:
        load_clip(write_checkpoint(config, g.weights, tmp_path))
    message = str(caught.value)
    assert "\n" not in message and tower in message and "open_clip_config.json" in message


def test_weights_of_another_family_than_the_config_names(tmp_path: Path) -> None:
    g = read("pe_core_openclip")
    for tower, words in (
        ("vit_base_patch16_siglip_224", "no projection"),
        ("eva02_base_patch16_clip_224", r"missing \(.*unexpected"),
        ("vit_base_patch16_clip_224", r"11 unexpected \(visual\.attn_pool"),
        ("vit_base_mci_224", r"no visual\.conv1\.4\.weight"),
        ("vit_pe_core_gigantic_patch14_448", r"1 unexpected \(visual\.class_embedding"),
    ):
        config = json.loads(json.dumps(g.config))
        config["open_clip"]["vision_cfg"] |= {"timm_model_name": tower, "timm_pool": ""}
        if "pe_core" in tower:
            config["open_clip"]["vision_cfg"]["timm_pool"] = "map"
        with pytest.raises(CheckpointError, match=words):
            load_clip(write_checkpoint(config, g.weights, tmp_path))


def test_what_the_weights_do_not_tell_is_not_guessed(tmp_path: Path) -> None:
    g = read("pe_core_openclip")
    write_checkpoint(g.config, g.weights, tmp_path)
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"needs open_clip_config\.json"):
        load_clip(tmp_path / "open_clip_model.safetensors")


def eva_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names of an EVA02-CLIP -> those of its authors' files."""
    words = {
        "visual.trunk.": "visual.",
        ".q_proj.bias": ".q_bias",
        ".v_proj.bias": ".v_bias",
        ".attn.norm.": ".attn.inner_attn_ln.",
        ".mlp.norm.": ".mlp.ffn_ln.",
        ".fc1_g.": ".w1.",
        ".fc1_x.": ".w2.",
        ".fc2.": ".w3.",
    }
    renamed = {}
    for name, tensor in weights.items():
        image = name.startswith("visual.")
        for ours, theirs in words.items():
            name = name.replace(ours, theirs) if image else name
        renamed[name] = tensor
    renamed["visual.rope.freqs_cos"] = renamed["visual.rope.freqs_sin"] = torch.zeros(16, 64)
    renamed["visual.blocks.0.attn.rope.freqs_cos"] = torch.zeros(16, 64)
    return renamed


def test_eva02_under_its_authors_names(tmp_path: Path) -> None:
    g = read("eva02_clip")
    torch.save(eva_names(g.weights), tmp_path / "EVA02_CLIP_B_psz16_s8B.pt")
    clip, report = load_clip(tmp_path / "EVA02_CLIP_B_psz16_s8B.pt")
    assert report.format == "eva" and "visual.trunk.rope.freqs_cos" in report.ignored
    check(clip.eval(), g)


def test_keys_of_eva02_stay_without_a_bias(tmp_path: Path) -> None:
    clip, _ = loaded(read("eva02_clip"), tmp_path)
    attn = clip.visual.transformer.blocks()[0].attn
    optimiser = torch.optim.SGD(clip.parameters(), lr=1.0)
    clip.encode_image(torch.randn(1, 1, 3, 32, 32)).square().sum().backward()
    optimiser.step()
    q, k, v = attn.in_proj_bias.detach().chunk(3)
    assert not k.any() and q.any() and v.any()
    assert isinstance(clip.visual.transformer.blocks()[0].mlp, GatedMLP)


def test_preprocessing_of_the_family_where_no_file_states_it(tmp_path: Path) -> None:
    for name, how in (
        ("siglip", ("squash", "bicubic", 0.5)),
        ("siglip_openclip", ("squash", "bicubic", 0.5)),
        ("pe_core", ("squash", "bilinear", 0.5)),
        ("pe_core_openclip", ("squash", "bilinear", 0.5)),
        ("mobileclip2_b", ("shortest", "bilinear", 0.0)),
        ("eva02_clip", ("shortest", "bicubic", 0.48145466)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        found = loaded(read(name), folder)[0].config.preprocessing
        assert (found.resize, found.interpolation, found.mean[0]) == how, name
    (tmp_path / "stated").mkdir()
    stated = {"mean": [0.1, 0.2, 0.3], "resize_mode": "longest"}
    clip, _ = loaded(read("pe_core_openclip"), tmp_path / "stated", preprocess_cfg=stated)
    assert clip.config.preprocessing.mean == (0.1, 0.2, 0.3)
    assert clip.config.preprocessing.resize == "longest"


def test_pe_core_g_has_no_class_token(tmp_path: Path) -> None:
    """16 heads, positions counted from 0."""
    vision = VisionConfig(
        32,
        8,
        128,
        2,
        16,
        mlp_width=160,
        class_token=False,
        pool="map",
        pool_heads=8,
        rope="columns-0",
    )
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(vision, TextConfig(16, 99, 64, 1, 1), 48, "gelu")).eval()
    official = {n.removeprefix("text."): t.detach() for n, t in clip.state_dict().items()}
    torch.save(official, tmp_path / "PE-Core-G14-448.pt")
    found, report = load_clip(tmp_path / "PE-Core-G14-448.pt")
    assert report.format == "pe-core" and found.config.vision == vision
    frames = torch.randn(1, 2, 3, 32, 32)
    with torch.no_grad():
        close(found.eval().encode_image(frames), clip.encode_image(frames))


def test_a_picture_that_is_no_multiple_of_the_patch() -> None:
    """SigLIP So400m/14 at 384 reads 27 x 27 patches, and not the last 6 pixels."""
    vision = VisionConfig(384, 14, 16, 1, 2, **SIGLIP_VISION)
    assert (vision.side, vision.tokens, vision.prefix) == (27, 729, 0)
    tower = CLIP(CLIPConfig(vision, TextConfig(8, 9, 16, 1, 1), 16, "gelu_tanh")).visual.eval()
    frames = torch.randn(1, 1, 3, 384, 384)
    seen = tower(frames)
    frames[..., 378:] = 9
    assert torch.equal(tower(frames), seen)


@pytest.mark.parametrize(("kind", "prefix"), [("columns-1", 1), ("columns-0", 0), ("rows-16", 1)])
def test_products_of_turned_vectors_depend_on_the_distance_alone(kind: Any, prefix: int) -> None:
    side, dim = 5, 16
    turn = Rotary(kind, side, prefix, dim)
    x = torch.randn(1, 1, 1, dim).expand(1, 1, prefix + side**2 + 2, dim)
    turned = turn(x)
    scores = (turned @ turned.transpose(-1, -2))[0, 0]
    first, second = prefix, prefix + side + 1  # one row and one column further
    torch.testing.assert_close(scores[first, second], scores[second, second + side + 1])
    # The class token, and what a method appends, are not turned.
    assert torch.equal(turned[:, :, :prefix], x[:, :, :prefix])
    assert torch.equal(turned[:, :, -2:], x[:, :, -2:])
    table = angles(kind, side, dim)
    assert table.shape == (side**2, dim // 2)
    if kind == "rows-16":
        assert table[side].tolist()[0] == pytest.approx(16 / side) and table[1, 0] == 0
    else:
        assert table[1, 0] == int(kind[-1]) + 1 and table[side, 0] == int(kind[-1])


@pytest.mark.parametrize("name", ["pe_core", "eva02_clip", "siglip"])
def test_lora_starts_at_the_encoder_and_folds_into_its_kind(name: str, tmp_path: Path) -> None:
    g = read(name)
    clip, _ = loaded(g, tmp_path)
    network = LoRA(targets="qkvo", towers="image", rank=2).build(clip).eval()
    assert isinstance(network, LoRANet)
    frames = g.inputs["frames"]
    with torch.no_grad():
        close(network.clip.encode_image(frames), g.outputs["frame_emb"])
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.endswith(".b"):
                parameter.normal_(std=0.05)
        changed = network.clip.encode_image(frames)
        assert not torch.allclose(changed, g.outputs["frame_emb"], atol=1e-2)
        close(network.merged().encode_image(frames), changed, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_token": False}, "no class token"),
        ({"rope": "columns-1", "heads": 8}, "multiple of 4"),
        ({"pool": "map", "pool_heads": 3}, "do not fit together"),
        ({"rope": "rows"}, "rope of the image tower is 'rows'"),
        ({"stem": "mobileclip"}, "stride 16"),
        ({"eps": 0.0}, "eps of the image tower"),
        ({"mlp_width": -1}, "mlp_width of the image tower"),
        ({"gated": 1}, "gated of the image tower is 1"),
        ({"projection": "none"}, "embed_dim is 48"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    values = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "heads": 2, **options}
    with pytest.raises(ValueError, match=words):
        CLIPConfig(VisionConfig(**values), TextConfig(8, 9, 16, 1, 1), 48)


def test_half_of_the_weights(tmp_path: Path) -> None:
    g = read("siglip")
    source = write_checkpoint(g.config, g.weights, tmp_path)
    weights = load_file(source / "model.safetensors")
    del weights["vision_model.head.probe"]
    save_file(weights, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing \(visual\.attn_pool\.probe\)"):
        load_clip(source)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the golden files")
@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_config", "vision_use_head", False),
        ("vision_config", "num_patches", 16),
        ("vision_config", "hidden_act", "relu"),
        ("text_config", "projection_size", 64),
        ("text_config", "attention_probs", 1),
    ],
)
def test_a_siglip_config_that_says_something_else(
    part: str, key: str, value: Any, tmp_path: Path
) -> None:
    g = read("siglip")
    config = json.loads(json.dumps(g.config))
    config[part][key] = value
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        load_clip(write_checkpoint(config, g.weights, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_siglip_config_of_the_hub_says_only_what_differs() -> None:
    """SigLIP 2 B/16 at 512, as it is published, has ten lines."""
    values = {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", "vocab_size": 256000},
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 512},
        "torch_dtype": "float32",
        "transformers_version": "4.49.0.dev0",
        "initializer_factor": 1.0,
    }
    config = config_from_hf(values)
    assert (config.embed_dim, config.vision.tokens, config.activation) == (768, 1024, "gelu_tanh")
    assert (config.text.pad, config.text.context, config.text.eps) == (0, 64, 1e-6)
    del values["text_config"]["vocab_size"]  # type: ignore[attr-defined]
    assert config_from_hf(values).text.pad == 1


def test_a_hugging_face_config_whose_picture_is_no_multiple_of_the_patch(tmp_path: Path) -> None:
    g = read("siglip")
    config = json.loads(json.dumps(g.config))
    config["vision_config"]["image_size"] = 36
    clip, _ = load_clip(write_checkpoint(config, g.weights, tmp_path))
    frames = torch.nn.functional.pad(g.inputs["frames"], (0, 4, 0, 4), value=3)
    with torch.no_grad():
        close(clip.eval().encode_image(frames), g.outputs["frame_emb"])


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", 5), ("image_size", 4)])
def test_sizes_that_do_not_divide(key: str, value: int, tmp_path: Path) -> None:
    g = read("siglip")
    config = json.loads(json.dumps(g.config))
    config["vision_config"][key] = value
    with pytest.raises(CheckpointError, match=r"config\.json.*do not fit together") as caught:
        load_clip(write_checkpoint(config, g.weights, tmp_path))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_one_line(tmp_path: Path) -> None:
    vision = VisionConfig(32, 8, 32, 1, 2, **SIGLIP_VISION)
    text = TextConfig(16, TOKENIZER.vocab_size, 32, 1, 1)
    clip = CLIP(CLIPConfig(vision, text, 32, "gelu_tanh"))
    assert clip.visual.attn_pool is not None
    clip.visual.attn_pool.probe.data[0, 0, 0] = float("nan")
    model = LoadedModel(Frozen().build(clip), TOKENIZER, ModelConfig(Frozen()))
    save_folder(tmp_path / "m", model, {})
    frames = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(FrosterError, match=r"not finite|NaN|nan") as caught:
        froster.load(tmp_path / "m", device="cpu").embed_video(frames)
    assert "\n" not in str(caught.value)


def test_metaclip2_in_open_clips_form(tmp_path: Path) -> None:
    """Pooled at the first id 2, which open_clip's config says."""
    g = read("metaclip2")
    clip, _ = loaded(g, tmp_path)
    weights = {n.removeprefix("text."): t.detach() for n, t in clip.state_dict().items()}
    stated = {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
        "text_cfg": {
            "hf_tokenizer_name": "facebook/xlm-v-base",
            "pool_type": "eos",
            "eos_id": 2,
            "heads": 1,
        },
    }
    (tmp_path / "o").mkdir()
    found, _ = load_clip(write_checkpoint({"open_clip": stated}, weights, tmp_path / "o"))
    assert (found.config.text.end, found.config.text.clean) == (2, "spaces")
    check(found.eval(), g)
