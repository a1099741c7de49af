"""Announce the device to Home Assistant (MQTT device discovery, 2024.12 and later).

One retained message on ``homeassistant/device/<device>/config`` describes all entities.
The last announcement is read back first, so that entities which left the configuration
are taken away: Home Assistant removes a component that is announced with nothing but its
platform. After Home Assistant's birth message everything is announced again.
"""

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from edgecount import __version__
from edgecount.config import CameraSettings, PlaceSettings, Settings

_READ_BACK_S = 1.0
_REMOVAL_S = 1.0
_ORIGIN = {"name": "edgecount", "sw": __version__}

Components = Dict[str, Dict[str, Any]]


class Announcer:
    """Decides what is announced when, on one connection after the other.

    Args:
        settings: The configuration; ``settings.mqtt`` is given.
        prefix: Topic prefix of this device.
        clock: Monotonic seconds.
    """

    def __init__(self, settings: Settings, prefix: str, clock: Callable[[], float]) -> None:
        assert settings.mqtt is not None
        root = settings.mqtt.homeassistant_prefix
        self.topic = f"{root}/device/{settings.device}/config"
        self._birth_topic = f"{root}/status"
        self._payload = discovery(settings, prefix)
        self._clock = clock
        self._announced: Components = {}
        self._due_at: Optional[float] = None
        self._reborn = False

    def begin(self) -> List[str]:
        """A connection stands; returns what to subscribe to."""
        self._announced = {}
        self._due_at = self._clock() + _READ_BACK_S
        return [self.topic, self._birth_topic]

    def received(self, topic: str, payload: bytes, retained: bool) -> bool:
        """Hear a message; False: it is for somebody else."""
        if topic == self._birth_topic:
            if payload == b"online" and not retained:
                self._reborn = True
            return True
        if topic == self.topic:
            if retained:
                self._announced = _components(payload)
                self._due_at = self._clock()
            return True
        return False

    def due(self) -> List[Tuple[str, bytes]]:
        """Announcements to publish (retained) now: first one that removes, then the present."""
        if self._due_at is None or self._clock() < self._due_at:
            return []
        gone = {
            key: {"platform": old.get("platform", "sensor")}
            for key, old in self._announced.items()
            if key not in self._payload["components"]
        }
        self._announced = {}
        if gone:
            self._due_at = self._clock() + _REMOVAL_S
            removal = {**self._payload, "components": {**self._payload["components"], **gone}}
            return [(self.topic, _encode(removal))]
        self._due_at = None
        return [(self.topic, _encode(self._payload))]

    def reborn(self) -> bool:
        """Whether Home Assistant has started since the last call: publish everything again."""
        reborn, self._reborn = self._reborn, False
        return reborn

    def wait_s(self) -> Optional[float]:
        """Seconds until ``due`` has something; None: nothing is planned."""
        return None if self._due_at is None else max(0.0, self._due_at - self._clock())


def discovery(settings: Settings, prefix: str) -> Dict[str, Any]:
    """The announcement of all entities of a device."""
    components: Components = {}
    for camera in settings.cameras:
        components.update(_camera(settings.device, prefix, camera))
    for name, place in settings.places.items():
        components.update(_place(settings.device, prefix, name, place))
    return {
        "device": {
            "identifiers": [f"edgecount_{settings.device}"],
            "name": settings.device,
            "manufacturer": "edgecount",
            "model": "people counter",
            "sw_version": __version__,
        },
        "origin": _ORIGIN,
        "availability": [{"topic": f"{prefix}/status"}],
        "qos": 1,
        "components": components,
    }


def _camera(device: str, prefix: str, camera: CameraSettings) -> Components:
    topic = f"{prefix}/{camera.name}/state"
    found = Entities(device, camera.name, topic)
    found.measurement("visible", "visible", "people")
    found.measurement("fps", "fps", "fps", diagnostic=True)
    for line in camera.lines:
        for way in ("in", "out"):
            found.total(f"{line.name} {way}", f"lines['{line.name}']['{way}']")
    for zone in camera.zones:
        found.measurement(zone.name, f"zones['{zone.name}'].now", "people")
        if zone.max_occupancy is not None:
            found.crowded(f"{zone.name} crowded", f"zones['{zone.name}'].crowded")
    found.problem(f"{prefix}/{camera.name}/status")
    return found.components


def _place(device: str, prefix: str, name: str, place: PlaceSettings) -> Components:
    found = Entities(device, name, f"{prefix}/place/{name}/state", kind="place")
    found.measurement("occupancy", "occupancy", "people")
    found.total("in", "['in']")
    found.total("out", "out")
    if place.max_occupancy is not None:
        found.crowded("crowded", "crowded")
    return found.components


class Entities:
    """Collects the entities of one camera or place."""

    def __init__(self, device: str, owner: str, topic: str, kind: str = "camera") -> None:
        self._id = f"edgecount_{device}_{kind}_{owner}"
        self._owner = owner
        self._topic = topic
        self.components: Components = {}

    def measurement(self, name: str, path: str, unit: str, *, diagnostic: bool = False) -> None:
        """A value that goes up and down."""
        extra = {"entity_category": "diagnostic"} if diagnostic else {}
        self._add(
            name,
            platform="sensor",
            state_topic=self._topic,
            value_template=_template(path),
            state_class="measurement",
            unit_of_measurement=unit,
            **extra,
        )

    def total(self, name: str, path: str) -> None:
        """A counter; Home Assistant takes a fall for a reset."""
        self._add(
            name,
            platform="sensor",
            state_topic=self._topic,
            value_template=_template(path),
            state_class="total_increasing",
            unit_of_measurement="people",
        )

    def problem(self, topic: str) -> None:
        """On while the camera does not deliver as it should."""
        self._add(
            "problem",
            platform="binary_sensor",
            state_topic=topic,
            value_template="{{ 'OFF' if value == 'online' else 'ON' }}",
            device_class="problem",
        )

    def crowded(self, name: str, path: str) -> None:
        """On while there are too many people."""
        self._add(
            name,
            platform="binary_sensor",
            state_topic=self._topic,
            value_template=f"{{{{ 'ON' if value_json.{path} else 'OFF' }}}}",
        )

    def _add(self, name: str, **fields: Any) -> None:
        unique = f"{self._id}_{name.replace(' ', '_')}"
        self.components[unique] = {
            "unique_id": unique,
            "name": f"{self._owner} {name}",
            **fields,
        }


def _template(path: str) -> str:
    dot = "" if path.startswith("[") else "."
    return f"{{{{ value_json{dot}{path} }}}}"


def _components(payload: bytes) -> Components:
    """The components of an earlier announcement; none where it is not one."""
    try:
        components = json.loads(payload)["components"]
        return {str(k): dict(v) for k, v in components.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _encode(payload: Dict[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
