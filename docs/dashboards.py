#!/usr/bin/env python3
"""Draw what the Grafana dashboards show of a real run: docs/images/dashboard-*.png.

    python docs/dashboards.py samples/vtest.avi --minutes 6

Counts the clip in a loop, lets a real Prometheus scrape the service, then asks it every
expression of the dashboards in docker/observability and draws the answers where the
dashboard puts them. Grafana itself is not needed, and does not draw these pictures. Needs
Prometheus (Debian: prometheus) and matplotlib.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List

import matplotlib as mpl
import yaml

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.dates import DateFormatter
from matplotlib.ticker import EngFormatter

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT / "docker" / "observability"
PROMETHEUS, SERVICE = 19090, 18080
DEVICE, CAMERA, STEP_S = "lobby", "door", 2
BACK, PANEL, GRID, TEXT, DIM = "#111217", "#181b1f", "#2c3036", "#d8d9da", "#9fa2a6"
COLORS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#fade2a"]


def main(clip: Path, minutes: float) -> None:
    began = time.time()
    with tempfile.TemporaryDirectory() as folder, running(clip, Path(folder)):
        time.sleep(60 * minutes)
        for name, picked in (("device", ("Cameras", "Running")), ("camera", None)):
            path = STACK / "grafana" / "dashboards" / f"edgecount-{name}.json"
            out = ROOT / "docs" / "images" / f"dashboard-{name}.png"
            draw(json.loads(path.read_text(encoding="utf-8")), out, began + 10.0, picked or ())


@contextmanager
def running(clip: Path, folder: Path) -> Iterator[None]:
    """The service and a Prometheus that scrapes it."""
    settings = folder / "edgecount.yaml"
    settings.write_text(yaml.safe_dump(service_settings(clip.resolve(), folder)), "utf-8")
    scrape = folder / "prometheus.yml"
    scrape.write_text(yaml.safe_dump(scrape_settings()), "utf-8")
    commands = [
        [sys.executable, "-m", "edgecount", "run", "-c", str(settings)],
        [
            "prometheus",
            f"--config.file={scrape}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
            "--log.level=error",
        ],
    ]
    processes = [subprocess.Popen(c, stdout=subprocess.DEVNULL) for c in commands]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait(20)


def service_settings(clip: Path, folder: Path) -> Dict[str, Any]:
    camera = {
        "name": CAMERA,
        "source": str(clip),
        "fps": 10,
        "capture": {"loop": True, "realtime": True},
        "lines": [{"name": "entrance", "from": [0.0, 0.5], "to": [1.0, 0.5]}],
        "zones": [{"name": "hall", "polygon": [[0.3, 0.3], [0.8, 0.3], [0.8, 0.9], [0.3, 0.9]]}],
    }
    return {
        "device": DEVICE,
        "cameras": [camera],
        "places": {"hall": {"in": [f"{CAMERA}.entrance"]}},
        "ledger": {"path": str(folder / "ledger.db")},
        "http": {"port": SERVICE},
    }


def scrape_settings() -> Dict[str, Any]:
    target = {"targets": [f"127.0.0.1:{SERVICE}"], "labels": {"instance": DEVICE}}
    return {
        "global": {"scrape_interval": f"{STEP_S}s", "evaluation_interval": f"{STEP_S}s"},
        "rule_files": [str(STACK / "prometheus" / "rules.yml")],
        "scrape_configs": [{"job_name": "edgecount", "static_configs": [target]}],
    }


def ask(expression: str, **more: Any) -> List[Any]:
    """The answer of Prometheus; over a range where ``start`` is given."""
    for variable, value in (("instance", DEVICE), ("camera", CAMERA), ("__rate_interval", "30s")):
        expression = expression.replace(f"${variable}", value)
    kind = "query_range" if more else "query"
    query = urllib.parse.urlencode({"query": expression, **more})
    url = f"http://127.0.0.1:{PROMETHEUS}/api/v1/{kind}?{query}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return list(json.load(answer)["data"]["result"])


def draw(dashboard: Dict[str, Any], out: Path, began: float, tables: Any) -> None:
    """One picture of a dashboard; panels without any data here are left out."""
    panels = [p for p in dashboard["panels"] if p["type"] != "table" or p["title"] in tables]
    panels = [p for p in panels if any(ask(t["expr"]) for t in p["targets"])]
    rows = rearranged(panels)
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in rows)
    figure = plt.figure(figsize=(15, 0.42 * height + 0.5), facecolor=BACK, dpi=80)
    top = 0.5 / (0.42 * height + 0.5)
    figure.text(0.012, 1 - 0.6 * top, dashboard["title"], color=TEXT, size=13, weight="bold")
    for panel in rows:
        at = panel["gridPos"]
        unit = (1 - top) / height
        box = (at["x"] / 24, 1 - top - (at["y"] + at["h"]) * unit, at["w"] / 24, at["h"] * unit)
        frame(figure, box)
        KINDS[panel["type"]](figure, box, panel, began)
    figure.savefig(out, facecolor=BACK)
    plt.close(figure)


def rearranged(panels: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The panels closed up where others were left out."""
    placed, x, y, row = [], 0, 0, 0
    for panel in panels:
        at = panel["gridPos"]
        if x + at["w"] > 24:
            x, y, row = 0, y + row, 0
        placed.append({**panel, "gridPos": {**at, "x": x, "y": y}})
        x, row = x + at["w"], max(row, at["h"])
    return placed


