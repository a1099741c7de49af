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


def model_option(
    required: bool = False, told: str = "ONNX file, model folder, or name of a shipped model."
) -> Decorator:
    """``--model``: an ONNX file, a model folder or the name of a shipped model."""
    return click.option("--model", required=required, metavar="ONNX|NAME", help=told)


def fp32_model_option() -> Decorator:
    """``--model`` where the file must not be quantised yet."""
    return model_option(required=True, told="FP32 ONNX file, model folder or shipped model.")


def folder_option(name: str, told: str, required: bool = False) -> Decorator:
    """A folder that must exist."""
    return click.option(
        name,
        required=required,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help=told,
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


def file_option(name: str, told: str, required: bool = False) -> Decorator:
    """A file that must exist."""
    return click.option(
        name,
        required=required,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=told,
    )


def data_option(told: str = "Folder in YOLO format.", required: bool = True) -> Decorator:
    """``--data``: labelled pictures."""
    return folder_option("--data", told, required)


def split_option(told: str = "Split folder to use (repeatable).") -> Decorator:
    """``--split``, repeatable: the sub-folders of ``--data``."""
    return click.option("--split", "splits", multiple=True, help=told)


def images_option(required: bool = False) -> Decorator:
    """``--images``: what a model is calibrated with."""
    return folder_option(
        "--images",
        "Calibration set (edgecount calibrate-set), or any folder of pictures.",
        required,
    )


def truth_option() -> Decorator:
    """``--truth``: the true crossings of ``--video``."""
    return file_option("--truth", "True crossings of that clip (edgecount eval make-truth).")


def imgsz_option() -> Decorator:
    """``--imgsz``, pixels."""
    return click.option("--imgsz", type=click.IntRange(32), help="Side of the network's input.")


def threads_option() -> Decorator:
    """``--threads``: of one call of the network."""
    return click.option("--threads", default=1, show_default=True, type=click.IntRange(1))


def out_folder_option() -> Decorator:
    """``--out``: a folder, made where it does not exist."""
    return click.option(
        "--out",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Output folder.",
    )


def checkpoint_option() -> Decorator:
    """``--checkpoint``: what a training run leaves."""
    return file_option("--checkpoint", "checkpoint.pt of a training.", required=True)


def train_device_option() -> Decorator:
    """``--device``: what PyTorch trains on."""
    return click.option(
        "--device", type=click.Choice(["cuda", "cpu"]), help="Default: cuda where there is one."
    )


def resume_option() -> Decorator:
    """``--resume`` of a training run."""
    return click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")


def json_option() -> Decorator:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")
