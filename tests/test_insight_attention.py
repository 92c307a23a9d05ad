"""Attention pictures show the attention that was computed, of every method, and on the right
pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP
from froster.errors import UsageError
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS, VideoCLIP
from froster.methods.base import replace_blocks
from froster.report.attention import (
    StripRow,
    attention_strip,
    block_inputs,
    cls_attention,
    joint,
    sources,
    weights,
)
from froster.video.reader import Video
from golden import close
from shared_files import World
from test_methods import EVERY, T, clips, network
from typed import one_line


def blocks_of(model: VideoCLIP) -> list[Block]:
    return list(model.clip.visual.transformer.resblocks)  # type: ignore[arg-type]


def shown(name: str, variant: str) -> VideoCLIP:
    """BDC-CLIP with a block that attends over all frames, which of three its own setting has not."""
    return network(name, variant, **({"every": 2} if name == "bdc-clip" else {}))


@pytest.mark.parametrize(("name", "variant"), EVERY)
@torch.no_grad()
def test_the_weights_are_those_of_the_forward_pass(name: str, variant: str) -> None:
    """What reaches each block's output projection in an ordinary forward pass is made again from
    the weights."""
    model, frames = shown(name, variant), clips(1)
    merged: dict[nn.Module, Tensor] = {}
    for block in blocks_of(model):
        # AIM uses the projection twice a block, for time and then for the frame; the later call
        # stays.
        block.attn.out_proj.register_forward_hook(
            lambda layer, given, result: merged.update({layer: given[0]})
        )
    plain = model.encode_frames(frames)
    real = dict(merged)
    seen = block_inputs(
        model.clip.visual, lambda: close(model.encode_frames(frames), plain, atol=0, rtol=0)
    )
    assert len(seen) == len(blocks_of(model)) == 3
    for layer in seen:
        # TC-CLIP's context tokens are asked and ask nothing.
        n = 17 if name == "tc-clip" else layer.x.shape[1]
        found = weights(layer, rows=n)
        close(found.sum(-1), torch.ones(T, 2, n))
        v = layer.block.attn.project(layer.x)[2]
        values = layer.block.keys_values(v, v, T)[1]
        made = (found @ values).transpose(1, 2).flatten(2)
        used = real[layer.block.attn.out_proj]  # of a last block perhaps the class token alone
        assert used.shape[1] == n or (used.shape[1] == 1 and layer is seen[-1])
        close(made[:, : used.shape[1]], used)
    assert not any("attend" in vars(block) for block in blocks_of(model))
    close(model.encode_frames(frames), plain, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_shares_say_where_all_of_it_goes(name: str, variant: str) -> None:
    for rollout in (False, True):
        found = cls_attention(shown(name, variant), clips(1)[0], rollout=rollout)
        assert found.patches.shape == (T, 4, 4)
        assert float(found.patches.min()) >= 0
        assert sum(found.shares.values()) == pytest.approx(1, abs=1e-5)
        assert float(found.patches.sum()) / T == pytest.approx(found.shares["patches"], abs=1e-5)
        padded = {
            ("vclip", "step1"),
            ("vclip", "step2"),
            ("vclip", "step3"),
            ("openvclip", "released"),
            ("openvclip", "exact"),
        }
        assert (found.shares["padding"] > 0.01) == (not rollout and (name, variant) in padded)
        assert (found.shares["added tokens"] > 0.01) == (
            not rollout and name in ("vita-clip", "xclip", "ez-clip", "tc-clip")
        )


@torch.no_grad()
def test_frames_beyond_the_single_ones_stay_dark() -> None:
    seen = cls_attention(network("dualpath", "open"), clips(1, frames=16)[0])
    assert seen.patches.shape == (16, 4, 4)
    bright = seen.patches.sum((1, 2))
    assert bool((bright[1::2] == 0).all()) and bool((bright[::2] > 0.1).all())
    assert float(bright.sum()) / 8 == pytest.approx(seen.shares["patches"], abs=1e-5)


@torch.no_grad()
def test_a_joint_block_gives_to_all_frames() -> None:
    """Every class token over all tokens of the clip, one soft-max."""
    model, frames = network("bdc-clip", every=3), clips(1)[0]
    seen = block_inputs(model.clip.visual, lambda: model.encode_frames(frames[None]))[-1]
    q, k, _ = seen.block.attn.project(seen.x)  # (T, h, 17, d)
    logits = torch.einsum("thd,shnd->thsn", q[:, :, 0], k) * 64**-0.5
    given = logits.flatten(2).softmax(-1).unflatten(-1, (T, 17)).mean(1).sum(0)
    close(cls_attention(model, frames).patches, given[:, 1:].unflatten(-1, (4, 4)))


@pytest.mark.parametrize(("variant", "radius"), [("step1", 1), ("step2", 2), ("mask", 1)])
@torch.no_grad()
def test_neighbours_give_to_the_patches_of_the_frame_they_look_at(
    variant: str, radius: int
) -> None:
    """Frame by frame and key by key, as the method is described: zeros or nothing beyond the ends
    of the clip."""
    model, frames = network("vclip", variant), clips(1)[0]
    seen = block_inputs(model.clip.visual, lambda: model.encode_frames(frames[None]))[-1]
    q, k, _ = seen.block.attn.project(seen.x)  # (T, h, 17, d)
    heat, padding = torch.zeros(T, 16), 0.0
    for t in range(T):
        around = [s for s in range(t - radius, t + radius + 1) if 0 <= s < T]
        missing = 0 if variant == "mask" else 17 * (2 * radius + 1 - len(around))
        logits = [torch.einsum("hd,hnd->hn", q[t, :, 0], k[s]) * 64**-0.5 for s in around]
        given = torch.cat([*logits, torch.zeros(2, missing)], dim=1).softmax(-1).mean(0)
        padding += float(given[17 * len(around) :].sum()) / T
        for i, s in enumerate(around):
            heat[s] += given[17 * i + 1 : 17 * (i + 1)]
    found = cls_attention(model, frames)
    close(found.patches, heat.unflatten(1, (4, 4)), atol=1e-6)
    assert found.shares["padding"] == pytest.approx(padding, abs=1e-5)


@torch.no_grad()
def test_keys_are_traced_to_their_tokens() -> None:
    seen = block_inputs(
        (model := network("vclip")).clip.visual, lambda: model.encode_frames(clips(1))
    )[0]
    place = sources(seen)
    own = torch.arange(1, 18)
    assert place[0].tolist() == [
        *[0] * 17,
        *own.tolist(),
        *(own + 17).tolist(),
    ]  # none before, own, next
    assert place[2].tolist() == [*(own + 17).tolist(), *(own + 34).tolist(), *(own + 51).tolist()]


@pytest.mark.parametrize(
    ("name", "variant"), [("frozen", ""), ("vclip", "step1"), ("xclip", "full")]
)
@torch.no_grad()
def test_rollout_is_the_product_over_all_layers(name: str, variant: str) -> None:
    model, frames = network(name, variant), clips(1)[0]
    product = torch.eye(T * 17)
    for seen in block_inputs(model.clip.visual, lambda: model.encode_frames(frames[None])):
        A = joint(seen, rows=17)[..., :17].reshape(T * 17, T * 17)
        product = (A / A.sum(1, keepdim=True) + torch.eye(T * 17)) / 2 @ product
    heat = product[::17].sum(0).view(T, 17)[:, 1:]
    close(cls_attention(model, frames, rollout=True).patches, heat.unflatten(1, (4, 4)))
    first = cls_attention(model, frames, layer=0, rollout=True)
    if name == "frozen":  # one layer: half of it is the token itself
        close(first.patches, cls_attention(model, frames, layer=0).patches / 2)


def test_layers_that_do_not_exist_and_blocks_that_attend_otherwise() -> None:
    model = network("frozen")
    with pytest.raises(UsageError, match="no layer 3: the network has 3"):
        cls_attention(model, clips(1)[0], layer=3)
    first, last = (
        cls_attention(model, clips(1)[0], layer=-3),
        cls_attention(model, clips(1)[0], layer=2),
    )
    assert not torch.allclose(first.patches, last.patches)

    class Sharper(Block):
        def attend(self, x: Tensor, num_frames: int) -> Tensor:
            return super().attend(3 * x, num_frames)

    class Blind(Block):
        def attention_sublayer(self, x: Tensor, num_frames: int) -> Tensor:
            return x

    def remade(kind: type[Block]) -> Callable[[Block], Block]:
        def make(block: Block) -> Block:
            made = kind.__new__(kind)
            made.init_from(block)
            return made

        return make

    clip: CLIP = model.clip
    replace_blocks(clip, remade(Sharper))
    with pytest.raises(UsageError, match="Sharper attends in a way of its own"):
        cls_attention(model, clips(1)[0])
    replace_blocks(clip, remade(Blind))
    with pytest.raises(UsageError, match=r"cannot be drawn: .* in block 0 \(Blind\)"):
        cls_attention(model, clips(1)[0])


def test_a_row_is_bright_where_the_model_looks(tmp_path: Path) -> None:
    frames = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    heat = torch.zeros(2, 4, 4)
    heat[1, 0, 3] = 0.5
    row = StripRow("one", frames, heat)
    pictures = row.pictures().astype(int)
    assert pictures.shape == (2, 64, 64, 3)
    bright = pictures[1, :12, 52:].mean() - pictures[1, 32:, :32].mean()
    assert bright > 60
    assert pictures[0].std(axis=(0, 1)).max() == 0
    path = attention_strip(
        [StripRow("frames", frames), row], ["0.0 s", "0.5 s"], "a note", tmp_path / "strip.png"
    )
    drawn = np.asarray(Image.open(path).convert("RGB"))
    assert drawn.shape[0] > 250
    assert drawn.shape[1] > 300
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = World("base", 1)
    return videos.write(0, tmp_path_factory.mktemp("video") / "world.mp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = load("nano", device="cpu")
    method = METHODS["vclip"].make()
    config = dataclasses.replace(base.config, method=method)
    return Recognizer(method.build(base.clip), base.tokenizer, config).save(
        tmp_path_factory.mktemp("run") / "mine"
    )


def test_attend_draws_several_models(run, video: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "attention.png"
    common = ("attend", video, "--models", f"frozen,nano,{folder}", "--model", "nano", "--out", out)
    result = run(*common, "--animate", tmp_path / "moving.gif", "--json")
    assert result.code == 0, result.err
    frozen, nano, tuned = result.json["models"]
    assert len(result.json["seconds"]) == 8
    assert frozen["patches"] == nano["patches"] != tuned["patches"]
    assert np.shape(tuned["patches"]) == (8, 5, 5)
    assert (
        max(frozen["shares"]["padding"], nano["shares"]["padding"]) < 1e-5
    )  # 1 less a sum of float32
    assert tuned["shares"]["padding"] > 0
    picture = np.asarray(Image.open(out).convert("RGB")).astype(int)
    assert picture.shape[1] > 1000
    assert picture.shape[0] > 500
    coloured = (picture.max(axis=2) - picture.min(axis=2) > 30).mean(
        axis=1
    )  # grey frames under a coloured heat
    assert (coloured > 0.1).mean() > 0.5
    with Image.open(tmp_path / "moving.gif") as film:
        assert film.n_frames == 8
        first = np.asarray(film.convert("RGB"))
        film.seek(5)
        assert not np.array_equal(first, np.asarray(film.convert("RGB")))

    mine = ("attend", video, "--models", folder, "--model", "nano", "--out", out)
    result = run(*mine, "--rollout", "--layer", 1, "--animate", tmp_path / "moving.mp4")
    assert result.code == 0, result.err
    assert "padding" in result.out
    with Video(tmp_path / "moving.mp4") as film:
        assert film.num_frames == 8
        assert film.read([3]).float().std() > 10


def test_attend_says_what_is_wrong(run, video: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    one_line(run("attend", video, "--models", "nano", "--out", tmp_path / "a.jpg"), 2, ".png")
    one_line(
        run("attend", video, "--models", "nano", "--out", out, "--animate", tmp_path / "a.avi"),
        2,
        ".gif or an .mp4",
    )
    one_line(run("attend", video, "--models", "nano,,", "--out", out), 2, "--models")
    one_line(
        run("attend", video, "--models", "frozen", "--model", folder, "--out", out), 2, "plain CLIP"
    )
    one_line(run("attend", video, "--models", "nano", "--out", out, "--layer", 7), 2, "no layer 7")
    one_line(run("attend", tmp_path / "none.mp4", "--models", "nano", "--out", out), 2, "none.mp4")
    assert not out.exists()
