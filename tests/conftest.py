"""Before torch loads: waiting OpenMP threads that spin make a busy machine crawl."""

import os
import sys

import pytest
from hypothesis import settings
from jaxtyping import config, install_import_hook

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# No test asks the hub; where one is about the hub, it says so.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# No test leaves anything in the user's cache, or takes anything from it; where one is about the
# cache, it has one of its own.
os.environ["FROSTER_CACHE"] = "off"
# Shapes as types are checked at run time.
ROOMS = ("encoders", "methods", "evaluation", "inference", "training", "video")
install_import_hook([f"froster.{room}" for room in ROOMS], "shapes.check_shapes")


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which a compiler traces the network: it cannot trace the checks."""
    from froster.methods import Features

    monkeypatch.setattr(config, "jaxtyping_disable", True)
    monkeypatch.setattr(Features, "__init__", Features.__init__.__wrapped__)


settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def nano():
    """The nano CLIP on the CPU."""
    from froster.inference.recognizer import load

    return load("nano", device="cpu")


@pytest.fixture(scope="session")
def known(nano, tmp_path_factory: pytest.TempPathFactory):
    """A long video whose segments are known."""
    from known_clips import known_video

    return known_video(nano, tmp_path_factory.mktemp("known") / "known.mp4")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Types a command."""
    from froster.cli import main
    from typed import Result

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["froster", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        found = capfd.readouterr()
        assert "Traceback" not in found.err + found.out
        return Result(code, found.out, found.err)

    return call
