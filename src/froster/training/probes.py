"""Does a network use motion at all? The same clips scored with and without it, and what may be said
of the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from froster.errors import one_of
from froster.evaluation.metrics import Predictions, percent
from froster.evaluation.probes import PROBES, Probe
from froster.inference.recognizer import Recognizer
from froster.training.checks import some
from froster.training.measure import Change, change

SHOWS = {
    "static": "the middle frame of each clip alone, repeated",
    "shuffled": "the frames of each clip in another order",
    "reversed": "the frames of each clip backwards",
}
LOST = {
    "static": "more than one frame is needed",
    "shuffled": "the order of the frames is used",
    "reversed": "the direction of time is used",
}
UNSEEN = {
    "static": "no need of more than one frame is seen",
    "shuffled": "no use of the order of the frames is seen",
    "reversed": "no use of the direction of time is seen",
}
NO_ORDER = (
    "this network embeds every frame alone and takes the mean, so that the order of the frames"
    " changes nothing"
)
Measured = dict[str, Predictions]
"""Of each set."""


def check_probes(probes: Sequence[str] | None) -> list[Probe]:
    """Those that were asked for, each once. Raises UsageError on another name."""
    for probe in probes or ():
        one_of("--probe", probe, *PROBES)
    return [probe for probe in PROBES if probe in (probes or ())]


def orders_of(model: Recognizer, probes: Sequence[Probe]) -> list[Probe | None]:
    """The usual order, and those of the probes that a network can tell from it: where it cannot
    know the order of the frames, a probe that changes it has the usual predictions."""
    computed = [p for p in probes if p == "static" or not model.model.ignores_order]
    return [None, *computed]


def probes_of(usual: Predictions, probed: Mapping[Probe, Predictions]) -> dict[str, Any]:
    """For a report: of each probe the change in accuracy on the same videos, among base and novel
    labels too where these are apart, and of each class."""
    report: dict[str, Any] = {}
    for probe, after in probed.items():
        readable = ~(usual.logits.isnan().any(1) | after.logits.isnan().any(1))
        differs = usual.logits.argmax(1) != after.logits.argmax(1)
        by_class = changes_by_class(usual, after)
        report[probe] = {
            **change(usual, after).to_dict(),
            "by_construction": after is usual,
            "other_answers": percent(differs[readable]) if readable.any() else None,
            "groups": {
                name: change(group, after.also[name]).to_dict()
                for name, group in usual.also.items()
                if len(group.labels)
            },
            "lost_classes": [name for name, c in by_class.items() if c.kind == "bad"],
            "per_class": {name: c.to_dict() for name, c in by_class.items()},
        }
    return report


def changes_by_class(usual: Predictions, after: Predictions) -> dict[str, Change]:
    """Of every class that has videos, those with the largest loss first."""
    changes = {}
    for name in usual.per_class():
        kept = usual.places([name])
        changes[name] = change(usual.rows(kept), after.rows(kept))
    return dict(sorted(changes.items(), key=lambda pair: pair[1].gain))


def probe_lines(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """Of the `probes_of` a set: a sentence for each probe, and which classes need what it takes."""
    constructed = [probe for probe, values in report.items() if values["by_construction"]]
    if constructed:
        yield f"{name}, {' and '.join(constructed)}: {NO_ORDER}: every answer is the same"
    for probe, values in report.items():
        if probe not in constructed:
            yield f"{name}, {probe} ({SHOWS[probe]}): {verdict(probe, values)}"
            if needing := values["lost_classes"]:
                count = f"{len(needing)} of {len(values['per_class'])} classes"
                classes = some(needing, 12)
                yield f"{name}, {probe}: {count} lose beyond two standard errors: {classes}"


def verdict(probe: str, values: Mapping[str, Any]) -> str:
    """`70.0 -> 52.0 (-18.0 ± 3.1, a loss beyond two standard errors): the order of the frames is
    used`."""
    if values["other_answers"] is None:
        return "not one video can be read, so that nothing is known of it"
    if not values["other_answers"]:
        return f"not one answer changes: {UNSEEN[probe]}"
    names = ("before", "after", "error", "videos", "classes")
    c = Change(**{name: values[name] for name in names})
    if c.kind == "bad":
        return f"{c}: {LOST[probe]}"
    least = 2 * c.error
    end = f" (less than {least:.1f} points would not show)" if c.kind == "" and least else ""
    return f"{c}: {UNSEEN[probe]}{end}"
