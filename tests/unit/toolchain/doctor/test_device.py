import pytest

from edgecount.observe.telemetry.base import Reading
from edgecount.toolchain.doctor import device

ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin NX\0",
    "proc/device-tree/compatible": "nvidia,p3768\0nvidia,tegra234\0",
    "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n",
    "usr/local/cuda/version.json": '{"cuda" : {"name": "CUDA SDK", "version" : "12.6.68"}}',
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1984000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1984000",
}
PACKAGES = {"cuda-python": "12.6.0", "tensorrt": "10.3.0"}


def plant(root, files):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def examined(root, packages=PACKAGES):
    return {f.check: f for f in device.examine(root, packages.get)}


def test_a_well_set_up_jetson(tmp_path):
    found = examined(plant(tmp_path, ORIN))
    assert {f.state for f in found.values()} == {"ok"}
    assert found["board"].detail == "NVIDIA Jetson Orin NX, L4T 36.4.0 (JetPack 6)"
    assert found["cuda"].detail == "Python bindings 12.6.0, toolkit 12.6.68"
    assert found["tensorrt"].detail == "tensorrt 10.3.0"
    assert "8.7" in found["int8"].detail
    assert found["gpu memory"].detail.startswith("50% of 15.3 GiB")


def test_a_slow_power_mode_and_idle_clocks_are_named(tmp_path):
    found = examined(plant(tmp_path, {**ORIN, "var/lib/nvpmodel/status": "pmode:0001\n"}))
    assert found["power mode"].state == "warn"
    assert "15W" in found["power mode"].detail
    assert "--maxperf" in found["power mode"].remedy
    idle = {**ORIN, "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "115200"}
    found = examined(plant(tmp_path, idle))
    assert "clocks follow the load" in found["power mode"].detail


def test_software_that_is_not_visible_is_named_with_the_remedy(tmp_path):
    found = examined(plant(tmp_path, ORIN), {})
    assert found["cuda"].state == "warn"
    assert "edgecount[cuda]" in found["cuda"].remedy
    assert "--system-site-packages" in found["tensorrt"].remedy


@pytest.mark.parametrize(
    ("release", "jetpack"),
    [("R32", "4"), ("R35", "5"), ("R36", "6"), ("R38", "7"), ("R99", None)],
)
def test_jetpack_by_release(tmp_path, release, jetpack):
    text = f"# {release} (release), REVISION: 7.1\n"
    detail = examined(plant(tmp_path, {**ORIN, "etc/nv_tegra_release": text}))["board"].detail
    assert (f"(JetPack {jetpack})" in detail) == (jetpack is not None)
    assert f"L4T {release[1:]}.7.1" in detail


@pytest.mark.parametrize(
    ("capability", "has_units"),
    [((5, 3), False), ((6, 1), True), ((6, 2), False), ((7, 2), True), ((11, 0), True)],
)
def test_int8_units_by_compute_capability(capability, has_units):
    finding = device.int8(device.Gpu("gpu", "driver", capability, Reading()))
    assert finding.state == ("ok" if has_units else "warn")


def test_memory_and_heat():
    full = Reading(gpu_memory_bytes={"total": 8 * 2.0**30, "used": 6 * 2.0**30}, throttled=True)
    found = {f.check: f for f in device.load(full)}
    assert found["gpu memory"].state == "warn"
    assert "75% of 8.0 GiB" in found["gpu memory"].detail
    assert found["throttling"].state == "warn"
    assert list(device.load(Reading())) == []


def test_a_computer_without_a_gpu_is_fine(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "open_nvml", lambda: None)
    found = examined(tmp_path)
    assert {f.state for f in found.values()} == {"ok"}
    assert set(found) == {"board", "gpu"}


def test_a_driver_that_is_loaded_and_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "open_nvml", lambda: None)
    found = examined(plant(tmp_path, {"proc/driver/nvidia/version": "NVRM 580"}))
    assert found["gpu"].state == "warn"
    assert "edgecount[cuda]" in found["gpu"].remedy
