"""What the Grafana dashboards show."""

from typing import Any, Dict

from panels import dashboard, link, series, stat, table, variable

Json = Dict[str, Any]
DEVICE = 'instance=~"$instance"'
CAMERA = f'{DEVICE}, camera=~"$camera"'


def dashboards() -> Dict[str, Json]:
    """All dashboards by file name."""
    return {
        "edgecount-fleet": fleet(),
        "edgecount-device": device(),
        "edgecount-camera": camera(),
    }


def fleet() -> Json:
    """All devices at a glance."""
    to_device = link("Device", "edgecount-device", "${__data.fields.instance}")
    return dashboard(
        "edgecount-fleet",
        "edgecount / fleet",
        [],
        [
            stat("Devices up", 'sum(up{job="edgecount"})', width=4),
            stat(
                "Devices down",
                'count(up{job="edgecount"} == 0) or vector(0)',
                width=4,
                bad_from=1,
            ),
            stat("Cameras delivering", "sum(edgecount_camera_up)", width=4),
            stat(
                "Cameras away",
                "count(edgecount_camera_up == 0) or vector(0)",
                width=4,
                bad_from=1,
            ),
            stat(
                "Alerts firing",
                'count(ALERTS{alertname=~"Edgecount.*", alertstate="firing"}) or vector(0)',
                width=4,
                bad_from=1,
            ),
            stat("Heads visible", "sum(edgecount_visible)", width=4),
            table(
                "Devices",
                [
                    (
                        "Worst FPS ÷ target",
                        "min by (instance) (edgecount_fps / edgecount_fps_target)",
                    ),
                    ("Cameras", "sum by (instance) (edgecount_camera_up)"),
                    ("GPU memory", "max by (instance) (edgecount_gpu_memory_ratio)"),
                    ("Hottest °C", "max by (instance) (edgecount_temperature_celsius)"),
                    ("Throttled", "max by (instance) (edgecount_throttled)"),
                    ("Broker", "max by (instance) (edgecount_mqtt_connected)"),
                    ("Outbox", "max by (instance) (edgecount_outbox_messages)"),
                ],
                to_device,
            ),
            series("People by place", [("edgecount_occupancy", "{{instance}} {{place}}")]),
            series(
                "FPS ÷ target by camera",
                [("edgecount_fps / edgecount_fps_target", "{{instance}} {{camera}}")],
                unit="percentunit",
                limit=0.96,
            ),
            series(
                "Crossings per hour",
                [
                    (
                        "sum by (instance, direction) (increase(edgecount_crossings_total[1h]))",
                        "{{instance}} {{direction}}",
                    )
                ],
            ),
            series(
                "End-to-end latency, 99 %",
                [
                    (
                        (
                            "histogram_quantile(0.99, sum by (instance, le) (rate("
                            'edgecount_stage_seconds_bucket{stage="end_to_end"}[$__rate_interval])))'
                        ),
                        "{{instance}}",
                    )
                ],
                unit="s",
            ),
        ],
    )


