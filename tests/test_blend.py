"""Weights after training: the line to CLIP, the mean over epochs, and a choice that never looks at
novel videos."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from froster.cli import main
from froster.data.manifest import Item
from froster.data.splits import Split, validation_videos
from froster.encoders.preprocessing import CLIP_PREPROCESSING
from froster.evaluation.metrics import Predictions
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.recognizer import Recognizer, load
from froster.training import blend as blending
from froster.training.blend import Known, Line, PointScorer, choose, measure_line
from froster.training.checkpoint import Checkpoints, RunState
from froster.training.finish import known_of
from froster.training.held_out import choosing_half
from froster.training.measure import EvalRow, EvalSet, Measuring
from froster.training.run_folder import Run, read_run
from froster.training.weights import halfway, with_weights
from froster.utils.tensors import cpu_state
from froster.video.sampling import Sampling
from froster.world.clips import WorldClips
from froster.world.sets import SETS, render_set
from golden import close
from shared_files import World

pytestmark = pytest.mark.usefixtures("few_templates_throughout")

TRAIN = (
    *("--model", "nano", "--batch-size", 6, "--workers", 0, "--lr", 1e-3, "--frames", 2),
    *("--no-look", "--blend-points", 0),
)


def exit_code(*arguments: object) -> int:
    before, sys.argv = sys.argv, ["froster", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def froster(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    capfd.readouterr()
    code = exit_code(*arguments)
    found = capfd.readouterr()
    assert "Traceback" not in found.err + found.out
    return code, found.out, found.err


def complaint(capfd: pytest.CaptureFixture[str], code: int, words: str, *arguments: object) -> None:
    """Exactly one line, with these words, and this exit code."""
    found, _, err = froster(capfd, "blend", *arguments)
    lines = [line for line in err.splitlines() if line.startswith("froster:")]
    assert (found, len(lines)) == (code, 1), err
    assert words in lines[0], lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three base classes (4 videos to train on, 5 to test, one for validation) and two novel ones
    with 4.

    The base classes bear each other's names: what is learnt is the opposite of what CLIP knows, and
    the line is steep.
    """
    folder, rows = tmp_path_factory.mktemp("data"), ["path,label,split,zone"]
    videos = World("base", 10)
    for i in range(50):
        label, take = divmod(i, 10)
        zone, split = (
            ("base" if label < 3 else "novel"),
            "train" if take < 4 else "test" if take < 9 else "val",
        )
        if zone == "base" or 4 <= take < 8:
            videos.write(i, folder / f"{i}.mp4")
            name = videos.classes[(label + 1) % 3 if zone == "base" else label]
            rows.append(f"{i}.mp4,{name},{split},{zone}")
    (folder / "all.csv").write_text("\n".join(rows) + "\n")
    (folder / "videos.csv").write_text("\n".join(row for row in rows if ",val," not in row) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP fine-tuned frame by frame, three epochs, every checkpoint kept."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = ("--novel-column", "zone", "--method", "finetuned", "--epochs", 3, "--keep", 0)
    assert exit_code("train", "--data", data / "videos.csv", "--out", out, *TRAIN, *options) == 0
    return out


@pytest.fixture(scope="module")
def blended(trained: Path) -> dict:
    assert exit_code("blend", trained, "--points", 5, "--workers", 0) == 0
    return json.loads((trained / "blend" / "blend.json").read_text())


def mean_of(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        name: torch.stack([s[name].double() for s in states]).mean(0).float() for name in states[0]
    }


def checkpoint(run: Path, epoch: int, name: str = "student") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"epoch-{epoch:04d}" / f"{name}.safetensors")


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder, device="cpu").model.state_dict()


