"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import click

if TYPE_CHECKING:
    from edgecount.config import TileSettings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def config_option(required: bool = False) -> Decorator:
    """``-c/--config FILE``."""
    return click.option(
        "-c",
        "--config",
        required=required,
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file (YAML).",
    )


def source_option(required: bool = False) -> Decorator:
    """``--source``."""
    return click.option(
        "--source",
        required=required,
        metavar="PATH|rtsp://…|usb:N",
        help="Where frames come from; with -c it replaces the only camera's source.",
    )


def model_option() -> Decorator:
    """``--model``: an ONNX file, a model folder or the name of a shipped model."""
    return click.option(
        "--model", metavar="ONNX|NAME", help="ONNX file, model folder, or name of a shipped model."
    )


def tiles_options() -> Decorator:
    """``--tiles 2x2``, ``--overlap`` and ``--whole``; see :func:`tiles_of`."""
    shape = click.option(
        "--tiles", metavar="COLUMNSxROWS", help="Cut each frame into overlapping tiles, e.g. 2x2."
    )
    overlap = click.option(
        "--overlap",
        type=click.FloatRange(0.0, 0.5, min_open=True),
        help="Part of a tile's side that it shares with its neighbour; 0.2 where not given.",
    )
    whole = click.option("--whole", is_flag=True, help="Look at the whole frame besides its tiles.")
    return lambda command: shape(overlap(whole(command)))


def tiles_of(
    tiles: Optional[str], overlap: Optional[float], whole: bool
) -> "Optional[TileSettings]":
    """What the :func:`tiles_options` say; None where frames are not cut."""
    from pydantic import ValidationError

    from edgecount.config import TileSettings, mistakes

    if tiles is None:
        if overlap is not None or whole:
            raise click.UsageError("--overlap and --whole are of tiles: give --tiles, too")
        return None
    try:
        cut = TileSettings.model_validate(tiles)
    except ValidationError as error:
        raise click.UsageError("; ".join(mistakes(error, "--tiles"))) from None
    return cut.model_copy(update={"overlap": overlap or cut.overlap, "whole": whole})


def json_option() -> Decorator:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")
