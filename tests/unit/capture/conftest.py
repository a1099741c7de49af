import pytest
from support.host_driver import HostDriver

from edgecount.capture import _surfaces


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> HostDriver:
    """libcuda, as the tests of decoding on a GPU find it."""
    found = HostDriver()
    monkeypatch.setattr(_surfaces.ctypes, "CDLL", lambda _name: found)
    return found