def frame(figure: Any, box: Any) -> None:
    x, y, w, h = box
    gap = 0.004
    size = (w - 2 * gap, h - 2 * gap)
    rectangle = plt.Rectangle((x + gap, y + gap), *size, color=PANEL, zorder=-1)
    rectangle.set_transform(figure.transFigure)
    figure.add_artist(rectangle)


def title(figure: Any, box: Any, text: str) -> None:
    figure.text(box[0] + 0.01, box[1] + box[3] - 0.008, text, color=TEXT, size=9.5, va="top")


def stat(figure: Any, box: Any, panel: Dict[str, Any], _began: float) -> None:
    title(figure, box, panel["title"])
    answer = ask(panel["targets"][0]["expr"])
    value = float(answer[0]["value"][1]) if answer else float("nan")
    decimals = panel["fieldConfig"]["defaults"].get("decimals", 0)
    x, y = box[0] + box[2] / 2, box[1] + 0.42 * box[3]
    figure.text(x, y, f"{value:.{decimals}f}", color=COLORS[2], size=24, ha="center", va="center")


def series(figure: Any, box: Any, panel: Dict[str, Any], began: float) -> None:
    title(figure, box, panel["title"])
    x, y, w, h = box
    axes = figure.add_axes((x + 0.04, y + 0.16 * h, w - 0.055, 0.62 * h), facecolor=PANEL)
    color = iter(COLORS * 4)
    for target in panel["targets"]:
        for line in ask(target["expr"], start=began, end=time.time(), step=STEP_S):
            times = [datetime.fromtimestamp(t, timezone.utc) for t, _ in line["values"]]
            values = [float(v) for _, v in line["values"]]
            shade = next(color)
            axes.plot(times, values, color=shade, lw=1.2, label=legend(target, line["metric"]))
            axes.fill_between(times, values, color=shade, alpha=0.08)
    axes.set_ylim(bottom=0)
    if panel["fieldConfig"]["defaults"].get("unit") == "bytes":
        axes.yaxis.set_major_formatter(EngFormatter("B"))
    axes.grid(color=GRID, lw=0.6)
    axes.tick_params(colors=DIM, labelsize=7.5, length=0)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=9, fontsize=7.5, frameon=False,
        labelcolor=DIM, borderaxespad=0, handlelength=1,
    )  # fmt: skip


def legend(target: Dict[str, Any], metric: Dict[str, str]) -> str:
    text = target.get("legendFormat") or ""
    return re.sub(r"{{(\w+)}}", lambda m: metric.get(m[1], ""), text)


def table(figure: Any, box: Any, panel: Dict[str, Any], _began: float) -> None:
    title(figure, box, panel["title"])
    renamed = panel["transformations"][1]["options"]["renameByName"]
    rows: Dict[Any, Dict[str, str]] = {}
    for target in panel["targets"]:
        for answer in ask(target["expr"]):
            row = rows.setdefault(tuple(answer["metric"].values()), dict(answer["metric"]))
            column = renamed[f"Value #{target['refId']}"]
            row[column] = f"{float(answer['value'][1]):.2f}".rstrip("0").rstrip(".")
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = [{c: c for c in columns}, *rows.values()]
    widest = [max(len(line.get(c, "")) for line in lines) + 2 for c in columns]
    for number, line in enumerate(lines):
        x, y = box[0] + 0.012, box[1] + box[3] * (0.70 - 0.16 * number)
        for column, width in zip(columns, widest):
            figure.text(x, y, line.get(column, ""), color=TEXT if number else DIM, size=9)
            x += (box[2] - 0.02) * width / sum(widest)


KINDS = {"stat": stat, "timeseries": series, "table": table}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    given = parser.parse_args()
    main(given.clip, given.minutes)
