"""The key of an engine that somebody built on a Xavier, for tests of caches and commands."""

from edgecount.infer.tensorrt.manifest import BuildKey
from edgecount.infer.tensorrt.profile import Profile

SHAPE = (1, 3, 416, 416)


def engine_key(**changes: object) -> BuildKey:
    """That key, changed by ``changes``."""
    key = BuildKey(
        model="head-n",
        model_sha256="a",
        recipe_sha256="b",
        calibration_sha256="",
        runtime="tensorrt",
        runtime_version="8.5.2.2",
        cuda="11.4",
        driver="35.4.1",
        device="Xavier",
        sm="7.2",
        precision="int8",
        profile=Profile(min=SHAPE, opt=SHAPE, max=SHAPE),
        workspace=2**31,
        dla=False,
    )
    return key.model_copy(update=changes)
