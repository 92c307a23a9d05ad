"""Which model it is: fingerprints of its weights, alone or with what is done with them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from froster.encoders.preprocessing import CLIP_PREPROCESSING
from froster.inference.embedder import Embedder
from froster.inference.recognizer import Recognizer
from froster.inference.weight_files import remembered
from froster.utils import strict_json as json
from froster.utils.tensors import cpu_state


def model_fingerprint(model: Recognizer) -> str:
    """Of weights, method, prompts, preprocessing and merged tokens.

    Models of equal fingerprints give equal embeddings of equal frames and texts.
    """
    config = model.config.to_dict()
    made_of = {name: config[name] for name in ("method", "templates", "prompt_form")}
    if model.preprocessing != CLIP_PREPROCESSING:  # older indexes have fingerprints without it
        made_of["preprocessing"] = model.preprocessing.to_dict()
    if model.merge_tokens:
        made_of["merge_tokens"] = model.merge_tokens
    text = json.dumps([made_of, model.clip.architecture()], sort_keys=True)
    return remembered(model.files, text, lambda: _fingerprint(model.model, text))


def tower_fingerprint(model: Embedder) -> str:
    """Of all that a frame goes through before the frames are pooled: preprocessing, image tower and
    what the method does in it."""
    made_of = (model.config.to_dict()["method"], model.preprocessing.to_dict())
    text = json.dumps([*made_of, model.clip.architecture()["vision"]], sort_keys=True)
    tower = model.clip.visual
    return remembered(model.files, f"tower {text}", lambda: _fingerprint(tower, text))


def _fingerprint(network: nn.Module, text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(weight.cpu().contiguous()))
    return digest.hexdigest()


def weights_fingerprint(model: Recognizer) -> str:
    """Of the bytes of the CLIP's weights alone, which do not depend on the number of threads."""
    digest = hashlib.sha256()
    for weight in cpu_state(model.clip).values():
        digest.update(_bytes(weight))
    return digest.hexdigest()[:16]


def _bytes(weight: Tensor) -> memoryview:
    return weight.detach().reshape(-1).view(torch.uint8).numpy().data