def test_the_ends_of_the_line_are_the_tuned_model_and_frozen_clip(
    trained: Path, blended: dict
) -> None:
    rows = json.loads((trained / "report.json").read_text())["rows"]
    choosing, reported = blended["choosing"]["videos"], blended["reported"]["base"]
    assert (choosing, reported, blended["reported"]["novel"]) == (8, 7, 8)
    points = blended["points"]
    assert [point["ratio"] for point in points] == [0, 0.25, 0.5, 0.75, 1]
    for name, share in points[
        -1
    ].items():  # a tie of two classes may fall to the other: one video of seven or eight
        assert name in ("ratio", "hm") or abs(blended["frozen"][name] - share) < 100 / 6
    for point, row in ((points[0], rows[1]), (points[-1], rows[0])):
        base = (choosing * point["choosing"] + reported * point["base"]) / (choosing + reported)
        assert abs(base - row["base"]) < 100 / 14
        assert abs(point["novel"] - row["novel"]) < 100 / 7
    assert rows[0]["base"] != rows[1]["base"], "training changed nothing, so this test says nothing"


def test_what_is_saved_is_the_model_at_the_chosen_ratio(
    trained: Path, blended: dict, data: Path, capfd
) -> None:
    student = load(trained, device="cpu")
    base, tuned = load("nano", device="cpu"), student.model.state_dict()
    expected = halfway(base, student, tuned, blended["ratio"])
    for name, tensor in saved(trained / "blend").items():
        close(tensor, expected[name], atol=1e-7)
    assert (trained / "blend" / "blend.png").read_bytes().startswith(b"\x89PNG")
    ask = (
        "classify",
        data / "0.mp4",
        "--labels",
        "cat spinning, key pacing",
        "--model",
        trained / "blend",
    )
    assert froster(capfd, *ask)[0] == 0


def test_the_mean_over_a_range_of_epochs(trained: Path, tmp_path: Path, capfd) -> None:
    for epochs, used in (("2-3", (2, 3)), ("1-2", (1, 2)), ("1", (1,))):
        assert (
            froster(
                capfd,
                "blend",
                trained,
                "--epochs",
                epochs,
                "--ratio",
                0,
                "--out",
                tmp_path / epochs,
            )[0]
            == 0
        )
        mean = mean_of([checkpoint(trained, epoch) for epoch in used])
        found = saved(tmp_path / epochs)
        assert all(torch.allclose(found[name], mean[name], atol=1e-6) for name in mean)
    second_on = saved(tmp_path / "2-3")
    for name, tensor in saved(trained).items():  # the run's own result
        close(tensor, second_on[name], atol=1e-6)


def test_the_choice_never_sees_novel_videos(
    trained: Path, blended: dict, data: Path, tmp_path: Path, capfd
) -> None:
    """With the novel labels exchanged, and with most novel videos gone, all that concerns base
    stays as it was."""
    rows = (data / "videos.csv").read_text().splitlines()
    novel = [row for row in rows if row.endswith("novel")]
    first, second = (row.split(",")[1] for row in (novel[0], novel[-1]))
    other = {first: second, second: first}
    exchanged = [
        row.replace(label := row.split(",")[1], other[label]) if row in novel else row
        for row in rows
    ]
    fewer = [row for row in rows if row not in novel[1:-1]]
    keep = lambda report: [report["ratio"], *({**p, "novel": 0, "hm": 0} for p in report["points"])]  # noqa: E731
    for name, changed in (("exchanged", exchanged), ("fewer", fewer)):
        (data / f"{name}.csv").write_text("\n".join(changed) + "\n")
        ask = (
            "--data",
            data / f"{name}.csv",
            "--points",
            5,
            "--out",
            tmp_path / name,
            "--workers",
            0,
            "--json",
        )
        code, out, err = froster(capfd, "blend", trained, *ask)
        assert code == 0, err
        assert keep(json.loads(out)) == keep(blended)
        assert json.loads(out)["reported"]["novel"] == (8 if name == "exchanged" else 2)
        if name == "exchanged":
            assert [p["novel"] for p in json.loads(out)["points"]] != [
                p["novel"] for p in blended["points"]
            ]


def test_a_validation_split_chooses_where_there_is_one(
    trained: Path, data: Path, tmp_path: Path, capfd
) -> None:
    ask = (
        "--data",
        data / "all.csv",
        "--points",
        2,
        "--out",
        tmp_path / "b",
        "--workers",
        0,
        "--json",
    )
    found = json.loads(froster(capfd, "blend", trained, *ask)[1])
    assert (found["choosing"]["videos"], found["reported"]["base"]) == (3, 15)
    assert found["choosing"]["of"] == "the validation split"


