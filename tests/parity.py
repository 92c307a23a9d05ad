"""Compare froster with golden files of the reference implementations: `python tests/parity.py
FILE.safetensors …`

A file brings inputs, weights under their official names and expected outputs; the weights go
through the same loader as a released checkpoint. One line per output: file, name, largest
difference, tolerance, ok. The exit code is 1 if an output differs or is not one that this script
can compute.
"""

from __future__ import annotations

import json
import math
import random
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from froster.encoders.checkpoints import (
    architecture_from_state_dict,
    load_clip,
    strict_load,
    to_official,
)
from froster.encoders.model import CLIP, unit
from froster.inference.released import assemble, recognise
from froster.methods import VCLIP, Frozen, VideoCLIP, class_embeddings, pool
from froster.methods.actionclip import ActionNet, in_batch_kl, same_class
from froster.methods.bdc_clip import BDCNet
from froster.methods.dualpath import ClosedDualPath, mosaic, side_of, time_code
from froster.methods.efficient_prompt import EfficientPrompt, PromptedNet
from froster.methods.mote import ExpertHead
from froster.methods.openvclip import OpenVCLIP
from froster.methods.ost import OST, match, transport_plan
from froster.methods.tc_clip import TCCLIP, ContextBlock, TCNet, merged_groups
from froster.methods.vita_clip import VitaNet
from froster.methods.xclip import XCLIPNet
from froster.training.distill_options import Distill
from froster.training.optim import adamw
from froster.training.task import Task, Teacher
from froster.training.weights import interpolate
from golden import write_checkpoint
from parity_losses import TokenBank, clip_of, distill_losses, openmede_step, si_path, taco_step
from parity_rehearsal import bit, model, tsm

State = dict[str, Tensor]
Outputs = dict[str, Tensor]


class Golden(NamedTuple):
    """One file. Floats are float32, integers int64."""

    method: str
    config: dict[str, Any]
    layout: str
    weights: State
    inputs: State
    outputs: State

    @classmethod
    def read(cls, path: Path) -> Golden:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))["__metadata__"]
        tensors = {
            name: t.float() if t.is_floating_point() else t.long()
            for name, t in load_file(path).items()
        }
        parts = [
            {n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)}
            for p in ("weights/", "input/", "output/")
        ]
        return cls(header["method"], json.loads(header["config"]), header.get("layout", ""), *parts)

    def part(self, prefix: str) -> State:
        """Weights whose name starts with `prefix`, without it."""
        return {
            name.removeprefix(prefix): t
            for name, t in self.weights.items()
            if name.startswith(prefix)
        }

    def clips(self) -> Iterator[tuple[str, Tensor]]:
        """Every input clip with the suffix of its outputs: ("", …), ("_a", …), ("_one", …)."""
        for name, frames in self.inputs.items():
            if name.startswith("frames"):
                yield name.removeprefix("frames"), frames


def network(g: Golden, state: State | None = None, **options: Any) -> VideoCLIP:
    """The network of the file, built as `froster.load` builds it; `options` are what weights do not
    tell.

    Where a release holds only an image tower, an identity stands for the projection and some text
    tower for the text.
    """
    found = recognise(g.weights if state is None else state)
    assert found is not None, "not recognised"
    found.method = replace(found.method, **options)
    return assemble(found, stand_in(found.state)).eval()


