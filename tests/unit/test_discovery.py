from pathlib import Path

import pytest

from edgecount import discovery
from edgecount.errors import ConfigError

HEADS = "edgecount.infer.heads"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "discovered"
    (folder / "folder").mkdir(parents=True)
    for name in ("__init__", "base", "_private", "beta", "alpha", "folder/__init__"):
        (folder / f"{name}.py").write_text("", encoding="utf-8")
    (folder / "broken.py").write_text("import no_such_module_at_all", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "discovered"


def test_names_are_the_files_that_implement_something(package: str) -> None:
    assert discovery.names(package) == ["alpha", "beta", "broken"]


def test_only_the_chosen_one_is_imported(package: str) -> None:
    assert discovery.load(package, "beta", "thing").__name__ == "discovered.beta"
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        discovery.load(package, "broken", "thing")


@pytest.mark.parametrize("name", ["alhpa", "base", "_private", "folder", "", "alpha.x", "../alpha"])
def test_what_is_no_implementation_is_not_loaded(package: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"thing .* is not known.*alpha, beta, broken"):
        discovery.load(package, name, "thing")


def test_the_nearest_is_named() -> None:
    with pytest.raises(ConfigError, match=r"head 'yolo8' is not known: did you mean 'yolov8'\?"):
        discovery.load(HEADS, "yolo8", "head")


@pytest.mark.parametrize(
    ("word", "known", "end"),
    [
        ("lins", ["zones", "lines"], ": did you mean 'lines'? (choices: lines, zones)"),
        ("x", ["zones", "lines"], " (choices: lines, zones)"),
        ("x", [], ""),
    ],
)
def test_nearest(word: str, known, end: str) -> None:
    assert discovery.nearest(word, known) == end
