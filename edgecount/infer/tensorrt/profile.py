"""The optimisation profile: which input shapes an engine takes."""

import re
from typing import List, Optional, Tuple

from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from edgecount.config import Strict
from edgecount.errors import ConfigError
from edgecount.infer.recipe import Recipe

Shape = Tuple[int, int, int, int]
_CHANNELS = 3


class Profile(Strict):
    """Least, usual and greatest shape of the input, each (batch, 3, height, width)."""

    min: Shape
    opt: Shape
    max: Shape

    @model_validator(mode="after")
    def _in_order(self) -> "Profile":
        for low, usual, high in zip(self.min, self.opt, self.max):
            if not 0 < low <= usual <= high:
                raise PydanticCustomError(
                    "profile",
                    "the shapes {low}, {opt}, {high} are not in order: each side of --min must "
                    "be at most that of --opt, and that at most --max's",
                    {"low": show(self.min), "opt": show(self.opt), "high": show(self.max)},
                )
        return self

    def holds(self, shape: Shape) -> bool:
        """Whether an input of this shape can be fed."""
        return all(a <= x <= b for a, x, b in zip(self.min, shape, self.max))

    @property
    def text(self) -> str:
        """For messages: one shape where all are the same."""
        if self.min == self.max:
            return show(self.opt)
        return f"{show(self.min)}..{show(self.opt)}..{show(self.max)}"


def parse(text: str) -> Shape:
    """Read ``1x3x416x416``.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"(\d+)[x×](\d+)[x×](\d+)[x×](\d+)", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no shape: write batch x 3 x height x width, as 1x3x416x416")
    batch, channels, height, width = (int(n) for n in found.groups())
    if channels != _CHANNELS or not batch or not height or not width:
        raise ConfigError(f"{text!r} is no picture's shape: write 1x3x416x416")
    return batch, channels, height, width


def show(shape: Shape) -> str:
    """``1x3x416x416``."""
    return "x".join(str(n) for n in shape)


def choose(
    declared: Tuple[object, ...],
    recipe: Recipe,
    asked: Tuple[Optional[Shape], Optional[Shape], Optional[Shape]],
) -> Profile:
    """The profile to build: what was asked for, within what the file leaves open.

    Args:
        declared: The file's input shape; a dynamic axis is not a positive int.
        recipe: Its size is the usual one, its ``multiple`` what sides must be divisible by.
        asked: Shapes of --min, --opt and --max; None where not given.

    Raises:
        ConfigError: A shape is asked for that the file or the recipe does not allow.
    """
    low, usual, high = asked
    fixed = [axis if isinstance(axis, int) and axis > 0 else None for axis in declared]
    given = (1, _CHANNELS, recipe.input.height, recipe.input.width)
    default: Shape = tuple(f or g for f, g in zip(fixed, given))  # type: ignore[assignment]
    opt = usual or low or high or default
    shapes = (low or opt, opt, high or opt)
    for shape in shapes:
        _check(shape, fixed, recipe.input.multiple)
    try:
        return Profile(min=shapes[0], opt=shapes[1], max=shapes[2])
    except ValidationError as error:
        raise ConfigError("; ".join(m["msg"] for m in error.errors())) from None


def _check(shape: Shape, fixed: List[Optional[int]], multiple: int) -> None:
    for name, size, only in zip(("batch", "channels", "height", "width"), shape, fixed):
        if only is not None and size != only:
            raise ConfigError(
                f"{show(shape)}: the file's {name} is fixed at {only}; export it with a dynamic "
                f"{name} to build other shapes"
            )
        if only is None and name in ("height", "width") and size % multiple:
            raise ConfigError(f"{show(shape)}: {name} {size} is no multiple of {multiple}")
