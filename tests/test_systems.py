"""What single systems of the literature promise, and that each of them learns from the nano CLIP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from froster.encoders.checkpoints import to_official
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.errors import FrosterWarning, UsageError
from froster.inference.recognizer import Recognizer, load
from froster.inference.released import assemble, recognise
from froster.inference.transport import by_transport, matched
from froster.methods import METHODS
from froster.methods.bdc_clip import BDCNet, TokenBDC
from froster.methods.dualpath import ClosedDualPath, DualPathNet, mosaic, side_of, time_code
from froster.methods.ez_clip import AdaptedBlock, stillness
from froster.methods.mote import MoTE, MoTENet
from froster.methods.ost import DESCRIPTORS, match, transport_plan
from froster.methods.tc_clip import TCNet, merged_groups
from froster.methods.text4vis import Text4Vis
from froster.text.bank import PromptBank
from froster.text.prompts import Prompting
from froster.training.fine_tune import FineTuning, Hooks, fine_tune, student_of
from froster.training.options import TrainOptions
from froster.training.plan import make_plan
from froster.world.clips import WorldClips
from froster.world.sets import SETS, ClassSet, Videos, record
from golden import close
from test_methods import LABELS, PROMPTING, Names, clips, method_of, network, tiny_clip
from test_methods import tokens as rows_of

SYSTEMS = [
    ("mote", ""),
    ("bdc-clip", ""),
    ("ost", ""),
    ("ez-clip", ""),
    ("dualpath", "closed"),
    ("dualpath", "open"),
    ("tc-clip", ""),
]


pytestmark = pytest.mark.usefixtures("few_templates_throughout")


@pytest.fixture(scope="module")
def base() -> Recognizer:
    return load("nano", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def videos() -> Videos:
    """Four of each of four classes of the rendered world."""
    few, labels = ClassSet(SETS["base"].actions[:4]), torch.arange(16) % 4
    rng = np.random.default_rng(0)
    frames = torch.stack([record(few, int(label), rng) for label in labels])
    return Videos(frames, labels, few.classes)


# One that compares with texts and one with a head of its own; the first steps of all are in losses.txt.
LEARN_QUICKLY = ("ez-clip", ""), ("dualpath", "closed")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        one if one in LEARN_QUICKLY else pytest.param(*one, marks=pytest.mark.slow)
        for one in SYSTEMS
    ],
)
def test_learns_from_the_nano(
    name: str, variant: str, base: Recognizer, videos: Videos, tmp_path: Path
) -> None:
    """In seconds on one core; what is saved is what was learned."""
    changes = TrainOptions(epochs=6, batch_size=8, views=1, flip=False)
    plan = make_plan(base, METHODS[name].make(variant or None), videos.classes, changes)
    clips = WorldClips(videos, plan.preset.sampling, train=True)
    losses: list[float] = []
    hooks = Hooks(on_step=lambda step, metrics: losses.append(metrics["loss"]))
    how = FineTuning(plan.method, plan.distill, plan.preset.recipe, plan.preset)
    student, _ = fine_tune(base, how, clips, videos.classes, tmp_path, hooks)
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    student.save(tmp_path / "model")
    again = load(tmp_path / "model", device="cpu", precision="float32")
    assert again.config.method == student.config.method
    frames = videos.frames[0, ::2].movedim(1, -1)
    one, other = (model.classify(frames, videos.classes) for model in (student, again))
    assert one.labels == other.labels
    assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_what_would_have_no_effect_is_refused(base: Recognizer) -> None:
    closed, open_ = (METHODS["dualpath"].make(variant) for variant in ("closed", "open"))
    logits = TrainOptions(distill="plain", loss={"target": "logits"})
    with pytest.raises(UsageError, match=r"head of its own classes.*--target features"):
        make_plan(base, closed, LABELS, logits)
    make_plan(base, open_, LABELS, logits)
    for method in (closed, METHODS["ost"]()):
        with pytest.raises(UsageError, match="--specialise would change nothing"):
            make_plan(base, method, LABELS, TrainOptions(specialise=True))


# MoTE


@torch.no_grad()
def test_mote_of_one_expert_is_text4vis() -> None:
    torch.manual_seed(0)
    plain = Text4Vis(layers=2).build(tiny_clip()).eval()
    one = MoTE(layers=2, experts=1).build(tiny_clip()).eval()
    assert plain.head is not None and one.head is not None
    state = {
        name.replace("c_fc.", "fc_up.0.").replace("c_proj.", "fc_dn.0."): tensor
        for name, tensor in plain.head.state_dict().items()
    }
    fused = {n: t for n, t in one.head.state_dict().items() if n.endswith("mote_fusion_weight")}
    one.head.load_state_dict({**state, **fused})
    close(one.encode(clips()).video, plain.encode(clips()).video, atol=1e-5)


@torch.no_grad()
def test_mote_is_faded_out_for_classes_unlike_those_learned() -> None:
    model = network("mote")
    assert isinstance(model, MoTENet) and model.head.spe_cls_feature is not None
    learned = unit(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))
    model.head.spe_cls_feature.copy_(learned)
    features, scale = model.encode(clips()), model.clip.logit_scale.exp()
    frames = features.frames.mean(1)
    close(model.head.nearness(frames, learned), torch.ones(2), atol=1e-5)
    close(
        model.logits(features.video, learned, features.context),
        scale * features.video @ learned.T,
        atol=1e-4,
    )
    far = -learned
    assert model.head.nearness(frames, far).max() < 1e-3
    close(
        model.logits(features.video, far, features.context), scale * unit(frames) @ far.T, atol=0.05
    )


@torch.no_grad()
def test_a_released_mote_is_told_from_actionclip_and_text4vis() -> None:
    model = network("mote")
    state = {
        to_official(name.removeprefix("clip."))
        .replace("head.positional_embedding", "fusion_model.frame_position_embeddings.weight")
        .replace("head.", "fusion_model."): tensor
        for name, tensor in model.state_dict().items()
    }
    image = {n: t for n, t in state.items() if n.startswith(("visual.", "fusion", "logit_scale"))}
    for released, base in ((state, None), (image, tiny_clip())):
        found = recognise(released)
        assert found is not None and found.format == "MoTE"
        assert found.method == MoTE(seen=3)
        again = assemble(found, base).eval()
        close(again.encode(clips()).video, model.encode(clips()).video, atol=1e-5)


def test_mote_keeps_the_classes_that_it_learns() -> None:
    model = network("mote")
    assert isinstance(model, MoTENet)
    classes = unit(torch.randn(3, 64))
    model.train()
    features = model.encode(clips())

    def objective(logits: Tensor) -> Tensor:
        return logits.square().mean()

    losses = model.losses(features, classes, model.logits(features.video, classes), objective)
    assert losses.keys() == {"ce", "merged", "kept"}
    assert torch.equal(model.head.spe_cls_feature, classes)
    sum(losses.values()).backward()
    for number in range(4):  # every expert learns from the merged pass
        layer = model.head.transformer.blocks()[0].mlp.fc_up[number]
        assert layer.weight.grad.abs().max() > 0


# BDC-CLIP


@torch.no_grad()
def test_bdc_knows_no_order_of_tokens_and_its_rows_sum_to_zero() -> None:
    torch.manual_seed(0)
    part, x, query = TokenBDC(8, 6), torch.randn(2, 5, 6), torch.randn(2, 6)
    bdc = part(x, query)
    close(part(x[:, [3, 0, 4, 1, 2]], query), bdc, atol=1e-6)
    matrix = torch.zeros(2, 6, 6)
    row, column = torch.triu_indices(6, 6)
    matrix[:, row, column] = matrix[:, column, row] = bdc
    close(matrix.sum(-1), torch.zeros(2, 6), atol=1e-6)
    assert (matrix.diagonal(dim1=1, dim2=2) < 0).all()  # a channel is nearest to itself
    stretched = x * torch.tensor([3.0, 1, 1, 1, 1, 1])
    assert not torch.allclose(part(stretched, query), bdc, atol=1e-3)


@torch.no_grad()
def test_bdc_clip_mixes_two_scores_and_its_text_begins_with_an_embedding() -> None:
    model = network("bdc-clip", channels=6)
    assert isinstance(model, BDCNet)
    rows = torch.tensor([[97, 5, 98, 0], [97, 7, 8, 98], [97, 9, 98, 0]])
    prompts = model.encode_text(rows)[None]
    close(model.text_embeddings(prompts)[0], tiny_clip().encode_text(rows), atol=1e-5)
    features, classes = model.encode(clips()), model.classes(prompts)
    scores = model.logits(features.video, classes, features.context).softmax(-1)
    cosine, bdc = model.two_logits(features.video, classes, features.context)
    close(scores, 0.9 * cosine.softmax(-1) + 0.1 * bdc.softmax(-1), atol=1e-6)
    with pytest.raises(ValueError, match="context"):
        model.logits(features.video, classes)


@torch.no_grad()
def test_bdc_clip_reads_the_padding_of_a_text_whatever_it_was_cut_to() -> None:
    model = network("bdc-clip", channels=6)
    rows = torch.tensor([[97, 5, 98], [97, 7, 98]])
    close(model.encode_text(rows), model.encode_text(torch.nn.functional.pad(rows, (0, 9))))


# OST


def sentences(count: int, classes: int = 3) -> Tensor:
    return unit(torch.randn(count, classes, 64, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_ost_of_one_sentence_is_the_mean_over_the_frames() -> None:
    frames = unit(network("ost").encode(clips()).frames)
    pooled, transported = match(frames, sentences(1))
    close(transported, pooled, atol=1e-5)


@torch.no_grad()
def test_the_plan_has_uniform_marginals_and_prefers_what_is_alike() -> None:
    frames = unit(torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(1)))
    cosines = torch.einsum("bte,nke->bktn", frames, sentences(4))
    plan = transport_plan(cosines)
    close(plan.sum(-2), torch.full((2, 3, 4), 1 / 4), atol=1e-6)
    close(plan.sum(-1), torch.full((2, 3, 6), 1 / 6), atol=2e-3)
    assert (plan * cosines).sum() > cosines.mean((-2, -1)).sum()


@torch.no_grad()
def test_any_network_that_compares_frames_can_be_matched_without_training() -> None:
    for name in ("frozen", "vclip", "aim"):
        plain = network(name, next(iter(METHODS[name].variants), ""))
        other = matched(plain)
        assert other.state_dict().keys() == plain.state_dict().keys()
        features = other.encode(clips())
        close(features.frames, plain.encode(clips()).frames, atol=0, rtol=0)
        scores = other.logits(features.video, other.classes(sentences(5)), features.context)
        expected = sum(match(unit(features.frames), sentences(5)))
        close(scores, plain.clip.logit_scale.exp() * expected, atol=1e-4)
    for name in ("xclip", "text4vis", "actionclip", "bdc-clip"):
        with pytest.raises(UsageError, match="cannot be matched"):
            matched(network(name, next(iter(METHODS[name].variants), "")))


def test_a_model_by_transport_reads_several_sentences_a_label(base: Recognizer) -> None:
    labels = ["cat: fur; ears | it spins", "boat: a hull | it paces; it turns"]
    other = by_transport(base)
    assert other.class_embeddings(labels).shape[:2] == (4, 2)
    frames = torch.randint(0, 256, (8, 60, 60, 3), dtype=torch.uint8)
    answer = other.classify(frames, labels)
    assert sum(answer.scores) == pytest.approx(1) and answer.cosine is None
    assert base.class_embeddings(labels).ndim == 2  # the model itself is as it was


def test_descriptors_are_parted_by_semicolons_and_a_bar() -> None:
    prompts = DESCRIPTORS.prompts(["run: legs; a track | starts; goes on; ends", "sit", "nap: bed"])
    assert len(prompts) == 6
    seen = [prompt.removeprefix("This is a video about ") for prompt in prompts[0]]
    assert seen == ["legs", "sit", "bed"]
    assert prompts[2][0] == "This is a video about legs"  # again, as the others have three
    assert [row[0] for row in prompts[3:]] == [
        f"A video of run usually includes {what}" for what in ("starts", "goes on", "ends")
    ]
    assert prompts[5][1:] == [
        "A video of sit usually includes sit",
        "A video of nap usually includes bed",
    ]
    with pytest.raises(UsageError, match="two templates"):
        Prompting(("{}",), "descriptors")


# EZ-CLIP


@torch.no_grad()
def test_ez_clip_without_prompts_is_clip_and_its_prompts_go_with_the_frames() -> None:
    model = network("ez-clip", moved=False)
    close(model.encode_text(rows_of(2, 5)), tiny_clip().encode_text(rows_of(2, 5)), atol=1e-6)
    plain = tiny_clip().encode_image(clips())
    assert not torch.allclose(model.encode_frames(clips()), plain, atol=1e-4)
    for block in model.clip.visual.transformer.blocks():
        block.attention_sublayer = AdaptedBlock.attention_sublayer.__get__(block)  # type: ignore[method-assign]
    close(model.encode_frames(clips()), plain, atol=1e-6)
    moved, order = network("ez-clip"), [2, 0, 3, 1]
    before = moved.encode_frames(clips())
    times = moved.clip.visual.temporal_embedding
    assert times is not None
    times.copy_(times[order])
    for block in moved.clip.visual.transformer.blocks():
        block.time_prompts.copy_(block.time_prompts[order])  # type: ignore[operator, index]
    close(moved.encode_frames(clips()[:, order]), before[:, order])


def test_stillness_is_one_where_nothing_moves() -> None:
    z = torch.randn(2, 1, 8).expand(2, 4, 8)
    close(stillness(z), torch.tensor(1.0), atol=1e-6)
    close(stillness(z[:, :1]), torch.tensor(1.0), atol=1e-6)
    assert stillness(torch.randn(2, 4, 8)) < 0.6


# DUALPATH


@torch.no_grad()
def test_dualpath_starts_with_clip_and_with_an_identity() -> None:
    frames = clips(frames=32)
    for variant in ("closed", "open"):
        model = network("dualpath", variant, moved=False)
        assert isinstance(model, DualPathNet)
        chosen = frames[:, [0, 4, 8, 12, 16, 20, 24, 28]]
        close(model.encode_frames(frames), tiny_clip().encode_image(chosen), atol=1e-6)
        spatial = model.clip.encode_image(chosen, [])  # every token of the last block too
        assert torch.equal(spatial, tiny_clip().encode_image(chosen, []))
        visual = model.clip.visual
        tokens = visual.ln_pre(model.embed_framesets(frames))
        expected = visual.ln_post(tokens[:, 0]) @ visual.proj
        close(model.encode_framesets(frames).flatten(0, 1), expected, atol=0, rtol=0)
    close(
        network("dualpath", "open", moved=False).encode(frames).video,
        unit(tiny_clip().encode_image(chosen).mean(1)),
        atol=1e-6,
    )


def test_dualpath_shrinks_frames_without_mixing_them() -> None:
    frames = torch.arange(32.0)[None, :, None, None, None].expand(1, 32, 3, 8, 8)
    sets = mosaic(frames, side_of(32))
    assert sets.shape == (1, 2, 3, 8, 8)
    numbers = torch.arange(16.0).view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    close(sets[0, 0, 0], numbers, atol=1e-6)
    close(sets[0, 1, 0], 16 + numbers, atol=1e-6)
    assert [side_of(count) for count in (16, 8, 4, 9, 12, 5)] == [4, 2, 2, 3, 2, 1]
    code = time_code(2, 4, 4, 6)
    close(code[:, 0], torch.tensor([0.0, 1, 0, 1, 0, 1]).expand(2, 6))
    close(code[1, 1, 0], torch.tensor(17.0).sin())


def test_a_closed_head_takes_its_own_classes_in_any_order_and_no_others() -> None:
    model = network("dualpath", "closed")
    assert isinstance(model, ClosedDualPath)
    bank = lambda *labels: PromptBank(Names(), labels, 77, PROMPTING)  # type: ignore[arg-type]  # noqa: E731
    features = model.encode(clips())
    scores = [
        model.logits(
            features.video, model.classes(model.prompts(bank(*names), [0])), features.context
        )
        for names in (LABELS, LABELS[:0:-1])
    ]
    close(scores[1], scores[0][:, [2, 1]])
    with pytest.raises(UsageError, match=r"'cow' is none of them.*variant open"):
        model.prompts(bank("cat", "cow"), [0])


# TC-CLIP


@torch.no_grad()
def test_tc_clip_without_context_sees_what_clip_sees() -> None:
    plain = tiny_clip().encode_image(clips())
    none = network("tc-clip", context_tokens=0)
    close(none.encode_frames(clips()), plain, atol=1e-5)
    one = network("tc-clip", moved=False, seed_share=1.0)
    for block in one.clip.visual.transformer.blocks()[1:]:
        block.local_global_bias_table.zero_()  # type: ignore[operator, union-attr]
    alone = tiny_clip().encode_image(clips(frames=1))
    # Every patch is a key twice, as itself and as context.
    assert not torch.allclose(one.encode_frames(clips(frames=1)), alone, atol=1e-3)


def test_groups_are_as_many_as_asked_and_the_likest_go_together() -> None:
    x = torch.randn(3, 13, 8, generator=torch.Generator().manual_seed(0))
    x[:, 7] = x[:, 2]  # an odd one and an even one
    for k in (12, 9, 4, 1):
        group = merged_groups(x, k)
        assert all(set(row.tolist()) == set(range(k)) for row in group)
        assert torch.equal(group[:, 7], group[:, 2])
    assert torch.equal(merged_groups(x, 13), torch.arange(13).expand(3, -1))
    many = torch.randn(1, 350, 4)
    assert int(merged_groups(many, 96).max()) == 95


@torch.no_grad()
def test_tc_clips_text_is_clips_until_a_video_changes_it() -> None:
    model = network("tc-clip", moved=False)
    assert isinstance(model, TCNet)
    text, rows = model.clip.text, rows_of(2, 5)
    prompts = model.encode_text(rows)[None]
    words = text.token_embedding(rows)
    words = torch.cat([words[:, :1], model.text_prompt.expand(2, -1, -1), words[:, 1:]], dim=1)
    whole = text.encode(words, rows.argmax(-1) + len(model.text_prompt))
    close(model.text_embeddings(prompts)[0], whole, atol=1e-5)
    features = model.encode(clips())
    texts = model.conditioned(prompts, features.context)
    assert texts.shape == (2, 2, 64)
    assert not torch.allclose(texts[0], unit(whole), atol=1e-3)
    assert not torch.allclose(texts[0], texts[1], atol=1e-5)
    close(model.conditioned(prompts[:, :1], features.context)[:, 0], texts[:, 0], atol=1e-5)


def test_tc_clip_cuts_labels_that_its_tokens_cannot_hold(base: Recognizer) -> None:
    """With a warning, as its authors do; other networks refuse them."""
    model = student_of(base, METHODS["tc-clip"]())
    long = "a cat that " + "slowly and " * 40 + "walks"
    with pytest.raises(UsageError, match="the model reads at most"):
        base.bank([long])
    with pytest.warns(FrosterWarning, match=r"longer than the 26 tokens .* and are cut"):
        bank = model.bank([long, "a dog"])
    assert bank.tokens(0).shape[-1] == 26


# What encoders lack


def other_clip(text: dict, **vision) -> CLIP:
    torch.manual_seed(0)
    heads = {"heads": 2, "width": 128, "layers": 3, "image_size": 32, "patch_size": 8}
    image = VisionConfig(**{**heads, **vision})
    return CLIP(CLIPConfig(image, TextConfig(77, 99, 64, 1, 1, **text), embed_dim=64)).eval()


def test_encoders_without_what_a_method_needs_are_refused_by_name() -> None:
    pooled, seeing = other_clip({}, pool="map"), other_clip({"causal": False})
    with pytest.raises(UsageError, match=r"bdc-clip .*no class token that stands for a frame"):
        METHODS["bdc-clip"]().build(pooled)
    with pytest.raises(UsageError, match=r"tc-clip .*no class token that stands for a frame"):
        METHODS["tc-clip"]().build(pooled)
    with pytest.raises(UsageError, match=r"tc-clip .*tokens see those behind them"):
        METHODS["tc-clip"]().build(seeing)


@pytest.mark.parametrize("lacking", [{"class_token": False, "pool": "map"}, {"rope": "rows-16"}])
@torch.no_grad()
def test_other_encoders_are_taken_with_patches_alone_and_turned(lacking: dict) -> None:
    for name, variant in SYSTEMS:
        if "pool" in lacking and name in ("bdc-clip", "tc-clip"):
            continue
        clip = other_clip({}, **lacking)
        frames = clips()
        expected = clip.encode_image(frames)
        model = method_of(name, variant).build(clip).eval()
        features = model.encode(frames)
        prompts = torch.stack([model.encode_text(rows_of(2, 3, 4))])
        if variant == "closed":
            prompts = torch.eye(3)[None]
        scores = model.logits(features.video, model.classes(prompts), features.context)
        assert scores.shape == (2, 3) and scores.isfinite().all()
        if name in ("mote", "ost", "dualpath"):
            close(features.frames, expected, atol=1e-5)
