"""Who tells how crowded a picture is."""

from dataclasses import dataclass
from typing import Callable

from edgecount.records import UInt8Array
from edgecount.toolchain.quantize.model_file import open_detector


@dataclass(frozen=True)
class Judge:
    """Tells how crowded a picture, (H, W, 3) uint8 BGR, is; ``name`` goes into the manifest."""

    name: str
    crowding: Callable[[UInt8Array], float]

    @staticmethod
    def of_model(model: str) -> "Judge":
        """By the number of objects that a detector sees. Raises ConfigError and ModelError."""
        detector, recipe = open_detector(model)

        def seen(image: UInt8Array) -> float:
            (found,) = detector.detect([image])
            return float((found.scores >= recipe.score_threshold).sum())

        return Judge(recipe.name, seen)
