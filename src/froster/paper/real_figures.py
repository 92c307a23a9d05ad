"""The paper's figures from runs on the real data sets; a figure whose runs are not there is not
drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from froster.data.dataset import VideoDataset
from froster.data.names import classes, readable
from froster.encoders.model import normalise
from froster.inference.recognizer import Recognizer, load
from froster.paper.cells import Cell
from froster.paper.real import Data, Job, record_of
from froster.paper.real_report import row_data
from froster.paper.tables import PICTURED, TABLES
from froster.report.attention import Row, attention_strip, cls_attention
from froster.report.distance import ClassGain, class_gains, gain_scatter, nearest, text_features
from froster.report.plots import Bars, accuracy_bars
from froster.utils import strict_json as json
from froster.utils.progress import attempt

COLUMNS = ("UCF*", "HMDB*", "K600")


def draw(names: Sequence[str], data: Data, base: Recognizer, seeds: int, out: Path) -> list[Path]:
    """The pictures of those figures among `names` for which there are runs."""
    figures: dict[str, Callable[[], list[Path]]] = {
        "fig1": lambda: figure_1(data, seeds, out),
        "fig4": lambda: figure_4(data, base, out),
        "fig5": lambda: figure_5(base, out),
    }
    return [
        path
        for name, figure in figures.items()
        if name in names
        for path in attempt(name, figure) or []
    ]


def first_run(cell: Cell | None) -> Job:
    return Job(cell, "cross-dataset", "k400", 1)


def figure_1(data: Data, seeds: int, out: Path) -> list[Path]:
    table = TABLES["fig1"]
    rows = [row_data(row, table, data, seeds, out) for row in table.rows]
    bars = [
        Bars(row["row"], [row["ours"].get(c) for c in COLUMNS], [row["sd"].get(c) for c in COLUMNS])
        for row in rows
    ]
    there = [bar for bar in bars if any(value is not None for value in bar.values)]
    return [accuracy_bars(COLUMNS, there, out / "fig1.png")] if there else []


def figure_4(data: Data, base: Recognizer, out: Path) -> list[Path]:
    """The first readable test video of each data set: frozen CLIP above the tuned networks."""
    folders = {name: out / "models" / first_run(cell).key for name, cell in PICTURED.items()}
    models = {
        "frozen": base,
        **{
            name: load(path, device=str(base.device))
            for name, path in folders.items()
            if path.is_dir()
        },
    }
    if len(models) == 1:
        return []
    paths = []
    for test in data.cross_tests:
        if test.number != 1 or test.column not in COLUMNS:
            continue
        sampling = data.options.frames_of(base.config.sampling.frames, base.config.sampling.rate)
        size = base.clip.config.vision.image_size
        samples = VideoDataset(
            test.items, test.classes, sampling, size, views=1, train=False, how=base.preprocessing
        )
        sample = next(
            (s for s in map(samples.__getitem__, range(len(samples))) if s.frames is not None), None
        )
        if sample is None or sample.frames is None:
            continue
        frames = sample.frames[0]  # (T, 3, S, S)
        seen = normalise(frames.to(base.device), base.preprocessing)
        rows = [
            Row("", frames),
            *(
                Row(name, frames, cls_attention(m.model, seen).patches)
                for name, m in models.items()
            ),
        ]
        title = (
            f"{test.column}: {test.classes[sample.label]}; attention of [CLS], last block, mean"
            " over heads"
        )
        path = out / f"fig4_{test.dataset}.png"
        paths.append(
            attention_strip(rows, [f"frame {t + 1}" for t in range(len(frames))], title, path)
        )
    return paths


def figure_5(base: Recognizer, out: Path) -> list[Path]:
    """Gain of each test class over frozen CLIP by the similarity of its name to the nearest of
    K400's."""
    training = [readable(name) for name in classes("k400")]
    features = text_features(base, training)
    paths = []
    for network, cell in PICTURED.items():
        labels = "described" if cell.described else "plain"
        points: list[ClassGain] = []
        before = by_class(None, f"frozen, {labels}", out)
        for test, after in by_class(cell, f"final, {labels}", out).items():
            if test.rstrip("123 ") in COLUMNS and test in before:
                names = list(after)
                similar = nearest(names, text_features(base, names), training, features)
                assert similar is not None
                points += class_gains(before[test], after, similar)
        if points:
            paths.append(
                gain_scatter(points, out / f"fig5_{network.replace(' ', '_')}.png", network)
            )
    return paths


def by_class(cell: Cell | None, kind: str, out: Path) -> dict[str, dict[str, float]]:
    """Test set -> class -> accuracy, of the first run."""
    path = record_of(first_run(cell), out)
    if not path.exists():
        return {}
    tests = json.loads(path.read_text())["tests"][kind]
    return {name: test["per_class"] for name, test in tests.items()}