def stand_in(state: State) -> CLIP:
    """A CLIP that gives what a release lacks: an identity for the projection, a text tower of no
    consequence."""
    width = state["visual.ln_post.weight"].numel() if "visual.ln_post.weight" in state else 64
    embed = state["visual.proj"].shape[1] if "visual.proj" in state else width
    clip = CLIP(
        replace(TINY, vision=replace(TINY.vision, width=width, heads=width // 64), embed_dim=embed)
    )
    if "visual.proj" not in state:
        clip.visual.proj.data.copy_(torch.eye(width))
    clip.logit_scale.data.zero_()
    return clip


def scale_of(g: Golden) -> float | Tensor:
    """The factor of the stored logits: the file's own logit scale, or a number that its layout
    names."""
    if "logit_scale" in g.weights:
        return g.weights["logit_scale"].exp()
    found = re.search(r"logit scale for logits_\* is (\d+(\.\d+)?)", g.layout)
    return float(found[1]) if found else 20.0


def poolings(g: Golden, z: Tensor, classes: Tensor | None, suffix: str) -> Outputs:
    """Both conventions of pooling, and their logits."""
    out = {
        f"frame_emb{suffix}": z,
        f"video_emb_frame_unit{suffix}": pool(z, "frame_unit"),
        f"video_emb_mean{suffix}": z.mean(1),
        f"video_emb_mean_then_unit{suffix}": pool(z, "mean_then_unit"),
    }
    if classes is not None:
        scale = scale_of(g)
        for kind in ("frame_unit", "mean_then_unit"):
            out[f"logits_{kind}{suffix}"] = scale * pool(z, kind) @ unit(classes).T  # type: ignore[arg-type]
    return out


def plain(g: Golden) -> Outputs:
    """CLIP itself, both towers."""
    model = Frozen().build(clip_of(g.weights))
    out: Outputs = {}
    text = (
        model.encode_text(g.inputs["tokens"]) if "tokens" in g.inputs else g.inputs.get("class_emb")
    )
    if "tokens" in g.inputs:
        out["text_emb"] = text  # type: ignore[assignment]
    for suffix, frames in g.clips():
        layers: list[Tensor] = []
        z = model.clip.encode_image(frames, layers)
        out |= poolings(g, z, text, suffix)
        out[f"tokens_final{suffix}"] = layers[-1].unflatten(0, frames.shape[:2])
        if text is not None:
            out[f"logits_image_text{suffix}"] = scale_of(g) * unit(z.flatten(0, 1)) @ unit(text).T
    return out


def blocks(g: Golden) -> Outputs:
    """Methods that change the blocks: FROSTER's adapters and message tokens, AdaptFormer, tsm, the
    official AIM, ST-Adapter."""
    options = {}
    said = re.search(r"^AIM official.*scale (\d+(\.\d+)?)", g.method)
    if "adapter_scale" in g.config or said:
        options["scale"] = float(g.config.get("adapter_scale") or said[1])  # type: ignore[index]
    model = network(g, **options)
    out: Outputs = {}
    for suffix, frames in g.clips():
        layers: list[Tensor] = []
        z = model.clip.encode_image(frames, layers)
        final = layers[-1].unflatten(0, frames.shape[:2])  # (B, T, L, D)
        mean = final[:, :, 0].mean(1)
        out |= poolings(g, z, g.inputs.get("class_emb"), suffix)
        out |= {
            f"tokens_final{suffix}": final,
            f"frame_feat{suffix}": model.clip.visual.ln_post(final[:, :, 0]),
            f"cls_mean{suffix}": mean,
            f"cls_mean_ln_post{suffix}": model.clip.visual.ln_post(mean),
        }
        if "fc.weight" in g.weights:
            head = g.weights["fc.weight"], g.weights["fc.bias"]
            out[f"closed_set_logits{suffix}"] = F.linear(model.clip.visual.ln_post(mean), *head)
    return out


def vclip(g: Golden) -> Outputs:
    out: Outputs = {}
    for name in g.outputs:
        found = re.fullmatch(r"(?:masked_)?frame_emb_(\w+?)(?:_step(\d+))?", name)
        if not found:
            continue
        method = VCLIP(int(found[2] or 1), "mask" if name.startswith("masked_") else "zero")
        model = method.build(clip_of(g.weights)).eval()
        tail = name[name.index("frame_emb_") + len("frame_emb_") :]
        before = name[: name.index("frame_emb_")]
        z = model.encode_frames(g.inputs[f"frames_{found[1]}"])
        classes = (
            model.encode_text(g.inputs["tokens"]) if "tokens" in g.inputs else g.inputs["class_emb"]
        )
        video = pool(z, "frame_unit")
        out |= {
            name: z,
            f"{before}video_emb_{tail}": video,
            f"{before}logits_{tail}": model.logits(video, unit(classes)),
        }
        out["class_emb"] = classes
    return out


def actionclip_heads(g: Golden) -> Outputs:
    z, E, T = g.inputs["frame_emb"], g.inputs["frame_emb"].shape[-1], g.inputs["frame_emb"].shape[1]
    assert T <= 77
    out: Outputs = {"head_meanP": z.mean(1)}
    for prefix, outputs in {
        "Transf": {"head_Transf": {}},
        "LSTM": {"head_LSTM": {}},
        "Conv_1D": {"head_Conv_1D": {}, "head_Conv_1D_transposed": {"head": "conv1d"}},
    }.items():
        for name, options in outputs.items():
            if head := g.part(f"{prefix}."):
                out[name] = head_of(
                    {f"fusion_model.{n}": t for n, t in head.items()}, E, g.config, **options
                )(z)
    labels = g.inputs["labels"]
    v, t = (g.inputs[name].requires_grad_() for name in ("batch_video_emb", "batch_text_emb"))
    with torch.enable_grad():
        logits = g.inputs["logit_scale"] * unit(v) @ unit(t).T
        target = same_class(labels)
        video, text = in_batch_kl(logits, target)
        total = (video + text) / 2
        gradients = torch.autograd.grad(total, [v, t])
    same = (target == target.max(-1, keepdim=True).values).float()
    out |= {
        "kl_logits_video": logits,
        "kl_target": same,
        "kl_video": video,
        "kl_text": text,
        "kl_total": total,
    }
    out |= {"kl_grad_video": gradients[0], "kl_grad_text": gradients[1]}
    net = ActionNet(CLIP(replace(TINY, embed_dim=E)), "mean_then_unit").eval()
    net.clip.logit_scale.data.fill_(torch.tensor(100.0).log())
    prompts = g.inputs["eval_text_emb"].unflatten(0, (int(g.inputs["eval_num_templates"]), -1))
    if "head_Transf" in out:
        out["eval_probs"] = net.logits(unit(out["head_Transf"]), net.classes(prompts)).softmax(-1)
    return out


TINY = architecture_from_state_dict(
    {
        "visual.conv1.weight": torch.zeros(64, 3, 8, 8),
        "visual.class_embedding": torch.zeros(64),
        "visual.positional_embedding": torch.zeros(5, 64),
        "visual.ln_pre.weight": torch.zeros(64),
        "visual.proj": torch.zeros(64, 64),
        "positional_embedding": torch.zeros(8, 64),
        "token_embedding.weight": torch.zeros(9, 64),
        "text_projection": torch.zeros(64, 64),
    }
)


def head_of(state: State, width: int, config: dict[str, Any], **options: Any) -> torch.nn.Module:
    """A head alone: the method's own, on a tiny CLIP of the right joint width, with the file's
    weights."""
    found = recognise(state)
    assert found is not None, "not recognised"
    heads = {"heads": config["heads"]} if "heads" in config else {}
    model = (
        replace(found.method, **heads, **options).build(CLIP(replace(TINY, embed_dim=width))).eval()
    )
    strict_load(
        model.head,
        {
            name.removeprefix("head."): t
            for name, t in found.state.items()
            if name.startswith("head.")
        },
    )
    return model.head


def text4vis(g: Golden) -> Outputs:
    z = g.inputs["frame_emb"]
    head = head_of(
        {n: t for n, t in g.weights.items() if n != "logit_scale"}, z.shape[-1], g.config
    )
    video, classes = head(z), unit(g.inputs["text_emb"])
    scale = g.weights["logit_scale"].exp()
    logits = scale * unit(video) @ classes.T
    return {
        "video_emb": video,
        "logits": logits,
        "mean_logits": scale * pool(z, "mean_then_unit") @ classes.T,
    }


@torch.enable_grad()
def bdc_clip(g: Golden) -> Outputs:
    """A training step of one prompt a class, its gradients, and the test of one view."""
    shares = {"cosine_share": g.config["cb"], "bdc_share": g.config["cv"]}
    model = network(g, **shares, bdc_divisor=g.config["scale"])
    assert isinstance(model, BDCNet)
    frames, tokens, targets = (g.inputs[name] for name in ("frames", "tokens", "targets"))
    chosen = tokens[torch.arange(len(tokens)), g.inputs["train_prompt_index"]]
    model.train()
    features = model.encode(frames)
    classes = model.classes(model.encode_text(chosen)[None])
    cosine, bdc = model.two_logits(features.video, classes, features.context)
    fused = model.logits(features.video, classes, features.context)
    losses = model.losses(features, classes, fused, lambda logits: F.cross_entropy(logits, targets))
    sum(losses.values()).backward()
    assert model.closed is not None and features.context is not None
    out = {
        "train_logits_cos": cosine,
        "train_logits_bdc": bdc,
        "train_logits_cls": model.closed(features.context[:, 0]),
        "loss_cos": losses["ce"],
        "loss_bdc": losses["bdc"],
        "loss_cls": losses["closed"],
        **gradients_of(g, model),
    }
    model.eval()
    projected = model.tokens(frames)
    prompts = torch.stack([model.encode_text(rows) for rows in tokens.transpose(0, 1)])
    classes = model.classes(prompts)
    cosine, bdc = model.two_logits(features.video, classes, features.context)
    return {
        **out,
        "tokens_projected": projected,
        "frame_bdc": model.bdc_of_frames(model.video_bdc.reduced(projected)),
        "video_bdc": features.context[:, 0],
        "text_bdc_prompt0": model.parts(prompts[0])[1],
        "eval_logits_cos": cosine,
        "eval_logits_bdc": bdc,
        "eval_fused": model.logits(features.video, classes, features.context).exp(),
    }


def gradients_of(g: Golden, model: VideoCLIP) -> Outputs:
    """Those that the file has, under its own names, which the loader maps to ours."""
    wanted = {name.removeprefix("grad/") for name in g.outputs if name.startswith("grad/")}
    release = recognise(g.weights)
    assert release is not None
    places = {id(tensor): name for name, tensor in release.state.items()}
    parameters = {name.removeprefix("clip."): p for name, p in model.named_parameters()}
    return {
        f"grad/{name}": parameters[places[id(g.weights[name])]].grad  # type: ignore[misc]
        for name in wanted
        if id(g.weights[name]) in places
    }


@torch.enable_grad()
def ost(g: Golden) -> Outputs:
    """The match of a batch's frames with its own descriptors, and the contrast."""
    names = ("frame_unit", "spatial_unit", "temporal_unit")
    frames, *sets = (g.inputs[name].requires_grad_() for name in names)
    model = OST().build(CLIP(replace(TINY, embed_dim=frames.shape[-1])))
    model.clip.logit_scale.data.fill_(2.75)
    scale = math.exp(2.75)
    spatial, temporal = (x.transpose(0, 1) for x in sets)
    logits = model.logits(frames.mean(1), torch.cat([spatial, temporal]), frames)
    loss = sum(in_batch_kl(logits, same_class(g.inputs["labels"])))
    loss.backward()
    cosines = torch.einsum("bte,nke->bktn", frames, spatial)
    return {
        "logits": logits,
        "loss": loss,
        "ot_logits_spatial": scale * match(frames, spatial)[1],
        "plan_spatial": transport_plan(cosines),
        **{f"grad/{name}": g.inputs[name].grad for name in names},  # type: ignore[dict-item]
    }


@torch.enable_grad()
def ez_clip(g: Golden) -> Outputs:
    """A training step; the tokens are the texts of the batch."""
    model, labels = network(g), g.inputs["labels"]
    z, text = model.encode_frames(g.inputs["frames"]), model.encode_text(g.inputs["tokens"])
    logits = g.weights["logit_scale"].exp() * pool(z, "mean_then_unit") @ unit(text).T
    image, of_text = in_batch_kl(logits, same_class(labels))
    features = model.pool_frames(z)
    losses = model.losses(features, unit(text), logits, lambda _: (image + of_text) / 2)
    loss = sum(losses.values())
    loss.backward()  # type: ignore[union-attr]
    out = {"frame_emb": z, "text_emb": text, "kl_image": image, "kl_text": of_text}
    out |= {"motion_loss": losses["motion"], "loss": loss, **gradients_of(g, model)}  # type: ignore[dict-item]
    prompts = [block.time_prompts.grad for block in model.clip.visual.transformer.resblocks]
    return {**out, "grad/visual.transformer.T_prompt_embeddings": torch.stack(prompts)}  # type: ignore[arg-type]


@torch.enable_grad()
def dualpath(g: Golden) -> Outputs:
    """Both paths and the head, with and without antialiasing, and the gradients without."""
    frames, out = g.inputs["frames"], {}
    for suffix, antialias in (("_antialias", True), ("", False)):
        model = network(g, antialias=antialias)
        assert isinstance(model, ClosedDualPath)
        features = model.encode(frames)
        assert features.context is not None
        logits = model.closed(features.context.flatten(1))
        vision, side = model.clip.config.vision, side_of(frames.shape[1])
        framesets = mosaic(frames, side, antialias)
        sets, grid = framesets.shape[1], vision.image_size // vision.patch_size
        out |= {
            f"frameset{suffix}": framesets,
            f"logits{suffix}": logits,
            f"temporal_code{suffix}": time_code(sets, side, grid, vision.width, antialias),
        }
        for name in g.outputs:
            if code := re.fullmatch(rf"temporal_code_(\d+)x\1_d(\d+){suffix}", name):
                out[name] = time_code(sets, side, int(code[1]), int(code[2]), antialias)
    loss = F.cross_entropy(logits, g.inputs["targets"])
    loss.backward()
    tower = model.clip.visual
    first = tower.patches(frames[:1, 0])
    spatial = torch.cat([tower.class_embedding.expand(1, 1, -1), first], dim=1)
    temporal = model.embed_framesets(frames[:1])
    return {
        **out,
        **gradients_of(g, model),
        "loss": loss,
        "feature": features.context.flatten(1),
        "frame_emb_spatial": features.frames,
        "frame_emb_temporal": model.encode_framesets(frames),
        "tokens_before_ln_pre": torch.cat([temporal, spatial + tower.positional_embedding])[None],
    }


def tc_clip(g: Golden) -> Outputs:
    with patch("froster.methods.tc_clip.MERGED_A_ROUND", g.config["r"]):
        return tc_clip_outputs(g)


@torch.enable_grad()
def tc_clip_outputs(g: Golden) -> Outputs:
    """Both sides and the loss; of every block the seeds and what was merged; gradients, of which
    those of single projections are rows of our one."""
    frames, tokens = g.inputs["frames"], g.inputs["tokens"]
    length = max(TCCLIP.length, tokens.shape[1])
    model = network(g, context_tokens=g.config["k"], seed_share=g.config["a"], length=length)
    assert isinstance(model, TCNet)
    n, (B, T) = len(model.text_prompt), frames.shape[:2]
    classes = model.encode_text(torch.cat([tokens[:, :1], tokens[:, 1 + n :]], dim=1))[None]
    features = model.encode(frames)
    assert features.context is not None
    logits = model.logits(features.video, classes, features.context)
    loss = F.cross_entropy(logits, g.inputs["targets"])
    loss.backward()
    out = {
        "frame_cls_projected": features.frames,
        "context_tokens_projected": features.context,
        "video_emb_unit": features.video,
        "text_emb_unit": model.conditioned(classes, features.context),
        "logits": logits,
        "loss": loss,
        **gradients_of(g, model),
    }
    blocks = model.clip.visual.transformer.resblocks
    for name in g.outputs:
        match_ = re.fullmatch(r"grad/\S+resblocks\.(\d+)\.attn\.([qkv])_proj\.(\w+)", name)
        if match_:
            gradient = getattr(blocks[int(match_[1])].attn, f"in_proj_{match_[3]}").grad
            out[name] = gradient.chunk(3)["qkv".index(match_[2])]
    x = model.clip.visual.embed(frames.flatten(0, 1), T)
    for i, block in enumerate(blocks):
        assert isinstance(block, ContextBlock)
        made, seen = block.attended(block.ln_1(x), T)
        own = x[:, : block.tokens] + made
        places = seen.topk(block.seeds, dim=-1).indices
        out[f"seed_index_sorted/layer{i}"] = places.sort().values.unflatten(0, (B, T)).float()
        seeds = block.seeds_of(own, seen).unflatten(0, (B, T)).flatten(1, 2)
        k = min(block.most, seeds.shape[1])
        source = F.one_hot(merged_groups(seeds, k), k).transpose(1, 2).float()  # (B, k, seeds)
        patches = places.unflatten(0, (B, T)) + seen.shape[1] * torch.arange(T)[:, None]
        spread = torch.zeros(B, k, T * seen.shape[1])
        columns = patches.flatten(1)[:, None].expand(-1, k, -1)
        out[f"merge_source/layer{i}"] = spread.scatter(2, columns, source)
        x = block(x, T)
    return out


@torch.enable_grad()
def mote(g: Golden) -> Outputs:
    """Both training passes with the stored draws, their losses, and the test with its factor."""
    z, classes = g.inputs["frame_emb"], g.inputs["class_unit"]
    state = {f"fusion_model.{name}": tensor for name, tensor in g.weights.items()}
    heads = {"heads": max(1, g.config["tw"] // 64)}
    scale, head = math.exp(2.75), head_of(state, z.shape[-1], heads)
    assert isinstance(head, ExpertHead)

    def logits(frames: Tensor) -> Tensor:
        """Without the scale, as the file has them."""
        return unit(frames.mean(1)) @ unit(classes).T

    one = z + head.change(z, head.one_each(g.inputs["expert_index"]))
    both = z + head.change(z, head.at(g.inputs["merge_tau"].tolist()))
    first, second = logits(one), logits(both)
    targets = g.inputs["targets"]
    ce, ce_merged = (F.cross_entropy(scale * x, targets) for x in (first, second))
    mse = F.mse_loss(both, z)
    loss = ce + 0.5 * ce_merged + 0.1 * mse
    loss.backward()
    out = {"train_logits_expert": first, "train_logits_merged": second, "loss": loss}
    out |= {"ce_expert": ce, "ce_merged": ce_merged, "mse": mse}
    names = {"frame_position_embeddings.weight": "positional_embedding"}
    parameters = dict(head.named_parameters())
    for name in g.outputs:
        if name.startswith("grad/"):
            official = name.removeprefix("grad/")
            out[name] = parameters[names.get(official, official)].grad  # type: ignore[assignment]
    change, factor = head.change(z, head.fused()), head.nearness(z.mean(1), classes)
    frames = z + factor[:, None, None] * change
    out |= {"eval_factor": factor, "eval_frames": frames, "eval_logits": logits(frames)}
    return {**out, "eval_frames_without_factor": z + change}


def efficient_prompt(g: Golden) -> Outputs:
    names = {"prefix": "prefix", "postfix": "postfix", "tfm_heads": "heads"}
    options = {own: g.config[theirs] for theirs, own in names.items() if theirs in g.config}
    found = recognise(g.weights)
    assert found is not None and isinstance(found.method, EfficientPrompt)
    found.method = replace(found.method, **options)
    # The file holds features in place of an image tower.
    width = g.inputs["frame_emb"].shape[-1]
    model = assemble(found, CLIP(replace(TINY, embed_dim=width))).eval()
    assert isinstance(model, PromptedNet) and model.head is not None
    tokens = g.inputs["name_tokens"]
    with torch.enable_grad():
        video, text = model.head(g.inputs["frame_emb"]), model.encode_text(tokens)
        logits = model.logits(unit(video), class_embeddings(text[None]))
        ce = F.cross_entropy(logits, g.inputs["targets"])
        ce.backward()
    out = {"video_emb": video, "text_emb": text, "logits": logits, "ce": ce}
    out["grad_embedding"] = model.text_prompt.weight.grad
    out["grad_temporalEmbedding"] = model.head.positional_embedding.grad
    length = g.weights["embedding.weight"].shape[0]
    column = model.places(tokens, length)
    out["prompt_tokens"] = torch.where(column < 0, 0, tokens.gather(1, column.clamp(min=0))).float()
    if "prompt_rows" in g.outputs:
        out["prompt_rows"] = model.prompt_rows(tokens, length)[: len(g.outputs["prompt_rows"])]
    return out


def vita_clip(g: Golden) -> Outputs:
    parts = {
        "": (),
        "_none": ("summary", "local", "global"),
        "_summary": ("local", "global"),
        "_local": ("summary", "global"),
        "_globalp": ("summary", "local"),
    }
    out: Outputs = {}
    for suffix, off in parts.items():
        state = {
            name: t for name, t in g.weights.items() if not any(f"{part}_" in name for part in off)
        }
        model = network(g, state)
        z = model.encode_frames(g.inputs["frames"])
        out |= {f"frame_emb{suffix}": z, f"video_emb{suffix}": z.mean(1)}
    model = network(g)
    assert isinstance(model, VitaNet)
    video = pool(out["frame_emb"], "mean_then_unit")
    for kind in ("generic", "class"):
        context = g.weights.get(f"prompt_learner.ctx_{kind}")
        if context is None:
            continue
        n = context.shape[-2]
        tokens = torch.cat(
            [g.inputs["prompt_tokens"][:, :1], g.inputs["prompt_tokens"][:, 1 + n :]], dim=1
        )
        text = model.encode_text(tokens, context)
        out |= {f"text_emb_{kind}": text, f"logits_{kind}": model.logits(video, unit(text))}
    return out


def xclip(g: Golden) -> Outputs:
    model = network(g)
    assert isinstance(model, XCLIPNet) and model.head is not None
    features = model.encode(g.inputs["frames"])
    classes = model.classes(model.encode_text(g.inputs["tokens"])[None])
    conditioned = model.conditioned(classes, features.context)
    return {
        "frame_emb": features.frames,
        "video_emb": model.head(features.frames),
        "video_emb_unit": features.video,
        "class_emb": classes,
        "prompt_visual": features.context,
        "text_conditioned": conditioned,
        "text_emb_unit": unit(conditioned),
        "logits": model.logits(features.video, classes, features.context),
    }


def stan(g: Golden) -> Outputs:
    model = network(g)
    z = model.encode_frames(g.inputs["frames"])
    return {"frame_emb": z, "video_emb": z.mean(1)}


def step_task(g: Golden, distill: Distill) -> Task:
    bank = TokenBank(g.inputs["train_tokens_template"], g.inputs["train_tokens_bare"])
    student = VCLIP().build(clip_of(g.part("model.")))
    teacher = Teacher(clip_of(g.part("raw_model.")), distill)
    task = Task(student, bank, teacher=teacher)  # type: ignore[arg-type]
    for name in ("projector_v", "projector_t"):
        projector = getattr(task.distill, name)
        projector.w1.weight.data.copy_(g.weights[f"{name}.0.weight"])
        projector.w2.weight.data.copy_(g.weights[f"{name}.2.weight"])
    return task


def step_losses(task: Task, frames: Tensor, labels: Tensor) -> tuple[Any, Any, Any]:
    """Of normalised frames, with the two prompts of a step."""
    rng = random.Random(0)
    outputs = task.outputs(frames, labels, [0, 1], rng)
    return outputs, *task.losses(frames, outputs, rng)


def official_names(task: Task) -> dict[str, torch.nn.Parameter]:
    names = {f"model.{to_official(n)}": p for n, p in task.student.clip.named_parameters()}
    for side in ("projector_v", "projector_t"):
        projector = getattr(task.distill, side)
        names |= {f"{side}.0.weight": projector.w1.weight, f"{side}.2.weight": projector.w2.weight}
    return names


@torch.enable_grad()
def froster_step(g: Golden) -> Outputs:
    out: Outputs = {}
    for form, distance in (("cos", "cosine"), ("l2", "l2")):
        task = step_task(g, Distill(distance=distance))  # type: ignore[arg-type]
        prompts = task.text_prompts([0, 1])
        outputs, losses, report = step_losses(task, g.inputs["frames"], g.inputs["labels"])
        total = sum(losses.values())
        total.backward()
        parameters = official_names(task)
        out |= {
            f"loss_v_{form}": report["distill_v"],
            f"loss_t_{form}": report["distill_t"],
            f"total_{form}": total,
        }
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            out[f"grad_{form}/{name}"] = parameter.grad.clone()
            out[f"grad_{form}_last32rows/{name}"] = (
                parameter.grad[-32:].clone() if parameter.ndim else parameter.grad
            )
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in task.parameters() if p.requires_grad], 1.0
        )
        out[f"grad_norm_{form}"] = norm
        if form == "cos":
            z = task.student.encode_frames(g.inputs["frames"])
            w = class_embeddings(prompts)
            assert task.distill is not None and task.teacher is not None
            out |= {
                "clip_total_norm": norm,
                "ce": report["ce"],
                "logits": outputs.logits,
                "frame_emb": z,
                "class_emb": w,
                "teacher_class_emb": class_embeddings(task.teacher_prompts),
                "teacher_frame_unit": unit(task.teacher.encode_image(g.inputs["frames"])),
                "img_encode": task.distill.projector_v(unit(z)),
                "text_encode": task.distill.projector_t(w),
            }
            clipped = {name: p.grad.clone() for name, p in parameters.items()}  # type: ignore[union-attr]
            adamw(task, lr=g.config.get("adamw_lr", 1e-3), weight_decay=0.01).step()
            for name, parameter in parameters.items():
                expected = g.outputs.get(f"adamw_step/{name}")
                if (
                    expected is not None
                ):  # the direction of a step is rounding where the gradient nearly vanishes
                    clear = clipped[name].abs() > 1e-6
                    out[f"adamw_step/{name}"] = torch.where(clear, parameter.detach(), expected)
    student = VCLIP().build(clip_of(g.part("model."))).eval()
    with torch.no_grad():
        classes = class_embeddings(
            torch.stack([student.encode_text(rows) for rows in g.inputs["eval_tokens"]])
        )
        views = torch.stack([student.encode(view).video for view in g.inputs["eval_views"]])
        each = torch.stack([student.logits(view, classes) for view in views])
    return {
        **out,
        "eval_class_emb": classes,
        "eval_logits_per_view": each,
        "eval_logits": each.sum(0),
    }


@torch.enable_grad()
def openvclip(g: Golden) -> Outputs:
    """One step with interpolated weights; gradients in the released and in the exact form."""
    out: Outputs = {}
    start, tuned = g.part("clip."), {**g.part("clip."), **g.part("tuned.")}
    alpha, weight = g.config["alpha"], g.config.get("iwr_weight", 0.5)
    tokens, labels, frames = g.inputs["tokens"], g.inputs["labels"], g.inputs["frames"]

    def run(method: OpenVCLIP) -> tuple[Any, dict[str, Tensor]]:
        student = method.build(clip_of(tuned))
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(method.trains(name))
        regulariser = method.regulariser(clip_of(start), student, None)  # type: ignore[arg-type]
        if regulariser is not None:
            regulariser.draw = lambda rng: alpha  # type: ignore[method-assign]
        task = Task(student, TokenBank(*tokens), regulariser=regulariser)  # type: ignore[arg-type]
        outputs, losses, report = step_losses(task, frames, labels)
        sum(losses.values()).backward()
        gradients = {
            to_official(n): p.grad for n, p in student.clip.named_parameters() if p.grad is not None
        }
        return {**report, "logits": outputs.logits}, gradients

    none, plain_ = run(OpenVCLIP(iwr_weight=0.0))
    losses, total = run(OpenVCLIP(iwr_weight=weight))
    _, exact = run(OpenVCLIP(iwr_weight=weight, exact_factor=True))
    for name in total:
        out |= {
            f"grad_plain/{name}": plain_[name],
            f"grad_total/{name}": total[name],
            f"grad_interp/{name}": total[name] - plain_[name],
            f"grad_functional/{name}": exact[name],
        }
    out["grad_norm_total"] = torch.stack([x.norm() for x in total.values()]).norm()
    out |= {
        "loss_plain": none["ce"],
        "loss_interp_weighted": losses["regulariser"],
        "logits_plain": losses["logits"],
    }
    with torch.no_grad():
        model = VCLIP().build(clip_of(tuned)).eval()
        classes = class_embeddings(torch.stack([model.encode_text(rows) for rows in tokens]))
        for name, ratio in (
            ("logits_interp", alpha),
            ("patched_logits", g.config.get("patch_ratio", 0.5)),
        ):
            state = interpolate(start, {n: tuned[n] for n in start}, ratio)
            model = VCLIP().build(clip_of(state)).eval()
            out[name] = model.logits(model.encode(frames).video, classes)
        out |= {f"patched/{name}": tensor for name, tensor in state.items()}
    return {**out, "classifier": classes}


def backbone(g: Golden) -> Outputs:
    """A whole encoder, loaded from files as its authors publish them."""
    with TemporaryDirectory() as folder:
        clip, _ = load_clip(write_checkpoint(g.config, g.weights, Path(folder)))
    frames, layers = g.inputs["frames"], list[Tensor]()
    clip.eval()
    z = clip.encode_image(frames, layers)
    text = clip.encode_text(g.inputs["tokens"])
    first = clip.visual.embed(frames.flatten(0, 1))
    logits = clip.logit_scale.exp() * unit(z.flatten(0, 1)) @ unit(text).T
    tokens = {"embed": first, "final": layers[-1]}
    tokens |= {f"block{i}": layer for i, layer in enumerate(layers)}
    return {
        "frame_emb": clip.encode_image(frames),
        "text_emb": text,
        "logits_image_text": logits if clip.logit_bias is None else logits + clip.logit_bias,
        **{f"tokens_{n}": x.unflatten(0, frames.shape[:2]) for n, x in tokens.items()},
    }


CHECKS: dict[str, Callable[[Golden], Outputs]] = {
    "plain CLIP": plain,
    "VCLIP": vclip,
    "FROSTER training step": froster_step,
    "Open-VCLIP": openvclip,
    "ActionCLIP temporal heads": actionclip_heads,
    "ActionCLIP in-network": blocks,
    "Text4Vis": text4vis,
    "MoTE": mote,
    "TC-CLIP": tc_clip,
    "DUALPATH": dualpath,
    "EZ-CLIP": ez_clip,
    "OST": ost,
    "BDC-CLIP": bdc_clip,
    "Efficient-Prompt": efficient_prompt,
    "Vita-CLIP": vita_clip,
    "X-CLIP cross-frame message": blocks,
    "X-CLIP": xclip,
    "STAN": stan,
    "AIM": blocks,
    "ST-Adapter": blocks,
    "AdaptFormer": blocks,
    "SigLIP, and": backbone,
    "SigLIP / SigLIP 2 under": backbone,
    "PE-Core": backbone,
    "EVA02-CLIP": backbone,
    "MetaCLIP 2": backbone,
    "open_clip ViT": backbone,
    "CLIPA": backbone,
    "MobileCLIP": backbone,
    "distillation losses": distill_losses,
    "TACO": taco_step,
    "Synaptic Intelligence": si_path,
    "Open-MeDe": openmede_step,
    "ER-ZASR video stream": tsm,
    "ER-ZASR object stream": bit,
    "ER-ZASR: BERT": model,
}
"""By the beginning of the header's `method`; the first that fits."""


@dataclass
class Line:
    name: str
    difference: float
    tolerance: float
    """What is allowed where the difference is largest against what is allowed."""
    ok: bool
    note: str = ""


def tolerance(name: str, expected: Tensor) -> Tensor:
    """The fixtures' README: how far each element may be off."""
    size = expected.abs()
    if re.match(r"(task\d|probe)/", name):
        return 1e-5 + 1e-4 * size
    if name.startswith("adamw_step/"):
        return torch.full_like(size, 1e-6)
    if name.startswith(("grad_norm", "clip_total_norm")):
        return 1e-4 + 1e-4 * size
    if "grad" in name:
        return 1e-3 * size + 2e-5 * size.max()
    if re.match(r"(loss|total|ce$|kl($|_(video|text|total)$)|(clip_)?kd_|hint_|sp_|rkd|pkt)", name):
        return torch.full_like(size, 2e-5)
    if "logits" in name:
        return torch.full_like(size, 2e-4)
    return 5e-5 + 1e-5 * size


def compare(name: str, found: Tensor | None, expected: Tensor) -> Line:
    if found is None:
        return Line(name, float("nan"), float("nan"), False, "this script cannot compute it")
    if found.shape != expected.shape:
        return Line(
            name,
            float("nan"),
            float("nan"),
            False,
            f"shape {tuple(found.shape)}, not {tuple(expected.shape)}",
        )
    difference, allowed = (found.detach() - expected).abs(), tolerance(name, expected)
    worst = int((difference / allowed.clamp(min=1e-30)).argmax())
    ok = bool((difference <= allowed).all())
    return Line(name, float(difference.flatten()[worst]), float(allowed.flatten()[worst]), ok)


def known(method: str) -> Callable[[Golden], Outputs] | None:
    """What computes the outputs of a golden file of this method; None where it is none of ours."""
    return next((run for start, run in CHECKS.items() if method.startswith(start)), None)


def check(path: Path) -> list[Line]:
    """Every output of one file."""
    g = Golden.read(path)
    run = known(g.method)
    if run is None:
        return [
            Line(name, float("nan"), float("nan"), False, f"unknown method {g.method!r}")
            for name in g.outputs
        ]
    with torch.no_grad():
        found = run(g)
    return [
        compare(name, found.get(name), expected) for name, expected in sorted(g.outputs.items())
    ]


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__)
        return 2
    failed = 0
    for path in map(Path, paths):
        try:
            lines = check(path)
        except Exception as error:  # one bad file must not hide the others
            lines = [
                Line("(all)", float("nan"), float("nan"), False, f"{type(error).__name__}: {error}")
            ]
        for line in lines:
            verdict = "ok" if line.ok else f"FAILED {line.note}".rstrip()
            print(
                f"{path.stem:28} {line.name:64} {line.difference:10.2e} {line.tolerance:10.2e}"
                f" {verdict}"
            )
        failed += sum(not line.ok for line in lines)
    print(f"{failed} failed" if failed else "all ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
