"""Every method on every kind of encoder: it works, or it is refused in a sentence that says what the
encoder lacks."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import UsageError
from froster.methods import METHODS, VideoCLIP
from froster.methods.aim import AIMBlock
from froster.methods.heads import over_space, over_time
from froster.methods.weight_names import new_weights
from froster.training.attach import freeze
from golden import close
from test_methods import EVERY, FIRST, LABELS, T, method_of

WIDTH = 32
PROJECTED: dict[str, Any] = {"eps": 1e-6, "projection": "affine"}
SEEING: dict[str, Any] = {"causal": False, "pool": "last"}

ENCODERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clip": ({}, {}),
    "siglip": (
        {
            "class_token": False,
            "patch_bias": True,
            "pre_norm": False,
            "pool": "map",
            "projection": "none",
            "eps": 1e-6,
        },
        {"context": 16, "end": 1, "pad": 1, "projection_bias": True, **SEEING},
    ),
    "pe": ({"rope": "columns-1", "pool": "map", "pool_heads": 4}, {"context": 32}),
    "eva02": (
        {"rope": "rows-16", "gated": True, "mlp_width": 40, "pre_norm": False, **PROJECTED},
        {},
    ),
    "clipa": ({"pool": "mean", "pre_norm": False}, {"context": 32, **SEEING}),
    "mobileclip": ({"stem": "mobileclip", "pre_norm": False, **PROJECTED}, {}),
}
"""Options of the image tower and of the text tower, sizes aside, as the families have them."""

NO_CLASS_TOKEN = "no class token that"
SEES_AHEAD = "causal text tower|tokens see those behind them"
REFUSED = {
    **{("bdc-clip", encoder): NO_CLASS_TOKEN for encoder in ("siglip", "pe", "clipa")},
    **{("tc-clip", encoder): NO_CLASS_TOKEN for encoder in ("siglip", "pe", "clipa")},
    **{("stan", encoder): NO_CLASS_TOKEN for encoder in ("siglip", "clipa")},
    **{("efficient-prompt", encoder): SEES_AHEAD for encoder in ("siglip", "clipa")},
    **{("vita-clip", encoder): SEES_AHEAD for encoder in ("siglip", "clipa")},
    ("efficient-prompt", "pe"): "32 learned tokens do not fit a context of 32",
}
"""What the sentence says. Vita-CLIP without learned text context is taken everywhere."""

OTHER_FRAMES = {"vclip", "openvclip", "xclip", "vita-clip", "stan", "ez-clip", "tc-clip"}
"""Their image tower is another from the start; `actionclip` with shift has one too."""
OTHER_TEXTS = {"efficient-prompt", "vita-clip", "tc-clip", "bdc-clip"}

CELLS = [
    pytest.param(
        name,
        variant,
        encoder,
        marks=[] if (name, variant) in FIRST and encoder != "clip" else pytest.mark.slow,
    )
    for name, variant in EVERY
    for encoder in ENCODERS
]


def config_of(encoder: str) -> CLIPConfig:
    vision, text = ENCODERS[encoder]
    return CLIPConfig(
        VisionConfig(32, 16, WIDTH, 2, 2, **vision),
        TextConfig(**{"context": 77, "vocab": 99, "width": WIDTH, "layers": 1, "heads": 1, **text}),
        embed_dim=WIDTH,
        activation="gelu",
    )


def clip_of(encoder: str) -> CLIP:
    """All that a new network has at zero or one is drawn, so that it shows."""
    torch.manual_seed(0)
    clip = CLIP(config_of(encoder)).eval()
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            if parameter.ndim == 1 and name.startswith(("visual.", "text.")):
                parameter += 0.1 * torch.randn_like(parameter)
    return clip


def refusal(name: str, variant: str, encoder: str) -> str | None:
    return None if variant == "vision" else REFUSED.get((name, encoder))


def network_on(encoder: str, name: str, variant: str, moved: bool = False) -> VideoCLIP:
    model = method_of(name, variant).build(clip_of(encoder)).eval()
    if moved:
        torch.manual_seed(1)
        new = new_weights(model)
        for weight, parameter in model.named_parameters():
            if weight in new:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def clips(count: int = 2) -> Tensor:
    return torch.randn(count, T, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def rows() -> Tensor:
    """Three names between start and end tokens."""
    return torch.tensor([[97, 2, 98, 0], [97, 3, 4, 98], [97, 5, 98, 0]])


def classes_of(model: VideoCLIP) -> Tensor:
    closed = getattr(model, "closed", None) is not None and not model.shared_prompts
    prompts = torch.eye(len(LABELS))[None] if closed else model.encode_text(rows())[None]
    return model.classes(prompts)


@pytest.mark.parametrize(("name", "variant", "encoder"), CELLS)
def test_it_works_or_is_refused(name: str, variant: str, encoder: str) -> None:
    method, frames = method_of(name, variant), clips()
    if (words := refusal(name, variant, encoder)) is not None:
        with pytest.raises(UsageError, match=words) as refused:
            method.build(clip_of(encoder))
        assert re.fullmatch(r"[^.\n]+", str(refused.value))
        return
    plain, model = clip_of(encoder), network_on(encoder, name, variant)
    with torch.no_grad():
        features = model.encode(frames)
        shown = plain.encode_image(frames)[:, model.frames_of(T)]
        if name in OTHER_FRAMES or variant == "tsm":
            assert not torch.allclose(features.frames, shown, atol=1e-3)
        else:
            close(features.frames, shown, atol=1e-5, rtol=0)
        if name not in OTHER_TEXTS:
            close(model.encode_text(rows()), plain.encode_text(rows()), atol=1e-5, rtol=0)
        scores = model.logits(features.video, classes_of(model), features.context)
        assert scores.shape == (len(frames), len(LABELS)) and scores.isfinite().all()
    check_gradients(network_on(encoder, name, variant, moved=True), name, variant, encoder)


def check_gradients(model: VideoCLIP, name: str, variant: str, encoder: str) -> None:
    """Every weight that is trained gets one, unless nothing reads it."""
    method, labels = method_of(name, variant), torch.tensor([0, 1])
    freeze(model, method, "method")
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert bool(trained) == (name != "frozen")
    if not trained:
        return
    torch.manual_seed(2)
    features, classes = model.encode(clips()), classes_of(model)
    scores = model.logits(features.video, classes, features.context)
    objective = lambda logits: torch.nn.functional.cross_entropy(logits, labels)  # noqa: E731
    sum(model.losses(features, classes, scores, objective).values()).backward()  # type: ignore[union-attr]
    none = {n for n, p in trained.items() if p.grad is None or not p.grad.any()}
    assert all(p.grad.isfinite().all() for p in trained.values() if p.grad is not None)
    # Only training without `eval` has the scale of BDC-CLIP, and classes' own prompts come by name.
    unread = {"bdc-clip": "bdc_scale", "vita-clip": "text_prompt" if variant == "class" else "!"}
    if name == "st-adapter" and config_of(encoder).vision.pool == "class":
        unread[name] = r".*\.resblocks\.1\.before_mlp\..*"  # of patches that nobody reads any more
    assert [n for n in none if not re.fullmatch(unread.get(name, "!"), n)] == []


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        one
        if one in FIRST or one == ("actionclip", "tsm")
        else pytest.param(*one, marks=pytest.mark.slow)
        for one in EVERY
        if refusal(*one, "siglip") is None and one[0] != "dualpath"
    ],
)
@torch.no_grad()
def test_without_a_class_token_all_patches_are_alike(name: str, variant: str) -> None:
    """A tower without positions does not know where a patch is, so no method may. (DUALPATH has
    positions of its own.)"""
    model = network_on("siglip", name, variant, moved=True)
    model.clip.visual.positional_embedding.zero_()
    frames = clips()
    z = model.encode(frames)
    for order in ([1, 0, 2, 3], [2, 3, 0, 1]):
        grid = frames.unflatten(4, (2, 16)).unflatten(3, (2, 16)).transpose(4, 5).flatten(3, 4)
        moved = grid[:, :, :, order].unflatten(3, (2, 2)).transpose(4, 5).flatten(5).flatten(3, 4)
        assert not torch.equal(moved, frames)
        again = model.encode(moved)
        close(again.frames, z.frames, atol=1e-4)
        close(again.video, z.video, atol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_neighbours_of_a_still_frame_add_nothing(encoder: str) -> None:
    """As their keys are turned by the place that the frame's own are turned by. Zeros in place of
    missing neighbours change it, and are the default only where weights were released."""
    still = clips()[:, :1].expand(-1, T, -1, -1, -1)
    plain = clip_of(encoder).encode_image(still)
    for pad, alike in (("mask", True), ("zero", False), ("", encoder in ("siglip", "pe", "clipa"))):
        if (encoder, pad) == ("eva02", ""):
            alike = True
        z = METHODS["vclip"](pad=pad).build(clip_of(encoder)).encode_frames(still)  # type: ignore[call-arg]
        assert torch.allclose(z, plain, atol=1e-5) == alike


def test_the_default_padding_is_decided_before_it_is_kept() -> None:
    """So that a run says what it was trained with, and one from before goes on."""
    for encoder, pad in (
        ("clip", "zero"),
        ("mobileclip", "zero"),
        ("pe", "mask"),
        ("eva02", "mask"),
    ):
        for name in ("vclip", "openvclip"):
            decided = METHODS[name]().for_encoder(config_of(encoder))
            assert type(decided) is METHODS[name] and decided.pad == pad  # type: ignore[attr-defined]
    asked = METHODS["vclip"](pad="zero")  # type: ignore[call-arg]
    assert asked.for_encoder(config_of("pe")) == asked


@pytest.mark.parametrize("name", ["actionclip", "text4vis", "mote"])
def test_a_text_tower_may_be_narrower_than_the_joint_space(name: str) -> None:
    """SigLIP 2 g-opt: 18 heads of the text tower do not divide 1536."""
    vision, text = VisionConfig(32, 16, 256, 1, 2), TextConfig(77, 99, 192, 1, 3)
    model = METHODS[name]().build(CLIP(CLIPConfig(vision, text, embed_dim=256)))
    assert model.encode(clips()).pooled.shape == (2, 256)


@pytest.mark.parametrize("encoder", ["pe", "eva02"])
@torch.no_grad()
def test_attention_over_time_at_one_place_needs_no_rotation(encoder: str) -> None:
    """AIM's: turned by the same angles, queries and keys have the same products."""
    model = network_on(encoder, "aim", "official")
    block = model.clip.visual.transformer.resblocks[0]
    assert isinstance(block, AIMBlock) and block.attn.rotary is not None
    x = torch.randn(2 * T, 5, WIDTH)
    q, k, v = (y.transpose(1, 2).flatten(2) for y in block.attn.project(block.ln_1(x)))
    q, k, v = (over_time(y, T).unflatten(2, (2, -1)).transpose(1, 2) for y in (q, k, v))
    shares = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    close(block.over_frames(x, T), over_space(block.attn.merge(shares @ v), 5), atol=1e-5)
