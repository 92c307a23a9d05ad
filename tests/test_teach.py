"""`froster teach`: features are computed once, a round is seconds, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import froster
from froster.data.manifest import Item
from froster.errors import DataError
from froster.evaluation.calibration import NO_RULE
from froster.inference.features import FeatureStore, KeptViews, about_features, keep, views_of
from froster.inference.features import Request as Wanted
from froster.inference.recognizer import Recognizer
from froster.inference.store import Store
from froster.methods.closed_set import LPPlusPlus
from froster.training.examples import ExampleFile
from froster.training.reporter import Reporter
from froster.training.teach_inputs import segments_in
from froster.world.files import write_video
from froster.world.sets import SETS, record
from shared_files import World

pytestmark = pytest.mark.usefixtures("few_templates_throughout")
LABELS = World("base", 4).classes[:3]


class Heard(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of each of three classes."""
    root, world = tmp_path_factory.mktemp("videos"), World("base", 4)
    for i in range(12):
        world.write(i, root / world.label(i).replace(" ", "_") / f"{i}.mp4")
    return root


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fourth class, and a correction of the first video."""
    root, world = tmp_path_factory.mktemp("more"), World("base", 4)
    for i in (12, 13):
        world.write(i, root / world.label(i).replace(" ", "_") / f"{i}.mp4")
    return root


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept for all tests of this file."""
    return tmp_path_factory.mktemp("features")


