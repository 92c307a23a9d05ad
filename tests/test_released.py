"""Released checkpoints load by their own names, in the wrappings of their training loops, and say
what they are."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import froster
from froster.encoders.model import CLIP
from froster.encoders.reading import read_file
from froster.errors import CheckpointError, FrosterError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.inference.released import assemble, recognise
from froster.methods import VCLIP, Frozen
from froster.methods.weight_names import fuse_attention
from golden import clip_from, close, golden, part
from parity import stand_in

NANO = froster.load("nano", device="cpu")


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


# Golden file, the wrapping of its training loop, what it is taken for, method.
FILES = [
    (
        "aim_froster",
        lambda w: {"model_state": under("model.", w)},
        "AIM (FROSTER's version)",
        "aim",
    ),
    (
        "aim_official_t1",
        lambda w: {"state_dict": under("backbone.", w)},
        "AIM (official, 1 temporal)",
        "aim",
    ),
    ("aim_official_t2", lambda w: {"state_dict": w}, "AIM (official, 2 temporal)", "aim"),
    (
        "stadapter_froster",
        lambda w: {"model_state": w},
        "ST-Adapter (FROSTER's version)",
        "st-adapter",
    ),
    ("stadapter_official_k400", lambda w: {"model": w}, "ST-Adapter (official, mlp)", "st-adapter"),
    (
        "stadapter_official_ssv2",
        lambda w: {"model": under("module.", w)},
        "ST-Adapter (official, both)",
        "st-adapter",
    ),
    (
        "adaptformer_official",
        lambda w: {"model": w},
        "AdaptFormer (official adapter)",
        "adaptformer",
    ),
    (
        "adaptformer_froster",
        lambda w: {"model_state": w},
        "AdaptFormer (FROSTER's version)",
        "adaptformer",
    ),
    ("xclip_official", lambda w: {"model": w, "epoch": 3}, "X-CLIP (official)", "xclip"),
    ("xclip_hf", lambda w: w, "X-CLIP (Hugging Face)", "xclip"),
    ("xclip_message_froster", lambda w: {"model_state": w}, "X-CLIP's message tokens", "xclip"),
    ("vita_clip", lambda w: {"model": w}, "Vita-CLIP", "vita-clip"),
    ("actionclip_tsm", lambda w: {"model_state_dict": w}, "ActionCLIP (tsm)", "actionclip"),
    (
        "stan_branch",
        lambda w: {"state_dict": under("backbone.vision_model.", w)},
        "STAN (depth 2)",
        "stan",
    ),
    ("bdc_clip", lambda w: {"model": under("module.", w)}, "BDC-CLIP", "bdc-clip"),
    ("ezclip", lambda w: {"model_state_dict": w}, "EZ-CLIP", "ez-clip"),
    ("dualpath", lambda w: {"model": w}, "DUALPATH", "dualpath"),
    ("tcclip", lambda w: {"model": w, "epoch": 9}, "TC-CLIP", "tc-clip"),
]


@pytest.mark.parametrize(("name", "wrap", "said", "method"), FILES, ids=[row[0] for row in FILES])
@torch.no_grad()
def test_official_names(name: str, wrap, said: str, method: str, tmp_path: Path) -> None:
    """`froster.load(file)` gives the network that the golden file's outputs are checked on."""
    weights = {
        n: t.half() if n.count(".") > 2 else t for n, t in part(golden(name), "weights/").items()
    }
    torch.save(wrap(weights), tmp_path / "released.pth")
    found = recognise(weights)
    assert found is not None
    base = stand_in(found.state)
    expected = assemble(found, base).eval()
    plain = Recognizer(Frozen().build(base), NANO.tokenizer, ModelConfig())
    NANO.tokenizer.save(tmp_path / "tokenizer.json")
    plain.save(tmp_path / "clip")
    model = froster.load(tmp_path / "released.pth", clip=tmp_path / "clip", device="cpu")
    assert model.provenance.startswith(said)
    assert model.config.method.name == method
    frames = golden(name).get("input/frames", golden(name).get("input/frames_a"))
    assert torch.equal(model.model.encode_frames(frames), expected.encode_frames(frames))


