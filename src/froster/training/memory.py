"""How much memory a training run needs, counted before it starts.

The run's own code takes two steps and adds two epochs to the mean, on tensors that have a device, a
type and a shape but no memory (PyTorch's fake tensors). What they would take is counted as it comes
and goes, so every method, loss and precision is counted by what it does. What is left out: what
PyTorch's own kernels take for themselves, and what is lost between blocks of memory.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from froster.data.dataset import Batch
from froster.data.loader import AHEAD
from froster.evaluation.metrics import VIEWS_AT_ONCE
from froster.inference.features import PART_BYTES
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import VideoCLIP
from froster.methods.base import TrainingClips
from froster.text.bank import PromptBank
from froster.training.batches import rows_of_step
from froster.training.distributed import ranks
from froster.training.fine_tune import FineTuning, student_parts, task_of
from froster.training.kept import CLIPS, KeptTower
from froster.training.reporter import Reporter
from froster.training.trainer import Trainer
from froster.utils.tensors import StateDict

PROCESS = 500 << 20
"""Of Python, PyTorch and froster on a CPU, by measurement."""
WORKER = 150 << 20
"""Of a process that decodes, by measurement; what such processes share is counted in each."""
KEPT = 1.15
"""Of the end of a run, in which networks come and go: what the C library does not give back, by
measurement."""
GB = 1e9


class Counter(TorchDispatchMode):
    """Bytes of the fake tensors that there are, by the kind of device, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now: dict[str, int] = defaultdict(int)
        self.most: dict[str, int] = defaultdict(int)
        self._known: dict[int, Any] = {}

    def add(self, tensor: Tensor) -> None:
        memory, kind = tensor.untyped_storage(), tensor.device.type
        key, size = memory._cdata, memory.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            del self._known[key]
            self.now[kind] -= size

        self._known[key] = weakref.ref(memory, gone)
        self.now[kind] += size
        self.most[kind] = max(self.most[kind], self.now[kind])

    def begin(self) -> None:
        """The most is what there is now."""
        self.most = defaultdict(int, self.now)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return False  # what ends when numbers are small enough, goes on
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return result


@dataclass(frozen=True)
class Memory:
    """Bytes, at most, of one process of the run."""

    device: str
    """cpu, or where the network is."""
    weights: int
    """Of the model that is started from, the student and the teacher, with what is constant."""
    moments: int
    """The optimiser's."""
    step: int
    """Gradients and activations, when a step has most of them."""
    mean: int
    """The mean of the epochs."""
    checkpoint: int
    """Gradients that are still there, and the copy that a checkpoint is written from."""
    finish: int
    """When all weights that the run leaves are measured; on the device."""
    states: int
    """The same, in the memory of the machine, and what the run has recorded of its weights."""
    recorded: int
    """What the run before has recorded of its weights, which is held to the end."""
    buckets: int
    """Gradients on their way to the other processes."""
    frames: int
    """Clips that wait."""
    features: int
    """Computing what is kept of a frozen image tower, before an epoch."""
    workers: int
    """Processes that decode."""

    @property
    def on_device(self) -> int:
        if self.device == "cpu":
            return self.on_host
        step = max(self.step, self.features)
        return max(self.weights + self.moments + step + self.buckets, self.finish)

    @property
    def on_host(self) -> int:
        """Of the process, without those that decode."""
        process = PROCESS + self.recorded
        if self.device != "cpu":
            return process + max(self.mean + self.checkpoint + self.frames, self.states)
        held = self.weights + self.moments + self.mean + self.frames + self.buckets
        end = int(KEPT * (self.finish + self.states))
        return process + max(held + max(self.step, self.features, self.checkpoint), end)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        sums = {"on_device": self.on_device, "on_host": self.on_host}
        return {**dataclasses.asdict(self), **sums}

    def lines(self) -> list[str]:
        """For the user."""
        parts = {
            "weights of start, student and teacher": self.weights,
            "the optimiser's moments": self.moments,
            "a step's gradients and activations, at most": self.step,
            "mean of the epochs": self.mean,
            "writing a checkpoint": self.checkpoint,
            "frames that wait": self.frames,
            "measuring all that the run leaves, at the end": self.finish + self.states,
        }
        if_any = {
            "computing what is kept of the image tower": self.features,
            "what the run before has recorded": self.recorded,
            "gradients on their way to other processes": self.buckets,
            "processes that decode": self.workers,
        }
        parts |= {name: size for name, size in if_any.items() if size}
        lines = [f"{size / GB:8.2f} GB  {name}" for name, size in parts.items()]
        if self.device != "cpu":
            lines.append(f"about {self.on_device / GB:.2f} GB on the {self.device}, counted")
        return [*lines, f"about {self.on_host / GB:.2f} GB in this process, counted"]


def without_memory(module: nn.Module, mode: FakeTensorMode, counter: Counter) -> None:
    """Puts tensors without memory in the place of a module's own, and counts them."""
    fakes: dict[int, Tensor] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                fake = fakes.get(id(tensor))
                if fake is None:
                    fake = tensor if hasattr(tensor, "fake_mode") else mode.from_tensor(tensor)
                    if isinstance(tensor, nn.Parameter) and not isinstance(fake, nn.Parameter):
                        fake = nn.Parameter(fake, tensor.requires_grad)
                    fakes[id(tensor)] = fake
                    counter.add(fake)
                tensors[name] = fake  # type: ignore[assignment]


def with_network(model: Recognizer, network: VideoCLIP, config: ModelConfig) -> Recognizer:
    """`Recognizer.with_network`, which would move the network to its device: where it is that."""
    other = model.on(model.device)
    other.model, other.config, other.files = network, config, None
    network.eval().requires_grad_(False)
    return other


