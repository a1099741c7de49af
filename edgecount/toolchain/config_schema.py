"""The JSON Schema of the configuration file, with the options of every implementation."""

from typing import Any, Dict, List

from edgecount import discovery
from edgecount.config import Settings

# Where a free mapping of the settings holds the options of a file found by name.
_PLUGINS = (
    ("CameraSettings", "capture", "edgecount.capture", "the kind of source"),
    ("CameraSettings", "tracker", "edgecount.track", "the tracker"),
    ("Settings", "tracker", "edgecount.track", "the tracker"),
)


def config_schema() -> Dict[str, Any]:
    """The schema of :class:`~edgecount.config.Settings`, keys as they are written in YAML."""
    schema = Settings.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    for owner, key, package, what in _PLUGINS:
        properties = schema if owner == "Settings" else definitions[owner]
        field = properties["properties"][key]
        choices = [_choice(package, name, what, definitions) for name in discovery.names(package)]
        properties["properties"][key] = {
            "description": field.get("description", ""),
            "anyOf": choices,
            "default": {},
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _choice(package: str, name: str, what: str, definitions: Dict[str, Any]) -> Dict[str, Any]:
    """The options of one implementation, and ``kind``, which names it."""
    options = discovery.load(package, name, what).Options.model_json_schema(by_alias=True)
    definitions.update(options.pop("$defs", {}))
    kind = {"const": name, "description": f"Name of {what}."}
    required: List[str] = options.get("required", [])
    return {
        "title": name,
        "type": "object",
        "description": options.get("description", ""),
        "properties": {"kind": kind, **options.get("properties", {})},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
