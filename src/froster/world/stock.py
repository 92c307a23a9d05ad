"""Rendered sets on disk, for several programs that read the same videos: rendered once, by as many
processes as there are cores for, and mapped into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from froster.errors import UsageError
from froster.utils.files import atomic_file, sole_maker
from froster.utils.interrupt import check
from froster.world.habits import Strength
from froster.world.motion import FRAMES
from froster.world.render import FRAME_SIZE
from froster.world.sets import SETS, USUAL, Split, Videos, render_video

FEW = 256
"""Videos that one process renders in the time in which others start."""


def processes(workers: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which start without this one's state."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, context, torch.set_num_threads, initargs=(1,))


def once(path: Path, make: Callable[[], object]) -> None:
    """Have `make` write the file `path`, unless it is there; wait while another process does."""
    while not path.exists():
        with suppress(UsageError), sole_maker(path):  # which says that another process has it
            if not path.exists():
                make()
        check()


def pixels(
    name: str, label: int, takes: range, seed: int, split: Split, strength: Strength
) -> np.ndarray:
    """Some videos of one class, (N, 16, 3, 60, 60) uint8. Tensors would go from process to process
    through shared memory, of which there may be little."""
    videos = [render_video(name, label, take, seed, split, strength) for take in takes]
    return torch.stack(videos).numpy()


def stocked(
    folder: Path,
    name: str,
    per_class: int,
    seed: int = 0,
    split: Split = "test",
    strength: Strength = USUAL,
    workers: int = 1,
) -> Videos:
    """As `render_set`, from `folder`, where the videos are kept once they have been rendered."""
    shares = "-".join(f"{share:g}" for share in astuple(strength))
    path = folder / f"{name}_{split}_{seed}_{per_class}_{shares}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    once(path, lambda: fill(path, name, per_class, seed, split, strength, workers))
    frames = torch.from_numpy(np.load(path, mmap_mode="c"))
    classes = SETS[name].classes
    return Videos(frames, torch.arange(len(classes)).repeat_interleave(per_class), classes)


def fill(
    path: Path, name: str, per_class: int, seed: int, split: Split, strength: Strength, workers: int
) -> None:
    count = len(SETS[name].classes)
    shape = (count * per_class, FRAMES, 3, FRAME_SIZE, FRAME_SIZE)
    settings = ([value] * count for value in (range(per_class), seed, split, strength))
    with ExitStack() as stack:
        part = stack.enter_context(atomic_file(path))
        run: Callable[..., Iterable[np.ndarray]] = map
        if workers > 1 and count * per_class > FEW:
            run = stack.enter_context(processes(workers)).map
        frames = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        for label, of_class in enumerate(run(pixels, [name] * count, range(count), *settings)):
            frames[label * per_class : (label + 1) * per_class] = of_class
        frames.flush()
        del frames


def first_takes(videos: Videos, per_class: int) -> Videos:
    """The first `per_class` videos of every class: what a smaller set would be."""
    count = len(videos.classes)
    frames = videos.frames.unflatten(0, (count, -1))[:, :per_class].flatten(0, 1)
    return Videos(frames, torch.arange(count).repeat_interleave(per_class), videos.classes)
