"""From the name a user gives to the ONNX file and its recipe."""

from pathlib import Path
from typing import Optional, Tuple

from edgecount.config import ModelSettings
from edgecount.infer import detector
from edgecount.infer import recipe as recipes
from edgecount.infer.detector import OnnxDetector
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.recipe import Recipe


def find(model: str, size: Optional[Tuple[int, int]] = None) -> Tuple[Path, Recipe]:
    """The ONNX file and recipe of a model that was checked to be a detector.

    Args:
        model: Name of a shipped model, or path of an ONNX file or model folder.
        size: Width and height to run at; the recipe's where None.

    Raises:
        ConfigError: No such model.
        ModelError: It cannot be loaded, or does not fit its recipe.
    """
    settings = ModelSettings(**recipes.model_keys(model), input_size=size)
    path, _ = recipes.find(settings.name, settings.path)
    _, recipe = detector.create(settings, open_network)
    return path, recipe


def open_detector(model: str) -> Tuple[OnnxDetector, Recipe]:
    """The detector of such a model. Raises as :func:`find`."""
    return detector.create(ModelSettings(**recipes.model_keys(model)), open_network)
