"""Dense sampling is the reference's, index by index; uniform sampling is the paper's; no video is
too short."""

import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from froster.errors import UsageError
from froster.inference.index import IndexSettings
from froster.inference.model_folder import ModelConfig
from froster.video.reader import Video
from froster.video.sampling import Sampling, Timing
from froster.video.windows import WindowPlan
from video_files import make_video, shared

DENSE = Sampling("dense")
EVEN = Sampling("dense", clamp="even")


def timing_of(case: dict) -> Timing:
    step = 1 / Fraction(case["average_rate"]) / Fraction(case["time_base"])
    pts = [round(number * step) for number in range(case["num_frames"])]
    return Timing(pts, case["fps_read"], case["frames_meta"], case["duration_meta"])


def check(case: dict, timing: Timing) -> None:
    assert DENSE.view_indices(timing, 3) == case["views"]
    assert DENSE.view_indices(timing, 1) == [case["single_view"]]
    for u, indices in case["train_u"].items():
        assert DENSE.dense_at(timing, float(u)) == indices


def test_dense_is_the_reference_in_every_recorded_case():
    cases = json.loads(shared("fixtures", "facts_frame_indices.json").read_text())["cases"]
    assert len(cases) > 90
    for case in cases:
        check(case, timing_of(case))


def test_dense_is_the_reference_on_files_too(tmp_path):
    """One file for each container, made as the recorded ones were, so that the reader's timing is
    checked as well."""
    cases = json.loads(shared("fixtures", "facts_frame_indices.json").read_text())["cases"]
    fps = {"25": 25, "29.97": Fraction(30000, 1001)}
    options = {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}
    seen = 0
    for case in cases:
        if case["num_frames"] != 113 or case["fps_nominal"] not in fps:
            continue
        codec = case["codec"]
        path = tmp_path / f"{seen}.{case['container']}"
        make_video(
            path,
            113,
            codec,
            fps=fps[case["fps_nominal"]],
            size=(64, 48),
            options=options.get(codec),
        )
        with Video(path) as video:
            check(case, video.timing)
        seen += 1
    assert seen == 8


def test_dense_in_numbers():
    """The end of an mp4 is never seen, its last step is short; a webm is seen from end to end in
    even steps."""
    mp4 = Timing(range(0, 300 * 512, 512), 30.0, 300, 300 * 512)
    assert DENSE.view_indices(mp4, 3)[2] == [126, 144, 162, 180, 198, 216, 234, 237]
    webm = Timing([round(number * 1000 / 30) for number in range(300)], 30.0)
    assert DENSE.view_indices(webm, 3)[2] == [172, 190, 208, 226, 244, 262, 280, 299]


def test_an_even_clamp_is_the_same_in_every_container():
    for timing in (
        Timing(range(0, 300 * 512, 512), 30.0, 300, 300 * 512),
        Timing(range(300), 30.0),
    ):
        assert [view[0] for view in EVEN.view_indices(timing, 3)] == [0, 86, 172]
        assert EVEN.view_indices(timing, 3)[2] == [172, 190, 208, 226, 244, 262, 280, 299]
    short = Timing(range(90), 30.0, 90, 90)
    assert EVEN.view_indices(short, 3) == [[0, 12, 25, 38, 50, 63, 76, 89]] * 3
    assert EVEN.train_indices(short, random.Random(0)) == EVEN.view_indices(short, 1)[0]


def test_a_model_remembers_its_clamp():
    """Configurations from before there was one have none: they were released."""
    saved = json.loads(json.dumps(ModelConfig(sampling=EVEN).to_dict()))
    assert ModelConfig.from_dict(saved).sampling == EVEN
    del saved["sampling"]["clamp"]
    assert ModelConfig.from_dict(saved).sampling == DENSE


def test_dense_draws_its_start_once():
    timing = Timing(range(300), 30.0)
    assert DENSE.train_indices(timing, random.Random(3)) == DENSE.dense_at(
        timing, random.Random(3).random()
    )


