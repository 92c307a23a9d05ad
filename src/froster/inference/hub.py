"""A model on the Hugging Face hub: its files, a report without anything private, and a card.

Paths, file names and messages stay private: of the report only what `PUBLIC` lists goes out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from froster import __version__
from froster.encoders.known import known_encoder
from froster.encoders.layouts import read_object
from froster.errors import FrosterError, UsageError
from froster.evaluation.calibration import CALIBRATION, Calibration, read_calibration
from froster.inference.model_folder import folder_of
from froster.inference.model_report import TRAINING, read_report
from froster.utils import strict_json as json
from froster.utils.downloads import hub_cause
from froster.utils.text import printable

Report = dict[str, Any]
WEIGHTS = ("model.safetensors", "config.json", "tokenizer.json")
PUBLIC = ("rows", *TRAINING, "history", "test", "reliability", "trained_weights")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SHOWN_CLASSES = 60
_MEANING = set("\"'`$\\!,;<>&|*_[]()#~")


def push(
    folder: str | Path,
    repo: str,
    licence: str | None = None,
    *,
    private: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Publish the model in a folder, or in the output folder of a run, as `repo` (USER/NAME).
    Returns the sizes of the files in bytes, the card and, unless `dry_run`, the address. Raises
    UsageError on a wrong name or without a token, FrosterError where the hub refuses."""
    if not HUB_ID.fullmatch(repo):
        raise UsageError(f"a repository is USER/NAME, not {repo!r}")
    if licence is not None and not re.fullmatch(r"[a-z0-9.-]+", licence):
        raise UsageError(
            "--license takes the hub's short name, such as apache-2.0 or cc-by-4.0, not"
            f" {licence!r}"
        )
    # As a path, for a folder that is called nano is no name here.
    model = folder_of(os.path.abspath(os.path.expanduser(folder)))
    if model is None:
        raise UsageError(
            f"{folder} is neither a model folder of froster nor an output folder of froster train"
        )
    contents = files(model, repo, licence)
    sizes = {name: _size(content) for name, content in contents.items()}
    result: dict[str, Any] = {"repo": repo, "private": private, "files": sizes}
    if not dry_run:
        result["url"] = _upload(contents, repo, private)
    return {**result, "card": bytes(contents["README.md"]).decode()}  # type: ignore[arg-type]


def _size(content: bytes | Path) -> int:
    if isinstance(content, bytes):
        return len(content)
    if not content.is_file():
        raise UsageError(f"{content} does not exist: the model folder is not whole")
    return content.stat().st_size


def _upload(contents: dict[str, bytes | Path], repo: str, private: bool) -> str:
    """One commit with all files; the repository's address."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub  # slow to import

    if huggingface_hub.get_token() is None:
        raise UsageError(
            "the hub wants to know you: run `hf auth login`, or set HF_TOKEN to a token that may"
            " write"
        )
    api = huggingface_hub.HfApi(library_name="froster")
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        operations = [huggingface_hub.CommitOperationAdd(*item) for item in contents.items()]
        api.create_commit(repo, operations, commit_message="Model pushed by froster")
    except Exception as error:  # every transport has its own family of errors
        raise FrosterError(
            f"{repo} could not be pushed to {api.endpoint} ({hub_cause(error)})"
        ) from None
    return str(url)


def files(folder: Path, repo: str, licence: str | None) -> dict[str, bytes | Path]:
    """Name in the repository -> its content, or the file that holds it. Raises CheckpointError on a
    damaged file."""
    report, calibration = read_report(folder / "report.json"), read_calibration(folder)
    contents: dict[str, bytes | Path] = {name: folder / name for name in WEIGHTS}
    if (folder / CALIBRATION).is_file():
        contents[CALIBRATION] = folder / CALIBRATION
    public = {name: report[name] for name in PUBLIC if name in report}
    contents["report.json"] = (json.dumps(public, indent=2) + "\n").encode()
    config = read_object(folder / "config.json", "config")
    contents["README.md"] = card(config, report, calibration, repo, licence).encode()
    return contents


def card(
    config: Report, report: Report, calibration: Calibration, repo: str, licence: str | None
) -> str:
    """The README.md of the repository: the hub's metadata, then what a person wants to know."""
    from huggingface_hub import ModelCardData  # slow to import

    method = re.sub(r"[^\w-]", "?", str(config.get("method", {}).get("name", "?")))
    base_model = report.get("source", {}).get("model", "")
    if (known := known_encoder(base_model)) is not None:
        base_model = known.hub_id
    values: dict[str, Any] = {
        "license": licence,
        "library_name": "froster",
        "pipeline_tag": "video-classification",
        "tags": ["video-classification", "zero-shot", "open-vocabulary", "clip", "froster", method],
        "base_model": base_model if HUB_ID.fullmatch(base_model) else None,
        "model-index": _model_index(repo, report),
    }
    metadata = ModelCardData(**{name: value for name, value in values.items() if value}).to_yaml()
    sections = [
        f"# {repo.rpartition('/')[2]}",
        "A video classifier for any labels that can be written down: a CLIP"
        + (f", fine-tuned as `{method}`" if report.get("training_videos") else f" (`{method}`)")
        + " with [froster](https://arxiv.org/abs/2402.03241).",
        _usage(report, repo, calibration),
        *filter(None, [_trained_on(report), _accuracy(report, calibration)]),
        f"## Licence\n\n{licence or 'None was given: ask before you use it.'}",
        f"Made with froster {__version__}.",
    ]
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(sections) + "\n"


