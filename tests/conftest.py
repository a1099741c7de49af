import os
from typing import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _measurements_are_not_kept_at_home(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """What runs a model is measured once per machine; tests measure their own models."""
    with pytest.MonkeyPatch.context() as patch:
        if "EDGECOUNT_CACHE" not in os.environ:
            patch.setenv("EDGECOUNT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
