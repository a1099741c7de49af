"""How a build is shown."""

import io

from rich.console import Console

from edgecount.toolchain.build.progress import BarProgress, LineProgress

PHASES = [
    ("Building engine", None, 6),
    ("Optimizing graph", "Building engine", 30),
    ("Timing tactics", "Optimizing graph", 3),
]


def test_lines_tell_the_outer_phases_only() -> None:
    lines = []
    with LineProgress(lines.append) as progress:
        for phase in PHASES:
            progress.phase(*phase)
            progress.step(phase[0], 1)
        progress.finish("Timing tactics")
        progress.phase("Late", "a phase that nobody announced", 1)
        progress.say("hello")
    assert lines == ["Building engine (6 steps)", "Optimizing graph (30 steps)", "hello"]


def test_bars_nest_and_go(monkeypatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with BarProgress(console) as progress:
        for phase in PHASES:
            progress.phase(*phase)
        progress.step("Timing tactics", 2)
        shown = [task.description for task in progress._bars.tasks]
        assert shown == ["Building engine", "  Optimizing graph", "    Timing tactics"]
        assert progress._bars.tasks[2].completed == 2
        for name, _, _ in PHASES:
            progress.finish(name)
        progress.finish("never began")
        assert progress._bars.tasks == []
        progress.say("[not markup]")
    assert "[not markup]" in console.file.getvalue()
