"""Frames and sentences matched by optimal transport, on any model that compares frames (OST's test,
without its training)."""

from __future__ import annotations

import dataclasses

from froster.errors import UsageError
from froster.inference.recognizer import Recognizer
from froster.methods.ost import DESCRIPTORS, matched


def by_transport(model: Recognizer) -> Recognizer:
    """The same weights, not to be saved: frames are matched with the sentences of each label.

    A label is "name: sentence; sentence | sentence; sentence", what is seen and how it goes on; one
    set serves for both. Scores are not calibrated. Raises UsageError where the network compares
    more than frames, or the labels come as embeddings.
    """
    if model.class_file is not None:
        raise UsageError("a file of class embeddings holds no sentences to match frames with")
    other = Recognizer(
        matched(model.model),
        model.tokenizer,
        dataclasses.replace(model.config, prompting=DESCRIPTORS),
        device=model.device,
        precision=model.precision,
        provenance=model.provenance,
    )
    other.source, other.working = model.source, model.working
    return other
