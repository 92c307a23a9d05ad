"""What the command line does with its arguments before a command begins: help, files of options,
mistakes, completion."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import quick
from froster.cli import COMMANDS, app, evaluate, train
from froster.cli.arguments import read_config
from froster.data.public import DATASETS
from froster.methods.recipe import Recipe
from froster.paper.cost import GPUS
from froster.training.distill_options import PRESETS, Distill
from froster.training.options import EvaluateOptions, TrainOptions
from froster.video.sampling import Sampling
from typed import arguments, one_line, parsed

NAMES = [name for names in COMMANDS.values() for name in names]


def choices(command: str, name: str) -> set[str]:
    (argument,) = (each for each in arguments(command) if name in each.names)
    return set(argument.get_choices(force=True) or ())


def test_no_help_needs_pytorch() -> None:
    script = "import sys\n" + "\n".join(f"import froster.cli.{name}" for name in NAMES)
    subprocess.run(
        [sys.executable, "-c", f"{script}\nassert 'torch' not in sys.modules"], check=True
    )


def test_commands_stand_in_groups(run) -> None:
    page = run("--help").out
    places = [page.index(f" {title} ") for title in COMMANDS]
    assert places == sorted(places)
    for name in NAMES:
        assert f"│ {name} " in page
    assert run().out == run("-h").out == page
    assert "Which of these labels fits each video?" in page


def test_the_options_of_train_that_matter_stand_first(run) -> None:
    first, *rest = run("train", "--help").out.split("╭─ ")[1:]
    wanted = [
        "data",
        "out",
        "model",
        "method",
        "preset",
        "distill",
        "novel-fraction",
        "epochs",
        "batch-size",
        "lr",
    ]
    assert [word.strip("*│ ").split()[0] for word in first.splitlines() if " --" in word] == [
        f"--{name}" for name in wanted
    ]
    titles = [panel.partition(" ─")[0] for panel in rest]
    assert titles[-2:] == ["Machine", "Output"] and "Distillation" in titles


def test_fields_are_options_and_choices_are_those_of_the_library() -> None:
    def names(options: type) -> set[str]:
        return {field.name for field in dataclasses.fields(options)}

    assert names(evaluate.Arranged) == names(EvaluateOptions)
    # The fields of a loss stand on the command line one by one.
    assert names(train.Arranged) == (names(TrainOptions) - {"loss"}) | names(Distill)
    assert choices("train", "--distill") == PRESETS.keys()
    hints = {**get_type_hints(Recipe), **get_type_hints(Distill), **get_type_hints(Sampling)}
    for name, field in (("distance",) * 2, ("level",) * 2, ("tune",) * 2, ("sampling", "kind")):
        assert choices("train", f"--{name}") == set(get_args(hints[field]))
    assert choices("prepare", "NAME") == set(DATASETS)
    assert choices("reproduce", "--gpu") == GPUS.keys()


@pytest.mark.parametrize("suffix", ["yaml", "toml"])
def test_a_file_of_options(run, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"options.{suffix}"
    equals = ":" if suffix == "yaml" else " ="
    file.write_text(f'show-prompt{equals} true\ntimeout{equals} 3\nmodel{equals} "x"\n')
    assert "one English sentence" in run("describe", "--config", file).out
    assert "one English sentence" in run("--config", file, "describe").out
    assert "one English sentence" in run("describe", "--config", file, "--json").json["prompt"]
    file.write_text(f"timeout{equals} 0\n")
    one_line(run("describe", "--config", file), 2, "timeout", ">= 0.1")
    file.write_text(f"timeoutt{equals} 3\n")
    one_line(run("describe", "--config", file), 2, "timeoutt", str(file))
    file.write_text(f'out{equals} "s3://bucket/x.json"\n')
    one_line(run("describe", "labels.txt", "--config", file), 2, "s3://bucket", "local files")
    file.write_text("{")
    one_line(run("describe", "--config", file), 2, str(file))
    file.write_text("- 1\n" if suffix == "yaml" else "= 1")
    one_line(run("describe", "--config", file), 2, str(file))
    one_line(run("describe", "--config", tmp_path / "gone.yaml"), 2, "gone.yaml", "No such file")
    one_line(run("describe", "--config", "s3://x/y.yaml"), 2, "s3://x/y.yaml is an address")


def test_a_config_may_name_what_a_command_is_called_too(run, tmp_path: Path) -> None:
    """Such options were passed over: the names of commands were taken for tables of theirs."""
    file = tmp_path / "o.yaml"
    file.write_text(f"data: {tmp_path}\nout: {tmp_path}\nmodels: nano\n")
    one_line(run("train", "--config", file), 2, "train has no option 'models'")
    file.write_text(f"models: [no-such-model, nano]\nout: {tmp_path / 'a.png'}\n")
    refused = run("attend", tmp_path / "a.mp4", "--config", file)
    assert refused.code == 2 and "--models" not in refused.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: nano", "'modle': did you mean model?"),
        ("videos: a.mp4", "'videos': it is typed"),
        ("top: [1, 2]", "top takes one value, not a list"),
        ("model: {name: nano}", "model takes a value"),
        ("labels: [a, [b]]", "labels takes one value"),
        ("multi-label: 3", "--multi-label takes true or false, not '3'"),
        ("top: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_a_wrong_config_is_said_in_words(run, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "o.yaml").write_text(text)
    one_line(run("classify", "a.mp4", "--config", tmp_path / "o.yaml"), 2, words)


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("labels: no", "labels", "no"),
        ("labels: [yes, 007]", "labels", '["yes", "007"]'),
        ("shard: 1:2", "shard", "1:2"),
        ("labels: 'null'", "labels", "null"),
        ("labels: null", "labels", None),
        ("root:", "root", None),
        ("top: ~", "top", 5),
        ("multi-label: on", "multi_label", True),
        ("multi-label: OFF", "multi_label", False),
        ("top: 0x10", "top", 16),
    ],
)
def test_a_config_says_what_is_typed_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, option: str, value: object
) -> None:
    """YAML made a label `no` False and `007` 7; a folder left open was this folder."""
    (tmp_path / "o.yaml").write_text(text)
    monkeypatch.setattr(app, "config", (read_config(str(tmp_path / "o.yaml")),))
    assert parsed("classify", "a.mp4")[option] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no-flip: true", "no-flip is said as flip: false"),
        ("no_zero_init: true", "no_zero_init is said as zero-init: false"),
        ("where: !!set {a=b}", "where takes a value"),
        ("where: [a=b, null]", "where takes a value"),
        ("m: nano", "no option 'm'\n"),
    ],
)
def test_a_config_of_train_is_not_passed_over(run, tmp_path: Path, text: str, words: str) -> None:
    """`no-flip: true` went unheard, and clips were mirrored."""
    (tmp_path / "o.yaml").write_text(text)
    refused = run("train", "--data", "d", "--out", "o", "--config", tmp_path / "o.yaml")
    one_line(refused, 2)
    assert words in refused.err


@pytest.mark.parametrize(
    "words",
    [
        ("classify", "a.mp4", ""),
        ("classify", "a.mp4", "--model", ""),
        ("classify", "a.mp4", "--files-from="),
        ("index", "a.mp4", "--out", ""),
        ("search", "", "a cat"),
        ("train", "--data", "", "--out", "o"),
        ("serve", "--compare", ""),
    ],
)
def test_an_empty_path_is_not_this_folder(run, words: tuple[str, ...]) -> None:
    """Nor an empty model the default one: so a shell gives a variable that is not set."""
    one_line(run(*words), 2, "is empty")
    one_line(run("describe", "--config", ""), 2, "--config")


@pytest.mark.parametrize("views", ["1.5", "'1.5'", "'1.555e1'"])
def test_a_fraction_in_a_config_is_not_rounded(run, tmp_path: Path, views: str) -> None:
    (tmp_path / "o.yaml").write_text(f"views: {views}\n")
    wrong = run("classify", "a.mp4", "--config", tmp_path / "o.yaml")
    one_line(wrong, 2, "--views takes a whole number, not", views.strip("'"))


def test_labels_in_a_config_may_be_a_list(run, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text('labels = ["fish, fried", "fish, fried"]')
    wrong = run("classify", "a.mp4", "--config", tmp_path / "o.toml")
    one_line(wrong, 2, "more than once", "fish, fried")
    (tmp_path / "o.toml").write_bytes(b"\xae\x00")
    wrong = run("classify", "a.mp4", "--config", tmp_path / "o.toml")
    one_line(wrong, 2, "o.toml", "not UTF-8 text")


def test_whatever_may_be_typed_more_than_once_may_be_a_list(run, tmp_path: Path) -> None:
    """evaluate's splits and probes were refused as lists."""
    (tmp_path / "o.yaml").write_text("data: gone\nsplit: [val, test]\nprobe: [static, upside]\n")
    refused = run("evaluate", "--config", tmp_path / "o.yaml")
    one_line(refused, 2, "--probe must be static, shuffled or reversed, not 'upside'")


