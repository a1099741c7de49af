"""Settings from a file, from the command line, or from both."""

from pathlib import Path
from typing import Any, Dict, Optional

from edgecount.config import ModelSettings, Settings, load
from edgecount.errors import ConfigError
from edgecount.infer.recipe import model_keys
from edgecount.runtime.plan import default_settings


def settings_from(
    config: Optional[Path],
    source: Optional[str],
    model: Optional[str],
    *,
    realtime: bool = False,
) -> Settings:
    """What to run: the file's settings with the command line's source and model put in.

    Args:
        config: Configuration file; the default configuration where None.
        source: Replaces the source of the only camera.
        model: Replaces the model.
        realtime: Play a file at its own rate.

    Raises:
        ConfigError: There is neither file nor source, or several cameras and one source.
    """
    if config is None and source is None:
        raise ConfigError("say what to count: a configuration (-c FILE) or a --source")
    settings = load(config) if config else default_settings(source or "", model=model)
    changes: Dict[str, Any] = {}
    if source is not None or realtime:
        if len(settings.cameras) != 1:
            raise ConfigError(
                f"--source and --realtime speak of one camera, but {config} has "
                f"{len(settings.cameras)}: change their sources there"
            )
        camera = settings.cameras[0]
        capture = {**({} if source else camera.capture), **({"realtime": True} if realtime else {})}
        update = {"source": source or camera.source, "capture": capture}
        changes["cameras"] = [camera.model_copy(update=update)]
    if config and model:
        keys = {"name": None, "path": None, **model_keys(model)}
        kept = settings.model.model_dump(exclude={"name", "path"})
        changes["model"] = ModelSettings.model_validate({**kept, **keys})
    return settings.model_copy(update=changes)