@pytest.mark.parametrize(
    "method", ["prolip", "lp++", pytest.param("tip", marks=pytest.mark.slow), "tip-f"]
)
def test_every_method_leaves_a_model_that_other_commands_take(
    run, videos: Path, features: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "taught"
    asked = ("--out", out, "--model", "nano", "--method", method, "--features", features)
    ran = run("teach", videos, *asked, "--device", "cpu", "--workers", 0)
    assert ran.code == 0, ran.err
    assert "gained on base classes: " in ran.out and "chance 33.3" in ran.out
    assert ("kept on other labels: " in ran.out) == (method == "prolip")
    assert ("nothing else is kept" in ran.out) == (method != "prolip")

    video, labels = videos / LABELS[0].replace(" ", "_") / "0.mp4", ",".join(LABELS)
    ran = run("classify", video, "--labels", labels, "--model", out, "--json")
    assert ran.code == 0, ran.err
    (answer,) = json.loads(ran.out)["results"]
    expected = froster.load(out, device="cpu").classify(video, LABELS)
    assert [entry["label"] for entry in answer["scores"]] == expected.labels
    ran = run("timeline", video, "--labels", labels, "--model", out, "--json")
    assert ran.code == 0, ran.err
    ran = run("evaluate", "--data", videos, "--model", out, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    taught = json.loads((out / "report.json").read_text())
    assert (report["part"], report["trained_on"]) == ("test", 9)
    assert report["splits"]["test"]["top1"] == pytest.approx(taught["test"]["base"]["top1"])
    ran = run("classify", video, "--labels", "a dog,a cat", "--model", out)
    assert ran.code == (0 if method == "prolip" else 2)
    assert method == "prolip" or "knows only the 3 classes that it was taught" in ran.err


def test_features_are_computed_once(videos: Path, more: Path, tmp_path: Path) -> None:
    first, heard = tmp_path / "first", Heard()
    options = {"device": "cpu", "steps": 5, "views": 2}
    result = froster.teach(videos, first, "nano", reporter=heard, **options)
    views = 1 + options["views"]
    computed = 9 * views + 3  # of test videos without random clips
    assert result.report["features"]["new"] == computed and result.report["features"]["kept"] == 0
    assert any(f"{computed} clips computed" in line and " MB in " in line for line in heard.lines)

    again = froster.teach(videos, first, "nano", **options)
    assert (again.report["features"]["new"], again.report["features"]["kept"]) == (0, computed)
    same = result.model.model.state_dict()
    assert all(torch.equal(x, same[name]) for name, x in again.model.model.state_dict().items())

    on = froster.teach(None, first, more=more, device="cpu")
    assert on.report["features"]["new"] == 2 * views
    assert on.report["taught"]["steps"] == 5, "options of the first round hold"
    assert on.report["corrections"] == 2 and len(on.report["base_classes"]) == 4
    assert on.report["training_videos"] == 11, "corrections all train"

    # The last map is what is trained: the taught model sees what was kept.
    onward = froster.teach(
        videos, tmp_path / "second", str(first), features=first / "features", **options
    )
    assert onward.report["features"]["new"] == 0
    projections = [r.model.clip.visual.proj for r in (on, onward)]
    assert not torch.equal(*projections)


def test_a_correction_takes_the_place_of_what_was_taught(
    videos: Path, features: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", {"device": "cpu", "features": features, "method": "tip"}
    froster.teach(videos, out, "nano", **options)
    wrong = videos / LABELS[0].replace(" ", "_") / "0.mp4"
    table = tmp_path / "more.csv"
    table.write_text(f"path,label\n{wrong},{LABELS[1]}\n")
    result = froster.teach(None, out, more=table, **options)
    examples = ExampleFile(out).examples
    assert [(e.round, e.label) for e in examples if e.path == str(wrong)] == [
        (0, LABELS[0]),
        (1, LABELS[1]),
    ]
    counts = dict(zip(sorted(LABELS), result.model.model.closed.values.sum(0), strict=True))
    assert (counts[LABELS[1]], counts[LABELS[2]]) == (4, 3), "of four videos three train"
    # The first round anew leaves corrections as they are.
    heard = Heard()
    froster.teach(videos, out, "nano", reporter=heard, **options)
    assert "1 corrections of earlier rounds are kept" in heard.lines
    assert len(ExampleFile(out).examples) == 13


def test_another_round_may_start_in_another_folder(
    nano: Recognizer, videos: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first round was told by paths from where it stood is found by the next."""
    first = tmp_path / "first"
    nano.save(first / "model")
    (first / "words.json").write_text(json.dumps({LABELS[0]: f"it is {LABELS[0]}"}))
    monkeypatch.chdir(first)
    asked = {"device": "cpu", "method": "tip", "views": 0}
    froster.teach(videos, "out", "model", descriptions="words.json", features="kept", **asked)
    monkeypatch.chdir(tmp_path)
    result = froster.teach(None, first / "out", more=more, device="cpu")
    assert result.report["features"]["folder"] == str(first / "kept")
    assert result.report["source"]["model"] == str(first / "model")
    settings = first / "out" / "teach.json"
    for text in ("[]", '{"options": {"strenght": "1"}}'):
        settings.write_text(text)
        with pytest.raises(froster.FrosterError, match=r"teach\.json: cannot be read"):
            froster.teach(None, first / "out", device="cpu")


def test_in_python_nothing_is_written(nano: Recognizer, videos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = {
        label: sorted((videos / label.replace(" ", "_")).iterdir())[:2] for label in LABELS[:2]
    }
    before = nano.clip.visual.proj.clone()
    result = nano.teach(examples, steps=5, views=1, holdout=0.0)
    assert isinstance(result, froster.TeachResult) and result.folder is None
    assert not list(tmp_path.iterdir())
    assert torch.equal(nano.clip.visual.proj, before)
    assert not torch.equal(result.model.clip.visual.proj, before)
    assert "not measured" in result.lines[0]
    pairs = [(path, label) for label, paths in examples.items() for path in paths]
    same = froster.teach(pairs, model=nano, steps=5, views=1, holdout=0.0)
    assert torch.equal(same.model.clip.visual.proj, result.model.clip.visual.proj)
    assert result.model.classify(examples[LABELS[0]][0], LABELS).label in LABELS


def test_what_is_held_out_is_measured(run, tmp_path: Path, features: Path) -> None:
    root, world = tmp_path / "videos", World("base", 3)
    for i in range(12):
        world.write(i, root / world.label(i) / f"{i}.mp4")
    ran = run(
        *("teach", root, "--out", tmp_path / "out", "--model", "nano", "--novel-fraction", 0.5),
        *("--features", features, "--device", "cpu", "--workers", 0, "--hold", "both"),
    )
    assert ran.code == 0, ran.err
    assert "kept on novel classes: " in ran.out and "asked for all 4 labels together" in ran.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["changes"]) == {"base", "novel", "together"}
    assert report["changes"]["novel"]["chance"] == 50 and report["taught"]["hold"] == "both"
    novel = report["novel_classes"][0]
    video = next((root / novel).iterdir())
    (tmp_path / "more.csv").write_text(f"path,label\n{video},{novel}\n")
    ran = run("teach", "--more", tmp_path / "more.csv", "--out", tmp_path / "out")
    assert ran.code == 1 and "is held out to see what is kept" in ran.err


@pytest.mark.parametrize("method", ["prolip", "lp++"])
def test_a_taught_model_is_calibrated(run, tmp_path: Path, features: Path, method: str) -> None:
    """Where 20 videos of three classes are held out, to which `froster calibrate` fits the same."""
    world, folder = World("base", 10), tmp_path / "videos"
    for label in range(5):
        few = world.classes[label] in ("car swinging", "tree pulsing")  # held out as novel
        for take in range(2 if few else 10):
            i = 10 * label + take
            world.write(i, folder / world.label(i).replace(" ", "_") / f"{take}.mp4")
    asked = ("--method", method, "--novel-fraction", 0.25 if method == "prolip" else 0)
    how = ("--device", "cpu", "--workers", 0, "--views", 1, "--holdout", 0.7)
    out = ("--out", tmp_path / "t", "--model", "nano")
    ran = run("teach", folder, *out, "--features", features, *asked, *how)
    assert ran.code == 0, ran.err
    taught = froster.load(tmp_path / "t", device="cpu")
    fitted = taught.calibration.fitted
    assert fitted is not None, ran.err
    assert fitted["to"] == "the held-out videos" and fitted["videos"] >= 20
    line = f"calibrated to the {fitted['videos']} held-out videos: "
    assert (taught.calibration.none is None) == (NO_RULE in ran.out) == (line not in ran.out)
    report = json.loads((tmp_path / "t" / "report.json").read_text())
    assert report["calibrated"] == fitted and report["left_out"] == []
    answer = taught.classify(next(folder.glob("*/0.mp4")), report["base_classes"])
    assert (answer.none is None) == (taught.calibration.none is None)
    table = tmp_path / "held.csv"  # the other command leaves out what was taught
    rows = [
        f"{path},{path.parent.name.replace('_', ' ')}"
        for path in sorted(folder.glob("*/*.mp4"))
        if path.parent.name.replace("_", " ") in report["base_classes"]
    ]
    table.write_text("\n".join(["path,label", *rows]) + "\n")
    ran = run("calibrate", tmp_path / "t", "--data", table, "--out", tmp_path / "c", *how[:2])
    assert ran.code == 0, ran.err
    other = froster.load(tmp_path / "c", device="cpu").calibration
    assert taught.calibration.temperature == pytest.approx(other.temperature, rel=1e-3)
    assert taught.calibration.multi_label.label == pytest.approx(other.multi_label.label, rel=0.02)


def test_an_index_is_taught_from(run, nano: Recognizer, videos: Path, tmp_path: Path) -> None:
    clips, index = tmp_path / "clips", tmp_path / "index"
    shutil.copytree(videos, clips)
    froster.index("nano", clips, index)
    table = tmp_path / "labels.csv"
    rows = [f"{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(clips.glob("*/*.mp4"))]
    table.write_text("\n".join(["path,label", *rows]) + "\n")
    options = ("--device", "cpu", "--workers", 0)

    ran = run("teach", index, "--out", tmp_path / "a", *options)
    assert ran.code == 2 and "--labels" in ran.err
    asked = (index, "--labels", table, "--out")
    ran = run("teach", *asked, tmp_path / "b", "--steps", 5, *options)
    assert ran.code == 0, ran.err
    assert list((index / "features").glob("*/*.safetensors"))

    shutil.rmtree(clips)  # an index outlives its videos
    ran = run("teach", *asked, tmp_path / "c", "--steps", 5, *options)
    assert ran.code == 2 and "behind the projection, which prolip trains" in ran.err
    ran = run("teach", *asked, tmp_path / "d", "--method", "lp++", *options)
    assert ran.code == 0, ran.err
    model = froster.load(tmp_path / "d", device="cpu")
    assert isinstance(model.config.method, LPPlusPlus)
    about = Store(index).about
    shutil.rmtree(index)
    Store.create(index, {**about, "model": "another"}, 4)
    ran = run("teach", *asked, tmp_path / "e", "--method", "tip", *options)
    assert ran.code == 2 and "made by another model" in ran.err


def test_what_cannot_be_read_is_skipped_and_counted(
    run, videos: Path, features: Path, tmp_path: Path
) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    for label in LABELS[:2]:
        (tmp_path / "videos" / label.replace(" ", "_") / "broken.mp4").write_bytes(b"no video")
    ran = run(
        *("teach", tmp_path / "videos", "--out", tmp_path / "out", "--model", "nano", "--steps", 3),
        *("--features", features, "--device", "cpu", "--workers", 0, "--json"),
    )
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert len(report["skipped"]) == 1 and "broken.mp4" in report["skipped"][0], "of one content"
    assert "gained" not in ran.out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: shutil.rmtree(v), "no such file|does not exist|cannot be read"),
        (lambda v: [shutil.rmtree(d) for d in sorted(v.iterdir())[1:]], "two or more base classes"),
        (
            lambda v: [p.write_bytes(f"{p}".encode()) for p in v.glob("*/*.mp4")],
            "no video of .* could be read",
        ),
        (lambda v: (v / "a.txt").write_text(""), ""),
    ],
)
def test_bad_videos_are_one_line(run, videos: Path, tmp_path: Path, change, sentence: str) -> None:
    mine = tmp_path / "videos"
    shutil.copytree(videos, mine)
    change(mine)
    options = ("--model", "nano", "--device", "cpu", "--workers", 0, "--steps", 2)
    ran = run("teach", mine, "--out", tmp_path / "out", *options)
    assert (ran.code == 0) == (not sentence), ran.err
    if sentence:
        import re

        last = ran.err.strip().splitlines()[-1]
        assert last.startswith("froster: ") and re.search(sentence, last), last


def test_small_parts_of_features_are_joined(tmp_path: Path) -> None:
    """As rounds of corrections leave them; another process reads on."""
    about = {"made_by": "a test"}
    store, other = FeatureStore(tmp_path, about), FeatureStore(tmp_path, about)
    for i in range(40):
        store.add({f"v{i}/c0": torch.full((2, 3), float(i))})
        if i == 9:
            other.refresh()
    assert store.folder is not None
    assert len(list(store.folder.glob("*.safetensors"))) < 12
    assert other.get("v5/c0")[0, 0] == 5 and other.load(["v7/c0"])["v7/c0"][0, 0] == 7
    fresh = FeatureStore(tmp_path, about)
    assert [float(fresh.get(f"v{i}/c0")[0, 0]) for i in range(40)] == list(range(40))


def test_features_that_differ_from_what_was_written_are_none(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {"made_by": "a test"})
    store.add({"v/c0": torch.ones(2, 3)})
    (part,) = store.places.values()
    data = bytearray(part.read_bytes())
    data[-1] ^= 1  # of a number
    part.write_bytes(data)
    fresh = FeatureStore(tmp_path, store.about)
    with pytest.raises(DataError, match="damaged; remove it, and it is computed again"):
        fresh.get("v/c0")
    assert fresh.load(["v/c0"]) == {} and not fresh.places
    save_file({"v/c0": torch.ones(2, 3)}, part)  # as older versions wrote it
    assert torch.equal(FeatureStore(tmp_path, store.about).get("v/c0"), torch.ones(2, 3))


def test_one_example_a_class(nano: Recognizer, videos: Path, features: Path) -> None:
    one = {label: [next((videos / label.replace(" ", "_")).iterdir())] for label in LABELS}
    for method in ("prolip", "lp++", "tip-f"):
        result = froster.teach(one, model=nano, method=method, features=features)
        assert "not measured" in result.lines[0]
        assert result.report["training_videos"] == 3


def test_equal_features_teach_nothing(nano: Recognizer, tmp_path: Path) -> None:
    grey = {}
    for i, label in enumerate(("one", "other")):
        frames = torch.from_numpy(np.full((16 + i, 3, 60, 60), 128, np.uint8))
        grey[label] = [write_video(tmp_path / f"{label}.mp4", frames) or tmp_path / f"{label}.mp4"]
    with pytest.raises(froster.DataError, match="have the same features"):
        froster.teach(grey, model=nano)


def test_requests_that_cannot_be_met(run, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, sentence in (
        ((), "give labelled videos"),
        ((videos, "--strength", "much"), "1/shots2 or a number"),
        ((videos, "--method", "tip", "--lr", "1"), "--lr is of prolip"),
        ((videos, "--method", "tip", "--steps", "3"), "--steps is of prolip and lp++"),
    ):
        ran = run("teach", *arguments, "--out", out, "--model", "nano", "--device", "cpu")
        assert ran.code == 2 and sentence in ran.err, ran.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    ran = run("teach", videos, "--out", tmp_path / "full", "--model", "nano")
    assert ran.code == 2 and "holds something else" in ran.err
    lp = froster.teach(videos, tmp_path / "tip", "nano", method="tip", views=0, device="cpu").model
    ran = run("blend", tmp_path / "tip")
    assert ran.code == 2 and "was taught by froster teach" in ran.err
    ran = run("train", "--data", videos, "--model", tmp_path / "tip", "--out", tmp_path / "run")
    assert ran.code == 2 and "train the one that it was made from" in ran.err
    with pytest.raises(froster.UsageError, match="knows its own classes alone"):
        lp.teach({"a": [], "b": []} | {"a": [videos / "x"], "b": [videos / "y"]})


def requests(videos: Path, *views: str) -> list[Wanted]:
    paths = sorted(videos.glob("*/*.mp4"))[:3]
    return [Wanted(path, f"video{i}", views) for i, path in enumerate(paths)]


def test_a_store_is_whole_whatever_happens(
    nano: Recognizer, videos: Path, tmp_path: Path, monkeypatch
) -> None:
    views = KeptViews(nano.view_reader())
    about = about_features(nano, views.to_dict(), torch.float16)
    store = FeatureStore(tmp_path, about)
    names = views_of(nano.config.views, 2)
    assert names == ["c0", "r0", "r1"]

    class Stopped(Exception):
        pass

    stops = iter([None, Stopped()])

    def compute(*arguments):
        if error := next(stops):
            raise error
        return features_of(*arguments)

    from froster.inference import features as module

    features_of = module.features_of
    monkeypatch.setattr(module, "features_of", compute)
    with pytest.raises(Stopped):
        keep(nano, store, requests(videos, *names), views)
    monkeypatch.setattr(module, "features_of", features_of)
    other = FeatureStore(tmp_path, about)  # of another process
    done = keep(nano, other, requests(videos, *names), views)
    assert (done.new, done.old) == (6, 3), "the first video was kept"
    again = keep(nano, store, requests(videos, *names), views)
    assert (again.new, again.old) == (6, 3), "it was opened before the other wrote"
    for i, x in done.features.items():
        assert x.shape == (3, 8, nano.clip.config.vision.width) and x.dtype == torch.float16
        assert torch.equal(x, again.features[i])
    fresh = FeatureStore(tmp_path, about)
    assert keep(nano, fresh, requests(videos, *names), views).new == 0
    more = keep(nano, fresh, requests(videos, *names, "r2"), views)
    assert (more.new, more.old) == (3, 9), "views are kept one by one"

    part = sorted(fresh.folder.glob("*.safetensors"))[0]
    part.write_bytes(part.read_bytes()[:-7])
    assert keep(nano, FeatureStore(tmp_path, about), requests(videos, *names), views).errors == {}
    assert about_features(nano, views.to_dict(), torch.float32) != about


def test_parts_of_a_video_are_kept_apart(nano: Recognizer, tmp_path: Path) -> None:
    """The features of a part are those of a file of these frames alone."""
    sets = SETS["base"]
    frames = [record(sets, i, np.random.default_rng(i)) for i in (0, 5)]
    both = write_video(tmp_path / "both.mp4", torch.cat(frames))
    alone = [write_video(tmp_path / f"{i}.mp4", x) for i, x in enumerate(frames)]
    views = KeptViews(nano.view_reader())
    store = FeatureStore(tmp_path, about_features(nano, views.to_dict(), torch.float32))
    wanted = [Wanted(both, "both", ("c0", "r0"), span) for span in ((0.0, 2.0), (2.0, 4.0))]
    wanted += [Wanted(path, path.stem, ("c0",)) for path in alone]
    x = keep(nano, store, wanted, views, dtype=torch.float32).features
    for part, file in ((0, 2), (1, 3)):
        near = torch.nn.functional.cosine_similarity(x[part][0], x[file][0], dim=-1)
        assert near.min() > 0.98, "but for what the encoder of the file lost"
    assert not torch.allclose(x[0], x[1], atol=0.1)
    again = FeatureStore(tmp_path, store.about)
    kept = keep(nano, again, wanted, views, dtype=torch.float32)
    assert (kept.new, kept.old) == (0, 6) and torch.equal(kept.features[1], x[1])


def test_segments_of_an_index_that_lie_in_a_part() -> None:
    entry = SimpleNamespace(starts=[0.0, 2.0, 4.0], ends=[2.0, 4.0, 6.0])
    assert segments_in(entry, None) == [0, 1, 2]
    assert segments_in(entry, (2.0, 4.0)) == [1]
    assert segments_in(entry, (1.5, 6.0)) == [1, 2]
    assert segments_in(entry, (2.2, 2.8)) == [1], "the one that has the most of it"


def test_kept_features_are_what_the_network_sees(nano: Recognizer, videos: Path) -> None:
    views = KeptViews(nano.view_reader())
    store = FeatureStore(None, about_features(nano, views.to_dict(), torch.float32))
    (wanted,) = requests(videos, "c0")[:1]
    x = keep(nano, store, [wanted], views, dtype=torch.float32).features[0]
    from froster.inference.features import last_map

    embedding = nano.model.pool_frames(last_map(nano.model).embed(x)).video[0]
    expected = nano.embed_video(wanted.path)
    torch.testing.assert_close(embedding / embedding.norm(), expected, rtol=0, atol=1e-6)
    assert Item(wanted.path, "x").path == wanted.path