def test_what_is_typed_goes_before_the_file(run, tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("out: a.txt\n")
    (tmp_path / "l.txt").write_text("surfing\n")
    ask = ("describe", tmp_path / "l.txt", "--config", tmp_path / "o.yaml")
    one_line(run(*ask), 2, "a.txt")
    one_line(run(*ask, "--out", "b.txt"), 2, "b.txt")


MISTAKES = [
    (("clasify",), "classify"),
    (("classify", "--lables", "a"), "--labels"),
    (("classify", "a.mp4", "--labels"), "--labels"),
    (("classify", "--top", "x"), "--top takes a whole number, not 'x'"),
    (("classify", "--views", "1.5"), "--views takes a whole number, not '1.5'"),
    (("train", "--data", "x", "--out", "y", "--from", "z"), "learnt with --model RUN"),
    (("train", "--data", "x", "--out", "y", "--keep", "si"), "the first with --hold si"),
    (("classify", "--top", "0"), ">= 1"),
    (("serve", "--max-upload", "inf"), "--max-upload"),
    (("pack", "a.mp4", "--out", "p", "--tar", "--tar-size", "inf"), "--tar-size"),
    (("classify", "--sampling", "sparse"), "--sampling must be dense or uniform, not 'sparse'"),
    (("train", "--data", "d", "--oout", "x"), "--out"),
    (("train", "--out", "x"), "froster train needs --data"),
    (("train", "--data", "d", "--out", "o", "--no-json"), "--no-json"),
    (("search",), "froster search needs INDEX"),
    (("search", "index", "cat", "dog"), "unexpected argument 'dog'"),
    (("classify", "ssh://host/a.mp4"), "local files"),
    (("index", "a", "--out", "hf://x/y"), "USER/NAME"),
    (("distance", "https://x/labels.txt", "b"), "download it"),
    (("prepare", "k500", "--videos", "a", "--out", "b.csv"), "ssv2, not 'k500'"),
]


@pytest.mark.parametrize(("words", "answer"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line(run, words: tuple[str, ...], answer: str) -> None:
    result = run(*words)
    one_line(result, 2, answer)
    assert len(result.err.splitlines()) == 1 and not result.out


def test_a_command_leaves_nothing_to_the_next(run, tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("show-prompt: true\n")
    ask = ("describe", "--endpoint", "http://127.0.0.1:1/v1")
    assert run(*ask, "--config", tmp_path / "o.yaml").code == 0
    one_line(run(*ask), 2, "--out FILE.json")


def test_words_that_look_like_something_else() -> None:
    """Names in brackets are no JSON, none is no nothing, and numbers below zero are no options."""
    words = ("classify", "[a].mp4", "{b}.mp4", "./-", "--labels=-x", "--files-from=./-")
    found = parsed(*words)
    assert found["videos"] == [Path("[a].mp4"), Path("{b}.mp4"), Path("-")]
    assert (found["labels"], found["files_from"]) == ("-x", Path("-"))
    found = parsed("train", "--data=d", "--out", "o", "-mnone", "-O", "a=1", "-Ob=2", "--where=a=b")
    assert (found["model"], found["asked"].option) == ("none", ["a=1", "b=2"])
    assert found["asked"].where == ["a=b"]
    found = parsed(
        "train", "--data=d", "--out=o", "--epochs=2", "--no-flip", "--epochs=3", "--flip"
    )
    assert (found["asked"].epochs, found["asked"].flip) == (3, True)
    assert parsed("attend", "v", "--models", "m", "--out", "o", "--layer", "-2")["layer"] == -2
    name = os.fsdecode(b"caf\xe9.mp4")
    assert parsed("classify", name)["videos"] == [Path(name)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(tmp_path: Path, shell: str) -> None:
    command = [sys.executable, "-m", "froster", "--install-completion", "--shell", shell]
    environment = {**os.environ, "HOME": str(tmp_path)}
    for name in ("ZSH", "ZSH_CUSTOM", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    quick.run(command, check=True, capture_output=True, env=environment)
    scripts = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("novel-fraction" in path.read_text() for path in scripts)
