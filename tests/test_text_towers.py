"""Text towers of other families compute what their own code computes, and are never cut where
padding counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from froster.encoders.checkpoints import strict_load
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.encoders.text import TextTower
from froster.methods import Frozen
from golden import close, golden, part

TANH, EXACT = "gelu_tanh", "gelu"
SIGLIP: dict[str, Any] = {
    "activation": TANH,
    "eps": 1e-6,
    "causal": False,
    "pool": "last",
    "projection_bias": True,
    "clean": "canonical",
}
TOWERS: dict[str, dict[str, Any]] = {
    "siglip": dict(heads=2, end=1, pad=1, **SIGLIP),
    "siglip_openclip": dict(heads=2, end=1, pad=0, **SIGLIP),
    "metaclip2": {"heads": 1, "activation": "quick_gelu", "end": 2, "pad": 1, "clean": "spaces"},
    "clipa": {
        "heads": 1,
        "activation": EXACT,
        "causal": False,
        "pool": "last",
        "end": 0,
        "clean": "spaces",
    },
    "mobileclip2_l": {"heads": 1, "activation": EXACT, "causal": False},
    "mobileclip2_b": {"heads": 1, "activation": EXACT},
    "pe_core": {"heads": 1, "activation": EXACT},
    "pe_core_openclip": {"heads": 1, "activation": EXACT},
    "eva02_clip": {"heads": 1, "activation": EXACT},
    "openclip_vit": {"heads": 1, "activation": EXACT},
}
FULL = [name for name, options in TOWERS.items() if not options.get("causal", True)]


def text_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's weights under our names, from Hugging Face's or OpenAI's."""
    if theirs := part(weights, "text_model."):
        return from_hugging_face(theirs, weights)
    visual = {name for name in weights if name.startswith(("visual.", "logit_"))}
    ours = {
        name.removeprefix("text."): weight for name, weight in weights.items() if name not in visual
    }
    if "text_projection.weight" in ours:
        ours["text_projection"] = ours.pop("text_projection.weight").T
        ours["projection_bias"] = ours.pop("text_projection.bias")
    return ours


