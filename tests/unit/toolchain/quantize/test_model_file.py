"""From the name a user gives to a model's file."""

import pytest

from edgecount.errors import ConfigError
from edgecount.toolchain.quantize import model_file


@pytest.mark.parametrize("opened", [model_file.find, model_file.open_detector])
@pytest.mark.parametrize("name", ["runs/mine/head.onnx", "head-x"])
def test_a_model_that_is_not_there_is_one_sentence(opened, name):
    with pytest.raises(ConfigError, match=f"{name} does not exist .*shipped models: head-n"):
        opened(name)
