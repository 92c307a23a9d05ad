"""froster: open-vocabulary video classification with CLIP, fine-tuned without losing what CLIP
already knew.

    import froster
    model = froster.load("nano")                      # or a folder, a hub id, a checkpoint file
    model.classify("clip.mp4", ["archery", "surfing"])

Everything is imported on first use, so that `import froster` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from froster.errors import (
        BatchError,
        CheckpointError,
        DataError,
        FrosterError,
        UsageError,
        VideoError,
    )
    from froster.inference.batch import classify
    from froster.inference.export import export
    from froster.inference.index import index
    from froster.inference.recognizer import Classification, Recognizer, load
    from froster.inference.search import search
    from froster.inference.timeline import Segment, Timeline, timeline
    from froster.inference.watch import Watch
    from froster.training.evaluate import evaluate
    from froster.training.teaching import TeachResult, teach
    from froster.training.train import train

__version__ = "0.1.0"

_HOMES = {
    "load": "froster.inference.recognizer",
    "classify": "froster.inference.batch",
    "index": "froster.inference.index",
    "search": "froster.inference.search",
    "export": "froster.inference.export",
    "train": "froster.training.train",
    "teach": "froster.training.teaching",
    "TeachResult": "froster.training.teaching",
    "evaluate": "froster.training.evaluate",
    "timeline": "froster.inference.timeline",
    "Timeline": "froster.inference.timeline",
    "Watch": "froster.inference.watch",
    "Segment": "froster.inference.timeline",
    "Recognizer": "froster.inference.recognizer",
    "Classification": "froster.inference.recognizer",
    "FrosterError": "froster.errors",
    "UsageError": "froster.errors",
    "VideoError": "froster.errors",
    "BatchError": "froster.errors",
    "CheckpointError": "froster.errors",
    "DataError": "froster.errors",
}

__all__ = [
    "BatchError",
    "CheckpointError",
    "Classification",
    "DataError",
    "FrosterError",
    "Recognizer",
    "Segment",
    "TeachResult",
    "Timeline",
    "UsageError",
    "VideoError",
    "Watch",
    "__version__",
    "classify",
    "evaluate",
    "export",
    "index",
    "load",
    "search",
    "teach",
    "timeline",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'froster' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
