"""Before torch loads: waiting OpenMP threads that spin make a busy machine crawl."""

import gc
import os
import sys
from collections.abc import Iterator
from copy import copy

import pytest
from hypothesis import settings
from jaxtyping import config

import quick
import shapes

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# No test asks the hub; where one is about the hub, it says so.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# No test leaves anything in the user's cache, or takes anything from it; where one is about the
# cache, it has one of its own.
os.environ["FROSTER_CACHE"] = "off"
# Shapes as types are checked at run time.
ROOMS = ("encoders", "methods", "evaluation", "inference", "training", "video")
shapes.install([f"froster.{room}" for room in ROOMS])


WORKER = "PYTEST_XDIST_WORKER"
LONG = (
    *("engine_ray", "train_end", "elastic", "docs", "cli", "serve_page", "addresses", "kept"),
    *("training", "teach", "results", "fine_tune", "watch", "export", "label", "leak", "seen"),
    *("video_odd", "paper_reproduce", "hub_layouts", "timeline", "given", "systems", "losses"),
    *("serve_live", "pack", "grid", "pool", "describe", "habits", "prepare", "meta_step"),
    *("paper_real", "blend", "benchmarks", "serve_bad_input", "start_and_method", "demo"),
    *("encoder_uses", "going_on", "methods", "columns", "loader", "names", "terminal", "many"),
)
"""Files that take long, the longest first."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """One process that forks, for all workers: it takes seconds to start."""
    if getattr(session.config.option, "numprocesses", None) and WORKER not in os.environ:
        os.environ[quick.ADDRESS] = quick.server()


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: in a fifth of their time tests wait for servers, clusters and
    processes that they have started. With two more each takes a fifth more processor time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that no process waits in the end for another's."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """What is imported stays: a collection of garbage need not look at it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def left_open() -> Iterator[None]:
    """What a file leaves open is told in its name. What stays for others is not looked at again:
    a collection before every command would be a tenth of the suite's time."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def assembled_once() -> Iterator[None]:
    """The options of a command are put together once, and copied for every one that is typed:
    cyclopts does it twice a command, which takes `froster train` 60 ms."""
    from cyclopts import App, core
    from cyclopts.argument import ArgumentCollection

    assemble, kept = (
        core._safe_assemble_argument_collection,
        dict[int, tuple[App, ArgumentCollection]](),
    )

    def copied(app: App) -> ArgumentCollection | None:
        if id(app) not in kept:
            if (collection := assemble(app)) is None:
                return None
            kept[id(app)] = app, collection  # held, so that no other has its id
        copies = {id(argument): copy(argument) for argument in kept[id(app)][1]}
        for argument in copies.values():
            argument.tokens = []
            argument.children = ArgumentCollection(copies[id(c)] for c in argument.children)
        return ArgumentCollection(copies.values())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "_safe_assemble_argument_collection", copied)
        yield


@pytest.fixture(scope="session", autouse=True)
def readers_preloaded() -> Iterator[None]:
    """One server forks all reading processes of a session: it imports what any of them needs, not
    what the first did, or every other would take half a second to start."""
    from multiprocessing import forkserver

    from quick import READERS

    preload = forkserver.set_forkserver_preload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            forkserver,
            "set_forkserver_preload",
            lambda names: preload(list(dict.fromkeys([*READERS, *names]))),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where `shared_files` keeps what is made once: all workers of a session see one folder."""
    import shared_files

    base = tmp_path_factory.getbasetemp()
    shared_files.FOLDER = (base.parent if WORKER in os.environ else base) / "shared"
    shared_files.FOLDER.mkdir(exist_ok=True)


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which a compiler traces the network: it cannot trace the checks."""
    from froster.methods import Features

    monkeypatch.setattr(config, "jaxtyping_disable", True)
    monkeypatch.setattr(Features, "__init__", Features.__init__.__wrapped__)


@pytest.fixture
def few_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the 28 templates, for tests that would spend their time on texts."""
    from templates import use_few

    use_few(monkeypatch)


@pytest.fixture(scope="module")
def few_templates_throughout(nano) -> Iterator[None]:
    """The same for what a file makes once, too. Not for `nano`, which is of all files and is
    therefore made before."""
    from templates import use_few

    with pytest.MonkeyPatch.context() as patch:
        use_few(patch)
        yield


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page at the end of `froster train`: half of the time of a small one. For tests that ask
    nothing of it."""
    monkeypatch.setattr("froster.cli.train.write_page", lambda result: None)


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

    gc.collect()  # what other tests of this file have left open is told now, not in this one's name
    gc.freeze()  # what a training has imported is not looked at before every later command

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
