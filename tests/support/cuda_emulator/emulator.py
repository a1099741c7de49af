"""CUDA kernels on a CPU: the driver layer's objects over ``emulator.h``.

    device = emulator.Device()
    module = device.compile("nms", kernels=["decode", "suppress"], defines={"HEAD": 1})
    boxes = device.array(np.zeros((8, 4), np.float32))          # guarded memory
    decode = module.function("decode")
    device.stream().launch(decode, (8, 1, 1), (256, 1, 1), [c_void_p(boxes.pointer)])

Launchers that are written for :mod:`edgecount.infer.cuda.driver` run on these unchanged.
``stream(seed)`` other than 0 shuffles the order in which blocks and threads run.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

_HERE = Path(__file__).resolve().parent
PLUGINS = _HERE.parents[2] / "plugins"
_FLAGS = [
    *("-std=c++17", "-O2", "-g", "-fPIC", "-shared", "-w"),
    *("-ffp-contract=off", "-fno-strict-aliasing"),
    # longjmp between stacks is what fibers do; these checks take it for an error.
    *("-U_FORTIFY_SOURCE", "-fno-stack-protector"),
]
Dimensions = Tuple[int, int, int]


class KernelError(AssertionError):
    """A kernel faulted or cannot go on; the message says where."""


def needs_compiler() -> None:
    """Skip the calling test where there is no C++ compiler."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")


class Properties(NamedTuple):
    """What launchers ask of a device."""

    name: str = "emulator"
    arch: str = "emulator"
    capability: Tuple[int, int] = (9, 0)
    multiprocessors: int = 4
    shared_bytes: int = 232448
    integrated: bool = False


class Memory:
    """Memory that faults behind its end, for device and pinned memory alike.

    ``pointer`` is its address and ``array`` the memory as bytes.
    """

    def __init__(self, library: ctypes.CDLL, size: int) -> None:
        self._library, self.size = library, size
        self.pointer = int(library.emulated_alloc(ctypes.c_size_t(max(size, 1))) or 0)
        if not self.pointer:
            raise MemoryError(f"{size} bytes")
        self.device_pointer = self.pointer
        self.array = self.view((size,), np.uint8)

    def view(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """The memory as an array, shared with the kernels."""
        bytes_ = (ctypes.c_uint8 * self.size).from_address(self.pointer)
        count = int(np.prod(shape))
        return np.frombuffer(memoryview(bytes_), dtype, count).reshape(shape)

    def close(self) -> None:
        """Free it."""
        if self.pointer:
            self._library.emulated_free(
                ctypes.c_void_p(self.pointer), ctypes.c_size_t(max(self.size, 1))
            )
            self.pointer = 0

    def __del__(self) -> None:
        self.close()


class Function:
    """A kernel."""

    def __init__(self, name: str, call: Any) -> None:
        self.name, self.call = name, call
        call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_void_p]
        call.restype = ctypes.c_char_p

    def allow_shared(self, size: int) -> None:
        """As the driver's."""


class Module:
    """A compiled source."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def function(self, name: str) -> Function:
        """The kernel called ``name``."""
        return Function(name, getattr(self.library, f"emulate_{name}"))

    def close(self) -> None:
        """Nothing to free."""


class Stream:
    """Runs what it is given at once."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.launches: List[str] = []

    def launch(
        self,
        function: Function,
        grid: Dimensions,
        block: Dimensions,
        args: Sequence[Any],
        shared: int = 0,
        *,
        cooperative: bool = False,
    ) -> None:
        """Run a kernel. Raises KernelError."""
        assert not cooperative, "blocks that wait for each other are not emulated"
        self.launches.append(function.name)
        shape = (ctypes.c_uint * 6)(*grid, *block)
        values = list(args)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(v) for v in values))
        message = function.call(shape, shared, self.seed, pointers)
        if message is not None:
            raise KernelError(f"{function.name}: {message.decode()}")

    def upload(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    download = copy = upload

    def fill(self, target: int, value: int, size: int) -> None:
        ctypes.memset(target, value, size)

    def synchronize(self) -> None:
        """Everything is done already."""


class Device:
    """Stands for :class:`edgecount.infer.cuda.driver.Device`."""

    def __init__(self) -> None:
        needs_compiler()
        self.properties = Properties()
        self._library = _build(_HERE / "emulator.h", (), {})

    def compile(
        self,
        name: str,
        kernels: Sequence[str],
        defines: Optional[Mapping[str, object]] = None,
    ) -> Module:
        """Compile ``plugins/<name>.cu`` (or a path) and make its ``kernels`` callable."""
        path = Path(name) if name.endswith(".cu") else PLUGINS / f"{name}.cu"
        return Module(_build(path, kernels, defines or {}))

    def allocate(self, size: int) -> Memory:
        """Poisoned memory of ``size`` bytes."""
        return Memory(self._library, size)

    def pinned(self, size: int, **_kind: bool) -> Memory:
        """Stands for pinned host memory."""
        return Memory(self._library, size)

    def array(self, values: NDArray[Any]) -> Memory:
        """A copy of ``values`` in guarded memory."""
        values = np.ascontiguousarray(values)
        memory = self.allocate(values.nbytes)
        if values.nbytes:
            memory.view(values.shape, values.dtype)[...] = values
        return memory

    def stream(self, seed: int = 0) -> Stream:
        """A stream; ``seed`` other than 0 shuffles blocks and threads."""
        return Stream(seed)


def _build(source: Path, kernels: Sequence[str], defines: Mapping[str, object]) -> ctypes.CDLL:
    text = "\n".join(
        [
            *(f"#define {key} {value}" for key, value in sorted(defines.items())),
            f'#include "{_HERE / "emulator.h"}"',
            # Unnamed, so that GCC can put the shared variables of inline functions in a section.
            *(["namespace {", f'#include "{source}"', "}"] if source.suffix == ".cu" else []),
            *(f"EMULATE({name})" for name in kernels),
            "",
        ]
    )
    digest = hashlib.sha256(text.encode())
    folders = {_HERE, PLUGINS, source.parent}
    for file in sorted(
        p for f in folders for p in f.glob("*") if p.suffix in (".h", ".cu", ".cuh")
    ):
        digest.update(file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"edgecount-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{source.stem}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        _compile(text, library, source.parent)
    loaded = ctypes.CDLL(str(library))
    loaded.emulated_alloc.restype = ctypes.c_void_p
    return loaded


def _compile(text: str, library: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as work:
        unit, made = Path(work) / "unit.cpp", Path(work) / "unit.so"
        unit.write_text(text)
        done = subprocess.run(
            ["g++", *_FLAGS, f"-I{PLUGINS}", f"-I{folder}", str(unit), "-o", str(made)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"the kernel does not compile:\n{done.stderr}")
        made.replace(library)
