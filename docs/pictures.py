#!/usr/bin/env python3
"""Make the README's pictures from a real run: docs/images/sample.png and status.png.

    python docs/pictures.py samples/vtest.avi

Counts the clip with the shipped model, draws the fullest frame, and renders the live status
as a terminal shows it. Needs Chromium (Debian: chromium, fonts-firacode) for the second.
"""

import io
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from edgecount.cli._status import StatusOf, render
from edgecount.observe import logs
from edgecount.runtime.daemon import Service
from edgecount.runtime.overrides import settings_from
from edgecount.runtime.runner import Runner

IMAGES = Path(__file__).resolve().parent / "images"
_WIDTH = 96


def main(clip: str) -> None:
    logs.configure("error")
    shown = []
    status_of = StatusOf(time.monotonic())

    def show(service: Service) -> None:
        shown.append(render(status_of(service)))

    def load():  # type: ignore[no-untyped-def]
        settings = settings_from(None, clip, None, realtime=True)
        return settings.model_copy(update={"device": "lobby"})

    Runner(load, duration=25.0, annotate=IMAGES / "sample.png", show=show).run()
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(shown[-2])
    screenshot(console.export_svg(title="edgecount run"), IMAGES / "status.png")


def screenshot(svg: str, out: Path) -> None:
    """Render a terminal's SVG to a PNG of its own size."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    size = ",".join(str(round(float(side))) for side in box.groups())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "status.html"
        # The fonts that the SVG names would be fetched; the machine's own will do.
        local = re.sub(r"@font-face \{.*?\}\s", "", svg, flags=re.DOTALL)
        page.write_text(f"<body style='margin:0'>{local}", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update"]
        flags += ["--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        command = ["chromium", *flags, f"--window-size={size}", f"--screenshot={out}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main(sys.argv[1])
