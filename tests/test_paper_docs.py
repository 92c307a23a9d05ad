"""The pages on the paper: its numbers are those of the code, and what they ask for exists."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import froster
import typed
from froster.cli.distance import label_set
from froster.data.public import published_clips
from froster.evaluation.metrics import standard_error
from froster.methods import METHODS
from froster.paper.protocols import Options
from froster.paper.published import (
    ALPHA,
    BETA,
    TABLE_1,
    TABLE_2,
    TABLE_3_ALONE,
    TABLE_3_FROSTER,
    TABLE_4,
    ZERO_INIT,
    Values,
)
from froster.paper.tables import TABLES, table_names
from froster.training.distill_options import Distill, distill_preset

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.stem: path for path in sorted(DOCS.glob("paper/*.md"))}
EVERY = [*PAGES.values(), DOCS / "released-code.md"]

PUBLISHED: dict[str, dict[str, Values]] = {
    "table1": TABLE_1,
    "table2": TABLE_2,
    "table3": {
        f"{name}{words}": rows[name]
        for name in TABLE_3_ALONE
        for words, rows in (("", TABLE_3_ALONE), (" with FROSTER", TABLE_3_FROSTER))
    },
    "table4": TABLE_4,
    "table5": {f"alpha = {value}": row for value, row in ALPHA.items()},
    "table6": ZERO_INIT,
    "table7": {f"beta = {value}": row for value, row in BETA.items()},
    "after": {row.name: row.published for row in TABLES["after"].rows},
    "fig1": {row.name: row.published for row in TABLES["fig1"].rows if row.published},
}


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def tables_of(text: str) -> list[list[list[str]]]:
    """Every Markdown table of a page: its lines, the rule left out, as lists of cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    rows = [
        [
            [cell.strip().replace("\\*", "*") for cell in re.split(r"(?<!\\)\|", line[1:-1])]
            for line in b.splitlines()
        ]
        for b in blocks
    ]
    return [[table[0], *table[2:]] for table in rows]


def code_lines(text: str) -> list[str]:
    return re.findall(r"^    (froster .+)$", text, re.MULTILINE)


