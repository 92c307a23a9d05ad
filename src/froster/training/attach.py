"""What is trained, and where distillation has a gradient."""

from __future__ import annotations

from froster.errors import UsageError
from froster.methods.base import Method, VideoCLIP
from froster.training.distill_options import Distill

TOKENS = "clip.text.token_embedding.weight"
CLIP_VOCABULARY = 49408


def freeze(student: VideoCLIP, method: Method, tune: str) -> None:
    """Leave gradients to what is trained: what the method trains by itself, or with `tune` one
    tower more or less, or its head on the frames alone. A table of more tokens than CLIP's stays as
    it is, and so does a bias of the logits, which a soft-max does not see."""
    for name, parameter in student.named_parameters():
        # A closed set of classes has no use for the text tower.
        text = name.startswith(("clip.text.", "text_")) and not method.closed
        mine = method.trains(name)
        chosen = {"method": mine, "both": mine or text, "image": mine and not text, "text": text}
        chosen["head"] = mine and name.startswith("head.")
        large = name == TOKENS and len(parameter) > CLIP_VOCABULARY
        wanted = mine if name == "clip.logit_scale" else chosen[tune]
        parameter.requires_grad_(wanted and not large and name != "clip.logit_bias")


def trained(student: VideoCLIP, *parts: str) -> bool:
    """Is any weight of the named parts trained?"""
    return any(p.requires_grad for name, p in student.named_parameters() if name.startswith(parts))


def attach(
    student: VideoCLIP, distill: Distill, network: str = "this network"
) -> tuple[bool, bool, list[str]]:
    """Where distillation has a gradient: on the vision side, on the text side, and what to tell the
    user.

    Frame level needs a trained image tower, video level that or a trained head; text a trained text
    tower or learned prompts. Raises UsageError where the chosen vision level has no gradient but
    the other one would, the chosen side has none, or nothing has.
    """
    text = trained(student, "clip.text.") or (
        student.shared_prompts and trained(student, "text_prompt")
    )
    if distill.joint and not student.compares:
        raise UsageError(
            f"{network} has a closed head, so there are no embeddings of classes to take"
            f" {distill.target} of: use --target features"
        )
    encoder = trained(student, "clip.visual.")
    head = trained(student, "head.")
    vision = encoder or (head and distill.level == "video")
    if not vision and head and distill.side != "text":
        raise UsageError(
            f"{network} trains nothing below the frame embeddings, so distillation at frame level"
            " has no gradient: use --level video"
        )
    if not vision and not text:
        raise UsageError(
            f"{network} trains nothing that distillation could hold: use --distill none"
        )
    attached = {"vision": vision, "text": text}
    if distill.side != "both":
        if not attached[distill.side]:
            other = "text" if distill.side == "vision" else "vision"
            raise UsageError(
                f"{network} trains nothing on the {distill.side} side that distillation could hold:"
                f" use --side {other}"
            )
        return distill.side == "vision", distill.side == "text", []
    why = "text is frozen"
    if trained(student, "text_prompt"):
        why = "prompts that belong to one class have no teacher"
    notes = [] if text else [f"{why}: distillation on the vision side only"]
    if not vision:
        notes.append("the image side is frozen: distillation on the text side only")
    return vision, text, notes
