"""From a checkpoint to an ONNX file that every runtime takes."""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import torch
from torch import nn

from edgecount.errors import MissingExtraError, ModelError
from edgecount.infer.recipe import METADATA_KEY, InputRecipe, Recipe, to_yaml
from edgecount.toolchain.onnx_files import leave_note
from edgecount.toolchain.train.model import Detector, fit_shapes
from edgecount.toolchain.train.recipe import TrainRecipe
from edgecount.toolchain.train.trainer import load_checkpoint

OPSET = 13  # the first with per-channel Q/DQ; TensorRT 8.0 and later read it
TOLERANCE = 1e-4


def restore(checkpoint: Path) -> Tuple[TrainRecipe, Detector]:
    """The recipe and the averaged network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ModelError: The file is no checkpoint of edgecount.
    """
    state = load_checkpoint(checkpoint, torch.device("cpu"))
    try:
        recipe = TrainRecipe.model_validate(state["recipe"])
        model = Detector(recipe.model, len(recipe.classes))
        fit_shapes(model, state["ema"])
        model.load_state_dict(state["ema"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{checkpoint} is no checkpoint of edgecount: {error}") from error
    _must_be_finite(model, checkpoint)
    return recipe, model.eval()


def _must_be_finite(model: nn.Module, checkpoint: Path) -> None:
    for name, values in model.state_dict().items():
        if not torch.isfinite(values).all():
            raise ModelError(
                f"{checkpoint}: {name} has values that are not finite: the run diverged, or the "
                "file was kept in half precision; train on from an earlier checkpoint"
            )


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy without batch norms: each is folded into the convolution before it."""
    folded = copy.deepcopy(model).eval()
    for parent in folded.modules():
        children = dict(parent.named_children())
        names = list(children)
        for first, second in zip(names, names[1:]):
            conv, norm = children[first], children[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                setattr(parent, first, fused)
                setattr(parent, second, nn.Identity())
    return folded


def export_onnx(model: nn.Module, path: Path, recipe: TrainRecipe) -> float:
    """Write ``images`` (N, 3, H, W) → ``output`` (N, 4 + C, A), all of N, H, W free.

    The file appears only after ONNX Runtime gave the network's own numbers at two sizes.

    Args:
        model: A detector.
        path: The ONNX file to write.
        recipe: Names the input size that is traced and the classes; what is needed to run the
            file is written into it, so that it also counts where its recipe.yaml got lost.

    Returns:
        The largest difference to PyTorch.

    Raises:
        MissingExtraError: onnx or onnxslim is not installed.
        ModelError: The exported file computes something else.
    """
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "train") from error
    size = recipe.size
    folded = fold_norms(model)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.onnx"
        _trace(folded, draft, size)
        graph = onnx.load(str(draft))
    _name_nodes(graph)
    _fix_reshapes(graph, model(torch.zeros(1, 3, 64, 64)).shape[1])
    graph = onnxslim.slim(graph)
    onnx.checker.check_model(graph)
    worst = max(_difference(model, graph, n, s) for n, s in ((1, size), (2, size + 64)))
    if not worst < TOLERANCE:
        raise ModelError(f"the exported file differs from PyTorch by {worst:.2g} > {TOLERANCE}")
    leave_note(graph, METADATA_KEY, to_yaml(_running_recipe(recipe, path)))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, str(path))
    return worst


def _running_recipe(recipe: TrainRecipe, path: Path) -> Recipe:
    """The recipe that runs the file, with thresholds at their defaults."""
    return Recipe(
        name=recipe.name,
        file=path.name,
        head="ltrb",
        classes=recipe.classes,
        input=InputRecipe(width=recipe.size, height=recipe.size),
    )


def _trace(model: nn.Module, path: Path, size: int) -> None:
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch", 2: "cells"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of its own deprecation
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, size, size),),
            str(path),
            input_names=["images"],
            output_names=["output"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _name_nodes(graph: Any) -> None:
    """``/neck/out4/Concat`` becomes ``neck.out4.Concat``, as the parameters are called."""
    for node in graph.graph.node:
        node.name = node.name.strip("/").replace("/", ".")


def _fix_reshapes(graph: Any, channels: int) -> None:
    """Flatten (N, channels, H, W) with a constant shape; the tracer computes it each time."""
    from onnx import numpy_helper

    shape = numpy_helper.from_array(np.array([0, channels, -1], np.int64), "head.flat_shape")
    graph.graph.initializer.append(shape)
    for node in graph.graph.node:
        if node.op_type == "Reshape":
            node.input[1] = shape.name


def _difference(model: nn.Module, graph: Any, batch: int, size: int) -> float:
    """Largest difference on random pictures, relative to the largest value where that is over 1."""
    import onnxruntime

    images = torch.randint(0, 256, (batch, 3, size, size + 32), dtype=torch.uint8).float()
    with torch.no_grad():
        expected = model(images).numpy()
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {"images": images.numpy()})
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))
