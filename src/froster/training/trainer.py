"""The training loop: steps, epochs, checkpoints, exact resume, early stopping, the mean of the
epochs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from froster.data.dataset import Batch
from froster.errors import CheckpointError, FrosterError
from froster.methods.recipe import Recipe
from froster.training.batches import draw_template, epoch_batches, rows_of_step, steps_of_epoch
from froster.training.checkpoint import SHARDS, Checkpoints, EpochPart, RunState
from froster.training.distributed import from_all_ranks, from_rank_0, ranks, this_rank
from froster.training.importance import PathIntegral
from froster.training.meta import add_query_gradient, with_query
from froster.training.optim import optimizer_of, rate
from froster.training.reporter import MetricsLog
from froster.training.task import Task
from froster.training.weights import RunningMean
from froster.utils.interrupt import check
from froster.utils.tensors import StateDict, cpu_state

if TYPE_CHECKING:
    from froster.training.sharding import Shards

MAY_CHANGE = ("workers", "keep", "compile", "checkpointing", "checkpoint_minutes")
"""Fields of the recipe that change speed and memory alone: a resumed run may have others."""

OnStep = Callable[[int, dict[str, float]], None]
"""`on_step(step, metrics)`, on rank 0; steps count from 1."""
Validate = Callable[[int], dict[str, float]]
"""`validate(epoch)`, on all ranks: what is measured after an epoch, of which rank 0 has the result.
Its "base" may stop the run."""


@dataclass
class Trained:
    """The weights a run ends with, on rank 0, and what it could not read."""

    last: StateDict
    average: StateDict
    averaged: int
    unreadable: dict[str, int]
    """Message -> how often."""
    epochs: int
    """Epochs done: fewer than the recipe's where the run was stopped early."""
    history: list[dict[str, float]]
    """What was measured after each epoch."""
    importance: StateDict = field(default_factory=dict)
    """What every weight has done for the loss (`PathIntegral.record`), where it was gathered."""


@dataclass
class StartedStep:
    """A step that has been started. A GPU may still be at it: whoever reads its metrics waits."""

    number: int
    """In its epoch."""
    lr: float
    template: int
    values: dict[str, Tensor]
    save: bool = False
    """A checkpoint is due behind it: the next one waits for that."""

    def metrics(self) -> dict[str, float]:
        """The means over all clips of the losses and the accuracy (per cent), and the norm of the
        gradient."""
        numbers = torch.stack(list(self.values.values())).tolist()
        return dict(zip(self.values, numbers, strict=True))