def test_a_file_without_its_text_tower_asks_for_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    torch.save(part(golden("aim_official_t1"), "weights/"), tmp_path / "aim.pth")
    with pytest.raises(
        CheckpointError, match=r"taken for AIM \(official.*no projection, text tower.*clip="
    ):
        froster.load(tmp_path / "aim.pth")
    model = froster.load(tmp_path / "aim.pth", clip="nano")  # of the same width
    assert model.provenance.endswith("projection, text tower, logit scale of the CLIP")
    assert (
        model.embed_text(["a cat"]).shape
        == model.embed_video(torch.zeros(4, 40, 40, 3, dtype=torch.uint8))[None].shape
    )


def test_a_missing_or_unknown_weight_is_named() -> None:
    weights = part(golden("xclip_official"), "weights/")
    less = {name: tensor for name, tensor in weights.items() if "message_fc.bias" not in name}
    for change in ({**weights, "mit.extra": torch.zeros(3)}, less):
        found = recognise(change)
        assert found is not None
        with pytest.raises(
            CheckpointError, match=r"1 (unexpected|missing) .*(extra|message_fc\.bias)"
        ):
            assemble(found)


def full_clip() -> dict[str, Tensor]:
    return part(golden("clip_plain"), "weights/")


def test_actionclip_and_text4vis_with_their_heads(tmp_path: Path) -> None:
    """Both keep the head apart from the CLIP; Text4Vis leaves the text tower out."""
    head = part(golden("text4vis_head"), "weights/fusion_model.")
    torch.save(
        {"model_state_dict": full_clip(), "fusion_model_state_dict": under("module.", head)},
        tmp_path / "a.pt",
    )
    model = froster.load(tmp_path / "a.pt", device="cpu")
    assert model.provenance.startswith("ActionCLIP (transf)")
    image = {n: t for n, t in full_clip().items() if n.startswith("visual.") or n == "logit_scale"}
    torch.save({"model_state_dict": {**image, **under("fusion_model.", head)}}, tmp_path / "t.pt")
    base = Recognizer(Frozen().build(clip_from(full_clip())), NANO.tokenizer, ModelConfig()).save(
        tmp_path / "clip"
    )
    again = froster.load(tmp_path / "t.pt", clip=base, device="cpu")
    assert again.provenance.startswith("Text4Vis")
    frames = torch.randn(1, 8, 3, 32, 32)
    close(again.model.encode(frames).pooled, model.model.encode(frames).pooled)


def test_without_a_tokenizer_videos_can_be_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("FROSTER_BPE", raising=False)
    torch.save({"model_state": under("model.", full_clip())}, tmp_path / "vclip.pyth")
    model = froster.load(tmp_path / "vclip.pyth", device="cpu")
    assert isinstance(model.config.method, VCLIP) and "no tokenizer" in model.provenance
    assert model.embed_video(torch.zeros(8, 40, 40, 3, dtype=torch.uint8)).shape == (64,)
    with pytest.raises(FrosterError, match="no CLIP vocabulary"):
        model.embed_text(["a", "b"])


