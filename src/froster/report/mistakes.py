"""What a model gets wrong: the pairs of classes that it mixes up, and the videos that it is surest
of and wrong about."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from froster.errors import VideoError
from froster.evaluation.metrics import Predictions
from froster.inference.recognizer import Recognizer
from froster.report import page
from froster.report.distance import confusion_matrix, confusion_picture
from froster.utils.text import short_names

PAIRS, VIDEOS, SHOWN_FRAMES, HEIGHT = 8, 9, 3, 110
ALIKE = 3
"""Pictures of one and the same confusion; a fourth would say nothing new."""


def confusion(path: Path, predictions: Predictions, title: str = "") -> list[page.Part]:
    """The most frequent confusions, and the picture of all, which is written to `path`."""
    counts, classes = confusion_matrix(predictions), predictions.classes
    picture = confusion_picture(counts, classes, path, title)
    caption = "Rows are the right classes, columns the answers; darker is more."
    pairs = common_mistakes(counts, classes)
    table = page.table(["the right class", "was taken for", "videos"], pairs)
    return [*([table] if pairs else []), page.embedded(picture, caption)]


def common_mistakes(counts: Tensor, classes: Sequence[str], most: int = PAIRS) -> list[list[str]]:
    """Counts (K, K) -> the most frequent confusions: right class, predicted class, videos of how
    many."""
    wrong = counts.clone().fill_diagonal_(0)
    order = wrong.flatten().argsort(descending=True, stable=True)[:most].tolist()
    cells = [divmod(i, len(classes)) for i in order if wrong.flatten()[i] > 0]
    return [
        [classes[row], classes[column], f"{int(wrong[row, column])} of {int(counts[row].sum())}"]
        for row, column in cells
    ]


def worst_mistakes(
    model: Recognizer, measured: Mapping[str, Predictions], most: int = VIDEOS
) -> list[page.Part]:
    """The wrong answers with the highest probability, a few of each confusion, each with frames of
    its video."""
    wrong: list[tuple[float, Predictions, int, Tensor]] = []
    for predictions in measured.values():
        assert predictions.views is not None
        scored = model.score(predictions.views)
        missed = (predictions.ranks() >= 1) & ~scored.scores.isnan().any(1)
        for i in missed.nonzero()[:, 0].tolist() if predictions.names else ():
            probabilities = scored.probabilities[i]
            wrong.append((float(probabilities.max()), predictions, i, probabilities))
    wrong.sort(key=lambda mistake: -mistake[0])
    paths = [name for predictions in measured.values() for name in predictions.names or []]
    short = dict(zip(paths, short_names(paths), strict=True))
    figures: list[page.Part] = []
    shown: Counter[tuple[str, str]] = Counter()
    for probability, predictions, i, probabilities in wrong:
        assert predictions.names is not None
        label, path = int(predictions.labels[i]), predictions.names[i]
        right = predictions.classes[label]
        answer = predictions.classes[int(probabilities.argmax())]
        if len(figures) == most or shown[right, answer] == ALIKE:
            continue
        try:
            picture = filmstrip(model.read_views(Path(path), 1)[0])
        except VideoError:
            continue
        shown[right, answer] += 1
        odds = (
            f"said: {answer} ({100 * probability:.0f} %), right: {right}"
            f" ({100 * float(probabilities[label]):.0f} %)"
        )
        figures.append(page.embedded(picture, f"{odds}, {short[path]}"))
    text = (
        "The answers that the model gave with the highest probability and that were wrong, at most"
        f" {ALIKE} of a kind. Look here for wrong labels too."
    )
    return [page.paragraph(text), page.Part("strips", figures=figures)] if figures else []


def filmstrip(frames: Tensor) -> bytes:
    """Some frames (T, 3, H, W) uint8 side by side, as a JPEG."""
    picked = frames[torch.linspace(0, len(frames) - 1, SHOWN_FRAMES).round().long()]
    joined = Image.fromarray(torch.cat(list(picked), dim=2).permute(1, 2, 0).numpy())
    scale = HEIGHT / joined.height
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    joined.resize((round(joined.width * scale), HEIGHT), how).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
