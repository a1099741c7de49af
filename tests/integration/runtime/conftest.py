"""What the tests of the whole service share."""

from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping

import pytest
from support import service as services

Launch = Callable[..., services.Service]


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return services.model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return services.walkers_clip(tmp_path_factory.mktemp("clip") / "walkers.avi")


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts services that are killed at the end."""
    running: List[services.Service] = []

    def start(settings: Mapping[str, Any], *arguments: str, **options: Any) -> services.Service:
        running.append(services.Service(tmp_path, settings, *arguments, **options))
        return running[-1]

    yield start
    for service in running:
        service.close()
