"""ER-ZASR: its networks under every name they are released by, its facts, and the command."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from froster.data.manifest import Item
from froster.errors import CheckpointError, DataError
from froster.methods.bert import Bert, read_bert
from froster.methods.bit_resnet import BiTResNet
from froster.methods.er_zasr import ElaborativeRehearsal, Paired, learning_rate, rehearse, union
from froster.methods.tsm_resnet import TSMResNet, shift
from froster.text.definitions import WordPieces, read_concepts, read_definitions
from froster.training.streams import SEGMENTS, Streams, even_points, extract, read_bit, read_streams
from froster.video.sampling import Timing
from golden import close, shared
from tiny_rehearsal import bert_folder, bit_state, npz_name, timm_name, tsm_state, write_parts
from video_files import make_video

pytestmark = pytest.mark.usefixtures("few_templates_throughout")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_still_clip_is_shifted_at_its_ends_alone() -> None:
    network = TSMResNet.of(tsm_state())
    still = torch.randn(1, 1, 3, 32, 32).expand(1, 12, 3, 32, 32)
    with torch.no_grad():
        out = network(still)[0]
    # Four shifts carry the missing neighbour at most four frames inward.
    assert torch.allclose(out[4:8], out[4].expand(4, -1), atol=1e-5)
    assert not torch.allclose(out[0], out[5], atol=1e-3)
    few = torch.randn(6, 7, 2, 2)
    assert torch.equal(shift(few, 3), few)


def test_videos_of_a_batch_do_not_meet() -> None:
    network, clips = TSMResNet.of(tsm_state()), torch.randn(3, 4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(clips)[[2, 0, 1]], network(clips[[2, 0, 1]]), atol=1e-5)


def test_what_is_no_tsm_says_what_is_missing() -> None:
    state = tsm_state()
    del state["base_model.layer2.0.bn2.bias"]
    with pytest.raises(CheckpointError, match=r"layer2\.0\.bn2\.bias"):
        TSMResNet.of(state)
    with pytest.raises(CheckpointError, match=r"conv1\.weight"):
        TSMResNet.of({"new_fc.weight": torch.zeros(2, 3)})


def test_bit_under_every_name(tmp_path: Path) -> None:
    state, frames = bit_state(), torch.randn(2, 3, 64, 64)
    arrays = {
        npz_name(name): (t.permute(2, 3, 1, 0) if t.ndim == 4 else t).numpy()
        for name, t in state.items()
    }
    np.savez(tmp_path / "bit.npz", **arrays)
    others = [read_bit(tmp_path / "bit.npz"), {timm_name(n): t for n, t in state.items()}]
    with torch.no_grad():
        expected = BiTResNet.of(state)(frames)
        for other in others:
            assert torch.equal(BiTResNet.of(other)(frames), expected)
        moved = {
            n: 3 * t + 2 if n.startswith("body") and "conv" in n else t for n, t in state.items()
        }
        assert torch.allclose(BiTResNet.of(moved)(frames), expected, atol=1e-4)


@torch.no_grad()
def test_bit_does_not_see_what_its_standardisation_takes_away() -> None:
    state, frames = bit_state(), torch.randn(2, 3, 32, 32)
    plain = BiTResNet.of(state)(frames)
    for moved in (lambda x: x + 0.3, lambda x: 5 * x):
        name = "body.block2.unit01.conv2.weight"
        close(BiTResNet.of({**state, name: moved(state[name])})(frames), plain, atol=1e-4)
    assert not torch.allclose(BiTResNet.of({**state, name: -state[name]})(frames), plain, atol=1e-2)


def test_bert_is_that_of_transformers(tmp_path: Path) -> None:
    reference = bert_folder(tmp_path)
    state, heads = read_bert(tmp_path)
    network = Bert.of({f"bert.{name}": tensor for name, tensor in state.items()}, heads).eval()
    ids, mask = torch.randint(0, 40, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.allclose(network(ids, mask), expected, atol=1e-5)
    network.freeze_all_but(2)
    assert sum(not weight.requires_grad for weight in network.parameters()) == 21
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(CheckpointError, match="hidden_act is 'relu'"):
        read_bert(tmp_path)


def test_objects_never_speak_against_a_class() -> None:
    video, objects = torch.randn(4, 6), -torch.rand(4, 6)
    assert torch.equal(Paired(video, objects).late(), video)
    assert torch.equal(Paired(video, objects).early(), video + objects)


def test_rehearsal_of_one_concept_a_video_is_cross_entropy() -> None:
    scores = torch.randn(5, 5)
    assert torch.allclose(
        rehearse(scores, torch.eye(5).long()), F.cross_entropy(scores / 0.1, torch.arange(5))
    )


def test_facts() -> None:
    facts = json.loads(shared("fixtures", "facts_erzasr.json").read_text())
    for case in facts["video_stream_sampling"]:
        timing = Timing(range(case["frames"]), 25.0)
        assert SEGMENTS.view_indices(timing, 1) == [case["decoder_index"]]
    for case in facts["object_stream_sampling"]:
        assert even_points(case["frames"]) == case["index"]
    videos = facts["rehearsal_collate"]["videos"]
    texts, targets = union(
        [video["top_concepts"] for video in videos], [video["negatives"] for video in videos]
    )
    assert targets.tolist() == facts["rehearsal_collate"]["targets"]
    assert texts[3:6] == ["alpha: first thing", "eta: seventh", "beta: second thing"]
    schedule = facts["lr_schedule"]
    sizes = schedule["T_max"], schedule["warmup_iterations"], schedule["base_lr"], schedule["batch"]
    for step, rate in schedule["lr_used_at_iteration"].items():
        assert learning_rate(int(step), *sizes) == pytest.approx(rate, rel=1e-6, abs=1e-15)


def test_definitions(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    entry = {"word": "wave_hand", "cleaned_word": "waving", "cleaned_defn": "to move a hand"}
    for data in ([entry], {"any": entry}):
        file.write_text(json.dumps(data))
        assert read_definitions(file)["wave hand"] == "waving: to move a hand"
    file.write_text(json.dumps({"Jump": "to move"}))
    assert read_definitions(file) == {"jump": "Jump: to move"}
    file.write_text(json.dumps([{"word": "jump"}]))
    with pytest.raises(DataError, match="cleaned_defn"):
        read_definitions(file)


def test_concepts_of_timms_tables(tmp_path: Path) -> None:
    (tmp_path / "imagenet21k_goog_synsets.txt").write_text("n2\nn1\n")
    (tmp_path / "imagenet_synset_to_lemma.txt").write_text("n1\tRed_Thing, blue\nn2\tHand\n")
    (tmp_path / "imagenet_synset_to_definition.txt").write_text("n1\ta kind\nn2\tA part\n")
    assert read_concepts(tmp_path) == ["hand: a part", "red thing, blue: a kind"]
    wheel = tmp_path / "timm-1.0.31-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path in tmp_path.glob("*.txt"):
            file.write(path, f"timm/data/_info/{path.name}")
    assert read_concepts(wheel) == read_concepts(tmp_path)
    wheel.write_bytes(b"no wheel")
    with pytest.raises(DataError, match="no wheel of timm"):
        read_concepts(wheel)
    (tmp_path / "imagenet_synset_to_lemma.txt").unlink()
    with pytest.raises(DataError, match="imagenet_synset_to_lemma"):
        read_concepts(tmp_path)


def test_long_texts_are_cut(tmp_path: Path) -> None:
    bert_folder(tmp_path)
    pieces = WordPieces(tmp_path)
    pieces.limit(512)
    ids, mask = pieces(["a thing", "a " * 300])
    assert ids.shape == (2, 100) and ids[1, -1] == 3 and mask[0].sum() == 4
    pieces.limit(60)
    assert pieces(["a " * 300])[0].shape == (1, 60)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    count = 5
    for part, names in (("base", ("wave", "jump")), ("novel", ("red_thing", "blue"))):
        for name in names:
            (folder / part / name).mkdir(parents=True)
            for number in range(2):
                count += 3
                make_video(folder / part / name / f"{number}.mp4", count, size=(64, 48))
    (folder / "novel" / "blue" / "2.mp4").write_bytes(b"no video")
    return folder


CLASSES = {
    "wave": "to move a hand",
    "jump": "to move of a kind",
    "Red thing": "a thing",
    "blue": "a kind",
}


def test_both_stages_and_the_head_again(run, videos: Path, tmp_path: Path) -> None:
    parts = write_parts(tmp_path, CLASSES)
    common = [*parts, "--workers", 0, "--device", "cpu", "--json"]
    first = [*("--data", videos / "base", "--validation", videos / "novel"), "--width", 16]
    novel, out = ("--novel", videos / "novel"), tmp_path / "run"
    result = run(
        *("rehearse", *common, *first, *novel, "--out", out),
        *("--epochs", 3, "--batch-size", 2, "--lr", 0.01, "--negatives", 2),
    )
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["computed"] == 4 + 4  # the novel ones serve twice
    assert report["novel"]["videos"] == 5 and report["novel"]["unreadable"] == 1
    assert all(str(videos / "novel" / "blue" / "2.mp4") in error for error in report["unreadable"])
    assert len(set(report["unreadable"])) == 1 and report["unreadable"][0].count("2.mp4") == 1
    losses = [epoch["loss"] for epoch in report["epochs"]]
    assert losses[-1] < losses[0]
    rows = (out / "predictions.csv").read_text().splitlines()
    assert len(rows) == 6 and rows[0].startswith("video,label,prediction,rank")
    weights = load_file(out / "model.safetensors")
    assert {"act_gate_fc.3.bias", "vis_encoder.ft_embed.weight"} <= weights.keys()
    frozen = "txt_backbone.bert.encoder.layer.0.output.dense.weight"
    start = load_file(tmp_path / "bert" / "model.safetensors")
    name = "encoder.layer.{}.output.dense.weight"
    assert torch.equal(weights[frozen], start[name.format(0)])
    assert not torch.equal(weights[f"txt_backbone.bert.{name.format(2)}"], start[name.format(2)])

    moved = shutil.copytree(videos / "novel", tmp_path / "moved")
    again = run(
        *("rehearse", *common, "--novel", moved, "--out", tmp_path / "again", "--epochs", 0),
        *("--head", out / "model.safetensors", "--features", out / "features"),
    )
    assert again.code == 0, again.err
    second = json.loads(again.out)
    assert second["computed"] == 0 and second["epochs"] == []
    known = [row.partition(",")[2] for row in rows]
    repeated = (tmp_path / "again" / "predictions.csv").read_text().splitlines()
    assert [row.partition(",")[2] for row in repeated] == known


def test_parts_of_videos_are_read_as_such(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 40, size=(64, 48), fps=10)
    read = read_streams
    path = str(tmp_path / "a.mp4")
    (whole,), (first,), (every,) = (read((path, s)) for s in (None, (0.0, 2.0), (0.0, 9.0)))
    assert all(np.array_equal(a, b) for a, b in zip(whole, every, strict=True))
    assert np.array_equal(whole[1][0], first[1][0]) and not np.array_equal(whole[1], first[1])
    write_parts(tmp_path, CLASSES)
    items = [Item(tmp_path / "a.mp4", "wave", span=span) for span in ((0, 2), (2, 4), (2, 4))]
    streams = Streams(tmp_path / "tsm.pth", tmp_path / "bit.pth")
    extracted = extract(items, streams, tmp_path / "features", torch.device("cpu"))
    assert extracted.computed == 3 and not extracted.errors
    videos = [stored.video for stored in extracted.stored if stored is not None]
    assert torch.equal(videos[1], videos[2]) and not torch.allclose(videos[0], videos[1])
    assert extract(items, streams, tmp_path / "features", torch.device("cpu")).computed == 0


def test_mistakes_are_one_sentence(run, videos: Path, tmp_path: Path) -> None:
    parts = write_parts(tmp_path, {"wave": "to move", "Red thing": "a thing", "blue": "a kind"})
    base, out = ("--data", videos / "base"), ("--out", tmp_path / "run")
    result = run("rehearse", *parts, *base, *out)
    assert result.code == 1 and "1 of 2 classes have no definition, such as 'jump'" in result.err
    result = run("rehearse", *parts, *out)
    assert result.code == 2 and "nothing to train on" in result.err
    result = run("rehearse", *parts, *base, *out, "--epochs", 0)
    assert result.code == 2 and "pass --head" in result.err
    result = run("rehearse", *parts, *base, *out, "--epochs", 0, "--head", tmp_path / "head")
    assert result.code == 2 and "pass --novel" in result.err
    (tmp_path / "concepts.txt").write_text("a thing\n")
    novel = ("--data", videos / "novel", "--workers", 0, "--width", 8)
    fresh = ("--features", tmp_path / "fresh")
    result = run("rehearse", *parts, *novel, *out)
    assert result.code == 1 and "the table has 1 texts" in result.err
    np.save(tmp_path / "bit.npy", np.zeros(3))
    (tmp_path / "bit.npy").rename(tmp_path / "bit.npz")
    result = run("rehearse", *parts, *novel, *out, "--bit", tmp_path / "bit.npz", *fresh)
    assert result.code == 1 and "bit.npz: not a readable npz" in result.err
    for option in ("--tsm", "--bit", "--bert", "--concepts", "--definitions", "--novel", "--head"):
        result = run("rehearse", *parts, *novel, *out, option, tmp_path / "none")
        assert result.code in (1, 2) and "none" in result.err and result.err.count("\n") == 1
    torch.save({"a": torch.zeros(2)}, tmp_path / "bit.pth")
    result = run("rehearse", *parts, *novel, *out)
    assert result.code == 1 and "bit.pth: no BiT ResNet" in result.err


def test_an_official_head_loads_with_its_pooler(tmp_path: Path) -> None:
    from froster.training.rehearsal import given_network

    bert_folder(tmp_path)
    state, heads = read_bert(tmp_path)
    network = ElaborativeRehearsal(Bert.of(state, heads), 12, 8)
    weights = network.state_dict()
    pooled = {**weights, "txt_backbone.bert.pooler.dense.weight": torch.zeros(32, 32)}
    loaded = given_network(pooled, heads).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    with pytest.raises(CheckpointError, match="no head of ER-ZASR"):
        given_network({"a": torch.zeros(1)}, heads)
