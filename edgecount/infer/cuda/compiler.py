"""Compile the kernels of ``plugins/`` with NVRTC, at first use, and keep what it makes.

NVRTC is called through ctypes: seven C functions that have been the same since CUDA 7, where
the Python bindings moved twice. Floating-point contraction is off, so that a kernel rounds as
its NumPy reference does.
"""

import contextlib
import ctypes
import hashlib
import os
import re
import sys
import tempfile
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple

import structlog

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import Device, Module

CACHE_VARIABLE = "EDGECOUNT_CACHE"
_OPTIONS = ("--fmad=false", "--std=c++14", "--ptxas-options=-v")
_SUFFIX = ".cu"
_LIBRARIES = "libnvrtc.so*"
# The first CUDA release whose NVRTC writes cubins, not only PTX.
_WRITES_CUBIN = (11, 1)
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_REMEDY = (
    "install it with  pip install nvidia-cuda-nvrtc  (CUDA 13), nvidia-cuda-nvrtc-cu12 or -cu11, "
    "or on a Jetson with  apt-get install cuda-nvrtc-<version>"
)

_log = structlog.get_logger(__name__)


class KernelReport(NamedTuple):
    """What one kernel needs, as ptxas says it; bytes are per thread, ``shared`` per block."""

    kernel: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


class Compiled(NamedTuple):
    """What came of a source.

    Attributes:
        image: A cubin, or PTX (text ending in a null byte) where NVRTC writes no cubin.
        reports: Of its kernels; empty where the compiler gives none.
        nvrtc: Version of the compiler.
    """

    image: bytes
    reports: Tuple[KernelReport, ...]
    nvrtc: Tuple[int, int]


def load(device: Device, name: str, defines: Optional[Mapping[str, object]] = None) -> Module:
    """The kernels of ``plugins/<name>.cu`` on ``device``, compiled if they have to be.

    Raises:
        EngineError: There is no compiler, or the device does not take what it made.
    """
    properties = device.properties
    return device.module(
        compile_source(name, properties.arch, defines or {}, driver=properties.driver)
    )


def compile_source(
    name: str,
    arch: str,
    defines: Mapping[str, object],
    *,
    driver: Tuple[int, int] = (0, 0),
    nvrtc: Optional["Nvrtc"] = None,
) -> bytes:
    """Compile ``plugins/<name>.cu``, or take what was compiled before.

    The cache is ``$EDGECOUNT_CACHE/kernels`` (else ``~/.cache/edgecount/kernels``). An entry's
    name is made of the sources, options, architecture and driver; it appears by an atomic
    rename, so processes that start together cannot read half of one.

    Args:
        name: File name in ``plugins`` without its suffix.
        arch: ``sm_87`` and the like.
        defines: Macros.
        driver: CUDA version of the driver, part of the cache's key.
        nvrtc: The compiler; found on this machine where None.

    Returns:
        A cubin, or PTX where this NVRTC writes no cubin for ``arch``.

    Raises:
        EngineError: There is no NVRTC, or it refuses the source.
    """
    options = (*_OPTIONS, *(f"-D{key}={value}" for key, value in sorted(defines.items())))
    entry = _cache_entry(name, arch, options, driver)
    with contextlib.suppress(OSError):
        return entry.read_bytes()
    image = (nvrtc or Nvrtc.find()).compile(source_path(name), arch, options).image
    try:
        _publish(entry, image)
    except OSError as error:
        _log.warning("kernel_not_cached", path=str(entry), reason=str(error))
    return image


def compile_with(nvrtc: "Nvrtc", name: str, arch: str, defines: Mapping[str, object]) -> Compiled:
    """Compile ``plugins/<name>.cu`` past the cache, with the compiler's report."""
    options = (*_OPTIONS, *(f"-D{key}={value}" for key, value in sorted(defines.items())))
    return nvrtc.compile(source_path(name), arch, options)


