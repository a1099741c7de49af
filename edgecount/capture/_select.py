"""From a source string to the source."""

from types import ModuleType
from typing import Any, List, Mapping, Optional

from pydantic import ValidationError

from edgecount import discovery
from edgecount.capture._clock import Clock
from edgecount.capture.base import Source
from edgecount.config import mistakes
from edgecount.errors import ConfigError
from edgecount.redact import mask_url

_PACKAGE = "edgecount.capture"
_EXAMPLES = "a file or folder, usb:0, rtsp://host/path, gst:<pipeline>"


def kinds() -> List[str]:
    """The kinds of sources there are: the file names of this package."""
    return discovery.names(_PACKAGE)


def resolve(source: str, kind: Optional[str] = None) -> ModuleType:
    """The module that opens ``source``.

    Args:
        source: Source string as in the configuration.
        kind: The kind where the user forces one; else the one that claims the string.

    Raises:
        ConfigError: No such kind, or no kind claims the string; the message names the choices.
    """
    if kind is not None:
        return discovery.load(_PACKAGE, kind, "the kind of source")
    for name in kinds():
        module = discovery.load(_PACKAGE, name, "the kind of source")
        if module.claims(source):
            return module
    raise ConfigError(
        f"no kind of source can open {mask_url(source)!r}: give {_EXAMPLES}, "
        f"or force a kind with 'kind' (choices: {', '.join(kinds())})"
    )


def open_source(
    camera: str,
    source: str,
    options: Optional[Mapping[str, Any]] = None,
    *,
    max_fps: Optional[float] = None,
    clock: Optional[Clock] = None,
) -> Source:
    """Make the source of a camera; its ``open`` connects it.

    Args:
        camera: Name of the camera, for its frames and messages.
        source: Source string as in the configuration.
        options: The options of the kind of source; ``kind`` forces one.
        max_fps: Frames per second that ``read`` returns at most; None for all.
        clock: The clocks to live by; the machine's where not given.

    Raises:
        ConfigError: No kind of source fits, or its options are wrong.
    """
    given = dict(options or {})
    module = resolve(source, given.pop("kind", None))
    try:
        checked = module.Options.model_validate(given)
    except ValidationError as error:
        raise ConfigError(_describe(camera, error)) from None
    made: Source = module.create(camera, source, checked, clock=clock or Clock(), max_fps=max_fps)
    return made


def _describe(camera: str, error: ValidationError) -> str:
    return "\n".join(f"camera {camera!r}: {m}" for m in mistakes(error, "capture"))
