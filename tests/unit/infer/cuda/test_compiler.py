from pathlib import Path
from typing import Sequence

import pytest

from edgecount.errors import EngineError
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.compiler import Compiled, KernelReport, Nvrtc, compile_source

# As NVRTC 13 says it, and 11.
LOG = """
ptxas info    : Compiling entry function 'suppress' for 'sm_90'
ptxas info    : Function properties for suppress
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 8 bytes cumulative stack size, 1537 bytes smem
ptxas info    : Compiling entry function 'decode_head' for 'sm_53'
ptxas info    : Function properties for decode_head
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 58 registers, 340 bytes cmem[0]
"""


class FakeNvrtc(Nvrtc):
    """Counts what it compiles."""

    def __init__(self) -> None:
        self.version = (13, 0)
        self.compiled: list = []

    def compile(self, path: Path, arch: str, options: Sequence[str]) -> Compiled:
        self.compiled.append((path.name, arch, *options))
        return Compiled(f"cubin {len(self.compiled)}".encode(), (), self.version)


@pytest.fixture
def nvrtc() -> FakeNvrtc:
    return FakeNvrtc()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def test_is_compiled_once(nvrtc: FakeNvrtc, cache: Path) -> None:
    for _ in range(3):
        assert compile_source("nms", "sm_87", {"HEAD": 1}, nvrtc=nvrtc) == b"cubin 1"
    assert len(nvrtc.compiled) == 1
    assert "-DHEAD=1" in nvrtc.compiled[0]
    assert [p.suffix for p in cache.iterdir()] == [".bin"]  # nothing half-written is left


def test_whatever_changes_the_result_is_another_entry(
    nvrtc: FakeNvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        compile_source("nms", arch, defines, driver=driver, nvrtc=nvrtc)
        for arch in ("sm_87", "sm_90")
        for defines in ({"HEAD": 1}, {"HEAD": 2})
        for driver in ((12, 6), (13, 0))
    }
    assert len(made) == 8
    for part in compiler.plugins_folder().glob("*.cu*"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    monkeypatch.setattr(compiler, "plugins_folder", lambda: tmp_path)
    ask = ("nms", "sm_87", {"HEAD": 1})
    assert compile_source(*ask, driver=(12, 6), nvrtc=nvrtc) == b"cubin 1"
    (tmp_path / "common.cuh").write_text("// changed")
    assert compile_source(*ask, driver=(12, 6), nvrtc=nvrtc) == b"cubin 9"


def test_a_cache_that_cannot_be_written_costs_time_only(
    nvrtc: FakeNvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compiler.CACHE_VARIABLE, str(tmp_path / "file"))
    assert compile_source("nms", "sm_87", {}, nvrtc=nvrtc) == b"cubin 1"
    assert compile_source("nms", "sm_87", {}, nvrtc=nvrtc) == b"cubin 2"


def test_an_unknown_source_is_named(nvrtc: FakeNvrtc) -> None:
    with pytest.raises(EngineError, match=r"no CUDA source .*sobel\.cu"):
        compile_source("sobel", "sm_87", {}, nvrtc=nvrtc)


def test_a_library_that_is_none_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "libnvrtc.so").write_text("not a library")
    with pytest.raises(EngineError, match="pip install nvidia-cuda-nvrtc"):
        Nvrtc(tmp_path / "libnvrtc.so")


def test_the_newest_library_of_a_folder_is_taken(tmp_path: Path) -> None:
    for name in ("libnvrtc.so.11.2", "libnvrtc.so.13", "libnvrtc.alt.so.13"):
        folder = tmp_path / "nvidia" / name / "lib"
        folder.mkdir(parents=True)
        (folder / name).write_text("")
    found = compiler.library_in(tmp_path)
    assert found is not None
    assert found.name == "libnvrtc.so.13"
    assert compiler.library_in(tmp_path / "nvidia" / "none") is None


def test_reports_are_read_from_both_forms_of_ptxas() -> None:
    assert list(compiler._reports(LOG)) == [
        KernelReport("suppress", 48, 1537, 8, 4, 12),
        KernelReport("decode_head", 58, 0, 0, 0, 0),
    ]
