"""How a build goes on, for a person at a terminal or for a log."""

from types import TracebackType
from typing import Callable, Dict, Optional, Type

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from typing_extensions import Self


class BarProgress:
    """A bar for each phase that is under way, the inner ones indented. A context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: Dict[str, TaskID] = {}
        self._depth: Dict[str, int] = {}

    def phase(self, name: str, parent: Optional[str], steps: int) -> None:
        depth = self._depth.get(parent, -1) + 1 if parent else 0
        self._depth[name] = depth
        self._tasks[name] = self._bars.add_task("  " * depth + name, total=max(steps, 1))

    def step(self, name: str, done: int) -> None:
        if name in self._tasks:
            self._bars.update(self._tasks[name], completed=done)

    def finish(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._bars.remove_task(task)

    def say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._bars.stop()


class LineProgress:
    """A line for each outer phase, and for what is said. A context manager like the bars."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._outer: Dict[str, int] = {}

    def phase(self, name: str, parent: Optional[str], steps: int) -> None:
        depth = self._outer.get(parent, 1) + 1 if parent else 0
        self._outer[name] = depth
        if depth <= 1:
            self._write(f"{name} ({steps} steps)")

    def step(self, name: str, done: int) -> None:
        """Bars show steps; lines would be too many."""

    def finish(self, name: str) -> None:
        """As above."""

    def say(self, text: str) -> None:
        self._write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        pass
