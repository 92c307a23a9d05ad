"""The world is the same for everyone: the same seed gives the same bytes, whoever renders, and no
split leaks."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from froster.world import motion
from froster.world.files import write_video
from froster.world.motion import at_rest, moved
from froster.world.sets import SPLITS, render_set, render_video
from froster.world.sprites import DRAWINGS, atlas
from froster.world.vocabulary import ALL_VERBS, NOUNS, REVERSALS, SCENES, VERBS
from tools.nano.stills import Still, draw_stills, render_chunk, render_stills

DIGEST = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from froster.world.sets import render_set
from tools.nano.stills import draw_stills, render_stills
print(hashlib.md5(render_set("mid", 1, 3, "train").frames.numpy().tobytes()).hexdigest())
print(hashlib.md5(render_stills(draw_stills(250, 5), 5).numpy().tobytes()).hexdigest())
"""


def test_bytes_do_not_depend_on_process_or_threads():
    command = [sys.executable, "-c", DIGEST, str(torch.get_num_threads() + 1)]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True)
    here = [render_set("mid", 1, 3, "train").frames, render_stills(draw_stills(250, 5), 5)]
    digests = [hashlib.md5(images.numpy().tobytes()).hexdigest() for images in here]
    assert elsewhere.stdout.split() == digests


def test_a_still_does_not_depend_on_its_batch():
    stills = draw_stills(40, 0)
    whole = render_chunk(stills, 0, 0)
    assert torch.equal(whole[17:18], render_chunk(stills[17:18], 0, 17))


def test_a_video_does_not_depend_on_how_many_are_asked_for():
    few, more = render_set("base", 1, 0, "val"), render_set("base", 3, 0, "val")
    assert torch.equal(few.frames, more.frames[::3])
    assert torch.equal(few.labels, more.labels[::3])


def test_splits_and_seeds_never_share_a_video():
    seen: set[bytes] = set()
    for split in SPLITS:
        for seed in (0, 1):
            for label, take in itertools.product(range(0, 24, 4), range(2)):
                frames = render_video("base", label, take, seed, split)
                seen.add(hashlib.md5(frames.numpy().tobytes()).digest())
    assert len(seen) == 3 * 2 * 6 * 2


def test_videos_have_the_promised_shape_and_report_progress():
    counts: list[int] = []
    videos = render_set("far", 1, progress=counts.append)
    assert videos.frames.shape == (24, 16, 3, 60, 60) and videos.frames.dtype == torch.uint8
    assert videos.labels.dtype == torch.int64 and len(videos) == 24 == len(videos.classes)
    assert counts == list(range(1, 25))


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="no set 'nvel'"):
        render_set("nvel", 1)


def test_every_noun_has_a_drawing_of_its_own():
    assert set(DRAWINGS) == set(NOUNS)
    planes = atlas()
    apart = torch.cdist(planes.flatten(1), planes.flatten(1)) + 1e6 * torch.eye(len(NOUNS))
    assert apart.min() > 4  # two drawings differ in more than a handful of pixels
    assert planes.min() >= 0 and planes.max() <= 1


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_every_verb_moves_and_keeps_to_finite_poses(verb: str):
    times = np.arange(-1.0, motion.FRAMES + 1)
    poses = moved(at_rest(30, 30, 12, 0), verb, times, np.random.default_rng(0))
    assert poses.shape == (18, len(motion.POSE)) and np.isfinite(poses).all()
    assert np.abs(np.diff(poses, axis=0)).max() > 0.05
    assert poses[:, motion.OPACITY].min() >= 0 and poses[:, motion.GAIN].min() >= 0


def test_a_reversal_is_the_other_verb_run_backwards():
    times = np.arange(-1.0, motion.FRAMES + 1)
    for first, second in REVERSALS:
        forth, back = (
            moved(at_rest(30, 30, 12, 0), verb, times, np.random.default_rng(1))
            for verb in (first, second)
        )
        np.testing.assert_allclose(forth, back[::-1], atol=1e-5)
    assert not set(VERBS) & {verb for pair in REVERSALS for verb in pair}


def test_a_still_shows_its_scene_and_its_thing():
    plain = [Still("cat", "red", scene) for scene in SCENES]
    images = render_chunk(plain, 0, 0).float()
    assert images.flatten(1).std(1).min() > 5
    red, blue = (
        render_chunk([Still("heart", colour, "snow")], 0, 0).float() for colour in ("red", "blue")
    )
    difference = (red - blue).abs().amax(1)[0] > 60
    assert 60 < difference.sum() < 900  # only the thing changes with its colour


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    """Whatever the number of cores, so that what is measured on the world can be measured again."""
    frames = render_video("base", 3, 0)
    files = [write_video(tmp_path / f"{i}.mp4", frames).read_bytes() for i in range(4)]
    assert len(set(files)) == 1