@pytest.mark.usefixtures("no_page")
def test_open_vclip_is_blended_from_its_unpatched_mean(data: Path, tmp_path: Path, capfd) -> None:
    """Its `model/` holds half of CLIP already."""
    run = tmp_path / "run"
    train = (
        "--data",
        data / "videos.csv",
        "--out",
        run,
        *TRAIN,
        "--method",
        "openvclip",
        "--epochs",
        2,
        "--batch-size",
        12,
    )
    assert froster(capfd, "train", *train)[0] == 0
    for ratio, expected in ((0, checkpoint(run, 2, "average")), (0.5, saved(run))):
        assert froster(capfd, "blend", run, "--ratio", ratio, "--out", tmp_path / "b")[0] == 0
        for name, tensor in saved(tmp_path / "b").items():
            close(tensor, expected[name], atol=1e-7)
    complaint(
        capfd,
        1,
        "of the run's 2 it holds 2; train with --keep 0",
        run,
        "--epochs",
        "1-2",
        "--ratio",
        0,
    )
    shutil.rmtree(run / "checkpoints" / "epoch-0002")
    complaint(capfd, 1, "no checkpoint of epoch 2", run, "--ratio", 0)


def test_a_run_that_stopped_before_its_mean_is_blended_from_its_last_epoch(tmp_path: Path) -> None:
    """Its own model holds a share of CLIP; there is no mean in its checkpoint."""
    network = nn.Linear(2, 2)
    state = RunState({"student": network}, torch.optim.AdamW(network.parameters()), {})
    Checkpoints(tmp_path / "checkpoints").save(3, state)
    patched = SimpleNamespace(patch=0.5)
    student: Any = SimpleNamespace(model=network, config=SimpleNamespace(method=patched))
    run = Run(tmp_path, {"epochs": 3, "recipe": {"epochs": 6}}, source=None)  # type: ignore[arg-type]
    tuned, words = run.tuned(student)
    assert words == "last epoch"
    assert all(torch.equal(tuned[name], x) for name, x in network.state_dict().items())


@pytest.mark.usefixtures("no_page")
def test_train_averages_from_the_epoch_that_is_asked_for(data: Path, tmp_path: Path, capfd) -> None:
    run = tmp_path / "run"
    train = (
        "train",
        "--data",
        data / "videos.csv",
        "--out",
        run,
        *TRAIN,
        "--epochs",
        2,
        "--keep",
        0,
        "--average-from",
    )
    code, _, err = froster(capfd, *train, 3)
    assert (code, err.splitlines()[-1]) == (
        2,
        "froster: --average-from 3 comes after the last epoch, 2",
    )
    assert froster(capfd, *train, 1)[0] == 0
    mean = mean_of([checkpoint(run, epoch) for epoch in (1, 2)])
    for name, tensor in saved(run).items():
        close(tensor, mean[name], atol=1e-6)


def test_mistakes_are_one_line(trained: Path, data: Path, tmp_path: Path, capfd) -> None:
    complaint(capfd, 2, "no output folder of froster train", data)
    complaint(capfd, 2, "no output folder of froster train", trained / "model")
    complaint(capfd, 2, "the run", trained, "--epochs", "2-4", "--ratio", 0)
    for epochs in ("3-2", "0-1", "a", "2-"):
        complaint(capfd, 2, "--epochs takes A-B", trained, "--epochs", epochs)
    for ratio in ("1.5", "-0.1", "nan"):
        complaint(capfd, 2, "--ratio lies between 0", trained, "--ratio", ratio)
    complaint(capfd, 2, "--points must be 2 or more", trained, "--points", 1)
    complaint(capfd, 2, "--rule must be", trained, "--rule", "worst")
    complaint(capfd, 2, "something else", trained, "--ratio", 0, "--out", data)
    complaint(capfd, 1, "gone.csv does not exist", trained, "--data", tmp_path / "gone.csv")
    rows = (data / "videos.csv").read_text().splitlines()
    for name, changed, words in (
        ("short.csv", [*rows[:2], *rows[3:]], "11 training videos that differ"),
        ("base.csv", [row for row in rows if not row.endswith("novel")], "no video of"),
        (
            "untested.csv",
            [row for row in rows if ",test,base" not in row],
            "0 held-out videos of base classes are too few",
        ),
    ):
        (data / name).write_text("\n".join(changed) + "\n")
        complaint(capfd, 1, words, trained, "--data", data / name)
    other = load("nano", device="cpu")
    other.clip.logit_scale.data += 1
    complaint(
        capfd, 1, "another CLIP", trained, "--ratio", 0, "--model", other.save(tmp_path / "other")
    )