def test_dense_orders_by_time_stamp_as_the_reference_does():
    """In old avi files neighbours are swapped: the reference keeps frames by time stamp and sorts
    them."""
    swapped = Timing([0, 2, 1, 3], 30.0, 4, 4)
    assert Sampling("dense", frames=4, rate=1).view_indices(swapped, 1) == [[0, 2, 1, 3]]


def test_a_header_that_claims_too_much_does_not_matter():
    truncated = Timing(range(40), 25.0, 400, 400)
    for view in DENSE.view_indices(truncated, 3):
        assert all(0 <= index < 40 for index in view)


def test_uniform_takes_the_centre_of_each_segment():
    uniform = Sampling("uniform")
    assert uniform.view_indices(Timing(range(80), 25.0), 1) == [[5, 15, 25, 35, 45, 55, 65, 75]]
    assert uniform.view_indices(Timing(range(48), 25.0), 3) == [
        [1, 7, 13, 19, 25, 31, 37, 43],
        [3, 9, 15, 21, 27, 33, 39, 45],
        [5, 11, 17, 23, 29, 35, 41, 47],
    ]


def test_uniform_trains_on_a_random_frame_of_each_segment():
    uniform, rng = Sampling("uniform"), random.Random(0)
    draws = [uniform.train_indices(Timing(range(80), 25.0), rng) for _ in range(300)]
    for segment in range(8):
        assert {draw[segment] for draw in draws} == set(range(10 * segment, 10 * segment + 10))


def test_a_short_video_repeats_frames():
    assert Sampling("uniform").view_indices(Timing([0], 25.0), 3) == [[0] * 8] * 3
    assert DENSE.view_indices(Timing([0], 25.0, 1, 512), 3) == [[0] * 8] * 3
    assert Sampling("uniform").view_indices(Timing(range(4), 25.0), 1) == [[0, 0, 1, 1, 2, 2, 3, 3]]


@given(
    count=st.integers(1, 400),
    fps=st.floats(0.1, 1000),
    frames=st.integers(1, 32),
    rate=st.integers(1, 64),
    views=st.integers(1, 5),
    claimed=st.integers(0, 500),
    duration=st.one_of(st.none(), st.integers(0, 10**7)),
    kind=st.sampled_from(["dense", "uniform"]),
    clamp=st.sampled_from(["released", "even"]),
    seed=st.integers(0, 100),
)
def test_every_index_exists(count, fps, frames, rate, views, claimed, duration, kind, clamp, seed):
    sampling = Sampling(kind, frames, rate, clamp=clamp)
    timing = Timing(range(0, 512 * count, 512), fps, claimed, duration)
    clips = [
        *sampling.view_indices(timing, views),
        sampling.train_indices(timing, random.Random(seed)),
    ]
    assert len(clips) == views + 1
    for clip in clips:
        assert len(clip) == frames
        assert all(0 <= index < count for index in clip)
        assert kind == "dense" or clip == sorted(clip)


def test_a_wrong_sampling_is_refused():
    with pytest.raises(UsageError, match="expected 'dense' or 'uniform'"):
        Sampling("random")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="clamp must be released or even"):
        Sampling("dense", clamp="odd")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="clamp belongs to dense sampling"):
        EVEN.changed(kind="uniform", clamp="even")
    assert EVEN.changed(kind="uniform").kind == "uniform"
    with pytest.raises(UsageError, match="above zero"):
        Sampling("uniform", frames=0)
    for window, stride in ((math.inf, 1.0), (math.inf, math.inf), (4.0, math.nan)):
        with pytest.raises(UsageError, match="above zero"):
            WindowPlan(window, stride, 8)
    for seconds in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="above zero"):
            IndexSettings(segment=seconds)
    with pytest.raises(UsageError, match="not in 0"):
        DENSE.view_indices(Timing(range(9), 25.0), 0)
