"""A training run as the command line starts it: read, prepare, train, export."""

import copy
import random
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import torch

from edgecount.errors import ConfigError
from edgecount.infer.onnxruntime import OrtNetwork
from edgecount.toolchain.evaluate.speed import time_in_turns
from edgecount.toolchain.train import yolox
from edgecount.toolchain.train.curves import draw_curves
from edgecount.toolchain.train.dataset import PictureSet, load_pictures
from edgecount.toolchain.train.export import export_onnx, fold_norms, restore
from edgecount.toolchain.train.labels import find_people, ignore_people
from edgecount.toolchain.train.model import Detector
from edgecount.toolchain.train.prune import prune, size_of
from edgecount.toolchain.train.recipe import InitSpec, LabelSpec, TrainRecipe
from edgecount.toolchain.train.taught import Master, load_master
from edgecount.toolchain.train.trainer import Progress, Trainer
from edgecount.toolchain.train.unfold import unfold
from edgecount.toolchain.train.validate import validate
from edgecount.toolchain.yolo_files import find_pairs

Report = Callable[[str], None]
TUNING_RATE = 1.0  # learning rate after pruning, relative to the recipe's: much is to be repaired
MEASURED = 8  # batches of 32 pictures on which a teacher's activations are measured


@dataclass(frozen=True)
class Job:
    """What to train from, and where to.

    Attributes:
        data: Folder in YOLO format.
        splits: Split folders of it to learn from; everything when empty.
        held_out: Split folders of it to validate on; none when empty.
        out: Folder for checkpoint, curves and ONNX file.
        device: ``cpu`` or ``cuda``.
        resume: Go on from the checkpoint in ``out``.
        weights: Checkpoint or exported ONNX file of the same network to start from.
    """

    data: Path
    splits: Sequence[str]
    held_out: Sequence[str]
    out: Path
    device: str
    resume: bool
    weights: Optional[Path] = None


def default_device() -> str:
    """``cuda`` where there is one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(
    recipe: TrainRecipe, job: Job, report: Report, on_epoch: Callable[[Progress], None]
) -> Optional[Path]:
    """Run a training.

    Returns:
        The ONNX file, or None when the run was interrupted (it can be resumed).

    Raises:
        ConfigError: The device is not there.
        DatasetError: The data cannot be read.
        ModelError: The checkpoint or the initial weights do not fit.
    """
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device: choose --device cpu")
    seed_everything(recipe.schedule.seed)
    device = torch.device(job.device)
    data = load_data(recipe, job, job.splits, device)
    held_out = load_data(recipe, job, job.held_out, device) if job.held_out else None
    report(f"{len(data)} pictures, {int((data.classes >= 0).sum())} boxes")
    trainer = prepare(recipe, data, held_out, report)
    if job.weights is not None:
        start_from(trainer, job.weights)
    checkpoint = job.out / "checkpoint.pt"
    if job.resume and checkpoint.is_file():
        trainer.resume(checkpoint)
        report(f"resumed after {trainer.step} of {trainer.total_steps} steps")
    complete = trainer.run(on_epoch, checkpoint)
    draw_curves(trainer.history, job.out / "curves.png", recipe.name)
    if not complete:
        return None
    path = job.out / f"{recipe.name}.onnx"
    export_onnx(trainer.ema.float().cpu(), path, recipe)
    return path


def start_from(trainer: Trainer, path: Path) -> None:
    """Take the weights of a finished network: a checkpoint's averaged ones, or an ONNX file's.

    Raises:
        ModelError: The file cannot be read, or holds another network.
    """
    if path.suffix == ".onnx":
        unfold(path, trainer.model, _sample(trainer.data))
        trainer.ema.load_state_dict(trainer.model.state_dict())
    else:
        trainer.start_from(path)


def _sample(data: PictureSet) -> List[torch.Tensor]:
    """Batches of pictures on which a network's activations are measured."""
    order = torch.randperm(len(data))[: MEASURED * 32].to(data.atlas.device)
    return [data.pictures(part) for part in order.split(32)]


def prepare(
    recipe: TrainRecipe, data: PictureSet, held_out: Optional[PictureSet], report: Report
) -> Trainer:
    """Build the network, give it its initial weights, clean the labels."""
    device = data.atlas.device
    model = Detector(recipe.model, len(recipe.classes)).to(device)
    master = None
    if recipe.init.master is not None:
        network = load_master(recipe.init.master, device, recipe.schedule.half)
        forgive = recipe.labels.forgive_above
        master = Master(network, recipe.init.likeness, forgive_above=forgive)
    if recipe.init.yolox is None:
        return Trainer(recipe, model, data, held_out, master=master)
    teacher = yolox.YoloxNano(recipe.init.yolox).to(device)
    yolox.start_from(teacher, model, _sample(data))
    people = find_people(data, teacher)
    if recipe.labels.ignore_people:
        count = ignore_people(data, people)
        report(f"{count} people without a labelled head: their head regions are ignored")
    features = None
    teacher.trunk = fold_norms(teacher.trunk)
    if recipe.init.distill:
        features = yolox.FeatureTeacher(teacher, recipe.model.neck_width).to(device)
    return Trainer(recipe, model, data, held_out, features, people, master)