def test_runs_that_cannot_be_blended(trained: Path, tmp_path: Path, capfd) -> None:
    copy = shutil.copytree(trained, tmp_path / "run")
    report = json.loads((copy / "report.json").read_text())
    (copy / "report.json").write_text(
        json.dumps({**report, "source": {**report["source"], "data": str(tmp_path / "gone")}})
    )
    complaint(capfd, 1, "say with --data (and --root) where it is now", copy)
    del report["source"]
    (copy / "report.json").write_text(json.dumps(report))
    complaint(capfd, 2, "of an older froster", copy)
    (copy / "checkpoints" / "epoch-0002" / "student.safetensors").write_bytes(b"x")
    (copy / "report.json").unlink()
    complaint(capfd, 2, "has not finished", copy)
    (copy / "report.json").write_text((trained / "report.json").read_text())
    complaint(
        capfd, 1, "student.safetensors: cannot be read", copy, "--epochs", "1-3", "--ratio", 0
    )


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("preprocessing", {"mean": [0.5, 0.5, 0.5]}, "preprocessing.mean = [0.4814"),
        ("preprocessing", {"resize": "squash"}, "preprocessing.resize = 'shortest', not 'squash'"),
        (
            "architecture",
            {"activation": "quick_gelu"},
            "architecture.activation = 'gelu', not 'quick_gelu'",
        ),
    ],
)
def test_equal_weights_that_are_used_in_another_way_are_another_clip(
    part: str, change: dict, said: str, trained: Path, data: Path, tmp_path: Path, capfd
) -> None:
    other = load("nano", device="cpu").save(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, part: {**config[part], **change}}))
    complaint(
        capfd,
        1,
        f"has another {part} than the CLIP that the run started from",
        trained,
        "--ratio",
        0,
        "--model",
        other,
    )
    run = shutil.copytree(trained, tmp_path / "run")
    options = (
        "--novel-column",
        "zone",
        "--method",
        "finetuned",
        "--epochs",
        3,
        "--keep",
        0,
        *TRAIN,
        "--model",
        other,
    )
    code, _, err = froster(
        capfd, "train", "--data", data / "videos.csv", "--out", run, *options, "--resume"
    )
    assert (code, f"holds a run with {said}" in err) == (2, True), err


