"""What sources that can play files share."""

from typing import Optional

from pydantic import Field
from typing_extensions import Annotated

from edgecount.config import Strict

FILE_SCHEME = "file://"


class Playback(Strict):
    """Options of a source that plays files."""

    realtime: bool = Field(
        False, description="Deliver a file's frames at its own rate instead of as fast as possible."
    )
    loop: bool = Field(False, description="Start a file again at its end, for ever.")
    fps: Optional[Annotated[float, Field(gt=0.0, le=1000.0)]] = Field(
        None, description="Frames per second, where the file or stream does not say or is wrong."
    )


def path_of(source: str) -> str:
    """A file's path, with or without ``file://`` before it."""
    return source[len(FILE_SCHEME) :] if source.startswith(FILE_SCHEME) else source