def test_plain_clips_are_nobody_elses() -> None:
    assert recognise(full_clip()) is None
    hf = {"vision_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(1)}
    assert recognise(hf) is None


def test_fused_attention_keeps_the_order() -> None:
    parts = {f"a.{p}_proj.weight": torch.full((2, 2), float(i)) for i, p in enumerate("qkv")}
    assert fuse_attention(parts)["a.in_proj_weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    alone = {"a.q_proj.weight": torch.zeros(2, 2)}
    assert fuse_attention(alone) == alone


def test_the_nano_can_complete_nothing_of_another_width() -> None:
    found = recognise(part(golden("adaptformer_official"), "weights/"))
    assert found is not None
    with pytest.raises(CheckpointError):
        assemble(found, CLIP(NANO.clip.config))


def test_vifi_clip_without_its_token_embeddings(tmp_path: Path) -> None:
    """Its towers are called encoders, and the token embeddings are not in the file."""
    image = {
        n.replace("visual.", "image_encoder."): t
        for n, t in full_clip().items()
        if n.startswith("visual.")
    }
    text = {
        f"text_encoder.{n}": t
        for n, t in full_clip().items()
        if not n.startswith(("visual.", "token_embedding", "logit_scale"))
    }
    rest = {
        "logit_scale": full_clip()["logit_scale"],
        "prompt_learner.complete_text_embeddings": torch.zeros(2, 77, 64),
    }
    torch.save(
        {"model": under("module.", {**image, **text, **rest}), "epoch": 3}, tmp_path / "vifi.pth"
    )
    base = Recognizer(Frozen().build(clip_from(full_clip())), NANO.tokenizer, ModelConfig()).save(
        tmp_path / "clip"
    )
    model = froster.load(tmp_path / "vifi.pth", clip=base, device="cpu")
    assert model.provenance.startswith("ViFi-CLIP") and model.config.method.name == "finetuned"
    frames = torch.randn(1, 2, 3, 32, 32)
    close(model.model.encode_frames(frames), clip_from(full_clip()).encode_image(frames))


class Settings(dict):
    """Stands for a training loop's settings object, which no one may import."""

    def __init__(self) -> None:
        super().__init__(lr=1)
        self.frozen = True


def test_a_settings_object_beside_the_weights_is_left_alone(tmp_path: Path) -> None:
    """X-CLIP's training loop saves one; its class must not be imported, and the weights must be
    had."""
    torch.save(
        {"model": part(golden("xclip_official"), "weights/"), "config": Settings(), "epoch": 3},
        tmp_path / "x.pth",
    )
    model = froster.load(tmp_path / "x.pth", device="cpu")
    assert model.provenance.startswith("X-CLIP (official)")


def test_a_state_dict_as_a_module_gives_it_is_read_beside_a_settings_object(tmp_path: Path) -> None:
    """An OrderedDict with the versions of the modules, beside arguments that are left alone: nearly
    every training loop's."""
    clip = NANO.clip
    weights = clip.state_dict()
    assert weights._metadata  # what makes the pickle more than a dictionary
    torch.save(
        {"model": weights, "args": argparse.Namespace(lr=1), "epoch": 3}, tmp_path / "run.pt"
    )
    kind, content = read_file(tmp_path / "run.pt")
    assert (kind, content["epoch"], content["model"].keys()) == ("pickle", 3, weights.keys())
    assert all(torch.equal(content["model"][name], tensor) for name, tensor in weights.items())


def test_adapters_alone_take_everything_else_from_the_clip(tmp_path: Path) -> None:
    """ST-Adapter's own code saves what was trained, no more."""
    weights = part(golden("stadapter_official_k400"), "weights/")
    kept = {n: t for n, t in weights.items() if "adapter_pre" in n or n.startswith("fc.")}
    torch.save({"model": kept}, tmp_path / "st.pth")
    found = recognise(weights)
    assert found is not None
    base = stand_in(found.state)
    plain = {n: t for n, t in weights.items() if "adapter_pre" not in n and not n.startswith("fc.")}
    with pytest.raises(CheckpointError, match="image tower"):
        assemble(recognise(kept))  # type: ignore[arg-type]
    vision = dataclasses.replace(base.config.vision, layers=2, image_size=32, patch_size=8)
    whole = CLIP(dataclasses.replace(base.config, vision=vision))
    whole.visual.load_state_dict({**whole.visual.state_dict(), **plain})
    frames = golden("stadapter_official_k400")["input/frames_a"]
    full = assemble(found, whole).eval().encode_frames(frames)
    close(assemble(recognise(kept), whole).eval().encode_frames(frames), full)  # type: ignore[arg-type]


def test_actionclip_with_the_plain_mean(tmp_path: Path) -> None:
    torch.save(
        {"epoch": 1, "model_state_dict": full_clip(), "fusion_model_state_dict": {}},
        tmp_path / "m.pt",
    )
    assert froster.load(tmp_path / "m.pt", device="cpu").provenance.startswith("ActionCLIP (meanp)")
    torch.save({"epoch": 1, "model_state_dict": full_clip()}, tmp_path / "c.pt")
    assert froster.load(tmp_path / "c.pt", device="cpu").config.method.name == "frozen"


def test_a_convolution_over_space_is_refused() -> None:
    weights = part(golden("stadapter_official_k400"), "weights/")
    for name in [n for n in weights if n.endswith("conv.weight")]:
        weights[name] = torch.zeros(len(weights[name]), 1, 3, 3, 3)
    with pytest.raises(CheckpointError, match="over space"):
        recognise(weights)
