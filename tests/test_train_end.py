"""The end of a training: whatever goes wrong there, the weights are saved, and --resume brings what
is missing."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from inspect import unwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import quick
import templates
from froster.cli import main
from froster.data.manifest import Item
from froster.data.splits import Split
from froster.errors import UsageError, WriteError
from froster.evaluation import calibration
from froster.report import page
from froster.report import training as train_report
from froster.text.labels import split_labels
from froster.training import finish as train_end
from froster.training.measure import EvalRow
from froster.utils.files import atomic_file, atomic_folder, exclusive
from shared_files import World

FAULTY = Path(__file__).with_name("faulty.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", templates.VARIABLE: "1"}
PAGELESS = {**ENVIRONMENT, quick.PAGELESS: "1"}
"""For processes of whose page nothing is asked."""
WATCHED = 20
pytestmark = pytest.mark.usefixtures("few_templates_throughout")


def froster(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    before, sys.argv = sys.argv, ["froster", *map(str, arguments)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    found = capfd.readouterr()
    assert "Traceback" not in found.err + found.out
    return code, found.out, " ".join(found.err.split())


def faulty(place: str, fault: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FAULTY), place, fault, "--", *map(str, arguments)]
    return quick.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of four classes: two training videos, five to watch by and one for the test of
    each."""
    folder, rows = tmp_path_factory.mktemp("data"), ["path,label,split"]
    for split, each in (("train", 2), ("val", 5), ("test", 1)):
        videos = World("base", each, split)  # type: ignore[arg-type]
        for i in range(4 * each):
            path = videos.write(i, folder / f"{split}{i}.mp4")
            rows.append(f"{path.name},{videos.label(i)},{split}")
    (folder / "videos.csv").write_text("\n".join(rows) + "\n")
    return folder / "videos.csv"


