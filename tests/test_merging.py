"""Merged tokens: as the paper says, in every network that can, and never mistaken for a plain one's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from froster.encoders import kernels
from froster.encoders.block import Block
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.kernels import dot_product_attention
from froster.encoders.merging import closest_pairs, merge, with_merging
from froster.encoders.model import CLIP
from froster.encoders.vision import VisionTower
from froster.errors import UsageError
from froster.inference.features import features_of, last_map
from froster.inference.fingerprint import model_fingerprint
from froster.inference.recognizer import load
from froster.inference.store import Store
from froster.inference.transport import by_transport
from froster.methods import METHODS, VCLIP, Frozen, Method
from golden import close
from shared_files import World
from test_encoder_grid import ENCODERS
from test_methods import EVERY, clips, network
from typed import one_line

COUNT, T, WIDTH = 3, 3, 32
Token = tuple[Tensor, int]
"""A vector, and how many patches it stands for."""


def paired(keys: list[Tensor], count: int) -> list[tuple[int, int]]:
    """Which token is merged into which, by the words of the paper."""
    best = []
    for i in range(0, len(keys), 2):
        likeness = {
            j: float(keys[i] @ keys[j] / keys[i].norm() / keys[j].norm())
            for j in range(1, len(keys), 2)
        }
        j = max(likeness, key=lambda j: likeness[j])
        best.append((likeness[j], i, j))
    return [(i, j) for _, i, j in sorted(best, reverse=True)[:count]]


def merged(tokens: list[Token], pairs: list[tuple[int, int]]) -> list[Token]:
    groups = {i: [i] for i in range(len(tokens))}
    for i, j in pairs:
        groups[j] += groups.pop(i)
    result = []
    for group in groups.values():
        size = sum(tokens[i][1] for i in group)
        result.append((sum(tokens[i][0] * tokens[i][1] for i in group) / size, size))
    return result


def repeated(tokens: list[Token]) -> Tensor:
    """Every token as often as it has patches: what proportional attention stands for."""
    return torch.stack([vector for vector, size in tokens for _ in range(size)])


def slow(tower: VisionTower, frames: Tensor, count: int, radius: int = 0, zeros: int = 0) -> Tensor:
    """The tower on one clip (T, 3, S, S), token by token. Beyond the clip's ends a frame sees
    `zeros` keys and values of zero."""
    prefix = tower.config.prefix
    clip = [[(vector, 1) for vector in frame] for frame in tower.embed(frames, len(frames))]
    for block in tower.transformer.blocks():
        rows = [torch.stack([vector for vector, _ in tokens])[None] for tokens in clip]
        of_frames = [[x[0] for x in block.attn.project(block.ln_1(row))] for row in rows]
        after = []
        for t, (tokens, row) in enumerate(zip(clip, rows, strict=True)):
            q, own_keys, _ = of_frames[t]
            heads = []
            for h in range(len(q)):
                seen: list[tuple[Tensor, Tensor]] = []
                for u in range(t - radius, t + radius + 1):
                    if 0 <= u < len(clip):
                        _, k, v = of_frames[u]
                        for i, (_, size) in enumerate(clip[u]):
                            seen += [(k[h, i], v[h, i])] * size
                    else:
                        seen += [(torch.zeros_like(q[0, 0]),) * 2] * zeros
                k, v = (torch.stack(x) for x in zip(*seen, strict=True))
                heads.append((q[h] @ k.T * q.shape[-1] ** -0.5).softmax(-1) @ v)
            x = (row + block.attn.merge(torch.stack(heads)[None]))[0]
            halves = [(vector, size) for vector, (_, size) in zip(x, tokens, strict=True)]
            keys = list(own_keys.mean(0)[prefix:])
            pairs = paired(keys, min(count, len(keys) // 2))
            joined = halves[:prefix] + merged(halves[prefix:], pairs)
            y = block.mlp_sublayer(torch.stack([vector for vector, _ in joined])[None])[0]
            after.append([(vector, size) for vector, (_, size) in zip(y, joined, strict=True)])
        clip = after
    whole = torch.stack([repeated(tokens) for tokens in clip])
    return tower.project(tower.pool(whole))


def tower_of(kind: str, method: Method) -> VisionTower:
    torch.manual_seed(3)
    vision = VisionConfig(32, 8, WIDTH, 3, 2, **{**ENCODERS[kind][0], "stem": False})
    config = CLIPConfig(vision, TextConfig(16, 99, WIDTH, 1, 1), WIDTH)
    clip = CLIP(config).double().eval().requires_grad_(False)
    return method.build(clip).clip.visual


@pytest.mark.parametrize("kind", ["clip", "siglip", "clipa"])
def test_a_tower_of_merged_tokens_is_the_papers(kind: str) -> None:
    tower = tower_of(kind, Frozen())
    frames = torch.randn(T, 3, 32, 32, dtype=torch.float64)
    found = with_merging(tower, COUNT)(frames[None])[0]
    close(found, slow(tower, frames, COUNT), 1e-9)
    assert not torch.allclose(found, tower(frames[None])[0], rtol=1e-3)


@pytest.mark.parametrize(("pad", "radius"), [("zero", 1), ("mask", 1), ("zero", 2)])
def test_neighbours_count_as_often_as_their_sizes(pad: Any, radius: int) -> None:
    """Zeros beyond a clip's ends still make up whole frames."""
    tower = tower_of("clip", VCLIP(radius=radius, pad=pad))
    frames = torch.randn(T, 3, 32, 32, dtype=torch.float64)
    zeros = tower.config.tokens if pad == "zero" else 0
    found = with_merging(tower, COUNT)(frames[None])[0]
    close(found, slow(tower, frames, COUNT, radius, zeros), 1e-9)