def _model_index(repo: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """The hub's form for measured numbers: the accuracies of the tuned weights."""
    results = []
    for name, test in report.get("test", {}).items():
        videos = f"{name} test videos ({test['videos']} of {test['classes']} classes)"
        top1 = {"type": "accuracy", "name": "top-1, per cent", "value": round(test["top1"], 2)}
        results.append(
            {
                "task": {"type": "video-classification"},
                "dataset": {"type": f"froster-{name}", "name": videos},
                "metrics": [top1],
            }
        )
    return [{"name": repo.rpartition("/")[2], "results": results}] if results else []


def _usage(report: dict[str, Any], repo: str, calibration: Calibration) -> str:
    labels = [*report.get("base_classes", []), *report.get("novel_classes", [])][:2]
    if not labels or not all(label.isprintable() and not set(label) & _MEANING for label in labels):
        labels = ["surfing", "skiing"]  # what Python, a shell or Markdown might not take as text
    none = "is how likely it is that none of the labels fits, fitted to held-out videos"
    if calibration.none is None:
        bare = calibration.fitted is None
        why = (
            "the model is not calibrated" if bare else "the scores do not tell whether a label fits"
        )
        none = f"is None: {why}"
    return (
        "## Use\n\n`pip install froster-video`, then\n\n```python\nimport froster\n\n"
        f'model = froster.load("{repo}")\n'
        f'found = model.classify("video.mp4", {json.dumps(labels, ensure_ascii=False)})\n'
        "print(found.label, found.scores[0], found.none)\n```\n\n"
        f'or `froster classify video.mp4 --model {repo} --labels "{", ".join(labels)}"`.'
        f" `found.none` {none}."
    )


def _trained_on(report: dict[str, Any]) -> str:
    classes = report.get("base_classes", [])
    if not classes:
        return ""
    more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
    names = ", ".join(map(escaped, classes[:SHOWN_CLASSES])) + more
    recipe, distill = report.get("recipe", {}), report.get("distill", {})
    return (
        f"## Data\n\n{report.get('training_videos')} videos of {len(classes)} classes:"
        f" {names}.\n\n{report.get('epochs', recipe.get('epochs'))} epochs of batch"
        f" {recipe.get('batch_size')}, learning rate {recipe.get('lr')}, distillation:"
        f" {escaped(_distilled(distill))}, seed {recipe.get('seed')}."
    )


def _distilled(distill: dict[str, Any]) -> str:
    """`residual`, or `plain, anchors, EMA teacher`."""
    target = distill.get("target", "features")
    more = [target] if target != "features" else []
    more += ["EMA teacher"] if distill.get("teacher") == "ema" else []
    return ", ".join([str(distill.get("kind")), *more])


def escaped(text: str) -> str:
    """As Markdown and HTML that show the text and nothing else, also in cells of a table: every
    sign that may mean something is a number."""
    signs = r"[^\w\s,.:'/-]|_|(?<=:)/|(?<=www)\."
    return re.sub(signs, lambda sign: f"&#{ord(sign[0])};", " ".join(printable(text).split()))


def _accuracy(report: dict[str, Any], calibration: Calibration) -> str:
    rows = report.get("rows", [])[:2]
    if len(rows) < 2 or not report.get("test"):
        return ""
    lines = ["## Accuracy", ""]
    lines += ["| test videos | CLIP before | this model | standard error |", "|---|---|---|---|"]
    words = {"base": "training classes", "novel": "classes never trained on"}
    for name, test in report["test"].items():
        what, before = words.get(name, escaped(name)), rows[0].get(name)
        cell = "–" if before is None else f"{before:.1f}"
        lines.append(
            f"| {test['videos']} of {test['classes']} {what} | {cell} | {test['top1']:.1f} |"
            f" {test['standard_error']:.1f} |"
        )
    lines += ["", "Top-1, per cent. Each set is scored against its own class names."]
    before, after = (row.get("generalised") or {} for row in rows)
    if before and after:
        asked = (f"{name} {before[name]:.1f} → {after[name]:.1f}" for name in ("base", "novel"))
        lines[-1] += f" Asked for the names of both together: {', '.join(asked)}."
    # `train` measures its own fit, `calibrate` a later one.
    trust = (calibration.fitted or {}).get("measured") or report.get("reliability")
    if trust:
        lines.append(
            f"Calibration error of the scores: {trust['after']['ece']:.1f} points on"
            f" {trust['videos']} videos."
        )
    return "\n".join(lines)
