"""Nothing here needs TensorRT to be imported: it is on boards only, and found when asked for."""

import subprocess
import sys

_SCRIPT = """
import importlib, pkgutil, sys
for name in ("tensorrt", "tensorrt_rtx"):
    sys.modules[name] = None  # importing it now fails
for package in ("infer.tensorrt", "toolchain.build", "toolchain.doctor"):
    whole = importlib.import_module(f"edgecount.{package}")
    for found in pkgutil.iter_modules(whole.__path__):
        importlib.import_module(f"edgecount.{package}.{found.name}")
for command in ("build", "model", "inspect", "compare", "doctor"):
    importlib.import_module(f"edgecount.cli.{command}")
from edgecount.infer.tensorrt import versions
try:
    versions.find()
except versions.EngineError as error:
    print(error)
"""


def test_every_module_imports_without_tensorrt() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "this Python has no TensorRT" in done.stdout