@pytest.mark.parametrize(("tokens", "count"), [(16, 3), (17, 8), (2, 1), (3, 1)])
def test_pairs_and_means(tokens: int, count: int) -> None:
    torch.manual_seed(tokens)
    keys, x = torch.randn(2, tokens, 5), torch.randn(2, tokens, 4)
    sizes = torch.randint(1, 4, (2, tokens)).float()
    pairs = closest_pairs(keys, count)
    means, left = merge(x, sizes, *pairs)
    for row in range(2):
        expected = paired(list(keys[row]), count)
        assert list(zip(*(p[row].tolist() for p in pairs), strict=True)) == expected
        tokens_of = list(zip(x[row], sizes[row].int().tolist(), strict=True))
        groups = sorted(merged(tokens_of, expected), key=lambda token: token[0].tolist())
        found = sorted(
            zip(means[row], left[row].tolist(), strict=True), key=lambda t: t[0].tolist()
        )
        close(torch.stack([v for v, _ in found]), torch.stack([v for v, _ in groups]))
        assert [size for _, size in found] == [size for _, size in groups]
    assert torch.equal(left.sum(1), sizes.sum(1))


@pytest.mark.parametrize("count", [1, 7, 10**9])
def test_any_number_of_tokens(count: int) -> None:
    """Of one frame among others the same as alone; half of the patches go in a block at most."""
    tower = with_merging(tower_of("clip", Frozen()), count)
    frames = torch.randn(2, T, 3, 32, 32, dtype=torch.float64)
    z = tower(frames)
    assert z.isfinite().all()
    close(tower(frames[1:, 2:]), z[1:, 2:], 1e-9)


MERGES = {
    *("frozen", "finetuned", "vclip", "openvclip", "actionclip", "efficient-prompt", "text4vis"),
    *("mote", "adaptformer", "ost", "lora", "l2sp", "ewc"),
}


@pytest.mark.parametrize(("name", "variant"), EVERY)
@torch.no_grad()
def test_every_method_merges_or_says_that_it_cannot(name: str, variant: str) -> None:
    """Those whose tokens are told by their places cannot."""
    model = network(name, variant)
    assert model.merges_tokens == (name in MERGES and variant != "tsm")
    if model.merges_tokens:
        z = with_merging(model, 2).encode_frames(clips())
        assert z.isfinite().all() and not torch.equal(z, model.encode_frames(clips()))


def test_rotary_places_are_not_merged() -> None:
    for kind in ("pe", "eva02"):
        vision = VisionConfig(32, 8, WIDTH, 1, 2, **ENCODERS[kind][0])
        clip = CLIP(CLIPConfig(vision, TextConfig(16, 99, WIDTH, 1, 1), WIDTH))
        assert not Frozen().build(clip).merges_tokens


def test_a_block_with_steps_of_its_own_is_not_merged() -> None:
    class Wide(Block):
        def keys_values(self, k: Tensor, v: Tensor, num_frames: int) -> Any:
            return k, v, None

    block = Wide.__new__(Wide)
    block.init_from(Block(32, 2, "gelu"))
    assert not block.merges_tokens


