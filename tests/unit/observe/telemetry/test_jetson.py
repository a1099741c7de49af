"""Trees as they are believed to look on each board; none was taken from a board."""

import pytest

from edgecount.observe.telemetry.jetson import Jetson, is_jetson, model
from edgecount.observe.telemetry.sampler import sources


def plant(root, files):
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def gpu(devfreq, node, load):
    return {
        f"sys/class/devfreq/{devfreq}/device/of_node/name": f"{node}\0",
        f"sys/class/devfreq/{devfreq}/device/load": f"{load}\n",
    }


def zones(*named):
    files = {}
    for i, (kind, temp) in enumerate(named):
        files[f"sys/devices/virtual/thermal/thermal_zone{i}/type"] = f"{kind}\n"
        files[f"sys/devices/virtual/thermal/thermal_zone{i}/temp"] = f"{temp}\n"
    return files


def cooling(*named):
    files = {}
    for i, (kind, state) in enumerate(named):
        files[f"sys/class/thermal/cooling_device{i}/type"] = f"{kind}\n"
        files[f"sys/class/thermal/cooling_device{i}/cur_state"] = f"{state}\n"
    return files


def memory(total_mib, available_mib):
    return {
        "proc/meminfo": f"MemTotal:       {total_mib * 1024} kB\n"
        f"MemFree:        1234 kB\nMemAvailable:   {available_mib * 1024} kB\n"
    }


def nvpmodel(number, *names):
    models = "\n".join(f"< POWER_MODEL ID={i} NAME={n} >\nCPU 0" for i, n in enumerate(names))
    return {
        "var/lib/nvpmodel/status": f"pmode:{number:04d} fmode:quiet\n",
        "etc/nvpmodel.conf": f"# modes\n{models}\n< PM_CONFIG DEFAULT=0 >\n",
    }


def ina3221(address, number, *rails):
    base = f"sys/bus/i2c/devices/{address}/hwmon/hwmon{number}"
    files = {f"{base}/name": "ina3221\n"}
    for i, (label, millivolts, milliamperes) in enumerate(rails, 1):
        files[f"{base}/in{i}_label"] = f"{label}\n"
        files[f"{base}/in{i}_input"] = f"{millivolts}\n"
        files[f"{base}/curr{i}_input"] = f"{milliamperes}\n"
    return files


def nano():
    """JetPack 4.6: power through iio, a GM20B, a PMIC that always says 100 °C."""
    ina = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    return {
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1\n",
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3450-0000\0nvidia,tegra210\0",
        **memory(3956, 2956),
        **gpu("57000000.gpu", "gpu", 512),
        f"{ina}/rail_name_0": "POM_5V_IN\n",
        f"{ina}/in_power0_input": "4321\n",
        f"{ina}/rail_name_1": "POM_5V_GPU\n",
        f"{ina}/in_power1_input": "1200\n",
        **zones(("AO-therm", 41500), ("GPU-therm", 33500), ("PMIC-Die", 100000)),
        **cooling(("pwm-fan", 3), ("gpu-balanced", 0), ("cpu-balanced", 0)),
        **nvpmodel(0, "MAXN", "5W"),
    }


def xavier():
    """JetPack 5.1: a gv11b, hwmon power, a CV zone that is switched off."""
    return {
        "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1\n",
        "proc/device-tree/model": "Jetson-AGX\0",
        **memory(30000, 15000),
        **gpu("15340000.vic", "vic", 900),
        **gpu("17000000.gv11b", "gv11b", 1000),
        **ina3221("1-0040", 3, ("GPU", 19000, 1000), ("CPU", 19000, 500), ("NC", 0, 0)),
        **ina3221("1-0041", 4, ("CV", 19000, 0)),
        **zones(("CPU-therm", 45000), ("GPU-therm", 47000), ("tboard_tegra", -256000)),
        **cooling(("pwm-fan", 255), ("gpu-throttle-alert", 1), ("user-throttle", 1)),
        **nvpmodel(3, "MAXN", "MODE_10W", "MODE_15W", "MODE_30W_ALL"),
    }


def orin():
    """JetPack 6: a ga10b, over-current counters beside the thermal alerts."""
    return {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
        **memory(16000, 4800),
        **gpu("17000000.gpu", "gpu", 250),
        **ina3221("1-0040", 1, ("VDD_IN", 5000, 1500), ("VDD_CPU_GPU_CV", 5000, 400)),
        **zones(("cpu-thermal", 51200), ("gpu-thermal", 50100), ("tj-thermal", 51200)),
        **cooling(("pwm-fan", 2), ("cpu-throttle-alert", 0), ("gpu-throttle-alert", 0)),
        "sys/class/hwmon/hwmon2/name": "soctherm_oc\n",
        "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
        "sys/class/hwmon/hwmon2/oc3_event_cnt": "4\n",
        **nvpmodel(0, "MAXN", "10W", "15W", "25W"),
    }


