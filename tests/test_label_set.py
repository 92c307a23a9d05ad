"""Labels with prompts of their own, in groups, by templates, and any number of them at once."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import froster
from froster.errors import UsageError
from froster.evaluation.calibration import Calibration, read_calibration
from froster.evaluation.multi_label import (
    MultiLabelRule,
    average_precision,
    best_threshold,
    fit_multi_label,
    measured_alone,
)
from froster.inference.batch import classify, row_classification
from froster.inference.recognizer import Recognizer
from froster.text.label_set import (
    LabelSet,
    as_labels,
    groups_of,
    in_groups,
    read_label_set,
    read_names,
)
from golden import close
from shared_files import World
from typed import one_line

pytestmark = pytest.mark.usefixtures("few_templates_throughout")

PROMPTS = {"cat": ["cat spinning", "cat pacing", "cat hopping"], "boat": ["boat pacing"]}
ITSELF: dict[str, Any] = {}
ITSELF["a"] = ITSELF
GROUPS = ["animal/cat spinning", "animal/fish bouncing", "thing/boat pacing", "thing/key hopping"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World("base", 1).write(0, tmp_path_factory.mktemp("labels") / "clip.mp4")


# What labels are


def test_a_mapping_has_names_and_prompts() -> None:
    labels = as_labels({"fall": ["a person falls", "someone lies down"], "walk": None, "sit": "on"})
    assert isinstance(labels, LabelSet) and list(labels) == ["fall", "walk", "sit"]
    assert labels.prompts == [["a person falls", "someone lies down"], ["walk"], ["sit: on"]]
    assert as_labels(["a", "b"]) == ["a", "b"]


def test_an_array_of_names_is_their_list() -> None:
    """Whatever its own places are called, and in groups too."""
    import pandas

    assert as_labels(np.array(["a", "b"])) == ["a", "b"]
    assert as_labels(pandas.Series(["a", "b"], [7, 9])) == ["a", "b"]
    assert as_labels(np.array(GROUPS)) == as_labels(GROUPS)


def test_groups_are_seen_where_all_labels_have_one_and_two_share_it() -> None:
    assert in_groups(GROUPS)
    assert in_groups(["a/b/c", "a/d"])
    for plain in (
        ["closet/cabinet", "door"],
        ["push/pull", "open/close"],
        ["a/b"],
        ["/a", "/b"],
        [],
    ):
        assert not in_groups(plain) and as_labels(plain) == plain
    assert groups_of(["a/b/x", "a/b/y", "a/c", "d/e"]) == {"a": [0, 1, 2], "d": [3], "a/b": [0, 1]}
    labels = as_labels([*GROUPS, "other/cat spinning: slowly"])
    assert isinstance(labels, LabelSet)
    assert labels.texts[1] == "fish bouncing" and labels.texts[-1] == "cat spinning: slowly"
    alike = as_labels(["indoor/football", "outdoor/football", "outdoor/golf"])
    assert isinstance(alike, LabelSet)
    assert alike.texts == ["indoor football", "outdoor football", "golf"]
    nested = as_labels(
        {"sport": {"golf": ["a person golfs", "golf"], "judo": None}, "home": {"tv": ""}}
    )
    assert isinstance(nested, LabelSet)
    assert nested.to_dict() == {
        "sport/golf": ["a person golfs", "golf"],
        "sport/judo": ["judo"],
        "home/tv": ["tv"],
    }


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"a": ["x", "x"]}, "given more than once: 'x'"),
        ({"a": ["x"], "b": ["X "]}, "given more than once"),
        ({"a": ["x"], "A": ["y"]}, "given more than once: 'a' and 'A'"),
        ({"a": []}, "'a' needs a description"),
        ({"a": 5}, "'a' needs a description"),
        ({"a": {}}, "the group 'a' has no label"),
        ({5: ["x"]}, "a label is a text, not 5"),
        ({"a": [" "]}, "a prompt of 'a' is empty"),
        ({"none of these": ["x"]}, "leave it out"),
        ({}, "no labels were given"),
        (ITSELF, "more than 100 groups"),
    ],
)
def test_what_is_no_set_of_labels(labels: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        as_labels(labels)
    assert "\n" not in str(caught.value)


def test_files_with_prompts(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps(PROMPTS))
    (tmp_path / "l.yaml").write_text(
        "cat: [cat spinning, cat pacing, cat hopping]\nboat:\n- boat pacing\n"
    )
    rows = [f"{name},{text}" for name, texts in PROMPTS.items() for text in texts]
    (tmp_path / "l.csv").write_text("\n".join(["label,prompt", *rows]))
    for kind in ("json", "yaml", "csv"):
        labels = read_label_set(tmp_path / f"l.{kind}")
        assert isinstance(labels, LabelSet) and labels.to_dict() == PROMPTS
    (tmp_path / "list.yml").write_text("- cat\n- boat\n")
    assert list(read_label_set(tmp_path / "list.yml")) == ["cat", "boat"]
    (tmp_path / "tree.yaml").write_text("animal:\n  cat:\n  fish: [a fish]\n")
    assert list(read_label_set(tmp_path / "tree.yaml")) == ["animal/cat", "animal/fish"]
    for name, text, words in (
        ("a.yaml", "a: [", "line 1: not valid YAML"),
        ("b.yaml", "5", "expected a list of labels, or a mapping"),
        ("c.csv", "label,prompt\na,\n", "row 2 needs a label and a prompt"),
        ("d.yaml", "a: [x, x]", "given more than once"),
        ("e.yaml", "", "expected a list"),
        ("f.yaml", "[" * 5000, "nested too deeply"),
        ("g.yaml", "a: &a\n  b: *a\n", "more than 100 groups within groups"),
        ("h.yaml", "- judo\n- 2024-13-45\n", "month must be in"),
        ("i.csv", 'label\n"judo\n' + "x" * 140_000, "no table (field larger"),
        ("j.tsv", "label\tprompt\njudo\t" + "x" * 140_000, "line 2: no table"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=re.escape(words)) as caught:
            read_label_set(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert read_names(tmp_path / "list.yml") == ["cat", "boat"]
    assert read_names(tmp_path / "tree.yaml") == ["animal/cat", "animal/fish"]
    with pytest.raises(UsageError, match="here a label is its name"):
        read_names(tmp_path / "l.csv")


# What a model makes of them


def test_several_prompts_are_the_mean_of_their_class_embeddings(
    nano: Recognizer, video: Path
) -> None:
    texts = [text for prompts in PROMPTS.values() for text in prompts]
    each = nano.class_embeddings(texts).numpy().astype(np.float64)
    mean = each[:3].mean(0)
    expected = np.stack([mean / np.linalg.norm(mean), each[3] / np.linalg.norm(each[3])])
    close(nano.class_embeddings(PROMPTS), torch.from_numpy(expected).float(), atol=1e-6)
    answer = nano.classify(video, PROMPTS)
    assert set(answer.labels) == set(PROMPTS)
    moments = nano.timeline(video, PROMPTS)
    assert moments.labels == list(PROMPTS)


def test_a_network_that_compares_more_takes_one_prompt(nano: Recognizer, video: Path) -> None:
    from froster.inference.model_folder import ModelConfig
    from froster.methods import METHODS

    method = METHODS["x-clip" if "x-clip" in METHODS else "xclip"]()
    model = nano.with_network(
        method.build(froster.load("nano", device="cpu").clip), ModelConfig(method)
    )
    if type(model.model).classes is type(nano.model).classes:
        pytest.skip("compares embeddings")
    with pytest.raises(UsageError, match="give one prompt a label"):
        model.classify(video, PROMPTS)


def test_scores_of_groups_sum_up(nano: Recognizer, video: Path) -> None:
    answer = nano.classify(video, GROUPS)
    plain = nano.classify(video, [label.partition("/")[2] for label in GROUPS])
    assert answer.scores == plain.scores  # what follows the "/" is asked
    assert list(answer.groups) == ["animal", "thing"]
    assert answer["animal"] == pytest.approx(answer[GROUPS[0]] + answer[GROUPS[1]], abs=1e-6)
    assert answer["animal"] + answer["thing"] == pytest.approx(1, abs=1e-6)
    assert answer.to_dict()["groups"] == {name: answer[name] for name in ("animal", "thing")}
    assert "animal/" in answer._repr_html_()


def test_groups_and_templates_on_the_command_line(run, video: Path) -> None:
    base = ("classify", video, "--model", "nano")
    result = run(*base, "--labels", ", ".join(GROUPS), "--top", 1, "--json")
    (answer,) = result.json["results"]
    assert len(answer["scores"]) == 1 and sum(answer["groups"].values()) == pytest.approx(1)
    assert "animal/" in run(*base, "--labels", ", ".join(GROUPS)).out
    labels = ("--labels", "cat spinning, boat pacing")
    templated = run(*base, *labels, "--template", "{}", "--json").json["results"][0]["scores"]
    model = froster.load("nano", device="cpu", templates=["{}"])
    expected = model.classify(video, ["cat spinning", "boat pacing"])
    assert [entry["score"] for entry in templated] == pytest.approx(expected.scores)
    one_line(run(*base, *labels, "--template", "a video"), 2, "has no {}")
    one_line(run(*base, "--labels", "a, A"), 2, "given more than once")


# Any number of labels


def test_a_rule_is_its_formula(nano: Recognizer, video: Path) -> None:
    labels = ["cat spinning", "boat pacing"]
    classes = nano.class_embeddings([*labels, "something"])
    logits = nano.logits_of_clips(nano.read_views(video)[None], classes).mean(1)[0].double().numpy()
    expected = 1 / (1 + np.exp(-(logits[:2] - logits[2])))
    answer = nano.classify(video, labels, multi_label=True)
    assert [answer[label] for label in labels] == pytest.approx(expected.tolist(), abs=1e-6)
    assert answer.answers == [label for label in answer.labels if answer[label] >= 0.5]
    assert answer.none is None and answer.thresholds == [0.5, 0.5]
    alone = nano.classify(video, labels[:1], multi_label=True)
    assert alone["cat spinning"] == pytest.approx(answer["cat spinning"], abs=1e-5)


def test_the_best_threshold_is_that_of_a_search() -> None:
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        scores = (torch.rand(40, generator=rng) * 10).round() / 10
        right = torch.rand(40, generator=rng) < 0.3
        right[0] = True

        def f1(threshold: float, scores: Any = scores, right: Any = right) -> float:
            taken = scores >= threshold
            return 2 * int((taken & right).sum()) / int(taken.sum() + right.sum())

        edges = [0.0, *sorted(set(scores.tolist())), 1.1]
        best = max(f1((a + b) / 2) for a, b in pairwise(edges))
        assert f1(best_threshold(scores, right)) == pytest.approx(best)


def test_a_fit_finds_what_made_the_videos() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 6
    background = torch.randn(600, 1, generator=rng)
    logits = torch.randn(600, 6, generator=rng) + background
    logits[torch.arange(600), labels] += 4
    names = [f"label {i}" for i in range(6)]
    rule = fit_multi_label(torch.cat([logits, background], dim=1), labels, names)
    assert rule.label == pytest.approx(rule.background, rel=0.15) and rule.label > 2
    scores = rule(torch.cat([logits, background], dim=1))
    assert float(scores.mean()) == pytest.approx(1 / 6, abs=0.01)  # as many as there are
    assert set(rule.thresholds) == set(names)
    right = scores[torch.arange(600), labels] >= torch.tensor(rule.of(names))[labels]
    assert float(right.float().mean()) > 0.9
    assert rule.of(["unknown"]) == [rule.threshold]


def test_a_rule_is_kept_and_an_older_folder_has_the_default(tmp_path: Path) -> None:
    rule = MultiLabelRule(-1.0, 2.0, 0.5, 0.4, {"cat": 0.3})
    fitted = Calibration(1.2, None, {"videos": 20}, rule)
    fitted.save(tmp_path)
    assert read_calibration(tmp_path) == fitted
    values = json.loads((tmp_path / "calibration.json").read_text())
    del values["multi_label"]
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    assert read_calibration(tmp_path) == dataclasses.replace(fitted, multi_label=MultiLabelRule())
    values["multi_label"] = {"intercept": "x"}
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    with pytest.raises(froster.CheckpointError, match=r"calibration\.json"):
        read_calibration(tmp_path)


def test_several_labels_in_files_and_tables(
    run, nano: Recognizer, video: Path, tmp_path: Path
) -> None:
    labels = ("--labels", "cat spinning, boat pacing, fish bouncing", "--model", "nano")
    out = tmp_path / "rows.jsonl"
    assert run("classify", video, *labels, "--multi-label", "--out", out).code == 0
    row = json.loads(out.read_text())
    expected = nano.classify(
        video, ["cat spinning", "boat pacing", "fish bouncing"], multi_label=True
    )
    assert row_classification(row).answers == expected.answers == row["answers"]
    one_line(run("classify", video, *labels, "--out", out), 2, "multi_label")
    table = run("classify", video, *labels, "--multi-label")
    assert table.code == 0 and "probability" in table.out
    with pytest.raises(UsageError, match="'something' is what labels are weighed"):
        nano.classify(video, ["a", "something"], multi_label=True)


def test_prompts_decide_what_a_file_of_results_was_made_with(
    nano: Recognizer, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    classify(nano, video, PROMPTS, out)
    with pytest.raises(UsageError, match="begun with prompts"):
        classify(nano, video, {**PROMPTS, "boat": ["a boat"]}, out)


def test_average_precision_by_hand() -> None:
    right = torch.tensor([True, False, True, False])
    assert average_precision(torch.tensor([0.9, 0.8, 0.7, 0.1]), right) == pytest.approx(5 / 6)
    assert average_precision(torch.tensor([0.1, 0.7, 0.8, 0.9]), right) == pytest.approx(
        (1 / 2 + 2 / 4) / 2
    )
    assert average_precision(torch.ones(4), right) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert average_precision(torch.ones(2), torch.zeros(2).bool()) != 0  # NaN


def test_each_label_is_measured_by_itself() -> None:
    nan = float("nan")
    scores = torch.tensor([[0.9, 0.8], [0.2, 0.9], [nan, nan]])
    right = torch.tensor([[True, True], [False, True], [True, False]])
    report = measured_alone(scores, right, [0.5, 0.85], ["a", "b"])
    assert (report["precision"], report["recall"]) == (100.0, 50.0)
    assert report["f1"] == pytest.approx(200 * 2 / 6)
    a, b = report["per_class"]["a"], report["per_class"]["b"]
    assert a["ap"] == pytest.approx(100 * (1 + 2 / 3) / 2) and b["ap"] == 100
    assert (a["videos"], a["f1"], b["f1"]) == (2, pytest.approx(200 / 3), pytest.approx(200 / 3))
    assert report["labels_a_video"] == 4 / 3 and report["map"] == (a["ap"] + b["ap"]) / 2


def test_evaluate_takes_all_labels_of_a_video(run, nano: Recognizer, tmp_path: Path) -> None:
    """Rows of the same video are its labels; the scores are those of classify."""
    world = World("base", 1)
    names = [world.label(i) for i in (0, 3, 6)]
    rows = ["path,label"]
    for i in (0, 3, 6):
        world.write(i, tmp_path / f"{i}.mp4")
        rows += [f"{i}.mp4,{world.label(i)}", f"{i}.mp4,moving"]
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    asked = ("evaluate", "--data", tmp_path / "data.csv", "--model", "nano", "--multi-label")
    result = run(*asked, "--json")
    assert result.code == 0, result.err
    split = result.json["splits"]["all"]
    report = split["multi_label"]
    assert split["videos"] == 3 and report["labels_a_video"] == 2
    assert report["per_class"]["moving"]["videos"] == 3
    labels = sorted([*names, "moving"])
    answers = [nano.classify(tmp_path / f"{i}.mp4", labels, multi_label=True) for i in (0, 3, 6)]
    given = sum(len(answer.answers) for answer in answers)
    hits = sum(len({names[i], "moving"} & set(answer.answers)) for i, answer in enumerate(answers))
    assert report["recall"] == pytest.approx(100 * hits / 6)
    assert report["precision"] == (pytest.approx(100 * hits / given) if given else None)
    text = run(*asked)
    assert "each label by itself: mean average precision" in text.err
    assert "moving" in text.out and "top-1" in text.out