@pytest.mark.parametrize("shape", [(5, 3, 7, 19, 8), (40, 2, 6, 6, 8), (3, 2, 1, 11, 8)])
@pytest.mark.parametrize("amx", [True, False])
def test_a_bias_in_bfloat16(
    shape: tuple[int, ...], amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not amx:
        monkeypatch.setattr(kernels, "_has_amx", lambda: False)
    N, h, L, M, d = shape
    q, k, v = (torch.randn(N, h, n, d) for n in (L, M, M))
    bias = torch.randint(1, 9, (N, 1, 1, M)).log()
    bias[0, ..., 0] = -torch.inf
    plain = dot_product_attention(q, k, v, bias)
    found = dot_product_attention(*(x.bfloat16() for x in (q, k, v)), bias.bfloat16())
    close(found.float(), plain, 0.03)


@pytest.fixture(scope="module")
def eight():
    return load("nano", device="cpu", merge_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, videos = tmp_path_factory.mktemp("merging") / "videos", World("base", 1)
    for i in range(2):
        videos.write(i, root / videos.label(i) / f"{i}.mp4")
    return root


def test_without_merging_all_is_as_before(nano, eight) -> None:
    none = load("nano", device="cpu", merge_tokens=0)
    assert none.inference is none.model and model_fingerprint(none) == model_fingerprint(nano)
    assert "merged" not in none.summary("nano")
    assert "8 tokens merged a block" in eight.summary("nano")


def test_embeddings_of_merged_tokens_have_a_fingerprint_of_their_own(nano, eight) -> None:
    four = load("nano", device="cpu", merge_tokens=4)
    assert len({model_fingerprint(model) for model in (nano, four, eight)}) == 3
    size = nano.image_size
    pixels = torch.randint(0, 256, (2, 8, 3, size, size), dtype=torch.uint8)
    plain, fewer = (model.embed_clips(pixels) for model in (nano, eight))
    assert 0.5 < float((plain * fewer).sum(-1).min()) < 0.99999
    # Changed in the middle of its life, what was kept of the other is not used.
    four.merge_tokens = 8
    assert torch.equal(four.embed_clips(pixels), fewer)
    assert torch.equal(eight.on(torch.device("cpu")).embed_clips(pixels), fewer)
    assert torch.equal(by_transport(eight).embed_clips(pixels), fewer)


def test_what_is_taught_saved_or_exported_is_the_plain_network(nano, eight, tmp_path: Path) -> None:
    size = nano.image_size
    pixels = torch.randint(0, 256, (1, 8, 3, size, size), dtype=torch.uint8)
    kept = [features_of(m, last_map(m.inference), pixels) for m in (nano, eight)]
    assert torch.equal(*kept)
    again = load(eight.save(tmp_path / "model"), device="cpu")
    assert model_fingerprint(again) == model_fingerprint(nano)


def test_refusals() -> None:
    for count in (-1, 2.0, True, "8"):
        with pytest.raises(UsageError, match="whole number from 0"):
            load("nano", device="cpu", merge_tokens=count)  # type: ignore[arg-type]
    nano = load("nano", device="cpu")
    stan = METHODS["stan"].make()
    config = dataclasses.replace(nano.config, method=stan)
    with pytest.raises(UsageError, match="stan needs every token of a frame in its place"):
        type(nano)(stan.build(nano.clip), nano.tokenizer, config, merge_tokens=8)


def test_an_index_is_asked_as_it_was_made(run, folder: Path, tmp_path: Path) -> None:
    index, how = tmp_path / "index", ("--model", "nano", "--workers", 0)
    made = run("index", folder, "--out", index, *how, "--merge-tokens", 8, "--json")
    assert made.json["videos"] == 2 and Store(index).merge_tokens == 8
    assert run("index", folder, "--out", index, "--workers", 0, "--json").json["new"] == 0
    for count in (0, 4):
        again = run("index", folder, "--out", index, *how, "--merge-tokens", count)
        one_line(again, 2, "made with 8 merged tokens a block", f"not with {count}")
    first = sorted(folder.glob("*/*.mp4"))[0]
    answer = run("search", index, "--video", first, "--json")
    assert answer.code == 0, answer.err
    assert run("search", index, "a dog jumping", "--json").code == 0
    labels = tmp_path / "labels.csv"
    rows = [f"{path},{path.parent.name}\n" for path in sorted(folder.glob("*/*.mp4"))]
    labels.write_text("path,label\n" + "".join(rows))
    taught = run("teach", index, "--labels", labels, "--method", "lp++", "--out", tmp_path / "t")
    one_line(taught, 2, "make an index without --merge-tokens")


def test_results_and_reports_say_it(run, folder: Path, tmp_path: Path) -> None:
    out, labels = tmp_path / "rows.jsonl", "surfing, skiing"
    how = (folder, "--labels", labels, "--model", "nano", "--workers", 0, "--out", out)
    assert run("classify", *how, "--merge-tokens", 8).code == 0
    one_line(run("classify", *how), 2, "merge_tokens")
    report = tmp_path / "report"
    data = ("--data", folder, "--model", "nano", "--workers", 0, "--part", "all")
    done = run("evaluate", *data, "--merge-tokens", 8, "--out", report, "--json")
    assert done.json["merge_tokens"] == 8
    assert "merge_tokens" not in run("evaluate", *data, "--json").json
    times = run(
        "timeline",
        next(folder.glob("*/*.mp4")),
        "--labels",
        labels,
        "--json",
        "--model",
        "nano",
        "--merge-tokens",
        8,
    )
    assert times.code == 0, times.err
