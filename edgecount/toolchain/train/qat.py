"""Quantisation-aware training: a trained network learns to live with INT8.

It starts from the FP32 file and its calibration table, trains with the rounding of the Q/DQ
file in place, and ends as the same file with better numbers. Norms are folded already, so
nothing but weights, biases and clipping points changes. The FP32 network is the teacher: its
scores and boxes on every augmented picture are what is learned, beside the labels.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np
import torch

from edgecount.errors import ConfigError, DatasetError, MissingExtraError, ModelError
from edgecount.infer import recipe as recipes
from edgecount.infer.recipe import METADATA_KEY, Recipe
from edgecount.toolchain.onnx_files import leave_note
from edgecount.toolchain.quantize import model_file
from edgecount.toolchain.quantize.calibrate import calibrate, method_of
from edgecount.toolchain.quantize.calibration_set.images import CalibrationImages
from edgecount.toolchain.quantize.equalize import equalise
from edgecount.toolchain.quantize.precision import PrecisionRules
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.table import CalibrationTable
from edgecount.toolchain.train.curves import draw_curves
from edgecount.toolchain.train.dataset import PictureSet
from edgecount.toolchain.train.onnx_network import OnnxNetwork
from edgecount.toolchain.train.recipe import InitSpec, LabelSpec, TrainRecipe
from edgecount.toolchain.train.session import Job, Report, load_data, seed_everything
from edgecount.toolchain.train.taught import Master
from edgecount.toolchain.train.trainer import Progress, Trainer
from edgecount.toolchain.train.validate import validate

STEPS_APART = 1.01  # ONNX Runtime may round one value in many to the neighbouring step
_WARM_UP = 0.1
_CHECKED_SIDE = 128
_EVERY = 4  # epochs between checkpoints and validations


@dataclass(frozen=True)
class QatJob:
    """What is quantised, and how.

    Attributes:
        model: The FP32 ONNX file.
        table: Its calibration table.
        rules: Which layers are quantised at all.
        recipe: The model's recipe, for the new file to carry; it stays without where None.
    """

    model: Path
    table: CalibrationTable
    rules: PrecisionRules
    recipe: Optional[Recipe] = None


@dataclass(frozen=True)
class QatResult:
    """What training did.

    Attributes:
        path: The Q/DQ file.
        table: Its calibration table, with the learnt clipping points.
        fp32, before, after: Average precisions on the held-out pictures, in PyTorch, of the FP32
            network, of the calibrated one and of the trained one; empty without such pictures.
        steps_apart: Largest difference to ONNX Runtime, in quantised steps of any activation.
    """

    path: Path
    table: Path
    fp32: Dict[str, float]
    before: Dict[str, float]
    after: Dict[str, float]
    steps_apart: float


def prepare_job(model: str, table: Path, rules: PrecisionRules) -> QatJob:
    """The job for a shipped model's name or an ONNX file's path.

    Raises:
        ConfigError: There is no such model.
        DatasetError: The table cannot be read, or was made for pictures prepared otherwise.
    """
    given = Path(model)
    path, recipe = recipes.find(*((None, given) if given.exists() else (model, None)))
    calibrated = CalibrationTable.load(table)
    if recipe is not None and calibrated.input:
        calibrated.check_input(recipe.input.model_dump(mode="json"))
    return QatJob(path, calibrated, rules, recipe)


def prepare_from_images(model: str, images: Path, rules: PrecisionRules, out: Path) -> QatJob:
    """The job for a model that is calibrated first, its channels evened out.

    The evened-out FP32 file and its table are written to ``out/start``; the same images give the
    same files, so that an interrupted run can go on.

    Args:
        model: A shipped model's name, or an ONNX file's path; it needs a recipe.
        images: Calibration set, or any folder of pictures.
        rules: Which layers are quantised at all.
        out: The run's folder.

    Raises:
        ConfigError: There is no such model.
        ModelError: The model cannot be quantised.
        DatasetError: The pictures cannot be read.
    """
    import onnx

    path, recipe = model_file.find(model)
    pictures = CalibrationImages(images)
    start = out / "start" / path.name
    start.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(equalise(onnx.load(str(path)), pictures, recipe), str(start))
    method, options = method_of(recipe)
    table, _ = calibrate(
        start, pictures, recipe, method, options=options, images_sha256=pictures.sha256
    )
    table.save(start.with_suffix(".table.json"))
    return QatJob(start, table, rules, recipe)


class QatTrainer(Trainer):
    """A trainer in which clipping points have a learning rate of their own."""

    def _rate_share(self, name: str) -> float:
        return self.recipe.qat.scale_rate if name.startswith("octaves.") else 1.0


def train_quantised(
    recipe: TrainRecipe,
    what: QatJob,
    job: Job,
    report: Report,
    on_epoch: Callable[[Progress], None],
) -> Optional[QatResult]:
    """Run quantisation-aware training.

    Args:
        recipe: The recipe that the network was trained by; its ``qat`` section says how long.
        what: The FP32 file, its table and the precision rules.
        job: Data, output folder and device; ``weights`` is not used.
        report: Called with lines of text.
        on_epoch: Called after each epoch.

    Returns:
        None when the run was interrupted (it can be resumed).

    Raises:
        ConfigError: The device is not there.
        DatasetError: The data cannot be read, or the table is another model's.
        ModelError: The model cannot be trained here, or a checkpoint does not fit.
    """
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device: choose --device cpu")
    plain = _load_model(what)
    recipe = tuning_recipe(recipe)
    seed_everything(recipe.schedule.seed)
    trainer = _prepare(recipe, what, plain, job, report)
    held_out = trainer.held_out
    assert trainer.master is not None
    fp32 = _measure(trainer.master.network, held_out, recipe.size)
    before = _measure(trainer.ema, held_out, recipe.size)
    checkpoint = job.out / "checkpoint.pt"
    if job.resume and checkpoint.is_file():
        trainer.resume(checkpoint)
        report(f"resumed after {trainer.step} of {trainer.total_steps} steps")
    complete = trainer.run(on_epoch, checkpoint, every=_EVERY)
    draw_curves(trainer.history, job.out / "curves.png", f"{recipe.name}, INT8")
    if not complete:
        return None
    after = _measure(trainer.ema, held_out, recipe.size)
    network = trainer.ema.float().cpu()
    path = job.out / f"{what.model.stem}.qat.onnx"
    apart = export_quantised(network, plain, what, path)
    return QatResult(path, path.with_suffix(".table.json"), fp32, before, after, apart)


def tuning_recipe(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe for training on: short and gentle, in FP32, with no other network."""
    schedule = {
        "epochs": recipe.qat.epochs,
        "batch": recipe.qat.batch,
        "lr": recipe.qat.lr,
        "ema": recipe.qat.ema,
        "warmup": _WARM_UP,
        "half": False,  # bfloat16 has no more digits than INT8
        "compile": False,
    }
    return recipe.model_copy(
        update={
            "init": InitSpec(),
            "labels": LabelSpec(),
            "schedule": recipe.schedule.model_copy(update=schedule),
        }
    )