def device() -> Json:
    """One device: its cameras, stages, GPU and host."""
    quantile = (
        "histogram_quantile({q}, sum by (stage, le) (rate("
        f"edgecount_stage_seconds_bucket{{{{{DEVICE}}}}}[$__rate_interval])))"
    )
    to_camera = link("Camera", "edgecount-camera", "$instance", "${__data.fields.camera}")
    return dashboard(
        "edgecount-device",
        "edgecount / device",
        [variable("instance", "Device", "label_values(edgecount_build_info, instance)")],
        [
            table(
                "Cameras",
                [
                    ("FPS", f"max by (camera) (edgecount_fps{{{DEVICE}}})"),
                    ("Target", f"max by (camera) (edgecount_fps_target{{{DEVICE}}})"),
                    ("Up", f"max by (camera) (edgecount_camera_up{{{DEVICE}}})"),
                    ("Visible", f"max by (camera) (edgecount_visible{{{DEVICE}}})"),
                    (
                        "Lost frames",
                        (
                            f"sum by (camera) (rate(edgecount_frames_total{{{DEVICE}, "
                            'outcome=~"dropped|failed"}[$__rate_interval]))'
                        ),
                    ),
                ],
                to_camera,
                width=16,
            ),
            table(
                "Running",
                [
                    (
                        "Build",
                        (
                            "max by (version, backend, precision, engine) "
                            f"(edgecount_build_info{{{DEVICE}}})"
                        ),
                    )
                ],
                width=8,
            ),
            series(
                "Time per stage, median",
                [(quantile.format(q=0.5), "{{stage}}")],
                unit="s",
            ),
            series(
                "Time per stage, 99 %",
                [(quantile.format(q=0.99), "{{stage}}")],
                unit="s",
            ),
            series(
                "GPU",
                [
                    (f"edgecount_gpu_utilization_ratio{{{DEVICE}}}", "busy"),
                    (f"edgecount_gpu_memory_ratio{{{DEVICE}}}", "memory used"),
                ],
                unit="percentunit",
                limit=0.70,
            ),
            series(
                "GPU memory",
                [(f"edgecount_gpu_memory_bytes{{{DEVICE}}}", "{{kind}}")],
                unit="bytes",
            ),
            series(
                "Temperature",
                [(f"edgecount_temperature_celsius{{{DEVICE}}}", "{{zone}}")],
                unit="celsius",
            ),
            series("Power", [(f"edgecount_power_watts{{{DEVICE}}}", "{{rail}}")], unit="watt"),
            series(
                "CPU, in cores",
                [
                    (
                        (
                            f'rate(process_cpu_seconds_total{{job="edgecount", {DEVICE}}}'
                            "[$__rate_interval])"
                        ),
                        "edgecount",
                    )
                ],
            ),
            series(
                # Not in one panel with the host's: a leak would be a flat line at its foot.
                "Memory of edgecount",
                [(f'process_resident_memory_bytes{{job="edgecount", {DEVICE}}}', "edgecount")],
                unit="bytes",
            ),
            series(
                "Memory of the host",
                [(f'edgecount_host_memory_bytes{{{DEVICE}, kind="available"}}', "available")],
                unit="bytes",
            ),
            series(
                "Troubles (1 = yes)",
                [
                    (f"edgecount_throttled{{{DEVICE}}}", "throttled"),
                    (f"edgecount_engine_fallback{{{DEVICE}}}", "engine fallback"),
                    (f"edgecount_ledger_degraded{{{DEVICE}}}", "ledger degraded"),
                    (f"1 - edgecount_mqtt_connected{{{DEVICE}}}", "broker away"),
                ],
            ),
            series(
                "Messages that wait for the broker",
                [(f"edgecount_outbox_messages{{{DEVICE}}}", "outbox")],
            ),
        ],
    )


def camera() -> Json:
    """One camera: its rate and its counts."""
    return dashboard(
        "edgecount-camera",
        "edgecount / camera",
        [
            variable("instance", "Device", "label_values(edgecount_build_info, instance)"),
            variable("camera", "Camera", f"label_values(edgecount_camera_up{{{DEVICE}}}, camera)"),
        ],
        [
            stat("FPS", f"max(edgecount_fps{{{CAMERA}}})", width=4, decimals=1),
            stat("Delivers", f"min(edgecount_camera_up{{{CAMERA}}})", width=4),
            stat("Visible", f"sum(edgecount_visible{{{CAMERA}}})", width=4),
            stat(
                "In, last hour",
                f'sum(increase(edgecount_crossings_total{{{CAMERA}, direction="in"}}[1h]))',
                width=4,
            ),
            stat(
                "Out, last hour",
                f'sum(increase(edgecount_crossings_total{{{CAMERA}, direction="out"}}[1h]))',
                width=4,
            ),
            stat(
                "Reconnects, last day",
                f"sum(increase(edgecount_reconnects_total{{{CAMERA}}}[1d]))",
                width=4,
                bad_from=20,
            ),
            series(
                "Frame rate",
                [
                    (f"edgecount_fps{{{CAMERA}}}", "FPS"),
                    (f"edgecount_fps_target{{{CAMERA}}}", "target"),
                ],
            ),
            series(
                "Fluctuation of the frame rate",
                [(f"edgecount_fps_fluctuation_ratio{{{CAMERA}}}", "{{camera}}")],
                unit="percentunit",
                limit=0.05,
            ),
            series(
                "Frames per second by outcome",
                [
                    (
                        (
                            "sum by (outcome) (rate("
                            f"edgecount_frames_total{{{CAMERA}}}[$__rate_interval]))"
                        ),
                        "{{outcome}}",
                    )
                ],
            ),
            series("Delivers", [(f"edgecount_camera_up{{{CAMERA}}}", "{{camera}}")]),
            series("Heads visible", [(f"edgecount_visible{{{CAMERA}}}", "{{camera}}")]),
            series("Heads by zone", [(f"edgecount_zone_now{{{CAMERA}}}", "{{zone}}")]),
            series(
                "Crossings per hour",
                [
                    (
                        (
                            "sum by (line, direction) (increase("
                            f"edgecount_crossings_total{{{CAMERA}}}[1h]))"
                        ),
                        "{{line}} {{direction}}",
                    )
                ],
                width=24,
            ),
        ],
    )
