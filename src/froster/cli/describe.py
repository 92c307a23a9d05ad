"""`froster describe`: one sentence for each new class, from a language model or from a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.common import show_result
from froster.cli.options import number, option, seconds
from froster.errors import FrosterError, UsageError
from froster.text.labels import check_labels, read_labels
from froster.text.sentences import read_descriptions, with_descriptions
from froster.utils import strict_json as json
from froster.utils.files import sole_maker, write_text
from froster.utils.progress import console, progress

if TYPE_CHECKING:
    from froster.encoders.tokenizer import Tokenizer
    from froster.text.sentences import Complaint, Endpoint


def describe(
    labels: options.LabelsFile = None,
    /,
    *,
    out: Annotated[Path | None, option("JSON of name: sentence; it is completed.")] = None,
    endpoint: Annotated[str | None, option("Chat endpoint (…/v1); default: OpenAI's.")] = None,
    model: Annotated[str, option("The language model's name there.")] = "gpt-4o-mini",
    from_file: Annotated[str | None, option("Sentences to take first; alone: ask nobody.")] = None,
    key_env: Annotated[str, option("Environment variable that holds the key.")] = "OPENAI_API_KEY",
    concurrency: Annotated[int, number("Requests at a time.", 1, 64)] = 4,
    timeout: Annotated[float, seconds("To wait for the server.", 0.1)] = 60,
    show_prompt: Annotated[bool, option("Only print what is asked for each class.")] = False,
    as_json: options.Json = False,
) -> None:
    """One sentence for each class, written by a language model: labels that say more than a name.

    Example: froster describe labels.txt --out descriptions.json --endpoint http://localhost:8000/v1
    --model llama3
    """
    from froster.text.sentences import OPENAI, PROMPT, Endpoint, complaints

    if show_prompt:
        show_result({"prompt": PROMPT}, as_json, lambda asked: print(asked["prompt"]))
        return
    if labels is None or out is None:
        raise UsageError("give a file of labels and --out FILE.json (or --show-prompt)")
    if out.suffix.lower() != ".json":
        raise UsageError(f"--out is a .json, not {out.name}")
    names = [label.partition(":")[0].strip() for label in read_labels(labels)]
    check_labels(names)
    with sole_maker(out):
        sentences = SentenceFile(out, names)
        report: dict[str, Any] = {
            "out": str(out),
            "labels": len(names),
            "already": len(names) - len(sentences.missing),
            **dict.fromkeys(("from_file", "described", "answers_refused", "retries"), 0),
        }
        tokenizer = tokenizer_at_hand()
        complaint = complaints(tokenizer)
        if tokenizer is None:
            console.print("no CLIP vocabulary (FROSTER_BPE): sentences are measured in words")
        refused: dict[str, str] = {}
        if from_file is not None:
            refused = copy(sentences, read_descriptions(from_file), complaint, report)
        failure: FrosterError | None = None
        if sentences.missing and (endpoint is not None or from_file is None):
            server = Endpoint(endpoint or OPENAI, model, key_of(endpoint, key_env), timeout)
            try:
                refused |= fill(sentences, server, complaint, concurrency, report)
            except FrosterError as error:
                failure = error
    missing = sentences.missing
    report["missing"] = [{"name": name, "reason": refused.get(name, "")} for name in missing]
    show_result(report, as_json, show)
    if failure is not None:
        raise type(failure)(
            f"{failure}; {len(names) - len(missing)} of {len(names)} sentences are in {out}: run"
            " the same again to go on"
        )
    if missing:
        raise SystemExit(1)


class SentenceFile:
    """What stands in it is kept, and it is written anew with every sentence, completely or not at
    all."""

    def __init__(self, path: Path, names: list[str]):
        self.path, self.names = path, names
        table = read_descriptions(path) if path.exists() else {}
        self.table = {name: text for name, text in table.items() if text.strip()}

    @property
    def missing(self) -> list[str]:
        """Names without a sentence, whatever the spelling of those that have one."""
        labels = with_descriptions(self.names, self.table)
        return [name for name, label in zip(self.names, labels, strict=True) if name == label]

    def add(self, sentences: dict[str, str]) -> None:
        """They stand in the order of the names, behind those of other names."""
        self.table |= sentences
        place = {name: i for i, name in enumerate(self.names)}
        table = dict(sorted(self.table.items(), key=lambda entry: place.get(entry[0], -1)))
        write_text(self.path, json.dumps(table, indent=1, ensure_ascii=False) + "\n")


def copy(
    sentences: SentenceFile, given: dict[str, str], complaint: Complaint, report: dict[str, Any]
) -> dict[str, str]:
    """Take over sentences of a file, counting in `report`; returns why others were not."""
    from froster.text.sentences import tidy

    good, refused = {}, {}
    names = sentences.missing
    for name, label in zip(names, with_descriptions(names, given), strict=True):
        sentence = tidy(name, label[len(name) + 1 :])
        cause = "not in the file" if label == name else complaint(name, sentence)
        if cause:
            refused[name] = cause
        else:
            good[name] = sentence
    if good:
        sentences.add(good)
    report["from_file"] = len(good)
    return refused


def fill(
    sentences: SentenceFile,
    server: Endpoint,
    complaint: Complaint,
    concurrency: int,
    report: dict[str, Any],
) -> dict[str, str]:
    """Ask for all that is missing, counting in `report`; returns why classes were given up."""
    from froster.text.sentences import ask_all

    refused = {}
    names = sentences.missing
    console.print(
        f"asking {server.model} at {server.url} for {len(names)} sentences, {concurrency} at a time"
    )
    with progress() as bars:
        bar = bars.add_task("describe", total=len(names), note="")
        for outcome in ask_all(names, server, complaint, concurrency):
            if outcome.sentence is not None:
                sentences.add({outcome.name: outcome.sentence})
                report["described"] += 1
            else:
                refused[outcome.name] = outcome.unusable[-1]
            report["answers_refused"] += len(outcome.unusable)
            report["retries"] += outcome.retries
            note = f"{report['answers_refused']} answers refused, {report['retries']} retries"
            troubled = report["answers_refused"] or report["retries"]
            bars.update(bar, advance=1, note=note if troubled else "")
    return refused


def key_of(endpoint: str | None, key_env: str) -> str | None:
    """The key from the environment. A server of one's own may need none."""

    key = os.environ.get(key_env, "").strip() or None
    if key is None and endpoint is None:
        raise UsageError(f"{key_env} is not set: put the key there, or give --endpoint")
    return key


def tokenizer_at_hand() -> Tokenizer | None:
    """CLIP's, from FROSTER_BPE or the hub's cache; nothing is downloaded."""
    from froster.encoders.tokenizer import HUB_ID, Tokenizer

    if os.environ.get("FROSTER_BPE"):
        return Tokenizer.find()
    import huggingface_hub  # slow to import, and only needed here

    cached = huggingface_hub.try_to_load_from_cache(HUB_ID, "tokenizer.json")
    return Tokenizer.from_file(cached) if isinstance(cached, str) else None


def show(report: dict[str, Any]) -> None:
    console.print(
        f"{report['out']}: {report['described']} described, {report['from_file']} from the file,"
        f" {report['already']} were there, {len(report['missing'])} missing;"
        f" {report['answers_refused']} answers refused, {report['retries']} retries"
    )
    for entry in report["missing"]:
        if entry["reason"]:
            console.print(f"  {entry['name']}: {entry['reason']}")