def export_quantised(network: OnnxNetwork, plain: Any, what: QatJob, path: Path) -> float:
    """Write what a network has learnt as a Q/DQ file, and its calibration table beside it.

    Args:
        network: On the CPU.
        plain: The FP32 model that it started from.
        what: The job.
        path: The ONNX file to write; it appears only if ONNX Runtime computes the same.

    Returns:
        The largest difference of an activation to ONNX Runtime, in quantised steps.

    Raises:
        ModelError: The file computes something else.
    """
    import onnx

    learnt = type(plain).FromString(plain.SerializeToString())
    weights = network.learnt_weights()
    for initializer in learnt.graph.initializer:
        if initializer.name in weights:
            array = onnx.numpy_helper.from_array(weights[initializer.name], initializer.name)
            initializer.CopyFrom(array)
    amax = {**what.table.amax, **network.learnt_amax()}
    digest = hashlib.sha256(learnt.SerializeToString()).hexdigest()
    table = replace(what.table, amax=amax, model_sha256=digest, method=f"{what.table.method}+qat")
    model = write_qdq(learnt, table, what.rules)
    if what.recipe is not None:
        carried = what.recipe.model_copy(update={"file": path.name})
        leave_note(model, METADATA_KEY, recipes.to_yaml(carried))
    apart = steps_apart(network, model)
    if not apart <= STEPS_APART:
        raise ModelError(f"the exported file differs from PyTorch by {apart:.1f} quantised steps")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    onnx.save(model, str(draft))
    draft.replace(path)
    table.save(path.with_suffix(".table.json"))
    return apart


def steps_apart(network: OnnxNetwork, model: Any) -> float:
    """Largest difference between PyTorch and ONNX Runtime, activation by activation.

    ONNX Runtime runs the graph as it is written: its optimisations fuse Q/DQ pairs into integer
    kernels, some of which saturate on processors without VNNI.

    Args:
        network: On the CPU.
        model: The Q/DQ model that it belongs to.

    Returns:
        In quantised steps, each operation fed with the same values.
    """
    import onnx
    import onnxruntime

    watched = type(model).FromString(model.SerializeToString())
    names = network.quantised
    for name in names:
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        watched.graph.output.append(info)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    generator = torch.Generator().manual_seed(1)
    images = 255 * torch.rand(1, 3, _CHECKED_SIDE, _CHECKED_SIDE, generator=generator)
    found = session.run(names, {session.get_inputs()[0].name: images.numpy()})
    seen = {name: torch.from_numpy(np.asarray(a, np.float32)) for name, a in zip(names, found)}
    return network.steps_apart(images, seen)


def _load_model(what: QatJob) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "train") from error
    try:
        content = what.model.read_bytes()
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError shares no base with OSError
        raise ModelError(f"{what.model} cannot be read as an ONNX file: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if what.table.model_sha256 not in ("", digest):
        raise DatasetError(
            f"the calibration table was made for another file than {what.model}: "
            "run  edgecount calibrate  on it"
        )
    return model


def _prepare(recipe: TrainRecipe, what: QatJob, plain: Any, job: Job, report: Report) -> QatTrainer:
    device = torch.device(job.device)
    quantised = write_qdq(plain, what.table, what.rules)
    network = OnnxNetwork(quantised, plain, recipe.qat.learn_scales).to(device)
    fp32 = OnnxNetwork(plain, plain, learn_scales=False).to(device)
    data = load_data(recipe, job, job.splits, device)
    held_out = load_data(recipe, job, job.held_out, device) if job.held_out else None
    report(f"{len(data)} pictures, {len(network.quantised)} quantised activations")
    master = Master(fp32.eval().requires_grad_(False), recipe.qat.teacher, recipe.qat.labels)
    return QatTrainer(recipe, network, data, held_out, master=master)


def _measure(
    network: torch.nn.Module, held_out: Optional[PictureSet], size: int
) -> Dict[str, float]:
    if held_out is None:
        return {}
    return validate(network.eval(), held_out, size, half=False)
