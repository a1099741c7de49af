"""The JSON Schemas of everything that goes over MQTT."""

import json
from pathlib import Path
from typing import Any, Dict

from edgecount.publish._commands import COMMANDS

_FOLDER = Path(__file__).with_name("schemas")
_TOPICS = {
    "{prefix}/{camera}/state": "state",
    "{prefix}/{camera}/event": "event",
    "{prefix}/place/{place}/state": "place",
    "{prefix}/aggregate/minute": "aggregate",
    "{prefix}/aggregate/hour": "aggregate",
    "{prefix}/aggregate/day": "aggregate",
    "{prefix}/response/{command}": "response",
}
_STATUS = {"title": "status", "description": "Plain text, no JSON. Retained.", "type": "string"}


def payload(name: str) -> Dict[str, Any]:
    """The schema of one kind of payload: state, event, place, aggregate or response."""
    schema: Dict[str, Any] = json.loads((_FOLDER / f"{name}.schema.json").read_text("utf-8"))
    return schema


def topics() -> Dict[str, Dict[str, Any]]:
    """Every topic, with the schema of its payload."""
    found: Dict[str, Dict[str, Any]] = {
        "{prefix}/status": {**_STATUS, "enum": ["online", "offline"]},
        "{prefix}/{camera}/status": {**_STATUS, "enum": ["online", "degraded", "offline"]},
    }
    found.update({topic: payload(name) for topic, name in _TOPICS.items()})
    for name, model in COMMANDS.items():
        found[f"{{prefix}}/command/{name}"] = model.model_json_schema()
    return found
