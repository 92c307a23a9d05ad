"""What will go wrong with a training set, said before the training: warnings, one a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from froster.data.items import Item, label_counts
from froster.data.likeness import Likeness, likeness_of, pairs
from froster.data.splits import Split
from froster.inference.recognizer import Recognizer
from froster.text.sentences import with_descriptions
from froster.training.measure import Measuring
from froster.utils import pool
from froster.utils.text import short_names

FEW = 4
"""Fewer training videos than these are learnt by heart."""
IMBALANCE = 5.0
"""How many times the videos of the smallest class the largest may have."""
SAME_LABELS = 0.99
"""Cosine of two class embeddings above which a CLIP cannot tell them apart: the nano tells 56 % of
such pairs right, of those between 0.98 and 0.99 it tells 73 % (`docs/fine-tune.md`)."""
MOST_COMPARED = 4000
"""Videos that are compared by their looks; more take too long to do unasked."""


def warnings(
    model: Recognizer, parts: Split, sentences: dict[str, str], compare: bool, how: Measuring
) -> list[str]:
    """Of all the functions below; with `compare` it also opens every video."""
    labels = with_descriptions(parts.base + parts.novel, sentences)
    lines = [
        *few_clips(parts.train),
        *imbalance(parts.train),
        *missing_tests(parts),
        *same_labels(model, labels, how.truncate),
    ]
    if compare:
        tests = parts.base_test, parts.novel_test, parts.validation
        total = len(parts.train) + sum(map(len, tests))
        if total > MOST_COMPARED and parts.train and any(tests):
            line = f"{total} videos are too many to look for test videos among the training videos"
            return [*lines, line]
        with how.reporter.bar("compare videos", total, keep=False) as bar:
            lines += near_duplicates(parts.train, list(chain(*tests)), how.workers, bar)
    return lines


def few_clips(train: Sequence[Item]) -> list[str]:
    counts = label_counts(train)
    short = sorted((n, label) for label, n in counts.items() if n < FEW)
    what = "has" if len(short) == 1 else "have"
    line = (
        f"{len(short)} of {len(counts)} classes {what} fewer than {FEW} training videos, which are"
        f" learnt by heart: {some([f'{label} ({n})' for n, label in short])}"
    )
    return [line] if short else []


def imbalance(train: Sequence[Item]) -> list[str]:
    counts = label_counts(train).most_common()
    (large, n), (small, m) = counts[0], counts[-1]
    line = (
        f"{large} has {n} training videos, {small} {m}: the model will lean to the large classes "
        f"(--shots {max(m, FEW)} takes as many of each)"
    )
    return [line] if n > IMBALANCE * m else []


def missing_tests(parts: Split) -> list[str]:
    tested = label_counts(parts.base_test)
    without = [name for name in parts.base if name not in tested]
    line = (
        f"{len(without)} of {len(parts.base)} classes have no test video, so nothing is known of"
        f" {some(without)}"
    )
    return [line] if without else []


def same_labels(model: Recognizer, labels: Sequence[str], truncate: bool = False) -> list[str]:
    """Pairs of labels whose class embeddings nearly coincide: the text tower cannot tell them apart
    before training."""
    if len(labels) < 2:
        return []
    embeddings = model.embed_text(labels, truncate)
    cosines = (embeddings @ embeddings.T).triu(1)
    same = [(float(cosines[i, j]), i, j) for i, j in (cosines > SAME_LABELS).nonzero().tolist()]
    same.sort(key=lambda pair: -pair[0])
    names = some([f"{labels[i]!r} and {labels[j]!r} ({cosine:.3f})" for cosine, i, j in same])
    what = "a pair" if len(same) == 1 else f"{len(same)} pairs"
    line = (
        f"this CLIP reads {what} of labels as the same; say the difference in other words: {names}"
    )
    return [line] if same else []


def near_duplicates(
    train: Sequence[Item],
    test: Sequence[Item],
    workers: int = 0,
    on_videos: Callable[[int], None] = lambda n: None,
) -> list[str]:
    """Test videos that show the recording of a training video: their accuracy says nothing."""
    if not train or not test:
        return []
    both = [*train, *test]
    twins: dict[int, int] = {}
    for pair in pairs(likenesses(both, workers, on_videos)):
        if pair.first < len(train) <= pair.second:
            twins.setdefault(pair.second, pair.first)
    short = short_names([both[video].path for pair in sorted(twins.items()) for video in pair])
    names = some([f"{a} = {b}" for a, b in zip(short[::2], short[1::2], strict=True)])
    line = (
        f"{len(twins)} of {len(test)} test videos show the same as a training video, so the test is"
        f" too easy: {names}"
    )
    return [line] if twins else []


def likenesses(
    items: Sequence[Item], workers: int, on_videos: Callable[[int], None]
) -> list[Likeness | None]:
    """Of each video; None for what cannot be read or shows nothing."""
    results: list[Likeness | None] = [None] * len(items)
    for event in pool.run(_likeness, [str(item.path) for item in items], workers):
        if event.done:
            on_videos(1)
        else:
            results[event.task] = event.part
    return results


def _likeness(path: str) -> Iterator[Likeness | None]:
    yield likeness_of(path)


def some(names: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
