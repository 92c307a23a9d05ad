"""Short contexts cut texts and say so; a dear text tower is left as it is unasked."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from froster.cli import show_warning
from froster.encoders.blank import blank
from froster.encoders.config import ARCHITECTURES, CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import CheckpointError, FrosterWarning, UsageError
from froster.inference.loading import NANO
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import Frozen, method_from_dict
from froster.text.prompts import FROSTER_PROMPTS, Prompting
from froster.training.attach import freeze
from froster.training.options import TrainOptions
from froster.training.plan import has_dear_text, make_plan
from hf_folder import save_hf_folder

WIDE = VisionConfig(224, 16, 768, 12, 12)
NAMES = {
    "clip-b16": ARCHITECTURES["ViT-B/16"],
    "clip-l14": ARCHITECTURES["ViT-L/14"],
    "laion-h14": CLIPConfig(
        VisionConfig(224, 14, 1280, 32, 16), TextConfig(width=1024, layers=24, heads=16), 1024
    ),
    "pe-core-b16": CLIPConfig(WIDE, TextConfig(32, 49408, 1024, 24, 16), 1024),
    "pe-core-l14": CLIPConfig(
        VisionConfig(336, 14, 1024, 24, 16), TextConfig(32, 49408, 1024, 24, 16), 1024
    ),
    "siglip2-b16": CLIPConfig(
        WIDE, TextConfig(64, 256000, 768, 12, 12, causal=False, pool="last", end=1), 768
    ),
    "metaclip2-h14": CLIPConfig(
        VisionConfig(224, 14, 1280, 32, 16), TextConfig(77, 901629, 1024, 24, 16, end=2), 1024
    ),
    "mobileclip2-l": CLIPConfig(
        VisionConfig(224, 14, 1024, 24, 16), TextConfig(width=768, heads=12, causal=False), 768
    ),
}
DEAR = {"pe-core-b16", "pe-core-l14", "siglip2-b16", "metaclip2-h14", "mobileclip2-l"}


def weightless(config: CLIPConfig) -> Recognizer:
    with blank():
        network = Frozen().build(CLIP(config))
    return Recognizer(
        network,
        CheckpointError("a sketch has no vocabulary"),
        ModelConfig(),
        device=torch.device("meta"),
        precision="float32",
    )


@pytest.mark.parametrize("name", NAMES)
def test_which_text_towers_are_dear(name: str) -> None:
    assert has_dear_text(weightless(NAMES[name]).clip) == (name in DEAR)


def test_the_nano_text_tower_is_cheap() -> None:
    assert not has_dear_text(load(NANO).clip)


def tuned(name: str, method: str = "vclip", **recipe: object) -> tuple[str, list[str], int]:
    changes = TrainOptions(**recipe)
    plan = make_plan(weightless(NAMES[name]), method_from_dict({"name": method}), ["a"], changes)
    return plan.preset.recipe.tune, plan.notes, plan.trained


def test_a_dear_text_tower_is_left_unasked() -> None:
    tune, notes, trained = tuned("siglip2-b16")
    assert (
        tune == "image" and sum("the image tower is trained alone" in note for note in notes) == 1
    )
    both, notes, all_trained = tuned("siglip2-b16", tune="both")
    assert both == "both" and "the 256,000 token embeddings stay as they are" in notes
    text = weightless(NAMES["siglip2-b16"]).clip.text
    table = text.token_embedding.weight.numel()
    assert all_trained - trained == sum(p.numel() for p in text.parameters()) - table
    plain, notes, _ = tuned("clip-b16")
    assert plain != "image" and not any("dear" in note or "stay as" in note for note in notes)


def test_a_method_of_the_text_side_keeps_it() -> None:
    method = method_from_dict({"name": "efficient-prompt", "prefix": 8, "postfix": 8})
    plan = make_plan(weightless(NAMES["pe-core-b16"]), method, ["a"], TrainOptions())
    assert plan.preset.recipe.tune == "method" and not any("dear" in note for note in plan.notes)
    with pytest.raises(UsageError, match="learned prompts need a causal text tower"):
        tuned("siglip2-b16", "efficient-prompt")


def test_large_tables_and_the_bias_of_the_logits_are_never_trained() -> None:
    vision = VisionConfig(16, 8, 64, 1, 1)
    method = method_from_dict({"name": "vclip"})
    for vocab, trained in ((49408, True), (49409, False)):
        config = CLIPConfig(vision, TextConfig(16, vocab, 64, 1, 1), 32, logit_bias=True)
        with blank():
            network = method.build(CLIP(config))
        freeze(network, method, "both")
        weights = dict(network.named_parameters())
        assert weights["clip.text.token_embedding.weight"].requires_grad == trained
        assert weights["clip.text.positional_embedding"].requires_grad
        assert not weights["clip.logit_bias"].requires_grad


def of_context(context: int, prompting: Prompting = FROSTER_PROMPTS) -> Recognizer:
    nano = load(NANO)
    torch.manual_seed(0)
    text = TextConfig(context, nano.tokenizer.vocab_size, 64, 1, 1)
    network = Frozen().build(CLIP(CLIPConfig(VisionConfig(16, 8, 64, 1, 1), text, 32)))
    return Recognizer(network, nano.tokenizer, ModelConfig(prompting=prompting))


LABELS = ["red", "a blue ball that rolls over the green hill and down to the sea " * 2]


def test_a_short_context_cuts_with_one_warning() -> None:
    plain = Prompting(("a photo of {}.", "{}"), "plain")
    model = of_context(16, plain)
    with pytest.warns(FrosterWarning, match="50 % of the prompts are longer than the 16 tokens"):
        classes = model.class_embeddings(LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed_text(LABELS)  # said once
        of_context(16, plain).embed_text(["red", "blue"])  # nothing is cut
        of_context(16, plain).embed_text(LABELS, truncate=True)  # asked for
    assert classes.equal(of_context(16, plain).class_embeddings(LABELS, truncate=True))


def test_a_context_of_clips_length_still_refuses() -> None:
    with pytest.raises(UsageError, match=r"at most 77 .*--truncate"):
        of_context(77).class_embeddings(["red", LABELS[1] * 5])


def test_short_contexts_have_plain_prompts_by_default(tmp_path: Path) -> None:
    for context, form in ((64, "froster"), (32, "plain")):
        model = of_context(context)
        save_hf_folder(model.clip, model.tokenizer, tmp_path / str(context))
        assert load(tmp_path / str(context)).config.prompting.form == form
    changes = TrainOptions(preset="froster")
    vclip = method_from_dict({"name": "vclip"})
    short = make_plan(weightless(NAMES["pe-core-b16"]), vclip, ["a"], changes)
    full = make_plan(weightless(NAMES["clip-b16"]), vclip, ["a"], changes)
    assert short.preset.prompting.form == "plain" and full.preset.prompting.form == "froster"
    assert short.preset.prompting.templates == full.preset.prompting.templates


def test_the_command_line_prints_a_warning_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_warning(FrosterWarning("half of it"), FrosterWarning, "file.py", 3)
    assert capsys.readouterr().err == "warning: half of it\n"