def train(data: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "train",
        "--data",
        data,
        "--model",
        "nano",
        "--out",
        out,
        "--epochs",
        2,
        "--batch-size",
        4,
        "--frames",
        2,
        "--workers",
        0,
        "--patience",
        9,
        "--no-look",
        *(() if "--blend-points" in more else ("--blend-points", 0)),
        *more,
    )


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has happened to. Other tests copy it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    command = [sys.executable, "-m", "froster", *map(str, train(data, out))]
    done = quick.run(command, env=ENVIRONMENT, capture_output=True, text=True, umask=0o027)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def on_processes(count: int, *arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """The command as `torchrun` starts it, the first process first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    group = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "froster", *map(str, arguments)]
    started = [
        quick.Popen(
            command,
            env={
                **PAGELESS,
                **{name: str(value) for name, value in group.items()},
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    done = [process.communicate(timeout=240) for process in started]
    return [
        subprocess.CompletedProcess(command, process.returncode, *texts)
        for process, texts in zip(started, done, strict=True)
    ]


def without_end(run: Path, out: Path) -> Path:
    """A copy of a run as it was when its last epoch had ended."""
    end = shutil.ignore_patterns("model", "last", "report.json", "report.html")
    return shutil.copytree(run, out, ignore=end)


@pytest.fixture
def broken(data: Path) -> Iterator[Path]:
    """One of the watched videos, unreadable as long as the test lasts."""
    path = data.parent / "val3.mp4"
    content = path.read_bytes()
    path.write_bytes(b"not a video")
    yield path
    path.write_bytes(content)


def same_weights(one: Path, two: Path) -> bool:
    for name in ("model", "last"):
        a, b = (load_file(run / name / "model.safetensors") for run in (one, two))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return False
    return True


def test_an_unreadable_watched_video_costs_the_calibration_alone(
    data: Path, broken: Path, whole: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    out = tmp_path / "run"
    code, text, err = froster(capfd, *train(data, out, "--json"))
    assert code == 0, err
    line = (
        f"calibration: {WATCHED - 1} readable videos of 4 classes are too few to calibrate with: it"
        " takes 20 of 3"
    )
    assert json.loads(text)["left_out"] == [line]
    assert f"left out: {line}" in err
    assert same_weights(out, whole), "what is watched changes no weight"
    assert not (out / "model" / "calibration.json").exists()
    for folder in (out, out / "model", out / "last"):
        assert json.loads((folder / "report.json").read_text()) == json.loads(text)
    assert f"Left out: {line}" in (out / "report.html").read_text()

    monkeypatch.setattr("froster.cli.train.write_page", lambda result: None)
    code, _, err = froster(capfd, *train(data, out, "--resume"))
    assert code == 0 and f"left out: {line}" in err, "--resume meets the same and says the same"
    broken.write_bytes((data.parent / "val2.mp4").read_bytes())
    code, text, err = froster(capfd, *train(data, out, "--resume", "--json"))
    assert code == 0 and json.loads(text)["left_out"] == []
    fitted = json.loads((out / "model" / "calibration.json").read_text())["fitted"]
    assert (fitted["videos"], fitted["classes"]) == (WATCHED, 4)


def test_readable_videos_are_counted(
    data: Path, broken: Path, copy: Path, monkeypatch, capfd, no_page
) -> None:
    monkeypatch.setattr(train_end, "FEWEST_VIDEOS", WATCHED - 1)
    monkeypatch.setattr(unwrap(train_end.fit), "__defaults__", ("logits", WATCHED - 1))
    code, _, err = froster(capfd, *train(data, copy, "--resume"))
    assert code == 0, err
    assert (
        json.loads((copy / "model" / "calibration.json").read_text())["fitted"]["videos"]
        == WATCHED - 1
    )


STEPS = {
    "measure_all": (train_end, "the accuracy on the test videos"),
    "calibrate": (train_end, "calibration"),
    "reliability_of": (train_end, "how far a score can be trusted"),
    "blend_curve": (train_end, "the curve between CLIP and the model"),
    "accuracy": (train_report, "report.html, Accuracy before and after"),
    "worst_mistakes": (train_report, "report.html, The worst mistakes"),
    "in_short": (train_report, "report.html, in short"),
}


TOGETHER = [("measure_all",), tuple(step for step in STEPS if step != "measure_all")]
"""All steps in two runs; each alone is slow."""


@pytest.mark.parametrize(
    "steps",
    [
        *TOGETHER,
        *(
            pytest.param((step,), marks=pytest.mark.slow)
            for step in STEPS
            if (step,) not in TOGETHER
        ),
    ],
    ids=" ".join,
)
def test_a_step_that_fails_is_said_and_left_out(
    steps: tuple[str, ...], data: Path, whole: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    copy = without_end(whole, tmp_path / "run")

    def fail(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    for step in steps:
        monkeypatch.setattr(STEPS[step][0], step, fail)
    code, text, err = froster(capfd, *train(data, copy, "--resume", "--json"))
    assert code == 0, err
    report = json.loads(text)
    for _, words in map(STEPS.__getitem__, steps):
        assert f"{words}: ZeroDivisionError: float division by zero" in report["left_out"]
        assert f"left out: {words}" in err
    assert len(report["left_out"]) == len(steps)
    assert report == json.loads((copy / "report.json").read_text())
    assert same_weights(copy, whole)
    assert (copy / "report.html").is_file()
    assert (copy / "model" / "calibration.json").exists() == ("calibrate" not in steps)
    rows = json.loads((whole / "report.json").read_text())["rows"]
    assert [row["base"] for row in report["rows"]] == (
        [None] * 3 if "measure_all" in steps else [row["base"] for row in rows]
    )
    assert froster(capfd, "blend", copy, "--ratio", 0.5)[0] == 0, (
        "other commands can use such a run"
    )


def text_of(parts: list[page.Part]) -> str:
    words = [word for part in parts for card in part.cards for word in card]
    return " ".join([*words, *(part.text for part in parts)])


@pytest.mark.parametrize("novel", [["c", "d"], []])
def test_a_test_that_was_not_measured_is_said_to_be(novel: list[str], tmp_path: Path) -> None:
    test = [Item(Path("x.mp4"), "a")]
    parts = Split(["a", "b"], novel, [], test, [])
    other = {} if novel else {"foreign": 40}
    history = [{"epoch": 1, "base": 50.0, "base_frozen": 40.0, "agreement": 93.0, **other}]
    report = {"history": history, "novel_classes": novel, "warnings": [], "watched_videos": 20}
    rows = [EvalRow("frozen", "start", {}), EvalRow("VCLIP", "last epoch", {})]
    short, kept = (
        text_of(train_report.in_short(rows, parts, report)),
        text_of(train_report.kept(tmp_path, rows, report)),
    )
    assert (
        "No accuracy was measured on the test videos, so nothing is known of the model's accuracy."
        in short
    )
    without = text_of(train_report.in_short(rows, Split(["a", "b"], novel, [], [], []), report))
    assert "There are no test videos, so nothing is known of the model's accuracy." in without
    assert ("93 %" in short, "93 %" in kept) == ((False, False) if novel else (True, True))
    assert ("Accuracy on the classes that were held out was not measured." in kept) == bool(novel)
    assert ("No classes were held out" in kept) != bool(novel)


def test_the_commands_of_the_report_name_their_file_and_labels(tmp_path: Path) -> None:
    video = tmp_path / os.fsdecode(b"v\xe94.mp4")
    parts = Split(["[sic] a", "salt, pepper"], [], [], [Item(video, "salt, pepper")], [])
    source = {
        "data": str(tmp_path / "my $data.csv"),
        "root": None,
        "labels_json": None,
        "where": {},
    }
    _, commands, _, python = train_report.use(tmp_path / "run", parts, {}, source)
    line = text_of([commands]).strip().splitlines()[0]
    words = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + line[line.index(" classify ") :]], capture_output=True
    ).stdout.split(b"\0")
    assert os.fsdecode(words[1]) == str(video)
    assert split_labels(words[5].decode()) == ["[sic] a", "salt, pepper"]
    calls = [
        node
        for node in ast.walk(ast.parse(text_of([python]).strip()))
        if isinstance(node, ast.Call)
    ]
    classify = next(call for call in calls if len(call.args) == 2)
    assert tuple(map(ast.literal_eval, classify.args)) == (str(video), ["[sic] a", "salt, pepper"])


@pytest.mark.parametrize(
    ("place", "fault", "code"),
    [
        pytest.param(
            "froster.training.train:finish", "kill", -signal.SIGKILL, marks=pytest.mark.slow
        ),
        pytest.param(  # as at the next two, between which one is killed and one interrupted
            "froster.training.finish:eval_sets", "kill", -signal.SIGKILL, marks=pytest.mark.slow
        ),
        # A second time, as the kill between two of the steps; Ctrl-C in a run is test_cli.py's.
        pytest.param("froster.training.finish:calibrate", "interrupt", 130, marks=pytest.mark.slow),
        ("froster.report.training:write_report", "kill", -signal.SIGKILL),
    ],
)
def test_resume_mends_an_end_that_was_cut_off(
    place: str, fault: str, code: int, data: Path, whole: Path, tmp_path: Path, capfd
) -> None:
    out = tmp_path / "run"
    if not place.endswith("teach:finish"):  # the epochs are behind it
        without_end(whole, out)
    done = faulty(place, fault, *train(data, out, *(["--resume"] if out.exists() else [])))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    saved = place.endswith(("eval_sets", "calibrate", "write_report"))
    assert saved == (out / "model").is_dir() == (out / "report.json").is_file()
    assert not saved or same_weights(out, whole), "the weights were saved before anything else"
    assert froster(capfd, *train(data, out, "--resume"))[0] == 0
    assert same_weights(out, whole)
    without_place = [json.loads((run / "report.json").read_text()) for run in (out, whole)]
    assert without_place[0] == without_place[1]
    assert (out / "report.html").is_file() and (out / "model" / "calibration.json").is_file()


def test_resume_mends_what_is_missing_or_cut(
    data: Path, whole: Path, copy: Path, capfd, no_page
) -> None:
    shutil.rmtree(copy / "model")
    (copy / "report.json").write_text((copy / "report.json").read_text()[:200])
    metrics = (copy / "metrics.jsonl").read_bytes()
    lines = metrics.splitlines(keepends=True)
    (copy / "metrics.jsonl").write_bytes(
        lines[0] + b"[1]\n\xff\xfe\n" + b"".join(lines[1:]) + b'{"epoch": 2, "st'
    )
    code, _, err = froster(capfd, *train(data, copy, "--resume"))
    assert code == 0, err
    assert "metrics.jsonl: 2 lines cannot be read and are left out" in err
    assert same_weights(copy, whole)
    assert (copy / "metrics.jsonl").read_bytes() == metrics
    assert json.loads((copy / "report.json").read_text()) == json.loads(
        (whole / "report.json").read_text()
    )


def test_a_model_whose_checkpoints_are_gone_is_not_trained_over(
    data: Path, whole: Path, copy: Path, capfd
) -> None:
    shutil.rmtree(copy / "checkpoints")
    code, _, err = froster(capfd, *train(data, copy, "--seed", 5))
    assert (code, "holds a run" in err) == (2, True)
    assert same_weights(copy, whole)


def test_all_files_have_the_mode_of_the_umask(whole: Path) -> None:
    modes = {
        str(path.relative_to(whole)): stat.S_IMODE(path.stat().st_mode)
        for path in whole.rglob("*")
        if path.is_file()
    }
    assert {name for name in modes if name.endswith("safetensors")} >= {
        "model/model.safetensors",
        "last/model.safetensors",
        "checkpoints/epoch-0002/student.safetensors",
        "checkpoints/epoch-0002/average.safetensors",
    }
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o640} == {}


# One writer


def wait_for(condition: Callable[[], bool], process: quick.Popen) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_the_second_of_two_is_refused_and_the_first_ends_as_alone(
    data: Path, whole: Path, tmp_path: Path, capfd
) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "froster", *map(str, train(data, out))]
    with quick.Popen(command, env=PAGELESS, stderr=subprocess.PIPE, text=True) as first:
        wait_for((out / ".lock").exists, first)
        for again in (train(data, out, "--seed", 9), train(data, out, "--resume", "--seed", 0)):
            code, _, err = froster(capfd, *again)
            assert code == 2
            # On a busy machine the line of what takes longer than a second stands before it.
            assert err.count("froster: ") == 1, err
            assert "another froster is writing" in err or "holds a run" in err
        assert first.wait(120) == 0, first.communicate()
    assert same_weights(out, whole)
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert not (out / ".lock").exists()


def test_a_killed_run_s_lock_holds_nobody_up(
    data: Path, whole: Path, tmp_path: Path, capfd, no_page
) -> None:
    """Not even while its loader's workers, which are forked from it, have not noticed yet."""
    out = tmp_path / "run"
    done = faulty(
        "froster.training.checkpoint:Checkpoints.save", "kill", *train(data, out), "--workers", 2
    )
    assert done.returncode == -signal.SIGKILL
    assert (out / ".lock").exists()
    code, _, err = froster(capfd, *train(data, out, "--resume"))
    assert code == 0, err
    assert same_weights(out, whole)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_does_not_hold_the_lock(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with exclusive(tmp_path / "lock", "taken"):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
    try:
        with exclusive(tmp_path / "lock", "taken"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


HOLD = """
import sys, pathlib, froster.utils.files
with froster.utils.files.exclusive(pathlib.Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    input()
"""


def test_a_run_without_enough_videos_is_told_of_others(copy: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(unwrap(calibration.fit), "__defaults__", ("logits", 99))
    code, _, err = froster(capfd, "calibrate", copy, "--workers", 0)
    assert code == 1 and err.endswith(
        "it takes 99 of 3 (froster calibrate --data FILE takes other videos)"
    )


def test_other_commands_wait_for_their_turn_too(
    data: Path, copy: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    pytest.importorskip("fcntl")
    labels = tmp_path / "labels.txt"
    labels.write_text("cat spinning\nboat pacing\n")
    nano = ("--model", "nano")
    cases = [
        (copy / ".lock", ("calibrate", copy, "--workers", 0)),
        (copy / ".lock", ("calibrate", copy / "model", "--data", data, "--workers", 0)),
        (copy / ".lock", ("calibrate", tmp_path / "link", "--data", data, "--workers", 0)),
        (
            copy / ".lock",
            ("calibrate", "nano", "--data", data, "--out", copy / "model", "--workers", 0),
        ),
        (
            copy / "blend" / ".lock",
            ("calibrate", copy / "blend" / "model", "--data", data, "--workers", 0),
        ),
        (
            tmp_path / "demo" / ".lock",
            ("calibrate", tmp_path / "demo" / "froster", "--data", data, "--workers", 0),
        ),
        (
            tmp_path / "told" / ".lock",
            ("evaluate", "--data", data, *nano, "--out", tmp_path / "told", "--workers", 0),
        ),
        (tmp_path / ".d.csv.lock", ("doctor", data, "--out", tmp_path / "d.csv", "--workers", 0)),
        (
            tmp_path / ".c.csv.lock",
            ("classify", data.parent, "--labels", "a, b", "--out", tmp_path / "c.csv", *nano),
        ),
        (copy / ".lock", train(data, copy, "--resume")),
        (copy / "blend" / ".lock", ("blend", copy, "--ratio", 0.5)),
        (
            tmp_path / ".copy.lock",
            ("calibrate", "nano", "--data", data, "--out", tmp_path / "copy", "--workers", 0),
        ),
        (tmp_path / ".net.lock", ("export", "--to", "onnx", "--out", tmp_path / "net", *nano)),
        (tmp_path / "demo" / ".lock", ("demo", "--out", tmp_path / "demo")),
        (
            tmp_path / ".d.json.lock",
            ("describe", labels, "--out", tmp_path / "d.json", "--endpoint", "http://127.0.0.1:9"),
        ),
        (
            tmp_path / "world" / ".0-1.lock",
            ("reproduce", "table6", "--world", "--out", tmp_path / "world", "--seeds", 1),
        ),
    ]
    if importlib.util.find_spec("onnxruntime") is None:
        cases = [case for case in cases if case[1][0] != "export"]
    for claimed in (
        copy / "blend" / "blend.json",
        tmp_path / "demo" / "demo.txt",
        tmp_path / "told" / "evaluation.json",
    ):
        claimed.parent.mkdir()
        claimed.touch()
    for model in (copy / "blend" / "model", tmp_path / "demo" / "froster"):
        shutil.copytree(copy / "model", model)
    (tmp_path / "link").symlink_to(copy / "model")
    for lock, arguments in cases:
        command = [sys.executable, "-c", HOLD, str(lock)]
        pipe = subprocess.PIPE
        with quick.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            code, _, err = froster(capfd, *arguments)
            assert (code, err.count("froster: another froster")) == (2, 1), (arguments[0], err)
            other.kill()


def test_the_current_folder_as_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    """It is added to where that is all, and refused where it would be replaced, with the shell in
    it."""
    index = ("index", data.parent / "val3.mp4", "--model", "nano", "--out")
    (tmp_path / "index").mkdir()
    monkeypatch.chdir(tmp_path / "index")
    code, text, err = froster(capfd, *index, ".", "--json")
    assert (
        code == 0
        and json.loads(text)["videos"] == 1
        and (tmp_path / "index" / "segments.lance").is_dir()
    ), err
    assert froster(capfd, *index, tmp_path / "index", "--json")[0] == 0
    calibrate = ("calibrate", "nano", "--data", data, "--out")
    export = ("export", "--to", "onnx", "--model", "nano", "--out")
    cases = [(*calibrate, "."), (*calibrate, tmp_path / "index"), (*calibrate, "..")]
    if importlib.util.find_spec("onnxruntime") is not None:
        cases.append((*export, "."))
    for arguments in cases:
        code, _, err = froster(capfd, *arguments)
        assert (code, err.count("froster:")) == (2, 1) and "is the folder that you are in" in err, (
            arguments,
            err,
        )
    code, _, err = froster(capfd, "doctor", data, "--out", ".")
    assert (code, err.count("froster:")) == (2, 1) and "--out must be a .csv file, not ." in err
    with pytest.raises(UsageError, match="the folder that you are in"), atomic_folder(Path()):
        pass
    assert sorted(tmp_path.iterdir()) == [tmp_path / "index"]


def test_paths_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(UsageError, match="/ is the root of all folders"), atomic_file(Path("/")):
        pass
    for path in (Path(), Path("..")):
        with pytest.raises(WriteError, match="cannot write"), atomic_file(path) as part:
            part.write_text("a folder is in its place")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that a test may fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("froster.training.reporter:MetricsLog.write:1", "metrics.jsonl"),
        pytest.param(
            "froster.training.checkpoint:Checkpoints.save:1", "epoch-0001", marks=pytest.mark.slow
        ),
        pytest.param(  # a checkpoint that cannot be written is test_training.py's too
            "froster.training.checkpoint:Checkpoints.save:2", "epoch-0002", marks=pytest.mark.slow
        ),
        pytest.param("froster.training.train:finish", "model", marks=pytest.mark.slow),
        pytest.param("froster.training.finish:eval_sets", "json", marks=pytest.mark.slow),
        pytest.param(  # the first is as full; that the page is mended is the kill's at write_report
            "froster.report.training:write_report", "png", marks=pytest.mark.slow
        ),
    ],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on(
    place: str, file: str, disk: Path, data: Path, whole: Path, capfd, request
) -> None:
    out = disk / "run"
    if place.startswith("froster.report"):
        without_end(whole, out)
    resume = ["--resume"] if out.exists() else []
    done = faulty(place, f"fill={disk}", *train(data, out, *resume))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("froster: ")]
    assert line.startswith(f"froster: cannot write {out}") and file in line, line
    assert "No space left on device" in line, line
    left = (
        sorted(path.name for path in (out / "checkpoints").iterdir())
        if (out / "checkpoints").is_dir()
        else []
    )
    assert left == (
        [] if place.endswith(":1") else ["epoch-0001" if place.endswith("save:2") else "epoch-0002"]
    )
    (disk / "filler").unlink()
    if not place.startswith("froster.report"):
        request.getfixturevalue("no_page")
    assert froster(capfd, *train(data, out, "--resume"))[0] == 0
    assert same_weights(out, whole)
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_classify_and_index_go_on_after_a_full_disk(disk: Path, data: Path, capfd) -> None:
    some = disk.parent / "some"
    some.mkdir()
    indexed = [shutil.copy(path, some) for path in sorted(data.parent.glob("t*.mp4"))]
    videos = sorted(data.parent.glob("*.mp4"))
    classify = (
        "classify",
        *videos,
        "--model",
        "nano",
        "--labels",
        "cat spinning, boat pacing",
        "--workers",
        0,
    )
    index = ("index", some, "--model", "nano", "--workers", 0, "--out")
    expected = froster(capfd, *classify, "--out", some / "rows.jsonl")
    assert expected[0] == 0
    for place, arguments in (
        (
            "froster.inference.results:ResultFile.add:2",
            (*classify, "--batch-size", 4, "--out", disk / "rows.jsonl"),
        ),
        ("froster.inference.store:Store.add", (*index, disk / "index")),
    ):
        done = faulty(place, f"fill={disk}", *arguments)
        assert done.returncode == 1, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("froster: ")]
        assert line.startswith(f"froster: cannot write {disk}") and "No space left" in line, line
        (disk / "filler").unlink()
        code, _, err = froster(capfd, *arguments)
        assert code == 0, err
    rows, wanted = (
        [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
        for folder in (disk, some)
    )
    assert [row["path"] for row in rows] == [row["path"] for row in wanted]
    assert [row["scores"] for row in rows] == [
        pytest.approx(row["scores"], rel=1e-4) for row in wanted
    ]
    found = froster(capfd, "search", disk / "index", "cat spinning", "--json")
    assert found[0] == 0 and json.loads(found[1])["videos"] == len(indexed)


def test_all_processes_measure_and_find_the_same(data: Path, whole: Path, tmp_path: Path) -> None:
    """The test, the calibration and the curve to CLIP of a run, by one process and by two."""
    results = []
    for count in (1, 2):
        run = without_end(whole, tmp_path / str(count))
        first, *others = on_processes(
            count, *train(data, run, "--resume", "--device", "cpu", "--blend-points", 2)
        )
        assert first.returncode == 0, first.stderr
        assert all(done.returncode == 0 and not done.stdout + done.stderr for done in others)
        report = json.loads((run / "report.json").read_text())
        assert not report["left_out"] and len(report["blend"]["points"]) == 2
        calibration = json.loads((run / "model" / "calibration.json").read_text())
        predictions = (run / "predictions_base.csv").read_text()
        results.append((report, calibration, predictions, (run / "model" / "model.safetensors")))
    assert results[0][:3] == results[1][:3]
    one, two = (load_file(path) for *_, path in results)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
