"""The training loop: everything on one device, one CUDA graph per input size.

A step draws a batch from the pictures in memory, changes it, runs the network, assigns boxes,
learns, and averages the weights. On a GPU these few hundred small kernels are launched as one
graph; on a CPU they run one after the other, the same code.
"""

import copy
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from edgecount.errors import ModelError
from edgecount.toolchain.train.augment import make_batch
from edgecount.toolchain.train.dataset import PictureSet
from edgecount.toolchain.train.labels import People, Round, relabel
from edgecount.toolchain.train.loss import detection_loss
from edgecount.toolchain.train.model import cells
from edgecount.toolchain.train.recipe import TrainRecipe
from edgecount.toolchain.train.taught import Master, inside_any, output_distance
from edgecount.toolchain.train.validate import validate
from edgecount.toolchain.train.yolox import FeatureTeacher

LOSSES = ("score", "box", "teacher", "master")
CLIP = 10.0
LAST_RATE = 0.02  # learning rate at the end, relative to its peak
WARM_UP_STEPS = 3  # eager steps before a CUDA graph is captured


@dataclass(frozen=True)
class Lesson:
    """What one step learns from; see :class:`~.augment.Batch`.

    Attributes:
        images: (B, 3, H, W) as the network takes them.
        boxes, classes, negatives: As in the batch.
        wanted: (B, 4 + C, A) float32, what the master gives; empty without one.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    negatives: Tensor
    wanted: Tensor

    def take(self, other: "Lesson") -> None:
        """Become a copy of another one of the same shapes, in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


@dataclass
class Progress:
    """One line of a run's history."""

    epoch: int
    step: int
    images: int
    losses: Dict[str, float]
    metrics: Dict[str, float]
    added: int = 0
    ignored: int = 0
    look_alikes: int = 0


