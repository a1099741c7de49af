"""Options that several commands share."""

from pathlib import Path
from typing import Any, Callable

import click

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


def json_option() -> Decorator:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")
