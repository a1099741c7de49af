"""What an engine is bound to."""

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import DeviceProperties
from edgecount.infer.tensorrt.device import look


def _gpu():
    return DeviceProperties("Orin", 0, (8, 7), 16, 1, 1, True, True, (12, 6))


def _no_gpu():
    raise EngineError("no driver")


def test_a_jetson(tmp_path) -> None:
    (tmp_path / "etc").mkdir()
    text = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"
    (tmp_path / "etc/nv_tegra_release").write_text(text)
    facts = look(tmp_path, _gpu)
    assert (facts.name, facts.sm, facts.driver, facts.cuda) == ("Orin", "8.7", "36.4.3", "12.6")
    assert facts.jetson


def test_a_computer(tmp_path) -> None:
    folder = tmp_path / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    (folder / "version").write_text(text)
    facts = look(tmp_path, _gpu)
    assert facts.driver == "580.65.06"
    assert not facts.jetson


def test_no_gpu(tmp_path) -> None:
    facts = look(tmp_path, _no_gpu)
    assert (facts.name, facts.sm, facts.driver, facts.cuda) == ("none",) * 4
    assert facts.capability is None