class Trainer:
    """One run.

    Args:
        recipe: What to do.
        model: The network, on its device.
        data: Pictures to learn from, on the same device.
        held_out: Pictures to validate on; no validation when None.
        teacher: Keeps features near another network's, when given.
        people: Where a person detector sees people, for labelling anew.
        master: A finished network whose scores and boxes are learned, too, when given.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        model: nn.Module,
        data: PictureSet,
        held_out: Optional[PictureSet] = None,
        teacher: Optional[FeatureTeacher] = None,
        people: Optional[People] = None,
        master: Optional[Master] = None,
    ) -> None:
        self.recipe, self.model, self.data, self.held_out = recipe, model, data, held_out
        self.teacher, self._people, self.master = teacher, people, master
        self.device = data.atlas.device
        if self.device.type == "cuda":
            for network in (model, *([master.network] if master else [])):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.step = 0
        self.history: List[Progress] = []
        self._original_classes = data.classes.clone()
        self._calm = torch.zeros((), device=self.device)
        self._decay = torch.zeros((), device=self.device)
        self._teacher_weight = torch.zeros((), device=self.device)
        self._sums = torch.zeros(len(LOSSES), device=self.device)
        self._optimizer = self._make_optimizer()
        self._graphs: Dict[int, Any] = {}
        self._drawn: Dict[int, Lesson] = {}
        self._ahead: Any = torch.cuda.Stream() if self.device.type == "cuda" else None
        self._make_batch: Callable[..., Any] = make_batch
        self._loss: Callable[..., Any] = detection_loss
        self._network: Callable[[Tensor], Any] = self._forward
        if recipe.schedule.compile and self.device.type == "cuda":
            self._make_batch = torch.compile(make_batch, dynamic=False)
            self._network = torch.compile(self._forward, dynamic=False)
            self._loss = torch.compile(detection_loss, dynamic=False)
        self._pairs = [
            (mine, averaged)
            for mine, averaged in zip(model.state_dict().values(), self.ema.state_dict().values())
            if mine.dtype.is_floating_point
        ]

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW; no decay on norms and biases, and each parameter's own share of the rate."""
        schedule = self.recipe.schedule
        named = [(self._rate_share(n), p) for n, p in self.model.named_parameters()]
        if self.teacher is not None:
            named += [(1.0, p) for p in self.teacher.adapters.parameters()]
        groups: List[Dict[str, Any]] = []
        for scale in sorted({share for share, _ in named}, reverse=True):
            for decay in (True, False):
                chosen = [p for s, p in named if s == scale and (p.ndim > 1) == decay]
                if chosen:
                    groups.append(
                        {
                            "params": chosen,
                            "lr": self._rate_slot(),
                            "scale": scale,
                            "weight_decay": schedule.weight_decay if decay else 0.0,
                        }
                    )
        cuda = self.device.type == "cuda"
        return torch.optim.AdamW(groups, capturable=cuda, foreach=True)

    def _rate_share(self, name: str) -> float:
        """Rate of a parameter, relative to the recipe's: lower where it came from elsewhere."""
        return 1.0 if name.startswith("head.") else self.recipe.init.lr_scale

    def _rate_slot(self) -> Union[float, Tensor]:
        """A learning rate: on a GPU a tensor, so that a captured graph reads its present value."""
        return torch.zeros((), device=self.device) if self.device.type == "cuda" else 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which as many pictures were drawn as the set holds."""
        sizes = self.recipe.schedule.sizes
        drawn = sum(self._batch(s) for s in sizes) / len(sizes)
        return max(1, round(len(self.data) / drawn))

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.schedule.epochs * self.steps_per_epoch

    def _batch(self, size: int) -> int:
        schedule = self.recipe.schedule
        return max(1, round(schedule.batch * (schedule.sizes[0] / size) ** 2))

    def run(
        self,
        on_epoch: Callable[[Progress], None],
        checkpoint: Optional[Path] = None,
        every: int = 10,
        until: Optional[int] = None,
    ) -> bool:
        """Train to the end, or until interrupted.

        Args:
            on_epoch: Called after each epoch.
            checkpoint: File to save to after every ``every`` epochs, at the end and on ctrl-C.
            every: Epochs between checkpoints and validations.
            until: Stop after this many epochs of the whole run (for tests and pieces of a run).

        Returns:
            Whether the run is complete; after ctrl-C it is not, and can be resumed.
        """
        epochs = self.recipe.schedule.epochs
        last = min(epochs, until or epochs)
        if self.master and self.step == 0 and self.recipe.labels.relabel_at:
            self._relabel()
        try:
            while self.step < last * self.steps_per_epoch:
                self._run_epoch()
                progress = self._end_epoch(every, epochs)
                if checkpoint and (progress.epoch % every == 0 or progress.epoch == last):
                    self.save(checkpoint)
                on_epoch(progress)
        except KeyboardInterrupt:
            if checkpoint:
                self.save(checkpoint)
            return False
        return self.step >= self.total_steps

    def _run_epoch(self) -> None:
        self.model.train()
        first = self.step % self.steps_per_epoch
        for _ in range(first, self.steps_per_epoch):
            self._set_schedule()
            size = self.recipe.schedule.sizes[self.step % len(self.recipe.schedule.sizes)]
            if self.device.type == "cuda":
                self._graphed_step(size)
            else:
                self._learn(self._draw(size), size)
            self.step += 1

    def _end_epoch(self, every: int, epochs: int) -> Progress:
        epoch = self.step // self.steps_per_epoch
        losses = (self._sums / self.steps_per_epoch).tolist()
        self._sums.zero_()
        progress = Progress(epoch, self.step, len(self.data), dict(zip(LOSSES, losses)), {})
        marks = [max(1, round(part * epochs)) for part in self.recipe.labels.relabel_at]
        if epoch in marks and not self.master:  # a master said at the start what it had to say
            found = self._relabel()
            progress.added, progress.ignored = found.added, found.ignored
            progress.look_alikes = len(found.look_alikes[0])
        if self.held_out is not None and (epoch % every == 0 or epoch == epochs):
            progress.metrics = validate(
                self.ema, self.held_out, self.recipe.size, half=self.recipe.schedule.half
            )
        self.history.append(progress)
        return progress

    def _relabel(self) -> Round:
        labels = self.recipe.labels
        judge = self.master.network if self.master else self.ema
        found = relabel(judge, self.data, self._original_classes, labels, self._people)
        pictures, boxes = (torch.from_numpy(a).to(self.device) for a in found.look_alikes)
        self.data.set_spots(pictures, boxes, labels.look_alikes)
        return found

    def _set_schedule(self) -> None:
        """Put learning rate, decay and strength of this step where the graph reads them."""
        schedule, done = self.recipe.schedule, self.step / self.total_steps
        warm = min(1.0, done / max(1e-6, schedule.warmup))
        factor = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self._optimizer.param_groups:
            rate = schedule.lr * warm * factor * group["scale"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._decay.fill_(min(schedule.ema, (1 + self.step) / (10 + self.step)))
        calm = 1 - self.recipe.augment.calm
        self._calm.fill_(1.0 if done >= calm else 0.0)
        self._teacher_weight.fill_(self._teacher_share(done))

    def _teacher_share(self, done: float) -> float:
        """Weight of staying near the teacher when this part of the run, 0..1, is done.

        Strong at first, while the new activation settles, and gone when fine details are learned.
        """
        return self.recipe.init.distill * (4.0 if done < self.recipe.schedule.warmup else 1 - done)

    def _draw(self, size: int) -> Lesson:
        """What a step learns from: pictures, what is labelled in them, what the master sees."""
        recipe, cuda = self.recipe, self.device.type == "cuda"
        batch, most = self._batch(size), recipe.schedule.max_boxes
        drawn = self._make_batch(self.data, recipe.augment, batch, size, most, self._calm)
        images = drawn.images
        if cuda:
            images = images.contiguous(memory_format=torch.channels_last)
        if not (cuda and recipe.schedule.half):
            images = images.float()  # batches are made in half precision on a GPU
        with self._autocast():
            wanted = self._wanted(images)
        return Lesson(images, drawn.boxes, drawn.classes, drawn.negatives, wanted)

    def _autocast(self) -> torch.autocast:
        half = self.device.type == "cuda" and self.recipe.schedule.half
        return torch.autocast(self.device.type, torch.bfloat16, half, cache_enabled=False)

    def _learn(self, drawn: Lesson, size: int) -> None:
        """One step; also what a CUDA graph captures, so nothing here waits for the device."""
        recipe, wanted = self.recipe, drawn.wanted
        centres, strides = cells(size, size, self.device)
        with self._autocast():
            features, output = self._network(drawn.images)
            apart = self._apart(drawn.images, features)
        output, certain = output.float(), inside_any(drawn.negatives, centres)
        weight = recipe.schedule.box_weight
        forgiven = self.master.forgives(wanted, certain) if self.master else None
        loss, parts = self._loss(
            output, drawn.boxes, drawn.classes, centres, strides, weight, forgiven
        )
        unlike = torch.zeros_like(self._calm)
        if self.master:
            unlike = output_distance(output, wanted, (size, size), weight, 1 - certain.float())
            loss = self.master.labels * loss + self.master.likeness * unlike
        loss = loss + self._teacher_weight * apart
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP, foreach=True)
        self._optimizer.step()
        self._average()
        self._sums += torch.stack((parts["score"], parts["box"], apart.detach(), unlike.detach()))

    def _forward(self, images: Tensor) -> Tuple[Tuple[Tensor, ...], Tensor]:
        if self.teacher is None:
            return (), self.model(images)
        features = self.model.features(images)
        return features, self.model.head(features)

    def _apart(self, images: Tensor, features: Sequence[Tensor]) -> Tensor:
        """How far the network's features are from its teacher's, ()."""
        if self.teacher is None:
            return torch.zeros_like(self._calm)
        return self.teacher(images, features)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _wanted(self, images: Tensor) -> Tensor:
        """What the master gives, (B, 4 + C, A); nothing without one."""
        if self.master is None:
            return images.new_zeros(0)
        return self.master.network(images).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _average(self) -> None:
        mine, averaged = (list(side) for side in zip(*self._pairs))
        steps = torch._foreach_sub(mine, averaged)  # noqa: SLF001 - one launch for all weights
        torch._foreach_mul_(steps, 1 - self._decay)
        torch._foreach_add_(averaged, steps)

    def _graphed_step(self, size: int) -> None:
        if size not in self._graphs:
            self._graphs[size] = self._capture(size)
        self._graphs[size].replay()

    def _learn_and_draw(self, drawn: Lesson, size: int) -> None:
        """Learn from a batch while a second stream makes the next one, then put that in its place.

        Both are long rows of kernels that are too small to fill a GPU alone.
        """
        here = torch.cuda.current_stream()
        self._ahead.wait_stream(here)
        with torch.cuda.stream(self._ahead):
            following = self._draw(size)
        self._learn(drawn, size)
        here.wait_stream(self._ahead)
        drawn.take(following)

    def _capture(self, size: int) -> Any:
        drawn = self._draw(size)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                self._learn_and_draw(drawn, size)
        torch.cuda.current_stream().wait_stream(side)
        self._optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()  # a graph has its own memory; give back what the warm-up took
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool):
            self._learn_and_draw(drawn, size)
        self._drawn[size] = drawn  # the graph reads and writes it
        return graph

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file at ``path`` is whole at any time."""
        state = {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "teacher": self.teacher.adapters.state_dict() if self.teacher else None,
            "history": [asdict(p) for p in self.history],
            "boxes": self.data.boxes,
            "classes": self.data.classes,
            "original_classes": self._original_classes,
            "spots": [self.data.spot_pictures, self.data.spots, self.data.spot_chance],
            "random": torch.get_rng_state(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        torch.save(state, draft)
        draft.replace(path)

    def start_from(self, path: Path) -> None:
        """Take the averaged weights of another run, and nothing else of it.

        Raises:
            ModelError: The file cannot be read, or holds another network.
        """
        weights = load_checkpoint(path, self.device)["ema"]
        try:
            self.model.load_state_dict(weights)
            self.ema.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(f"{path} holds another network: {error}") from error

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe and data.

        Raises:
            ModelError: The file cannot be read, or belongs to another recipe or data set.
        """
        state = load_checkpoint(path, self.device)
        if state["classes"].shape != self.data.classes.shape:
            raise ModelError(f"{path} was made with another data set: train into a new folder")
        try:
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path} was made with another recipe: {error}") from error
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate_slot()
        if self.teacher and state["teacher"]:
            self.teacher.adapters.load_state_dict(state["teacher"])
        self.data.boxes.copy_(state["boxes"])
        self.data.classes.copy_(state["classes"])
        self._original_classes = state["original_classes"].to(self.device)
        mine = (self.data.spot_pictures, self.data.spots, self.data.spot_chance)
        for spot, saved in zip(mine, state["spots"]):
            spot.copy_(saved)
        self.history = [Progress(**p) for p in state["history"]]
        self.step = state["step"]
        torch.set_rng_state(state["random"].cpu())


def load_checkpoint(path: Path, device: torch.device) -> Dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ModelError: The file cannot be read.
    """
    try:
        state: Dict[str, Any] = torch.load(str(path), map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error}") from error
    return state