def one_template(config: ModelConfig) -> ModelConfig:
    prompting = config.prompting
    first = dataclasses.replace(prompting, templates=prompting.templates[:1])
    return dataclasses.replace(config, prompting=first)


@dataclass(frozen=True)
class Sizes:
    """Of a run's sets of videos."""

    clips: int
    """For training."""
    tested: int = VIEWS_AT_ONCE
    """Of the largest set that is measured."""
    kept: bool = False
    """A frozen image tower is computed once (`kept`)."""


def memory_of(base: Recognizer, how: FineTuning, classes: list[str], sizes: Sizes) -> Memory:
    """What `fine_tune` and `finish` need. Raises UsageError as they do."""
    with warnings.catch_warnings():  # PyTorch's own code, when it copies such tensors
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        return _counted(base, how, classes, sizes)


def _counted(base: Recognizer, how: FineTuning, classes: list[str], sizes: Sizes) -> Memory:
    mode, counter, kind = FakeTensorMode(allow_non_fake_inputs=True), Counter(), base.device.type
    recipe = how.recipe
    count = min(-(-recipe.batch_size // ranks()), max(1, sizes.clips))
    recorded: StateDict = {name: mode.from_tensor(x) for name, x in how.importance.items()}
    how = dataclasses.replace(how, importance=recorded)
    with counter:
        shared = {id(x): x for x in [*base.model.parameters(), *base.model.buffers()]}
        network = copy.deepcopy(base.model, shared)  # type: ignore[arg-type]
        without_memory(network, mode, counter)
        base = with_network(base, network, base.config)
        started = counter.now[kind]
        method = how.method.for_encoder(base.clip.config).for_classes(classes)
        network, config = student_parts(base, method, how.preset)
        if recipe.draw != "all":  # those of a step are of one, and all are only tried one by one
            base.config, config = one_template(base.config), one_template(config)
        without_memory(network, mode, counter)
        student = with_network(base, network, config)
        frames, size = student.config.sampling.frames, student.image_size

        def frames_of(number: int) -> Tensor:
            with mode:
                return torch.empty(number, frames, 3, size, size, dtype=torch.uint8)

        def most_of(compute: Callable[[Tensor], object], number: int) -> int:
            """Beside what there is."""
            counter.begin()
            before = counter.now[kind]
            with torch.no_grad():
                compute(frames_of(number))
            return counter.most[kind] - before

        def batch_of(number: int) -> Batch:
            with mode:
                clips = torch.empty(number, frames, width) if sizes.kept else frames_of(number)
            labels = torch.arange(number) % len(classes)  # whose texts are looked up
            return Batch(clips, labels, labels, [])

        views, width, features = student.config.views, base.clip.config.vision.width, 0
        tested, videos = 0, min(sizes.tested, max(1, VIEWS_AT_ONCE // views))
        if sizes.kept:
            tower = KeptTower(base, Path(), 0, Reporter()).features
            computed = min(CLIPS, sizes.clips)
            kept = min(PART_BYTES, sizes.clips * frames * width * 4)
            features = most_of(tower, computed) + kept
            if recipe.workers:
                features += 2 * AHEAD * frames_of(computed).nbytes
            tested = most_of(tower, min(CLIPS, sizes.tested) * views)

        def all_clips(bank: PromptBank) -> TrainingClips:
            model = student.model
            embed = lambda: model.classes(model.prompts(bank, bank.rows).float())  # noqa: E731
            return TrainingClips(lambda: [batch_of(count)], embed, recipe.seed)

        task = task_of(base, student, how, classes, all_clips)
        without_memory(task, mode, counter)
        weights = counter.now[kind]
        trainer = Trainer(task, recipe, frames)
        rows = rows_of_step(recipe.draw, 0, task.bank)
        batch = batch_of(count)
        waiting = batch.frames.nbytes
        for _ in range(2):  # the second has moments, and gradients of the first
            counter.begin()
            trainer.step(batch, rows, random.Random(0), batch if recipe.meta else None)
        step_at_most = counter.most[kind]
        gradients = sum(p.grad.nbytes for p in trainer.weights if p.grad is not None)
        on_cpu = waiting if kind == "cpu" else 0
        moments = counter.now[kind] - weights - gradients - on_cpu
        saved = sum(_bytes(module) for module in task.checkpoint_modules().values())
        state, record = _bytes(student.model), 0
        if trainer.path is not None:
            saved += _bytes(trainer.path)
            record = sum(x.nbytes for x in trainer.path.record().values())
        buckets = 0 if ranks() == 1 else sum(p.nbytes for p in trainer.weights)
        del batch, task, trainer
        tested = max(tested, most_of(student.encode_clips, videos * views))
    averaged = recipe.epochs - recipe.first_averaged + 1 > 1
    networks = 2 + averaged
    cast = 0 if base.dtype == torch.float32 else state // 2
    # Start and student, then all networks, or the first of them and two copies of its weights.
    measured = max(networks * (state + cast), 3 * state + cast)
    return Memory(
        kind,
        weights,
        moments,
        step_at_most - weights - moments - on_cpu,
        state if averaged or recipe.first_averaged <= recipe.epochs else 0,
        max(saved, state + record) + (gradients if kind == "cpu" else 0),
        started + cast + state + measured + tested,
        3 * state + record,
        sum(x.nbytes for x in recorded.values()),
        buckets,
        (1 + 2 * AHEAD if recipe.workers and not sizes.kept else 1) * waiting,
        features,
        recipe.workers * WORKER,
    )


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())
