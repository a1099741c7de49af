#!/usr/bin/env python3
"""Write the constraint files: what pip resolves for each platform, wheels only.

Usage: resolve.py FOLDER_OF_THE_PROJECT. Needs pip >= 23 and a package index.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

HERE = Path(__file__).resolve().parent


class Target(NamedTuple):
    """A platform.

    Attributes:
        name: Of its file.
        python: Its version.
        platforms: Tags of the wheels that it takes.
        caps: What the vendor's packages force.
        pins: What pip cannot see from another Python.
        extras: Of the project, that its image installs.
    """

    name: str
    python: str
    platforms: List[str]
    caps: List[str]
    pins: List[str]
    extras: Tuple[str, ...]


def _linux(machine: str, newest_glibc: int) -> List[str]:
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest_glibc, 16, -1)]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]


# TensorRT and OpenCV of JetPack ≤ 6 were built against NumPy 1.
_NUMPY_1 = ["numpy<2", "opencv-python-headless<5"]
# pip judges markers by the Python that runs it, so it misses what only Python 3.8 needs.
_ONLY_38 = ["backports.zoneinfo==0.2.1", "exceptiongroup==1.3.1", "importlib-resources==6.4.5"]
# Bindings follow the CUDA of the board. JetPack 4 has none: edgecount then calls libcuda itself.
_CUDA_11, _CUDA_12, _CUDA_13 = "cuda-python==11.8.2", "cuda-python==12.9.*", "cuda-python==13.0.*"
_GPU = ("cuda", "tensorrt")
TARGETS = (
    Target("cpu", "3.11", _linux("x86_64", 36), [], [], ()),
    Target("cuda", "3.12", _linux("x86_64", 39), [_CUDA_12], [], _GPU),
    Target("jetpack4", "3.8", _linux("aarch64", 27), _NUMPY_1, _ONLY_38, ("tensorrt",)),
    Target("jetpack5", "3.8", _linux("aarch64", 31), [*_NUMPY_1, _CUDA_11], _ONLY_38, _GPU),
    Target("jetpack6", "3.10", _linux("aarch64", 35), [*_NUMPY_1, _CUDA_12], [], _GPU),
    Target("jetpack7", "3.12", _linux("aarch64", 39), [_CUDA_13], [], _GPU),
)


def main(project: str) -> None:
    """Resolve for every target."""
    for target in TARGETS:
        lines = resolve(target, project)
        head = f"# Made by resolve.py for Python {target.python}, {target.platforms[0]}.\n"
        (HERE / f"{target.name}.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def resolve(target: Target, project: str, constraints: Optional[Path] = None) -> List[str]:
    """The pinned versions of everything that the project needs on ``target``.

    Args:
        target: The platform.
        project: Folder of the project.
        constraints: A file that must hold; what it pins is resolved in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--target", folder, "--report", str(report)]
        command += ["--python-version", target.python, "--only-binary", ":all:"]
        command += ["--disable-pip-version-check"]
        for platform in target.platforms:
            command += ["--platform", platform]
        if constraints is not None:
            command += ["--constraint", str(constraints)]
            # Of what is pinned already, old versions of pip ask whether it fits the Python that
            # they run on themselves.
            command += ["--ignore-requires-python"]
        wanted = [*requirements(project, target), *target.caps]
        subprocess.run([*command, *wanted], check=True)  # noqa: S603
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    pins = [f"{item['metadata']['name'].lower()}=={item['metadata']['version']}" for item in found]
    return sorted([*pins, *target.pins])


def requirements(project: str, target: Target) -> List[str]:
    """The project's own requirements on ``target``, without building it."""
    import tomllib

    with (Path(project) / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["project"]
    extras = data["optional-dependencies"]
    wanted = [*data["dependencies"], *(r for e in ("web", *target.extras) for r in extras[e])]
    if target.name != "jetpack4":
        return wanted
    return [r for r in wanted if not r.startswith("cuda-python")]


if __name__ == "__main__":
    main(sys.argv[1])
