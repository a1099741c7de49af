from pathlib import Path

import pytest

from edgecount.infer import cpu_features

X86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n"


def found(tmp_path: Path, text: str) -> cpu_features.CpuFeatures:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    return cpu_features.read(path)


@pytest.mark.parametrize(
    ("flags", "fast", "saturates"),
    [
        ("avx2", False, True),
        ("avx2 avx512f", False, True),
        ("avx2 avx512_vnni", True, False),
        ("avx2 avx_vnni", True, False),
        ("avx2 amx_int8", True, False),
        ("sse4_2", False, False),
    ],
)
def test_x86(tmp_path: Path, flags: str, fast: bool, saturates: bool) -> None:
    features = found(tmp_path, X86.format(flags=flags))
    assert features.model == "Some CPU"
    assert (features.fast_int8, features.saturates) == (fast, saturates)


def test_arm_has_its_own_names(tmp_path: Path) -> None:
    features = found(tmp_path, ARM)
    assert features.model == "0xd42"
    assert features.fast_int8
    assert not features.saturates
    assert "asimddp" in features.describe()


def test_saturation_is_said(tmp_path: Path) -> None:
    assert "may saturate" in found(tmp_path, X86.format(flags="avx2")).describe()


def test_a_kernel_that_does_not_tell(tmp_path: Path) -> None:
    features = cpu_features.read(tmp_path / "none")
    assert not features.fast_int8
    assert "no INT8" in features.describe()