class Trainer:
    """Trains a task by a recipe: its steps (`step`), or a whole run (`fit`)."""

    def __init__(self, task: Task, recipe: Recipe, num_frames: int):
        self.task, self.recipe, self.num_frames = task, recipe, num_frames
        self.world, self.rank = ranks(), this_rank()
        self.shards = shared_out(task) if recipe.shard_weights else None
        self.optimizer = optimizer_of(task, recipe)
        self.weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.device = task.student.clip.logit_scale.device
        self.path: PathIntegral | None = None
        if recipe.remember:
            self.path = PathIntegral(task.student, task.hold, recipe.hold == "si-total")
        self.network: torch.nn.Module = task
        self.saved = time.monotonic()
        self.save_is_due = False
        """By rank 0's clock, as all ranks learn at each step."""

    def fit(
        self,
        dataset: Dataset,
        out: Path,
        run: dict[str, Any],
        *,
        on_step: OnStep | None = None,
        validate: Validate | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> Trained:
        """Train on `dataset`, continuing what `out/checkpoints` holds, from the step on.

        `run` is what, beside the recipe, another run would differ in: its checkpoint is refused.
        What `validate` measures goes into the checkpoint, so that a resumed run stops where the
        other would. `warn` is told of damaged checkpoints that were passed over. Raises
        FrosterError where a loss is not finite or no video can be read.
        """
        recipe, clips = self.recipe, len(dataset)  # type: ignore[arg-type]
        settings = {k: v for k, v in asdict(recipe).items() if k not in MAY_CHANGE}
        settings |= {**run, "clips": clips}
        mean = RunningMean(lambda n: recipe.weight_of_epoch(recipe.first_averaged + n - 1))
        modules = self.task.checkpoint_modules()
        if self.path is not None:
            modules["importance"] = self.path
        state = RunState(
            modules, self.optimizer, settings, mean, rank=self.rank, shards=self.shards
        )
        checkpoints = Checkpoints(out / "checkpoints", recipe.keep)
        first = done = checkpoints.resume(state)
        check_same_point(first, state.part.step, checkpoints.folder)
        begun = first * steps_of_epoch(recipe, clips) + state.part.step if state.part.step else 0
        log = MetricsLog(out / "metrics.jsonl", first, active=self.rank == 0, step=begun)
        if self.rank == 0:
            for damage in log.damage(checkpoints.passed_over):
                warn(damage)
        if self.world > 1 and self.shards is None:
            self.network = DistributedDataParallel(self.task)
        hear = on_step if self.rank == 0 else None
        for epoch in range(first, recipe.epochs):
            if stops_early(state.history, recipe.patience):
                break
            means = self.epoch(epoch, dataset, state, log, hear, checkpoints)
            if epoch + 1 >= recipe.first_averaged:
                state.average.add(self.cpu_state())
            line: dict[str, Any] = {"mean": means, "averaged": state.average.count}
            if validate is not None:
                measured = from_rank_0(validate(epoch + 1))
                state.history.append(measured)
                line["watched"] = measured
            log.write(epoch=epoch + 1, **line)
            self.save(checkpoints, epoch + 1, state)
            done = epoch + 1
        last, average = self.cpu_state(), state.average
        mean_state = average.weights(like=last) if average.count else last
        record = {} if self.path is None else self.path.record()
        return Trained(
            last, mean_state, average.count, state.unreadable, done, state.history, record
        )

    def cpu_state(self) -> StateDict:
        """The student's weights in rank 0's memory, nothing on the others: eight ranks of a machine
        would hold as many copies."""
        if self.shards is not None:
            return self.shards.state(self.task.student)
        return cpu_state(self.task.student) if self.rank == 0 else {}

    def save(self, checkpoints: Checkpoints, epochs: int, state: RunState) -> None:
        """A checkpoint after so many epochs and `state.part`. All ranks must call it."""
        errors, weights = state.part.errors, None
        if self.shards is not None:
            self.shards.write(checkpoints.folder / SHARDS, self.optimizer)
            ends_epoch = not state.part.step  # others want the network of an epoch
            weights = {"student": self.shards.state(self.task.student)} if ends_epoch else {}
        if state.part.step:
            state.part.errors = from_all_ranks(errors)
        if self.rank == 0:
            checkpoints.save(epochs, state, weights)
        state.part.errors = errors
        self.saved = time.monotonic()
        if self.world > 1:
            dist.barrier()

    def epoch(
        self,
        epoch: int,
        dataset: Dataset,
        state: RunState,
        log: MetricsLog,
        on_step: OnStep | None,
        checkpoints: Checkpoints,
    ) -> dict[str, float]:
        """The steps of one epoch that are still to do; returns the means of the metrics of all."""
        self.task.train()
        part = state.part
        steps = steps_of_epoch(self.recipe, len(dataset))  # type: ignore[arg-type]
        batches = epoch_batches(dataset, self.recipe, epoch, state.unreadable, part.step)
        for started in prefetch_metrics(self.steps(epoch, steps, batches, part)):
            metrics = started.metrics()
            if not all(map(math.isfinite, metrics.values())):
                raise FrosterError(
                    f"the loss is not finite in epoch {epoch + 1}, step {started.number + 1}: lower"
                    " --lr; the checkpoints of earlier epochs are kept"
                )
            step = epoch * steps + started.number + 1
            log.write(
                epoch=epoch + 1, step=step, lr=started.lr, template=started.template, **metrics
            )
            for name, value in metrics.items():
                part.sums[name] = part.sums.get(name, 0.0) + value
            part.counted += 1
            if on_step is not None:
                on_step(step, metrics)
            if started.save:
                part.step = started.number + 1
                self.save(checkpoints, epoch, state)
        state.part = EpochPart()
        for message in from_all_ranks(part.errors):
            state.unreadable[message] = state.unreadable.get(message, 0) + 1
        if not part.counted:
            raise FrosterError(
                f"no training video could be read; the first: {next(iter(state.unreadable), '?')}"
            )
        return {name: value / part.counted for name, value in part.sums.items()}

    def steps(
        self, epoch: int, count: int, batches: Iterator[Batch], part: EpochPart
    ) -> Iterator[StartedStep]:
        """The optimiser steps of one epoch behind those of `part`, as they are started; what cannot
        be read is added to its errors."""
        recipe, bank = self.recipe, self.task.bank
        pairs = with_query(batches, bool(recipe.meta))
        for number, (batch, query) in enumerate(pairs, part.step):
            lr = rate(recipe, epoch + number / count)
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group["scale"]
            check()
            part.errors += [message for _, message in batch.errors]
            template = draw_template(recipe.seed, epoch, number, bank.num_templates)
            rng = random.Random(f"step/{recipe.seed}/{epoch}/{number}/{self.rank}")
            torch.manual_seed(rng.getrandbits(63))  # dropout, the same after a resume
            values = self.step(batch, rows_of_step(recipe.draw, template, bank), rng, query)
            if values is not None:
                save = self.save_is_due and number + 1 < count
                yield StartedStep(number, lr, template, values, save)

    def step(
        self, batch: Batch, rows: list[int], rng: random.Random, query: Batch | None = None
    ) -> dict[str, Tensor] | None:
        """One optimiser step; returns its metrics, 0-D tensors, or None when no rank could read a
        clip. `query`: the batch of the meta step."""
        share = self.share(batch)
        if share is None:
            return None
        frames, labels, weight = share
        self.task.update_teacher()
        with nullcontext() if self.shards is None else self.shards.within_blocks():
            losses, report = self.network(frames, labels, rows, rng, weight=weight)
        loss = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.shards is not None:
            self.shards.average_rest()
        share = self.share(query) if query is not None else None
        if share is not None:
            frames, labels, weight = share

            def loss_of_query() -> Tensor:
                return sum(self.network(frames, labels, rows, rng, weight=weight)[0].values())

            recipe = self.recipe
            report["query"] = add_query_gradient(
                self.weights, loss_of_query, recipe.meta, recipe.meta_rate
            )
        if self.path is not None:
            self.path.before()
        limit = math.inf if self.recipe.clip_norm is None else self.recipe.clip_norm
        norm = self.clip(limit)
        self.optimizer.step()
        if self.path is not None:
            self.path.after()
        means = {"loss": loss.detach(), **report}
        if self.world > 1:
            reduced = torch.stack(list(means.values()))
            dist.all_reduce(reduced)
            means = dict(zip(means, reduced / self.world, strict=True))
        return {**means, "grad_norm": norm}

    def clip(self, limit: float) -> Tensor:
        """Scales the gradients so that their norm is at most `limit`; returns the norm before."""
        if self.shards is not None:
            return self.shards.clip(limit)
        return torch.nn.utils.clip_grad_norm_(self.weights, limit)

    def share(self, batch: Batch) -> tuple[Tensor, Tensor, float] | None:
        """This rank's frames and labels, and their weight; None when no rank could read a clip.

        Ranks may hold different numbers of readable clips. Each rank's mean is weighted by its
        share, so that the gradient is that of the mean over all clips; a rank with none computes on
        a blank clip of weight zero, as DDP needs it to."""
        mine = total = float(len(batch.labels))
        seconds = 60 * self.recipe.checkpoint_minutes
        self.save_is_due = 0 < seconds < time.monotonic() - self.saved
        if self.world > 1:
            counts = torch.tensor([mine, float(self.save_is_due and not self.rank)])
            counts = counts.to(self.device)
            dist.all_reduce(counts)
            total, due = counts.tolist()
            self.save_is_due = due > 0
        if not total:
            return None
        frames, labels = batch.frames, batch.labels
        if not mine:
            size = self.task.student.clip.config.vision.image_size
            frames = torch.zeros(1, self.num_frames, 3, size, size, dtype=torch.uint8)
            labels = torch.zeros(1, dtype=torch.long)
        frames, labels = (x.to(self.device, non_blocking=True) for x in (frames, labels))
        return frames, labels, mine * self.world / total


def shared_out(task: Task) -> Shards:
    """Raises UsageError where the weights cannot be shared out."""
    from froster.training.sharding import Shards, check_shardable  # imports much that few need

    check_shardable(task, task.recipe)
    return Shards(task)


def check_same_point(epoch: int, step: int, folder: Path) -> None:
    """Raises CheckpointError where the ranks would go on from different checkpoints."""
    if len(set(from_all_ranks([(epoch, step)]))) > 1:
        raise CheckpointError(
            f"the processes see different checkpoints in {folder}: --out must lie where all"
            " machines see the same files"
        )


def prefetch_metrics(steps: Iterator[StartedStep]) -> Iterator[StartedStep]:
    """Each step once the next one has been started: its metrics are read while a GPU has work. One
    that a checkpoint is due behind comes at once."""
    waiting = None
    for step in steps:
        if waiting is not None:
            yield waiting
        waiting = step
        if step.save:
            yield step
            waiting = None
    if waiting is not None:
        yield waiting


def stops_early(history: Sequence[dict[str, float]], patience: int | None) -> bool:
    """Is the best accuracy on the base validation videos `patience` epochs old? An epoch that
    equals it is as good."""
    if not patience or not history:
        return False
    accuracies = [values["base"] for values in history]
    return accuracies[::-1].index(max(accuracies)) >= patience
