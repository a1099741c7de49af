"""The constraint files of the images hold what pip resolves to wheels for each platform."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="resolve.py reads TOML"),
]
PROJECT = Path(__file__).resolve().parents[3]
FOLDER = PROJECT / "docker" / "constraints"
NAMES = ("cpu", "cuda", "jetpack4", "jetpack5", "jetpack6", "jetpack7")


@pytest.fixture(scope="module")
def resolver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("resolve", FOLDER / "resolve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def index() -> None:
    probe = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
    probe += ["--ignore-installed", "--retries", "0", "--timeout", "10", "click"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs pip and a package index")


def pinned(name: str) -> "dict[str, str]":
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", NAMES)
def test_pip_finds_wheels_of_what_is_pinned(resolver, index, name):
    target = next(t for t in resolver.TARGETS if t.name == name)
    found = resolver.resolve(target, str(PROJECT), FOLDER / f"{name}.txt")
    assert dict(pin.split("==") for pin in found) == pinned(name)


def test_there_is_a_file_for_each_platform(resolver):
    assert tuple(t.name for t in resolver.TARGETS) == NAMES
    assert {p.stem for p in FOLDER.glob("*.txt")} == set(NAMES)


@pytest.mark.parametrize("name", ["jetpack4", "jetpack5", "jetpack6"])
def test_numpy_is_one_where_the_vendors_packages_were_built_against_it(name):
    assert int(pinned(name)["numpy"].split(".")[0]) == 1
    assert int(pinned(name)["opencv-python-headless"].split(".")[0]) == 4


@pytest.mark.parametrize(
    ("name", "cuda"),
    [("jetpack4", None), ("jetpack5", "11"), ("jetpack6", "12"), ("jetpack7", "13")],
)
def test_bindings_follow_the_cuda_of_the_board(name, cuda):
    assert (pinned(name).get("cuda-python") or "None").split(".")[0] == str(cuda)


@pytest.mark.parametrize("name", NAMES)
def test_each_image_installs_its_constraints_and_what_they_are_for(name):
    text = (PROJECT / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8")
    assert f"docker/constraints/{name}.txt" in text
    assert ("[cuda,tensorrt]" in text) == (name not in ("cpu", "jetpack4"))
    assert (" onnx" in text) == (name == "jetpack4")
