"""Frames and sentences matched by optimal transport, on any model that compares frames (OST's test,
without its training)."""

from __future__ import annotations

import copy
import dataclasses

from froster.errors import UsageError
from froster.inference.recognizer import Recognizer
from froster.methods.base import VideoCLIP
from froster.methods.ost import DESCRIPTORS, Matching


def by_transport(model: Recognizer) -> Recognizer:
    """The same weights, not to be saved: frames are matched with the sentences of each label.

    A label is "name: sentence; sentence | sentence; sentence", what is seen and how it goes on; one
    set serves for both. Scores are not calibrated. Raises UsageError where the network compares
    more than frames, or the labels come as embeddings.
    """
    if model.class_file is not None:
        raise UsageError("a file of class embeddings holds no sentences to match frames with")
    if model.runtime is not None:
        raise UsageError("int8 was compared without --transport: leave it or --runtime out")
    other = Recognizer(
        matched(model.model),
        model.tokenizer_source,
        dataclasses.replace(model.config, prompting=DESCRIPTORS),
        device=model.device,
        precision=model.precision,
        provenance=model.provenance,
        merge_tokens=model.merge_tokens,
    )
    other.source, other.working = model.source, model.working
    return other


def matched(network: VideoCLIP) -> VideoCLIP:
    """The same network, whose frames are matched with the prompts of each class in place of being
    pooled. Nothing is trained, and the weights are shared.

    Raises UsageError where frames are not all that the network compares.
    """
    kind = type(network)
    plain = kind.logits is VideoCLIP.logits and kind.classes is VideoCLIP.classes
    if not plain or network.head is not None:
        raise UsageError(
            f"{kind.__name__} compares more than frames with the labels, so that these cannot be"
            " matched by transport"
        )
    same = copy.copy(network)
    same.__class__ = type(f"Matched{kind.__name__}", (Matching, kind), {})
    return same