def thor():
    """JetPack 7: a gb10b, an ina238 for the whole board."""
    total = "sys/bus/i2c/devices/2-0044/hwmon/hwmon5"
    return {
        "proc/device-tree/compatible": "nvidia,p3971-0089+p3834-0008\0nvidia,tegra264\0",
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        **memory(125000, 100000),
        **gpu("gpu-gpc-0", "gb10b", 30),
        f"{total}/name": "ina238\n",
        f"{total}/in1_label": "VIN\n",
        f"{total}/in1_input": "20000\n",
        f"{total}/curr1_input": "2500\n",
        f"{total}/power1_input": "50000000\n",
        **ina3221("2-0040", 6, ("VDD_GPU", 12000, 1000)),
        **zones(("cpu-thermal", 40000), ("gpu-thermal", 39000)),
        **cooling(("pwm-fan", 1), ("gpu-throttle-alert", 0)),
        **nvpmodel(1, "MAXN", "120W"),
    }


MIB = 1024.0 * 1024.0


@pytest.mark.parametrize(
    ("board", "name", "used", "ratio", "busy", "throttled", "power", "mode"),
    [
        (
            nano,
            "NVIDIA Jetson Nano Developer Kit",
            1000,
            1000 / 3956,
            0.512,
            False,
            {"POM_5V_IN": 4.321, "POM_5V_GPU": 1.2},
            "MAXN",
        ),
        (
            xavier,
            "Jetson-AGX",
            15000,
            0.5,
            1.0,
            True,
            {"GPU": 19.0, "CPU": 9.5, "CV": 0.0},
            "MODE_30W_ALL",
        ),
        (
            orin,
            "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
            11200,
            0.7,
            0.25,
            False,
            {"VDD_IN": 7.5, "VDD_CPU_GPU_CV": 2.0},
            "MAXN",
        ),
        (
            thor,
            "NVIDIA Jetson AGX Thor Developer Kit",
            25000,
            0.2,
            0.03,
            False,
            {"VIN": 50.0, "VDD_GPU": 12.0},
            "120W",
        ),
    ],
)
def test_boards(tmp_path, board, name, used, ratio, busy, throttled, power, mode):
    root = plant(tmp_path, board())
    reading = Jetson(root).read()
    assert is_jetson(root)
    assert model(root) == name
    assert reading.gpu_memory_bytes["used"] == used * MIB
    assert reading.gpu_memory_ratio == pytest.approx(ratio)
    assert reading.gpu_utilization_ratio == pytest.approx(busy)
    assert reading.throttled is throttled
    assert reading.power_watts == pytest.approx(power)
    assert reading.power_mode == mode


def test_temperatures_that_mean_nothing_are_left_out(tmp_path):
    assert Jetson(plant(tmp_path / "nano", nano())).read().temperature_celsius == {
        "AO-therm": 41.5,
        "GPU-therm": 33.5,
    }
    assert set(Jetson(plant(tmp_path / "xavier", xavier())).read().temperature_celsius) == {
        "CPU-therm",
        "GPU-therm",
    }


def test_a_zone_that_cannot_be_read_is_left_out(tmp_path):
    root = plant(tmp_path, orin())
    off = root / "sys/devices/virtual/thermal/thermal_zone9"
    plant(off, {"type": "cv0-thermal\n"})
    (off / "temp").mkdir()  # reading it fails, as that of a unit without power does
    assert "cv0-thermal" not in Jetson(root).read().temperature_celsius


def test_a_sagging_supply_is_throttling_until_it_stops(tmp_path):
    root = plant(tmp_path, orin())
    board = Jetson(root)
    assert board.read().throttled is False  # four events before we looked are the past
    plant(root, {"sys/class/hwmon/hwmon2/oc3_event_cnt": "6\n"})
    assert board.read().throttled is True
    assert board.read().throttled is False


@pytest.mark.parametrize("kind", ["gpu-throttle-alert", "cpu-throttle-alert", "hot-surface-alert"])
def test_a_thermal_alert_is_throttling(tmp_path, kind):
    root = plant(tmp_path, {**orin(), **cooling(("pwm-fan", 9), (kind, 1))})
    assert Jetson(root).read().throttled is True


def test_a_gpu_that_appears_late_is_found(tmp_path):
    files = orin()
    late = {path: files.pop(path) for path in list(files) if "devfreq" in path}
    board = Jetson(plant(tmp_path, files))
    assert board.read().gpu_utilization_ratio is None
    plant(tmp_path, late)
    assert board.read().gpu_utilization_ratio == 0.25


def test_an_unknown_mode_is_told_by_number(tmp_path):
    root = plant(tmp_path, {**orin(), **nvpmodel(9, "MAXN")})
    assert Jetson(root).read().power_mode == "9"


def test_an_empty_root_tells_nothing_and_does_not_fail(tmp_path):
    reading = Jetson(tmp_path).read()
    assert reading.gpu_memory_bytes == {}
    assert reading.gpu_memory_ratio is None
    assert reading.throttled is None
    assert reading.power_mode is None
    assert not is_jetson(tmp_path)


def test_a_jetson_is_read_through_sysfs_and_never_nvml(tmp_path):
    assert [s.name for s in sources(plant(tmp_path, orin()))] == ["jetson", "host"]
