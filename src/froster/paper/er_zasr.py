"""ER-ZASR on the real data sets. It has encoders of its own, so its row needs files that no other
needs, and no CLIP: `DATA/er-zasr` holds them under the names of `FILES`.

Its streams are kept in `DATA/er-zasr/features`, where `froster rehearse --features` may have put
them before. It is trained and tested as every other row is: one training on K400, whose last epoch
is taken (the authors choose it on 60 of the new classes of K600), and our sentences as definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from froster.data.manifest import Item
from froster.encoders.config import TextConfig
from froster.evaluation.metrics import Predictions
from froster.paper.cells import REHEARSED
from froster.paper.real_data import RealData, TestSet
from froster.training.options import RehearsalOptions
from froster.training.rehearsal import Parts, Running, rehearse
from froster.utils.files import write_json

FILES = {
    "tsm": ("tsm.pth",),
    "bit": ("bit.npz", "bit.pth", "bit"),
    "bert": ("bert",),
    "concepts": ("concepts.txt", "concepts"),
}
"""Option of `froster rehearse` -> the names that its file or folder may have."""
HEAD = "model.safetensors"
FRAME_FLOPS = 8.2e9
"""Of either ResNet on a frame, counted by torch's FlopCounterMode (8.17 and 8.26)."""
FRAMES, SHOWN_TOKENS, CONCEPTS, CONCEPT_TOKENS = 16, 100, 640, 25
"""A video: frames of both streams, tokens of its objects. A batch: distinct concepts at the most,
and about so many tokens of one."""
BERT_BASE = TextConfig(512, 30522, 768, 12, 12)


def file_of(root: Path, option: str) -> Path | None:
    """That of `DATA/er-zasr` for an option; None where there is none."""
    paths = (root / REHEARSED / name for name in FILES[option])
    return next((path for path in paths if path.exists()), None)


def missing_files(root: Path) -> list[str]:
    """Those that the row needs and `DATA/er-zasr` lacks."""
    return [" or ".join(FILES[option]) for option in FILES if file_of(root, option) is None]


def parts_of(root: Path, definitions: Path, head: Path | None = None) -> Parts:
    files = {option: file_of(root, option) for option in FILES}
    return Parts(**files, definitions=definitions, head=head)  # type: ignore[arg-type]


def train(
    data: RealData,
    items: Sequence[Item],
    definitions: Mapping[str, str],
    model: Path,
    seed: int,
    running: Running,
) -> dict[str, int]:
    """Train the head and keep it in the folder `model`. Returns the videos that could not be read,
    by reason."""
    write_json(model / "definitions.json", definitions)
    parts = parts_of(data.root, model / "definitions.json")
    options = RehearsalOptions(seed=seed)
    result = rehearse({"base": items}, parts, features_of(data), options, running)
    result.save(model / HEAD)
    unreadable: dict[str, int] = {}
    for error in result.report["unreadable"]:
        reason = error.rpartition(": ")[2]
        unreadable[reason] = unreadable.get(reason, 0) + 1
    return unreadable


def test(
    data: RealData, of: TestSet, definitions: Mapping[str, str], model: Path, running: Running
) -> Predictions:
    """The trained head on one set of videos."""
    write_json(model / "definitions.json", definitions)
    parts = parts_of(data.root, model / "definitions.json", model / HEAD)
    as_it_is = RehearsalOptions(epochs=0)
    sets = {"novel": of.items}
    result = rehearse(sets, parts, features_of(data), as_it_is, running, of.classes)
    assert result.predictions is not None
    return result.predictions


def features_of(data: RealData) -> Path:
    return data.root / REHEARSED / "features"


def run_flops(
    clips: int, videos: int, classes: int, tokens: int, blocks: Callable[[TextConfig, int], float]
) -> float:
    """Both streams of `clips` training and `videos` test videos once, and the training of the head:
    all class texts, of `tokens` each, in every step, backwards through two layers of twelve."""
    options = RehearsalOptions()
    steps = options.epochs * max(1, clips // options.batch_size)
    forward = classes * blocks(BERT_BASE, tokens)
    forward += options.batch_size * blocks(BERT_BASE, SHOWN_TOKENS)
    forward += CONCEPTS * blocks(BERT_BASE, CONCEPT_TOKENS)
    return (clips + videos) * FRAMES * FRAME_FLOPS + steps * forward * (1 + 2 * 2 / 12)
