"""What a disk holds after a power cut: everything that was synced, and of the rest anything.

A shim (``power_cut.c``, loaded with LD_PRELOAD) records the writes, truncations, syncs and
deletions of a process. After the process was killed, the files are built again from the
record: all operations before a file's last sync, and of those after it none, a random
subset in order, or such a subset with single 512-byte sectors missing.
"""

import random
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Iterator, NamedTuple

import pytest

_SOURCE = Path(__file__).with_name("power_cut.c")
_WRITE, _TRUNCATE, _SYNC, _UNLINK = 1, 2, 3, 4
_SECTOR = 512


class Operation(NamedTuple):
    kind: int
    name: str
    offset: int
    data: bytes


class PowerCut:
    """A folder whose files can suffer a power cut."""

    def __init__(self, base: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if not compiler:
            pytest.skip("no C compiler for the power-cut shim")
        self.folder = Path(tempfile.mkdtemp(dir=str(base))).resolve()
        self._log = base.resolve() / "operations"
        self._library = base.resolve() / "power_cut.so"
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                "-O1",
                "-o",
                self._library,
                _SOURCE,
                "-ldl",
                "-lpthread",
            ],
            check=True,
        )

    def environ(self, *, ignore_sync: bool = False) -> Dict[str, str]:
        """The environment of the process that will lose power."""
        environ = {
            "LD_PRELOAD": str(self._library),
            "EDGECOUNT_CUT_FOLDER": str(self.folder),
            "EDGECOUNT_CUT_LOG": str(self._log),
        }
        if ignore_sync:
            environ["EDGECOUNT_CUT_IGNORE_SYNC"] = "1"
        return environ

    def happen(self, shape: str, rng: random.Random) -> None:
        """Put in place what the disk holds now; ``shape`` is drop, some or torn."""
        operations = list(self._operations())
        files = self._base()
        content = {name: bytearray(data) for name, data in files.items()}
        for n, operation in enumerate(operations):
            durable = any(_makes_durable(later, operation) for later in operations[n + 1 :])
            if durable or (shape != "drop" and rng.random() < 0.5):
                torn = rng if not durable and shape == "torn" else None
                _apply(content, operation, torn)
        for path in self.folder.iterdir():
            path.unlink()
        for name, data in content.items():
            (self.folder / name).write_bytes(bytes(data))
        self._remember()

    def reset(self) -> None:
        """A new disk."""
        for path in self.folder.iterdir():
            path.unlink()
        self._remember()

    def _operations(self) -> Iterator[Operation]:
        record = self._log.read_bytes() if self._log.exists() else b""
        at = 0
        while at < len(record):
            kind, length = struct.unpack_from("<II", record, at)
            name = record[at + 8 : at + 8 + length].decode()
            at += 8 + length
            offset, size = struct.unpack_from("<QQ", record, at)
            at += 16
            data = record[at : at + size] if kind == _WRITE else b""
            at += len(data)
            yield Operation(kind, name, offset, data)

    def _base(self) -> Dict[str, bytes]:
        """The files as they were when power came back the last time."""
        base = self._log.with_name("base")
        return {p.name: p.read_bytes() for p in base.iterdir()} if base.is_dir() else {}

    def _remember(self) -> None:
        base = self._log.with_name("base")
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        for path in self.folder.iterdir():
            shutil.copy(path, base / path.name)
        if self._log.exists():
            self._log.unlink()


def _makes_durable(later: Operation, operation: Operation) -> bool:
    if later.kind != _SYNC:
        return False
    return later.name == ("." if operation.kind == _UNLINK else operation.name)


def _apply(files: Dict[str, bytearray], operation: Operation, torn: "random.Random | None") -> None:
    if operation.kind == _UNLINK:
        files.pop(operation.name, None)
    elif operation.kind in (_WRITE, _TRUNCATE):
        _change(files.setdefault(operation.name, bytearray()), operation, torn)


def _change(content: bytearray, operation: Operation, torn: "random.Random | None") -> None:
    if operation.kind == _TRUNCATE:
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    end = operation.offset + len(operation.data)
    content.extend(bytes(max(0, end - len(content))))
    for start in range(0, len(operation.data), _SECTOR):
        if torn is None or torn.random() < 0.5:
            piece = operation.data[start : start + _SECTOR]
            at = operation.offset + start
            content[at : at + len(piece)] = piece
