"""Golden files of ER-ZASR: both streams, and the network on top of them. `parity.py` runs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from froster.encoders.checkpoints import strict_load
from froster.methods.bit_resnet import BiTResNet, top_concepts
from froster.methods.er_zasr import ElaborativeRehearsal, Texts, losses
from froster.methods.tsm_resnet import TSMResNet, shift

Outputs = dict[str, Tensor]


def gradients(of: Tensor, network: torch.nn.Module, names: Any) -> Outputs:
    wanted = [name.removeprefix("grad/") for name in names if name.startswith("grad/")]
    weights = [network.get_parameter(name) for name in wanted]
    values = torch.autograd.grad(of, weights)
    return {f"grad/{name}": x for name, x in zip(wanted, values, strict=True)}


@torch.enable_grad()
def tsm(g: Any) -> Outputs:
    network = TSMResNet.of(g.weights)
    segments = network(g.inputs["frames"])
    video = segments.mean(1)
    return {
        "segment_feat": segments,
        "video_feat": video,
        "logits": network.new_fc(video),
        "shift_out": shift(g.inputs["shift_in"], g.inputs["frames"].shape[1]),
        **gradients((video * g.inputs["probe"]).sum(), network, g.outputs),
    }


def bit(g: Any) -> Outputs:
    network, frames = BiTResNet.of(g.weights), g.inputs["frames"]
    logits = network(frames)
    tops = [top_concepts(video, g.outputs["top_ids"].shape[1]) for video in logits]
    return {
        "frame_logits": logits,
        "video_logits": logits.mean(1),
        "root_out_first": network.stem(frames[0, :1]),
        "top_ids": torch.stack([ids for ids, _ in tops]).float(),
        "top_prob": torch.stack([likely for _, likely in tops]),
    }


@torch.enable_grad()
def model(g: Any) -> Outputs:
    pooler = "txt_backbone.bert.pooler."
    weights = {name: t for name, t in g.weights.items() if not name.startswith(pooler)}
    network = ElaborativeRehearsal.for_weights(weights, int(g.config["heads"])).eval()
    strict_load(network, weights)
    texts, objects, rehearsed = (
        Texts(g.inputs[f"{name}_ids"], g.inputs[f"{name}_masks"])
        for name in ("txt", "vis_cpt", "er_cpt")
    )
    raw = network.raw(g.inputs["vis_fts"], objects)
    videos, classes, concepts = network.gated(raw), network.texts(texts), network.texts(rehearsed)
    scores, among = videos.times(classes), videos.times(concepts)
    shown, targets = g.inputs["er_cpt_ml_targets"], g.inputs["targets"]
    terms = losses(scores, targets, among, shown)
    total = torch.stack(list(terms.values())).sum()
    return {
        **{f"loss_{name}": term for name, term in terms.items()},
        "loss": total,
        "loss_without_er": sum(term for name, term in terms.items() if name.startswith("ce")),
        "loss_early_fusion": sum(losses(scores, targets, among, shown, "early").values()),
        "bert_hidden_text": network.bert(*texts),
        "class_embed": classes,
        "rehearsal_embed": concepts,
        "video_embed_raw": raw.video,
        "object_embed_raw": raw.objects,
        "video_embed": videos.video,
        "object_embed": videos.objects,
        "act_scores": scores.video,
        "obj_scores": scores.objects,
        "test_scores": scores.late(),
        "test_scores_early_fusion": scores.early(),
        "scores_video_only": raw.video @ classes.T,
        **gradients(total, network, g.outputs),
    }