@dataclass(frozen=True)
class PruneResult:
    """What pruning did.

    Attributes:
        before, pruned, after: The network as it came, without the channels, and fine-tuned:
            ``parameters``, ``gmac``, ``ms`` (ONNX Runtime, one picture, one CPU thread) and
            (with held-out pictures) the average precisions.
        path: The ONNX file of the last; None when interrupted.
    """

    before: Dict[str, float]
    pruned: Dict[str, float]
    after: Dict[str, float]
    path: Optional[Path]


def prune_and_tune(
    source: Path, ratio: float, epochs: int, job: Job, on_epoch: Callable[[Progress], None]
) -> PruneResult:
    """Prune the network of a checkpoint, train it on beside what it was, export it.

    Raises:
        DatasetError: The data cannot be read.
        ModelError: The checkpoint cannot be read.
    """
    recipe, model = restore(source)
    recipe = _tuning(recipe, epochs, ratio)
    seed_everything(recipe.schedule.seed)
    device = torch.device(job.device)
    data = load_data(recipe, job, job.splits, device)
    held_out = load_data(recipe, job, job.held_out, device) if job.held_out else None
    model = model.to(device)
    before = _measure(model, held_out, recipe.size)
    whole = copy.deepcopy(model).cpu()
    model = prune(model, ratio, recipe.size).to(device)
    pruned = _measure(model, held_out, recipe.size)
    master = Master(copy.deepcopy(whole).to(device).eval().requires_grad_(False))
    trainer = Trainer(recipe, model, data, held_out, master=master)
    checkpoint = job.out / "checkpoint.pt"
    if job.resume and checkpoint.is_file():
        trainer.resume(checkpoint)
    complete = trainer.run(on_epoch, checkpoint)
    draw_curves(trainer.history, job.out / "curves.png", recipe.name)
    after = _measure(trainer.ema, held_out, recipe.size)
    before["ms"], after["ms"] = _times((whole, trainer.ema), recipe)
    pruned["ms"] = after["ms"]  # the same layers
    path = job.out / f"{recipe.name}.onnx"
    if complete:
        export_onnx(trainer.ema.float().cpu(), path, recipe)
    return PruneResult(before, pruned, after, path if complete else None)


def _tuning(recipe: TrainRecipe, epochs: int, ratio: float) -> TrainRecipe:
    """The recipe for training on: short, and no other network needed."""
    schedule = {"epochs": epochs, "lr": recipe.schedule.lr * TUNING_RATE}
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-pruned{round(100 * ratio)}",
            "init": InitSpec(),
            "labels": LabelSpec(),
            "schedule": recipe.schedule.model_copy(update=schedule),
        }
    )


def _measure(model: Detector, held_out: Optional[PictureSet], side: int) -> Dict[str, float]:
    size = size_of(model, side)
    found: Dict[str, float] = {"parameters": size.parameters, "gmac": size.macs / 1e9}
    if held_out is not None:
        found.update(validate(model.eval(), held_out, side))
    return found


def _times(models: Sequence[Detector], recipe: TrainRecipe) -> List[float]:
    """Median milliseconds of each network as it ships: in ONNX Runtime, on one CPU thread."""
    networks = []
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(models):
            path = Path(folder) / f"{number}.onnx"
            export_onnx(copy.deepcopy(model).float().cpu(), path, recipe)
            networks.append(OrtNetwork(path, threads=1))
    picture = np.zeros((1, 3, recipe.size, recipe.size), np.float32)
    calls = [partial(network.run, picture) for network in networks]
    return [float(np.median(ms)) for ms in time_in_turns(calls)]


def load_data(
    recipe: TrainRecipe, job: Job, splits: Sequence[str], device: torch.device
) -> PictureSet:
    """Pictures and boxes of these splits of a job's data set.

    Raises:
        DatasetError: The data cannot be read.
    """
    pairs = find_pairs(job.data, splits or None)
    return load_pictures(pairs, recipe.cache, len(recipe.classes), device)


def seed_everything(seed: int) -> None:
    """Seed every generator that a run draws from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that draw from the global generator
    torch.manual_seed(seed)