def plugins_folder() -> Path:
    """Where the CUDA sources lie: in the wheel, or beside the package in a checkout.

    Raises:
        EngineError: They are in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_data" / "plugins", package.parent / "plugins"):
        if folder.is_dir():
            return folder
    raise EngineError(f"the CUDA sources are missing from {package}: install edgecount again")


def source_path(name: str) -> Path:
    """The source called ``name``. Raises EngineError where there is none."""
    path = plugins_folder() / f"{name}{_SUFFIX}"
    if not path.is_file():
        raise EngineError(f"there is no CUDA source {path}: install edgecount again")
    return path


class Nvrtc:
    """NVIDIA's run-time compiler; needs neither a GPU nor a driver."""

    def __init__(self, path: Path) -> None:
        """Load the library at ``path``, or of that name. Raises EngineError."""
        try:
            self._library = ctypes.CDLL(str(path))
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise EngineError(f"NVRTC {path} cannot be loaded ({error}); {_REMEDY}") from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(
            self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)),
            "asking NVRTC for its version",
        )
        self.path = path
        self.version = major.value, minor.value

    @classmethod
    def find(cls) -> "Nvrtc":
        """The newest NVRTC of this Python's packages, else the system's. Raises EngineError."""
        path = next(_candidates(), None)
        if path is None:
            raise EngineError(
                f"NVRTC, which compiles the CUDA kernels, is not installed; {_REMEDY}"
            )
        return cls(path)

    def compile(self, path: Path, arch: str, options: Sequence[str]) -> Compiled:
        """Compile a source for ``arch`` (``sm_87``).

        Raises:
            EngineError: NVRTC refuses it; the message has the compiler's own.
        """
        cubin = self.version >= _WRITES_CUBIN
        target = arch if cubin else arch.replace("sm_", "compute_")
        text = path.read_bytes()
        with self._program(text, path.name) as program:
            flags = [f"--gpu-architecture={target}", f"--include-path={path.parent}", *options]
            if not cubin:
                flags = [f for f in flags if not f.startswith("--ptxas")]
            array = (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))
            result = self._library.nvrtcCompileProgram(program, len(flags), array)
            log = self._text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if result:
                raise EngineError(
                    f"{path} cannot be compiled for {arch} by NVRTC "
                    f"{'.'.join(map(str, self.version))}:\n{log or self._error(result)}"
                )
            image = self._text(program, "CUBIN" if cubin else "PTX")
        return Compiled(image, tuple(_reports(log)), self.version)

    @contextlib.contextmanager
    def _program(self, text: bytes, name: str) -> Iterator[ctypes.c_void_p]:
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program), text, name.encode(), 0, None, None
            ),
            f"giving NVRTC {name}",
        )
        try:
            yield program
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        doing = f"reading NVRTC's {what}"
        ask_size = getattr(self._library, f"nvrtcGet{what}Size")
        self._check(ask_size(program, ctypes.byref(size)), doing)
        text = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, text), doing)
        return text.raw

    def _check(self, result: int, doing: str) -> None:
        if result:
            raise EngineError(f"NVRTC failed while {doing}: {self._error(result)}")

    def _error(self, result: int) -> str:
        text: Any = self._library.nvrtcGetErrorString(result)
        return text.decode() if isinstance(text, bytes) else str(result)


def library_in(folder: Path) -> Optional[Path]:
    """The NVRTC somewhere under ``folder``, where ``pip install --target`` put it."""
    found = [p for p in folder.rglob(_LIBRARIES) if "alt" not in p.name]
    return max(found, default=None, key=_release)


def _candidates() -> Iterator[Path]:
    """Where NVRTC may be, likeliest first."""
    packages = {
        library
        for entry in sys.path
        if entry
        for library in Path(entry, "nvidia").glob(f"*/lib/{_LIBRARIES}")
        if "alt" not in library.name
    }
    yield from sorted(packages, key=_release, reverse=True)
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    yield from sorted(Path(home).glob(f"lib*/{_LIBRARIES}"), key=_release, reverse=True)
    known = find_library("nvrtc")
    if known:
        yield Path(known)


def _release(path: Path) -> Tuple[int, ...]:
    """The numbers behind ``.so`` of a library's name."""
    return tuple(int(n) for n in re.findall(r"\d+", path.name.partition(".so")[2]))


def _cache_entry(name: str, arch: str, options: Sequence[str], driver: Tuple[int, int]) -> Path:
    path = source_path(name)
    digest = hashlib.sha256(repr((arch, tuple(options), driver)).encode())
    for part in (path, *sorted(path.parent.glob("*.cuh"))):
        digest.update(part.read_bytes())
    return _cache_folder() / f"{name}-{arch}-{digest.hexdigest()[:24]}.bin"


def _cache_folder() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return (Path(given) if given else Path("~/.cache/edgecount").expanduser()) / "kernels"


def _publish(entry: Path, image: bytes) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=str(entry.parent), prefix=entry.stem)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(image)
        Path(temporary).replace(entry)
    except OSError:
        Path(temporary).unlink()
        raise


def _reports(log: str) -> Iterator[KernelReport]:
    """What ``ptxas -v`` says, kernel by kernel."""
    parts = _ENTRY.split(log)
    for kernel, text in zip(parts[1::2], parts[2::2]):
        yield KernelReport(
            kernel,
            registers=_number(r"Used (\d+) registers", text),
            shared=_number(r"(\d+) bytes smem", text),
            stack=_number(r"(\d+) bytes stack frame", text),
            spill_stores=_number(r"(\d+) bytes spill stores", text),
            spill_loads=_number(r"(\d+) bytes spill loads", text),
        )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0
