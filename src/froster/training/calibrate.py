"""A temperature and the probability of "none of these", fitted to held-out videos and measured on
others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from froster.evaluation.calibration import FEWEST_VIDEOS, Calibration, fit
from froster.evaluation.metrics import Predictions, readable
from froster.evaluation.multi_label import BACKGROUND, MultiLabelRule, fit_multi_label
from froster.evaluation.reliability import auroc, measured, share_called_none
from froster.inference.recognizer import Recognizer
from froster.text.sentences import with_descriptions
from froster.training.held_out import HeldOut, choosing_half
from froster.training.measure import EvalSet, Measuring, measure, video_dataset
from froster.utils.progress import attempt


def predictions_for(
    model: Recognizer, held: HeldOut, sentences: Mapping[str, str], how: Measuring
) -> tuple[Predictions, Predictions | None]:
    """Of the held-out videos of the classes, and of videos of novel classes, if there are some,
    among the same labels."""
    parts = held.parts
    texts = with_descriptions(parts.base, sentences)
    # The label of a novel video is not asked for: any of those that are will do.
    novel = [dataclasses.replace(item, label=parts.base[0]) for item in parts.novel_test]
    also = {BACKGROUND: [*parts.base, BACKGROUND]} if knows_background(model, parts.base) else {}
    sets = [
        EvalSet(
            name,
            video_dataset(model, model.config, items, parts.base),
            parts.base,
            texts,
            also=also if name == "base" else {},
        )
        for name, items in (("base", parts.base_test), ("novel", novel))
        if items
    ]
    predictions = measure(model, sets, how, "held-out videos")
    return predictions["base"], predictions.get("novel")


def calibrate(
    model: Recognizer,
    held: HeldOut,
    base: Predictions,
    novel: Predictions | None,
    leave_out: Callable[[str], None],
) -> tuple[Calibration, dict[str, Any] | None]:
    """The fit, and what videos that it was not fitted to say of it; None where too few of these can
    be read (`leave_out` hears of it). Where all videos choose, what is measured is a fit to one
    half of them on the other. Raises DataError where too few can be fitted to."""
    scale, fusion = model.logit_scale, model.config.fusion
    views, labels = base.views, base.labels
    assert views is not None
    some = held.chooses if held.chooses is not None and not held.chooses.all() else None
    half = choosing_half(held.parts.base_test) if some is None else some
    chosen = slice(None) if some is None else some
    calibration = fit(views[chosen], labels[chosen], scale, fusion)
    if (alone := base.also.get(BACKGROUND)) is not None:
        rule = multi_label_rule(alone, chosen, held.parts.base)
        calibration = dataclasses.replace(calibration, multi_label=rule)

    def measurement() -> dict[str, Any]:
        probe = calibration
        if some is None:
            probe = fit(views[half], labels[half], scale, fusion, FEWEST_VIDEOS // 2)
        report = measured(probe, views[~half], labels[~half], scale, fusion)
        if novel is not None and novel.views is not None:
            known, others = (
                probe.score(logits, scale, fusion).none for logits in (views[~half], novel.views)
            )
            if known is not None and others is not None:
                what, sides = "videos of classes that were held out", (known, others)
                report |= attempt(what, lambda: separation(*sides), leave_out) or {}
        return report

    report = attempt("how good the calibration is", measurement, leave_out)
    fitted = {
        "to": held.source,
        "videos": int(readable(views)[chosen].sum()),
        "classes": len(held.parts.base),
        "measured": report,
    }
    return dataclasses.replace(calibration, fitted=fitted), report


def knows_background(model: Recognizer, classes: Sequence[str]) -> bool:
    """Can the model be asked for a text beside its classes?"""
    return model.class_file is None and not model.config.method.closed and BACKGROUND not in classes


def multi_label_rule(
    predictions: Predictions, chosen: slice | Tensor, classes: Sequence[str]
) -> MultiLabelRule:
    """Fitted to the chosen ones of the readable videos; their logits are the views' mean."""
    assert predictions.views is not None
    views, labels = predictions.views[chosen], predictions.labels[chosen]
    kept = readable(views)
    return fit_multi_label(views[kept].mean(dim=1), labels[kept], classes)


def separation(
    known: Float[Tensor, " n"], novel: Float[Tensor, " m"]
) -> dict[str, dict[str, float]]:
    """P(none) of held-out videos of the classes, against videos of out-of-vocabulary classes."""
    a, b = (none[~none.isnan()] for none in (known, novel))
    shares = {"called_none": share_called_none(b), "known_called_none": share_called_none(a)}
    return {"strangers": {"videos": len(b), "auroc": auroc(b, a), **shares}}
