"""What makes two models the same: a digest of their weights and of what is done with them."""

from __future__ import annotations

from hashlib import blake2b

import torch

from froster.encoders.preprocessing import CLIP_PREPROCESSING
from froster.inference.recognizer import Recognizer
from froster.utils import strict_json as json


def digest(model: Recognizer) -> str:
    """Of weights, method and prompts: equal digests give equal embeddings of equal frames and
    texts."""
    config = model.config.to_dict()
    shape = {name: config[name] for name in ("method", "templates", "prompt_form")}
    if model.preprocessing != CLIP_PREPROCESSING:  # so that the digests in older indexes stay valid
        shape["preprocessing"] = model.preprocessing.to_dict()
    found = blake2b(
        json.dumps([shape, model.clip.architecture()], sort_keys=True).encode(), digest_size=16
    )
    for name, weight in sorted(model.model.state_dict().items()):
        found.update(name.encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
