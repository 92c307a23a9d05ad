"""Do the classes of a training set have habits? How many held-out clips one scene word each tells
the class of, against the same on shuffled labels.

Of a clip only the scene word that fits it best is used, not how well all words fit: these numbers
together describe the whole picture, so that a linear classifier tells from them what is done, too
(`docs/lab.md`).
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from froster.errors import DataError

FOLDS = 5
SHUFFLES = 20
HABIT = 10.0
"""Per cent of what guessing leaves open, which scene words must tell. In rendered sets of 6 to 24
classes they told 0 to 2 on average where every scene went with every class, 6 to 22 where three
clips in ten were in their class's usual scene, 26 to 60 where eight in ten were
(`python -m benchmarks.habits`)."""


@dataclass(frozen=True)
class UsualWord:
    """The scene word that sets a class apart most."""

    label: str
    word: str
    share: float
    """Per cent of the clips of the class that the word fits best."""
    elsewhere: float
    """The same of all other clips."""


@dataclass(frozen=True)
class Habits:
    """What scene words alone tell of held-out clips, per cent."""

    clips: int
    classes: int
    accuracy: float
    error: float
    """One standard error of `accuracy` less `shuffled`; clips of one source count as one."""
    shuffled: float
    """The same on shuffled labels, the mean of some."""
    chance: float
    """Of always naming the largest class."""
    habits: list[UsualWord]
    """Of every class, the clearest first."""

    @property
    def share(self) -> float:
        """Of what guessing leaves open, the share that scene words tell."""
        return 100 * (self.accuracy - self.shuffled) / (100 - self.shuffled)

    @property
    def kind(self) -> Literal["habits", "none", "too few"]:
        clear = self.accuracy - self.shuffled > 2 * self.error
        if clear and self.share > HABIT:
            return "habits"
        least = 200 * self.error / (100 - self.shuffled)
        return "too few" if least > 2 * HABIT else "none"

    @property
    def sentence(self) -> str:
        number = (
            f"scene words alone tell {self.accuracy:.0f} ± {self.error:.0f} % of {self.clips} clips"
            f" (chance {self.chance:.0f} %, shuffled labels {self.shuffled:.0f} %)"
        )
        if self.kind == "habits":
            return (
                f"your classes have habits: {number}; what is tuned on them can learn the scene in"
                " place of the action, so keep a teacher (distillation)"
            )
        if self.kind == "none":
            return f"no habit found: {number}"
        return f"too few clips to tell whether your classes have habits: {number}"

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {"kind": self.kind, "sentence": self.sentence, "share": self.share, **values}


def best_words(
    clips: Float[Tensor, "clips embed"], words: Float[Tensor, "words embed"]
) -> Int64[Tensor, " clips"]:
    """Unit embeddings of frames and of scene words -> the word that fits each frame best, beyond
    how well it fits all of them."""
    cosines = clips @ words.T
    return (cosines - cosines.mean(dim=0)).argmax(dim=1)


def habits(
    words: Sequence[str], best: Sequence[int], labels: Sequence[str], sources: Sequence[Hashable]
) -> Habits:
    """`best`: of each clip, the place of its scene word in `words`; `sources`: clips that are equal
    in it were cut from one video and are held out together.

    Raises DataError where nothing can be held out: fewer than two classes, or classes with one
    source each.
    """
    check_sources(labels, sources)
    classes = sorted(set(labels))
    places = torch.tensor(best)
    numbers = torch.tensor([classes.index(label) for label in labels])
    folds = folds_of(labels, sources)
    sizes = len(words), len(classes)
    hits = credits_of(places, numbers, folds, *sizes)
    generator = torch.Generator().manual_seed(0)
    shuffled = []
    for _ in range(SHUFFLES):
        others = numbers[torch.randperm(len(numbers), generator=generator)]
        shuffled.append(100 * float(credits_of(places, others, folds, *sizes).mean()))
    of_source: Counter[Hashable] = Counter()
    for source, miss in zip(sources, (hits - hits.mean()).tolist(), strict=True):
        of_source[source] += miss
    sampling = 100 * sum(miss**2 for miss in of_source.values()) ** 0.5 / len(labels)
    return Habits(
        clips=len(labels),
        classes=len(classes),
        accuracy=100 * float(hits.mean()),
        error=(sampling**2 + pstdev(shuffled) ** 2) ** 0.5,
        shuffled=fmean(shuffled),
        chance=100 * max(Counter(labels).values()) / len(labels),
        habits=clearest(words, places, numbers, classes),
    )


def check_sources(labels: Sequence[str], sources: Sequence[Hashable]) -> None:
    """Raises DataError where no clip could be told from others of its class."""
    if len(set(labels)) < 2:
        raise DataError(f"{len(set(labels))} class with clips has no habit that others have not")
    by_class = Counter(label for label, _ in set(zip(labels, sources, strict=True)))
    if max(by_class.values()) < 2:
        raise DataError("no class has two clips of different videos, so none can be held out")


def folds_of(labels: Sequence[str], sources: Sequence[Hashable]) -> Int64[Tensor, " clips"]:
    """Clips of one source together; of every class about as many sources in each fold."""
    label_of: dict[Hashable, str] = {}
    for label, source in zip(labels, sources, strict=True):
        label_of.setdefault(source, label)
    drawn = random.Random("habits").sample(list(label_of), len(label_of))
    fold = {source: i % FOLDS for i, source in enumerate(sorted(drawn, key=label_of.__getitem__))}
    return torch.tensor([fold[source] for source in sources])


def credits_of(
    best: Int64[Tensor, " clips"],
    numbers: Int64[Tensor, " clips"],
    folds: Int64[Tensor, " clips"],
    words: int,
    classes: int,
) -> Float[Tensor, " clips"]:
    """Is a clip's class the one that had its word most often in the other folds? Of several such
    classes the largest counts, or each its share; so it is of a word that was not there."""
    hits, size = torch.zeros(len(best)), torch.bincount(numbers, minlength=classes)
    for fold in range(FOLDS):
        held, rest = folds == fold, folds != fold
        counts = torch.zeros(words, classes)
        counts.index_put_((best[rest], numbers[rest]), torch.ones(()), accumulate=True)
        scores = counts[best[held]] + size / (len(best) + 1)
        top = scores == scores.max(dim=1, keepdim=True).values
        right = top.gather(1, numbers[held][:, None])[:, 0]
        hits[held] = right / top.sum(1)
    return hits


def clearest(
    words: Sequence[str],
    best: Int64[Tensor, " clips"],
    numbers: Int64[Tensor, " clips"],
    classes: Sequence[str],
) -> list[UsualWord]:
    """Of every class the word with the largest lead over the other classes."""
    counts = torch.zeros(len(classes), len(words))
    counts.index_put_((numbers, best), torch.ones(()), accumulate=True)
    sizes = counts.sum(1, keepdim=True)
    shares = counts / sizes
    elsewhere = (counts.sum(0) - counts) / (sizes.sum() - sizes)
    lead = shares - elsewhere
    result = []
    for row in lead.max(dim=1).values.argsort(descending=True, stable=True).tolist():
        word = int(lead[row].argmax())
        values = 100 * float(shares[row, word]), 100 * float(elsewhere[row, word])
        result.append(UsualWord(classes[row], words[word], *values))
    return result