def spans(text: str) -> list[str]:
    """Code within the lines, what is indented or fenced left out."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.findall(
        r"`([^`\n]+)`",
        "\n".join(line for line in prose.splitlines() if not line.startswith("    ")),
    )


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """The command of a line and its parameters, checked by the command line itself."""
    _, name, *arguments = shlex.split(line.partition(" > ")[0])
    return name, typed.parsed(name, *arguments)


@pytest.mark.parametrize("page", PUBLISHED)
def test_the_table_of_a_page_is_the_published_one(page: str) -> None:
    head, *rows = tables_of(text_of(page).partition("## The paper's numbers")[2])[0]
    shown = {
        row[0]: {
            column: None if cell == "–" else float(cell)
            for column, cell in zip(head[1:], row[1:], strict=True)
        }
        for row in rows
    }

    def numbers(rows):
        return {name: {c: v for c, v in row.items() if v is not None} for name, row in rows.items()}

    assert numbers(shown) == numbers(PUBLISHED[page])


def test_every_table_and_figure_has_its_page() -> None:
    assert PAGES.keys() == {"README", *table_names(["all"])}
    linked = re.findall(r"\]\((\w+)\.md\)", text_of("README"))
    assert PAGES.keys() - {"README"} <= set(linked)
    for name in TABLES:
        commands = [parsed(line) for line in code_lines(text_of(name))]
        runs = [
            params
            for command, params in commands
            if command == "reproduce" and params["tables"] == [name]
        ]
        assert any(params["world"] for params in runs) and any(
            params["data_root"] for params in runs
        ), name
    assert {"attend", "reproduce"} <= {parsed(line)[0] for line in code_lines(text_of("fig4"))}
    assert {"distance", "reproduce"} <= {parsed(line)[0] for line in code_lines(text_of("fig5"))}
    prepared = [
        params["name"]
        for name, params in map(parsed, code_lines(text_of("README")))
        if name == "prepare"
    ]
    assert sorted(prepared) == ["hmdb51", "k400", "k600", "ssv2", "ucf101"]


@pytest.mark.parametrize("page", ["table1", "table2"])
def test_standard_errors(page: str) -> None:
    row = PUBLISHED[page]["FROSTER"]
    counts = published_clips()
    videos = {column: numbers[0] for column, numbers in counts["cross_dataset"].items()}
    for column, dataset in (
        ("K400", "k400"),
        ("HMDB", "hmdb51"),
        ("UCF", "ucf101"),
        ("SSv2", "ssv2"),
    ):
        videos |= {
            f"{column} {half}": counts["base_to_novel"][dataset][half] for half in ("base", "novel")
        }
    _, *shown = tables_of(text_of(page))[1]
    assert [line[0] for line in shown] == [column for column in row if not column.endswith("HM")]
    for column, count, printed, error in shown:
        value = row[column]
        assert value is not None
        assert (count, printed) == (f"{videos[column]:,}", f"{value:.1f}")
        assert error == f"{standard_error(value, videos[column]):.1f}"


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_commands_ask_for_what_there_is(path: Path) -> None:
    """Tables, protocols, kinds of distillation, label sets; `test_docs.py` has the options."""
    text = path.read_text(encoding="utf-8")
    for span in spans(text):
        words = shlex.split(span)
        for flag, value in pairwise(words):
            check_choice(flag, value)
    for line in code_lines(text):
        name, params = parsed(line)
        if name == "reproduce":
            table_names(params["tables"])
            assert params["world"] != (params["data_root"] is not None), line
            Options(**{field.name: params[field.name] for field in dataclasses.fields(Options)})
        elif name == "train":
            distill_preset(params["distill"] or "none")
        elif name == "distance":
            assert label_set(params["first"]) and label_set(params["second"])


def check_choice(flag: str, value: str) -> None:
    """Raises UsageError, or fails, where an option of `train` does not take this value."""
    if flag == "--distill":
        distill_preset(value)
    elif flag in ("--distance", "--level"):
        Distill(**{flag[2:]: value})
    elif flag == "--method":
        assert value in METHODS
    elif flag == "--variant":
        assert any(value in method.variants for method in METHODS.values())


def test_alternatives_in_the_switches_are_values_that_are_taken() -> None:
    for table in tables_of((DOCS / "released-code.md").read_text(encoding="utf-8")):
        for *_, switch in table[1:]:
            for option, values in re.findall(
                r"`(?:train|reproduce) (--[\w-]+) [\w-]+`((?:,? (?:or )?`\w+`)+)", switch
            ):
                name = option[2:].replace("-", "_")
                for value in re.findall(r"`(\w+)`", values):
                    check_choice(option, value)
                    if name in {field.name for field in dataclasses.fields(Options)}:
                        Options(**{name: value})


def test_defaults_that_the_page_on_the_released_code_states() -> None:
    rows = [
        row
        for table in tables_of((DOCS / "released-code.md").read_text(encoding="utf-8"))
        for row in table[1:]
    ]
    assert all(len(row) == 5 for row in rows)
    for field in dataclasses.fields(Options):
        option = "--" + field.name.replace("_", "-")
        stated = [row[3] for row in rows if f"reproduce {option}" in row[4]]
        wanted = option if field.default is True else str(field.default)
        assert stated and all(wanted in cell for cell in stated), (option, wanted)
        (argument,) = (a for a in typed.arguments("reproduce") if a.field_info.name == field.name)
        assert argument.field_info.default == field.default, option
    loss = Distill()
    for option in ("alpha", "beta_v", "beta_t", "distance", "level"):
        wanted = getattr(loss, option)
        stated = [row[3] for row in rows if f"train --{option.replace('_', '-')}" in row[4]]
        words = f"{wanted:g}" if isinstance(wanted, float) else wanted
        assert stated and all(words in cell for cell in stated), option


def test_the_measured_values_are_where_the_pages_say() -> None:
    for name in ("tables.md", "claims.md"):
        assert (DOCS / "results" / name).is_file(), (
            "the miniature's report is missing: froster reproduce all --world"
        )


def test_the_lines_that_draw_figure_5_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text_of("fig5"), re.DOTALL)
    names = label_set("ucf101")[:12]
    for file, accuracy in (("before.json", 50.0), ("after.json", 60.0)):
        result = {"splits": {"test": {"per_class": dict.fromkeys(names, accuracy)}}}
        (tmp_path / file).write_text(json.dumps(result))
    monkeypatch.chdir(tmp_path)
    load = froster.load
    monkeypatch.setattr(froster, "load", lambda _: load("nano", device="cpu"))
    exec(compile(code, "docs/paper/fig5.md", "exec"), {})
    assert (tmp_path / "gain.png").stat().st_size > 1000