def from_hugging_face(text: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {
        "token_embedding.weight": text.pop("embeddings.token_embedding.weight"),
        "positional_embedding": text.pop("embeddings.position_embedding.weight"),
    }
    if "head.weight" in text:
        ours |= {"text_projection": text.pop("head.weight").T, "projection_bias": text["head.bias"]}
        del text["head.bias"]
    else:
        ours["text_projection"] = weights["text_projection.weight"].T
    for layer in {name.split(".")[2] for name in text if name.startswith("encoder.layers.")}:
        theirs, block = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [text.pop(f"{theirs}self_attn.{x}_proj.{kind}") for x in "qkv"]
            ours[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
        for name in [name for name in text if name.startswith(theirs)]:
            place = name.removeprefix(theirs).replace("self_attn.", "attn.")
            for before, after in (("layer_norm", "ln_"), ("fc1", "c_fc"), ("fc2", "c_proj")):
                place = place.replace(before, after)
            ours[block + place] = text.pop(name)
    return ours | {name.replace("final_layer_norm", "ln_final"): text[name] for name in text}


def tower_of(name: str, **changes: Any) -> tuple[TextTower, dict[str, Tensor]]:
    """The text tower of a fixture, and the fixture's tensors."""
    tensors = golden(f"backbone_{name}")
    ours = text_weights(part(tensors, "weights/"))
    vocab, width = ours["token_embedding.weight"].shape
    layers = len({key.split(".")[2] for key in ours if key.startswith("transformer.")})
    hidden = len(ours["transformer.resblocks.0.mlp.c_fc.bias"])
    config = TextConfig(
        len(ours["positional_embedding"]),
        vocab,
        width,
        layers,
        mlp_width=0 if hidden == 4 * width else hidden,
        **{**TOWERS[name], **changes},
    )
    tower = TextTower(config, ours["text_projection"].shape[1], "quick_gelu")
    strict_load(tower, ours)
    return tower.requires_grad_(False), tensors


@pytest.mark.parametrize("name", TOWERS)
def test_text_is_that_of_the_reference(name: str) -> None:
    tower, tensors = tower_of(name)
    close(tower(tensors["input/tokens"]), tensors["output/text_emb"])


@pytest.mark.parametrize("name", FULL)
def test_rows_are_filled_up_where_padding_counts(name: str) -> None:
    tower, tensors = tower_of(name)
    tokens, expected = tensors["input/tokens"], tensors["output/text_emb"]
    short = tokens[:, -1] == tower.config.pad
    assert short.any()
    used = (tokens[short] != tower.config.pad).any(0).nonzero().max() + 1
    assert used < tokens.shape[1]
    close(tower(tokens[short][:, :used]), expected[short])


@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [
        ("siglip", {"eps": 1e-5}, 4e-5),
        ("siglip", {"activation": EXACT}, 4e-4),
        ("siglip", {"causal": True}, 0.5),
        ("siglip", {"pool": "end", "end": -1}, 1.0),
        ("metaclip2", {"end": -1}, 1.0),
        ("mobileclip2_l", {"causal": True}, 1.0),
        ("clipa", {"pool": "end"}, 0.5),
    ],
)
def test_every_option_matters(name: str, changes: dict[str, Any], least: float) -> None:
    tower, tensors = tower_of(name, **changes)
    difference = (tower(tensors["input/tokens"]) - tensors["output/text_emb"]).abs().max()
    assert difference >= least


@pytest.mark.parametrize("name", ["siglip", "metaclip2"])
def test_gradients_reach_every_weight(name: str) -> None:
    tower, tensors = tower_of(name)
    tower.requires_grad_(True)
    tower(tensors["input/tokens"]).square().sum().backward()
    without = [name for name, weight in tower.named_parameters() if weight.grad is None]
    assert without == []


def test_a_config_keeps_its_options_and_older_ones_have_the_defaults() -> None:
    text = TextConfig(16, 320, 64, 1, 1, end=1, pad=1, mlp_width=96, **SIGLIP)
    config = CLIPConfig(VisionConfig(16, 8, 64, 1, 1), text, 32, logit_bias=True)
    clip = CLIP(config)
    assert CLIPConfig.from_dict(clip.architecture()) == config
    assert clip.logit_bias is not None
    older = {"context": 77, "vocab": 49408, "width": 512, "layers": 12, "heads": 8}
    assert TextConfig(**older) == TextConfig()
    assert (
        CLIPConfig().to_dict()["text"] == older
    )  # so an older froster reads it, and an index knows it
    names = {
        name for name, _ in CLIP(dataclasses.replace(config, logit_bias=False)).named_parameters()
    }
    assert "logit_bias" not in names and "text.projection_bias" in names
    assert "text.projection_bias" not in dict(
        CLIP(CLIPConfig(config.vision, TextConfig(16, 320, 64, 1, 1), 32)).named_parameters()
    )


def test_a_common_bias_of_the_logits_cancels() -> None:
    text = TextConfig(16, 320, 64, 1, 1)
    config = CLIPConfig(VisionConfig(16, 8, 64, 1, 1), text, 32, logit_bias=True)
    network = Frozen().build(CLIP(config)).eval()
    video, classes = torch.randn(2, 32), torch.randn(3, 32)
    before = network.logits(video, classes).softmax(-1)
    torch.nn.init.constant_(network.clip.logit_bias, 5.0)  # type: ignore[arg-type]
    assert before.equal(network.logits(video, classes).softmax(-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "pool of the text tower is 'mean': it takes 'end', 'last'"),
        ({"clean": 3}, "clean of the text tower is 3"),
        ({"causal": 1}, "causal of the text tower is 1: it takes True, False"),
        ({"end": 320}, "end of the text tower is 320: it takes an id from -1 to 319"),
        ({"pad": -1}, "pad of the text tower is -1: it takes an id from 0 to 319"),
        ({"eps": 0.0}, "eps of the text tower is 0.0"),
        ({"mlp_width": -4}, "mlp_width of the text tower is -4"),
        ({"activation": "relu"}, "activation of the text tower is 'relu'"),
    ],
)
def test_an_option_that_no_tower_has_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextConfig(16, 320, 64, 1, 1, **options)