def test_a_run_of_an_older_version_said_less_of_its_source(
    trained: Path, tmp_path: Path, capfd
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    report = json.loads((run / "report.json").read_text())
    assert report["source"]["architecture"]["activation"] == "gelu"
    assert report["source"]["preprocessing"] == CLIP_PREPROCESSING.to_dict()
    for name in (
        "watch",
        "every_novel",
        "trained_on",
        "watched_by",
        "preprocessing",
        "architecture",
    ):
        report["source"].pop(name)
    (run / "report.json").write_text(json.dumps(report))
    source = read_run(run).source
    assert (source.watch, source.every_novel, source.preprocessing, source.architecture) == (
        0.0,
        False,
        None,
        None,
    )
    assert exit_code("blend", run, "--ratio", 0) == 0
    del report["source"]["training"]
    (run / "report.json").write_text(json.dumps(report))
    complaint(capfd, 2, "does not say how the data was split (no 'training')", run)


def test_the_rules() -> None:
    ratios, accuracies = [0, 0.25, 0.5, 0.75, 1], [60.0, 64.0, 64.0, 60.0, 40.0]
    assert choose(ratios, accuracies, 100, "best") == 0.5
    assert choose(ratios, accuracies, 100, "one-se") == 0.75  # 64 - 4.8
    assert choose(ratios, accuracies, 10_000, "one-se") == 0.5
    assert choose(ratios, [100.0] * 5, 4, "one-se") == 1


def test_the_halves_are_even_in_every_class_and_the_same_in_any_order_and_place() -> None:
    items = [Item(Path(f"a/{label}{i}.mp4"), label, "test") for label in "xyz" for i in range(5)]
    chooses = choosing_half(items)
    assert int(chooses.sum()) == 8
    for label in "xyz":
        assert sum(
            c for c, item in zip(chooses.tolist(), items, strict=True) if item.label == label
        ) in (2, 3)
    moved = [replace(item, path=Path("b") / item.path.name) for item in items]
    assert choosing_half(moved[::-1]).tolist() == chooses.tolist()[::-1]


def test_validation_videos_are_those_that_the_split_leaves_out() -> None:
    items = [
        Item(Path(f"{label}{split}"), label, split)
        for label in "xy"
        for split in ("train", "val", "test")
    ]
    assert [item.path.name for item in validation_videos(items, ["x"])] == ["xval"]
    assert not validation_videos([item for item in items if item.split != "test"], ["x"]), (
        "there it is the test itself"
    )


def test_a_clip_is_known_by_its_bytes_whatever_the_number_of_threads() -> None:
    """A sum over a weight of ViT-B/16's size is another one with two threads: such runs could not
    be resumed."""
    torch.manual_seed(0)
    model, threads, found = SimpleNamespace(clip=nn.Linear(3072, 768)), torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(weights_fingerprint(model))  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    assert found[0] == found[1]
    model.clip.weight.data[0, 0] += 1e-3
    assert weights_fingerprint(model) != found[0]  # type: ignore[arg-type]


def test_what_was_measured_before_is_not_measured_again(nano: Recognizer) -> None:
    """Frozen CLIP and the tuned weights are rows of the table at the end of a training."""
    rendered = render_set("base", 1)
    few = replace(rendered, frames=rendered.frames[::4], labels=rendered.labels[::4])
    clips = WorldClips(few, Sampling("uniform", 8), train=False)
    sets = [EvalSet(name, clips, SETS["base"].classes) for name in ("base", "novel")]
    tuned = {name: x + 0.01 for name, x in cpu_state(nano.model).items()}
    line = Line(nano, with_weights(nano, tuned), tuned)
    how = Measuring()
    frozen, points = measure_line(line, [0.0, 0.5, 1.0], sets, how)
    asked: list[float] = []

    class Counted(PointScorer):
        def __init__(self, line: Line, ratio: float, *rest: Any):
            asked.append(ratio)
            super().__init__(line, ratio, *rest)

    line.known = Known({"novel": frozen["novel"]}, {0.0: {"novel": points[0]["novel"]}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blending, "PointScorer", Counted)
        again, others = measure_line(line, [0.0, 0.5, 1.0], sets, how)
    assert asked == [0.0, 0.5, 1.0, 0.5, 1.0]
    for before, after in ((frozen, again), *zip(points, others, strict=True)):
        for name in ("base", "novel"):
            assert torch.equal(before[name].logits, after[name].logits)


def test_rows_of_the_table_are_those_of_the_curves_videos() -> None:
    items = [Item(Path(f"{i}.mp4"), "a") for i in range(6)]
    logits = torch.arange(12.0).view(6, 2)
    table = Predictions(["a", "b"], torch.zeros(6, dtype=torch.long), logits)
    rows = [EvalRow(name, name, {"base": table, "novel": table}) for name in ("frozen", "x", "y")]
    every = Split(["a", "b"], ["c"], [], items[:4], items)
    # A validation video chooses, which is in no table.
    few = replace(every, base_test=[Item(Path("v"), "a"), items[1]], novel_test=items[2:4])
    known = known_of(rows, {"mean, half start": {}, "mean": {}}, every, few)
    assert set(known.frozen) == set(known.points[0.0]) == {"novel"}
    assert torch.equal(known.frozen["novel"].logits, logits[2:4])
