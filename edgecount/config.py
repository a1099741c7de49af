"""The configuration: YAML in, validated and frozen settings out.

Coordinates are normalised to the picture (0..1, origin at the top left), so that
they hold when the camera's resolution changes. ``${NAME}`` takes a value from the
environment, ``${NAME:-default}`` with a default, ``${file:/path}`` from a file
(systemd credentials, docker secrets); ``$${`` is a literal ``${``.
"""

import os
import re
import socket
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple, Type, Union

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import Annotated, Literal

from edgecount.discovery import nearest
from edgecount.errors import ConfigError
from edgecount.redact import Redactor, url_passwords
from edgecount.timezones import zone

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Point = Tuple[Unit, Unit]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0)]
PictureSide = Annotated[int, Field(ge=1, le=65535)]
InputSide = Annotated[int, Field(ge=32, le=4096)]
Port = Annotated[int, Field(ge=1, le=65535)]
# Names become MQTT topic levels, metric labels and file names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
RESERVED_CAMERA_NAMES = ("status", "command", "response", "place", "aggregate")
# Values of such placeholders are secrets; others (a device's name) must stay readable.
_TELLING = re.compile(r"^file:|pass|secret|token|key|pwd|credential", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_MERGE = "tag:yaml.org,2002:merge"
# No configuration is this large, but a few lines of aliases can be.
_MOST_VALUES = 20_000
_MOST_SHOWN = 80
# Of a frame; each is a run of the network.
MOST_TILES = 16
Location = Tuple[Union[str, int], ...]


class Strict(BaseModel):
    """Base of settings and options: frozen; an unknown key is an error that names the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = {f.alias or name for name, f in cls.model_fields.items()}
            for key in data:
                if key not in known:
                    hint = nearest(str(key), known)
                    raise PydanticCustomError(
                        "unknown_key", "unknown key '{key}'{hint}", {"key": key, "hint": hint}
                    )
        return data


class ModelSettings(Strict):
    """Which detector counts, and how it is run."""

    name: Optional[Name] = Field(None, description="A model of engines/, e.g. head-n.")
    path: Optional[Path] = Field(None, description="An ONNX file of your own, instead of a name.")
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field(
        "auto", description="auto measures what is fastest within the recipe's budget."
    )
    backend: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="What runs the network; auto takes the fastest that is there."
    )
    cpu_runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto",
        description="What runs the network where the CPU does; auto measures those installed.",
    )
    fallback: bool = Field(
        True, description="Whether the CPU counts when the accelerator cannot be used."
    )
    max_wait_ms: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        2.0,
        description="Longest that a frame waits for other cameras' to share a batch with, "
        "milliseconds, where the backend takes several at once.",
    )
    score_threshold: Optional[Fraction] = Field(
        None, description="Least score of a detection; the recipe's where not given."
    )
    nms: Literal["numpy", "opencv"] = Field("numpy", description="Who suppresses duplicates.")
    nms_iou: Optional[Fraction] = Field(
        None, description="IoU above which two boxes are one head; the recipe's where not given."
    )
    input_size: Optional[Tuple[InputSide, InputSide]] = Field(
        None,
        description="Width and height of the network's input, where the model leaves a choice.",
    )
    threads: Optional[Annotated[int, Field(ge=1, le=256)]] = Field(
        None, description="CPU threads of the network; all cores where not given."
    )

    @model_validator(mode="after")
    def _one_of_name_and_path(self) -> "ModelSettings":
        if self.name and self.path:
            raise PydanticCustomError("model", "give either 'name' or 'path', not both")
        return self


class LineSettings(Strict):
    """A directed line. Standing at ``from`` and looking to ``to``, left-to-right is "in"."""

    name: Name = Field(description="Name in topics, metrics and events.")
    start: Point = Field(alias="from", description="Normalised x, y.")
    end: Point = Field(alias="to", description="Normalised x, y.")
    band: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.005,
        description="A crossing counts only once the far side is this far away, as a fraction "
        "of the picture's diagonal: jitter on the line is no crossing.",
    )
    return_s: Seconds = Field(
        1.2,
        description="Who comes back over the line within this time, seconds, has not crossed "
        "(A→B→A cancels); a crossing is reported when it is over.",
    )

    @model_validator(mode="after")
    def _has_a_length(self) -> "LineSettings":
        if self.start == self.end:
            raise PydanticCustomError(
                "line", "'from' and 'to' are the same point; a line needs two"
            )
        return self


class ZoneSettings(Strict):
    """A polygon in which heads are counted."""

    name: Name = Field(description="Name in topics, metrics and events.")
    polygon: Annotated[List[Point], Field(min_length=3, max_length=256)] = Field(
        description="Corners in order, normalised; the last joins the first."
    )
    max_occupancy: Optional[Annotated[int, Field(ge=1)]] = Field(
        None, description="More heads than this are an over-crowding."
    )
    crowded_s: Seconds = Field(
        10.0,
        description="It is one when it lasts so long, seconds; and over after as long at 90 %.",
    )
    settle_s: Seconds = Field(
        0.3, description="An entry or exit counts when it lasted this long, seconds."
    )

    @field_validator("polygon")
    @classmethod
    def _simple(cls, polygon: List[Point]) -> List[Point]:
        return _simple_polygon(polygon)


class TileSettings(Strict):
    """How a frame is cut into overlapping tiles. ``tiles: 2x3`` is short for columns and rows."""

    columns: Annotated[int, Field(ge=1, le=MOST_TILES)] = Field(description="Tiles side by side.")
    rows: Annotated[int, Field(ge=1, le=MOST_TILES)] = Field(description="Rows of tiles.")
    overlap: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        0.2,
        description="Part of a tile's side that it shares with its neighbour; more than the "
        "largest head.",
    )
    whole: bool = Field(
        False,
        description="Whether the whole frame is looked at besides, for heads that are larger "
        "than the overlap.",
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        if isinstance(given, (Mapping, TileSettings)):
            return given
        short = re.fullmatch(r"(\d{1,2})x(\d{1,2})", str(given))
        if short is None:
            raise PydanticCustomError(
                "tiles",
                "tiles are COLUMNSxROWS, e.g. 2x2, or {columns: 2, rows: 2, overlap: 0.2}",
            )
        return {"columns": int(short.group(1)), "rows": int(short.group(2))}

    @model_validator(mode="after")
    def _some(self) -> "TileSettings":
        tiles = self.columns * self.rows
        if not 2 <= tiles <= MOST_TILES:
            raise PydanticCustomError(
                "tiles",
                "{columns} × {rows} tiles are {tiles}; a frame is cut into 2 to {most}",
                {
                    "columns": self.columns,
                    "rows": self.rows,
                    "tiles": tiles,
                    "most": MOST_TILES,
                },
            )
        return self

    @property
    def pictures(self) -> int:
        """Pictures for the network that a frame becomes."""
        return self.columns * self.rows + self.whole

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(core_schema))
        short = {"type": "string", "pattern": "^[0-9]{1,2}x[0-9]{1,2}$"}
        description = whole.pop("description", "")
        return {"description": description, "anyOf": [short, whole]}


class CameraSettings(Strict):
    """One camera, and what is counted in its picture."""

    name: Name = Field(description="Name in topics, metrics and events.")
    source: str = Field(
        repr=False, description="rtsp://…, usb:0, a file, or gst:<pipeline>.", min_length=1
    )
    capture: Dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the source; 'kind' forces one (file, usb, rtsp, gstreamer).",
    )
    fps: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(
        25.0, description="Rate this camera should hold; alerts compare with it."
    )
    max_fps: Optional[Annotated[float, Field(gt=0.0)]] = Field(
        None, description="Process at most this many frames per second."
    )
    stale_s: Annotated[float, Field(gt=0.0)] = Field(
        2.0, description="Without a frame for this long the camera is degraded, seconds."
    )
    watch_picture: bool = Field(
        True, description="Say so when the picture is covered, dark, frozen, blurred or turned."
    )
    head_px: Optional[Annotated[float, Field(gt=0.0)]] = Field(
        None, description="Expected head size in source pixels, for edgecount check."
    )
    picture: Optional[Tuple[PictureSide, PictureSide]] = Field(
        None,
        description="Width and height of the source's pictures, for edgecount check; a file's, "
        "and what the capture options ask for, are known.",
    )
    tiles: Optional[TileSettings] = Field(
        None,
        description="Cuts each frame into overlapping tiles, for heads that are too small for "
        "the model: 2x2, or columns, rows and overlap. Each tile is a run of the network.",
    )
    lines: List[LineSettings] = Field(default_factory=list, description="Lines to count at.")
    zones: List[ZoneSettings] = Field(default_factory=list, description="Zones to count in.")
    ignore: List[Annotated[List[Point], Field(min_length=3, max_length=256)]] = Field(
        default_factory=list, description="Polygons in which detections are dropped."
    )
    tracker: Dict[str, Any] = Field(
        default_factory=dict, description="Options of the tracker for this camera; 'kind' names it."
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_CAMERA_NAMES:
            raise PydanticCustomError(
                "camera", "'{name}' is a topic of its own and no camera name", {"name": name}
            )
        return name

    @field_validator("ignore")
    @classmethod
    def _simple(cls, polygons: List[List[Point]]) -> List[List[Point]]:
        return [_simple_polygon(p) for p in polygons]

    @model_validator(mode="after")
    def _distinct_names(self) -> "CameraSettings":
        _distinct([x.name for x in self.lines] + [x.name for x in self.zones], "line or zone")
        return self


class PlaceSettings(Strict):
    """A place whose occupancy is the net flow over lines of one or several cameras."""

    enters: List[str] = Field(
        default_factory=list,
        alias="in",
        description="camera.line, where crossing 'in' enters the place and 'out' leaves it.",
    )
    leaves: List[str] = Field(
        default_factory=list,
        alias="out",
        description="camera.line, where crossing 'in' leaves the place and 'out' enters it.",
    )
    max_occupancy: Optional[Annotated[int, Field(ge=1)]] = Field(
        None, description="More people than this are an over-crowding."
    )
    crowded_s: Seconds = Field(
        10.0,
        description="It is one when it lasts so long, seconds; and over after as long at 90 %.",
    )
    witness: List[str] = Field(
        default_factory=list,
        description="camera.zone: heads seen there at once prove that as many people are in it.",
    )


class TlsSettings(Strict):
    """TLS towards the broker."""

    ca: Optional[Path] = Field(
        None, description="CA certificate (PEM); the system's where not given."
    )
    cert: Optional[Path] = Field(None, description="Client certificate (PEM).")
    key: Optional[Path] = Field(None, description="Client key (PEM).")
    alpn: List[str] = Field(default_factory=list, description="ALPN protocols to offer.")
    check_hostname: bool = Field(
        True, description="Whether the certificate must bear the host's name."
    )


class MqttSettings(Strict):
    """The broker that counts are published to."""

    host: str = Field(min_length=1, description="Name or address of the broker.")
    port: Port = Field(1883, description="1883, with TLS usually 8883.")
    username: Optional[str] = Field(None, description="Login name.")
    password: Optional[SecretStr] = Field(
        None, description="Password; better ${NAME} or ${file:…}."
    )
    password_file: Optional[Path] = Field(
        None, description="File whose first line is the password."
    )
    client_id: Optional[str] = Field(None, description="edgecount-<device> where not given.")
    protocol: Literal["3.1.1", "5"] = Field("5", description="MQTT version.")
    keepalive_s: Annotated[int, Field(ge=5, le=65535)] = Field(
        30, description="Keep-alive, seconds."
    )
    prefix: str = Field(
        "edgecount/{device}", description="Topic prefix; {device} is replaced.", min_length=1
    )
    state_interval_s: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="Camera state is published at most this often, seconds."
    )
    tls: Optional[TlsSettings] = Field(None, description="TLS; {} takes the system's CAs.")
    commands: List[Literal["reset", "set_occupancy", "reload"]] = Field(
        default_factory=list, description="Commands that are obeyed; none unless named."
    )
    catch_up_per_s: Annotated[float, Field(ge=1.0)] = Field(
        3000.0, description="Events per second at most while a backlog is sent."
    )
    session_expiry_s: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = Field(
        0,
        description="How long the broker keeps commands for this device while it is away, seconds.",
    )
    homeassistant: bool = Field(False, description="Announce entities to Home Assistant.")
    homeassistant_prefix: str = Field(
        "homeassistant", description="Home Assistant's discovery prefix.", min_length=1
    )
    frigate_topics: bool = Field(False, description="Also publish plain integers as Frigate does.")
    frigate_prefix: str = Field(
        "frigate", description="Topic prefix of those integers.", min_length=1
    )

    @field_validator("prefix", "homeassistant_prefix", "frigate_prefix")
    @classmethod
    def _no_wildcards(cls, prefix: str) -> str:
        if any(c in prefix for c in "+#") or prefix.startswith(("$", "/")) or prefix.endswith("/"):
            raise PydanticCustomError(
                "prefix", "a topic prefix has no '+', '#', leading '$' and no '/' at its ends"
            )
        return prefix

    @model_validator(mode="after")
    def _one_password(self) -> "MqttSettings":
        if self.password is not None and self.password_file is not None:
            raise PydanticCustomError(
                "password", "give either 'password' or 'password_file', not both"
            )
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise PydanticCustomError("password", "a password needs a 'username'")
        return self


class LedgerSettings(Strict):
    """Where counts are kept so that they survive a restart."""

    path: Optional[Path] = Field(
        None,
        description="SQLite file; default ledger.db in $STATE_DIRECTORY or the user's state folder",
    )
    enabled: bool = Field(True, description="false counts in memory only.")
    commit_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        200, description="Events are committed in groups at least this often, milliseconds."
    )
    keep_days: Annotated[float, Field(gt=0.0)] = Field(90.0, description="Age at which events go.")
    max_mb: Annotated[float, Field(gt=1.0)] = Field(
        512.0, description="Size limit of the file, MB."
    )
    outbox_max: Annotated[int, Field(ge=1)] = Field(
        500_000, description="Unsent events kept at most; the oldest go first."
    )
    outbox_max_days: Annotated[float, Field(gt=0.0)] = Field(
        14.0, description="Age at which an unsent event is given up."
    )


class ResetSettings(Strict):
    """When totals start again at zero, by wall clock."""

    at: str = Field("04:00", description='Time of day, quoted, e.g. "04:00".')
    timezone: str = Field("UTC", description="IANA name, e.g. Europe/Berlin.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            zone(name)
        except ValueError as error:
            raise PydanticCustomError(
                "timezone", "{why}; IANA names look like Europe/Berlin", {"why": str(error)}
            ) from error
        return name

    @field_validator("at", mode="before")
    @classmethod
    def _time_of_day(cls, at: Any) -> Any:
        if isinstance(at, int):
            # YAML 1.1 reads 04:00 as the sexagesimal number 240.
            raise PydanticCustomError("time", 'put the time in quotes, e.g. "04:00"')
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", str(at)):
            raise PydanticCustomError("time", 'a time of day looks like "04:00", 24 hours')
        return at


class HttpSettings(Strict):
    """The one HTTP server: /metrics, /healthz, /readyz."""

    enabled: bool = Field(True, description="false opens no port.")
    bind: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="0 takes any free port.")


class LogSettings(Strict):
    """Logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: JSON unless stderr is a terminal."
    )


class Settings(Strict):
    """The whole configuration of one edgecount service."""

    device: Name = Field(default_factory=lambda: _device_name(), description="Name of this device.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="The detector.")
    cameras: Annotated[List[CameraSettings], Field(min_length=1)] = Field(
        description="At least one camera."
    )
    tracker: Dict[str, Any] = Field(
        default_factory=dict, description="Options of the tracker for all cameras; 'kind' names it."
    )
    places: Dict[Name, PlaceSettings] = Field(
        default_factory=dict, description="Occupancy over several lines and cameras, by name."
    )
    mqtt: Optional[MqttSettings] = Field(None, description="No broker: nothing is published.")
    ledger: LedgerSettings = Field(default_factory=LedgerSettings, description="Durable counts.")
    reset: Optional[ResetSettings] = Field(None, description="Daily reset; never where not given.")
    http: HttpSettings = Field(default_factory=HttpSettings, description="The HTTP server.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logging.")
    max_wait_ms: Annotated[float, Field(ge=0.0)] = Field(
        10.0, description="How long a batch waits for more cameras, milliseconds."
    )

    @field_validator("cameras")
    @classmethod
    def _distinct_cameras(cls, cameras: List[CameraSettings]) -> List[CameraSettings]:
        _distinct([c.name for c in cameras], "camera")
        return cameras

    @model_validator(mode="after")
    def _names_fit(self) -> "Settings":
        lines = {f"{c.name}.{line.name}" for c in self.cameras for line in c.lines}
        zones = {f"{c.name}.{z.name}" for c in self.cameras for z in c.zones}
        for place, settings in self.places.items():
            for line in settings.enters + settings.leaves:
                if line not in lines:
                    raise PydanticCustomError(
                        "place",
                        "place '{place}' names the line '{line}', which no camera has{hint}",
                        {"place": place, "line": line, "hint": nearest(line, lines)},
                    )
            _distinct(settings.enters + settings.leaves, f"line of place '{place}'")
            for zone_name in settings.witness:
                if zone_name not in zones:
                    raise PydanticCustomError(
                        "place",
                        "place '{place}' names the zone '{zone}', which no camera has{hint}",
                        {"place": place, "zone": zone_name, "hint": nearest(zone_name, zones)},
                    )
        return self

    _inserted: Tuple[str, ...] = PrivateAttr(default=())

    def secrets(self) -> List[str]:
        """Every password in these settings, for a :class:`~edgecount.redact.Redactor`.

        Those that came in through a file or a variable with a telling name are among them,
        wherever they stand (in a GStreamer pipeline, say).
        """
        found = [*self._inserted, *(p for c in self.cameras for p in url_passwords(c.source))]
        if self.mqtt and self.mqtt.password:
            found.append(self.mqtt.password.get_secret_value())
        if self.mqtt and self.mqtt.password_file:
            # A file that cannot be read is reported by the sink, which needs it.
            with suppress(OSError, UnicodeDecodeError):
                found += self.mqtt.password_file.read_text(encoding="utf-8").splitlines()[:1]
        return list(dict.fromkeys(found))


def mistakes(error: ValidationError, at: str = "") -> List[str]:
    """A sentence for each mistake, with its place; no values, which may be secret.

    Args:
        error: What pydantic found.
        at: Where the validated part itself stands, a dotted key; empty for the top.
    """
    described = []
    for mistake in error.errors(include_url=False, include_input=False):
        place: Location = (at, *mistake["loc"]) if at else mistake["loc"]
        message = mistake["msg"].replace("Input should", "should")
        described.append(f"{_dotted(place)}: {message}" if place else message)
    return described


def load(path: Path, environ: Optional[Mapping[str, str]] = None) -> Settings:
    """Read and validate a configuration file.

    Raises:
        ConfigError: It cannot be read or is wrong; the message lists every mistake
            with its line, key and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    return parse(text, str(path), os.environ if environ is None else environ)


def parse(text: str, origin: str, environ: Mapping[str, str]) -> Settings:
    """Validate YAML ``text``; ``origin`` names it in messages. Raises ConfigError."""
    document = _Document(text, origin, environ)
    return document.validate(Settings)


class _Document:
    """A YAML text whose values remember their line, for messages."""

    def __init__(self, text: str, origin: str, environ: Mapping[str, str]) -> None:
        self._origin = origin
        self._environ = environ
        self._lines: Dict[Location, int] = {}
        self._values = 0
        self._mistakes: List[str] = []
        self._substituted: Dict[Location, str] = {}
        self._secrets: List[str] = []
        try:
            self._loader = yaml.SafeLoader(text)
            node = self._loader.get_single_node()
            self._data = {} if node is None else self._value(node, ())
        except yaml.YAMLError as error:
            raise ConfigError(f"{origin} is not valid YAML: {_problem(error)}") from None
        except RecursionError as error:
            raise ConfigError(f"{origin} is nested too deeply, or refers to itself") from error

    def validate(self, model: Type[Settings]) -> Settings:
        """Build ``model`` from the document. Raises ConfigError with all mistakes."""
        if self._mistakes:
            raise ConfigError("\n".join(self._mistakes))
        if not isinstance(self._data, dict):
            raise ConfigError(f"{self._origin}: a configuration is a mapping of keys to values")
        try:
            settings = model.model_validate(self._data)
        except ValidationError as error:
            redact = Redactor(self._substituted.values())
            raise ConfigError("\n".join(redact(m) for m in self._describe(error))) from None
        settings._inserted = tuple(self._secrets)  # noqa: SLF001 - its own module
        return settings

    def _value(self, node: yaml.Node, at: Location) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ConfigError(
                f"{self._origin} holds more than {_MOST_VALUES} values; its aliases (*name) "
                "may multiply each other"
            )
        self._lines[at] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(n, (*at, i)) for i, n in enumerate(node.value)]
        return self._scalar(node, at)

    def _mapping(self, node: yaml.MappingNode, at: Location) -> Dict[str, Any]:
        merged: Dict[str, Any] = {}
        own: Dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(at, "a key is a word, not a list or a mapping", key_node)
            elif key_node.tag == _MERGE:
                merged = {**self._merged(value_node, at), **merged}
            else:
                # As written: YAML would make a number of 1, and true of on.
                key = key_node.value
                if key in own:
                    self._mistake((*at, key), "given twice", key_node)
                own[key] = self._value(value_node, (*at, key))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, at: Location) -> Dict[str, Any]:
        """What ``<<`` brings in: a mapping, or several of which the first goes first."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: Dict[str, Any] = {}
        line = self._lines[at]
        for part in parts:
            value = self._value(part, at)
            self._lines[at] = line
            if isinstance(value, dict):
                merged = {**value, **merged}
            else:
                self._mistake(at, "'<<' takes a mapping", part)
        return merged

    def _scalar(self, node: yaml.Node, at: Location) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError, AttributeError):
            # How PyYAML fails at 2024-99-99, at a number of 5000 digits, and at wrong tags.
            self._mistake(at, "cannot be read as a number, date or tag; put it in quotes", node)
            return None
        return self._substitute(value, at) if isinstance(value, str) else value

    def _substitute(self, text: str, at: Location) -> str:
        def one(match: "re.Match[str]") -> str:
            if match.group(0) == "$${":
                return "${"
            try:
                inserted = _lookup(match.group(1), self._environ)
            except ConfigError as error:
                self._mistakes.append(f"{self._origin}:{self._lines[at]}: {_dotted(at)}: {error}")
                return ""
            if _TELLING.search(match.group(1)):
                self._secrets.append(inserted)
            return inserted

        value = _PLACEHOLDER.sub(one, text)
        if value != text:
            self._substituted[at] = value
        return value

    def _mistake(self, at: Location, what: str, node: yaml.Node) -> None:
        line = node.start_mark.line + 1
        self._mistakes.append(f"{self._origin}:{line}: {_dotted(at)}: {what}")

    def _describe(self, error: ValidationError) -> List[str]:
        described = []
        for mistake in error.errors(include_url=False):
            at = mistake["loc"]
            if mistake["type"] == "unknown_key":
                at = (*at, mistake["ctx"]["key"])
            message = mistake["msg"].replace("Input should", "should")
            shown = self._shown(at, mistake["input"])
            if mistake["type"] == "string_type" and isinstance(
                mistake["input"], (int, float, date)
            ):
                shown += "; put it in quotes"
            described.append(f"{self._origin}:{self._line(at)}: {_dotted(at)}: {message}{shown}")
        return described

    def _shown(self, at: Location, given: object) -> str:
        secret = at in self._substituted or "password" in at
        if secret or not isinstance(given, (str, int, float)):
            return ""
        text = Redactor(url_passwords(given))(given) if isinstance(given, str) else given
        shown = repr(text)
        return f" (got {shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + '…'})"

    def _line(self, at: Location) -> int:
        while at and at not in self._lines:
            at = at[:-1]
        return self._lines.get(at, 1)


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, without quoting the text: it may hold a password."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    told = str(problem or "it cannot be read")
    quoted = re.search(r"\s*['\"]", told)
    # PyYAML quotes single characters and its own <tokens>, and else what was written.
    if quoted and not re.match(r"(<[^'>]*>|\\?.)['\"]", told[quoted.end() :]):
        told = told[: quoted.start()] + "; a value that begins with * & ! % @ needs quotes"
    return f"line {mark.line + 1}: {told}" if mark else told


def _lookup(expression: Optional[str], environ: Mapping[str, str]) -> str:
    """The value of what stands between ``${`` and ``}``; None where that does not end."""
    if expression is None:
        raise ConfigError("'${' without '}'; a literal '${' is written $${")
    if expression.startswith("file:"):
        path = Path(expression[len("file:") :])
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the secret file {path} cannot be read: {error}") from error
    name, has_default, default = expression.partition(":-")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(
            "write ${NAME}, ${NAME:-default} or ${file:/path}; a literal '${' is written $${"
        )
    # As in a shell, the default stands in for an empty value, too.
    value = environ.get(name)
    if has_default:
        return value or default
    if value is None:
        raise ConfigError(
            f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
        )
    return value


def _dotted(at: Location) -> str:
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "configuration"


def _distinct(given: List[str], what: str) -> None:
    seen: Set[str] = set()
    for name in given:
        if name in seen:
            raise PydanticCustomError(
                "duplicate",
                "{what} '{name}' is given twice; names must differ",
                {"what": what, "name": name},
            )
        seen.add(name)


def _simple_polygon(polygon: List[Point]) -> List[Point]:
    n = len(polygon)
    for i in range(n):
        for j in range(i + 1, n):
            if polygon[i] == polygon[j]:
                raise PydanticCustomError(
                    "polygon",
                    "corners {i} and {j} are the same point; give each once, the last joins "
                    "the first by itself",
                    {"i": i + 1, "j": j + 1},
                )
    sides = list(zip(polygon, polygon[1:] + polygon[:1]))
    for i in range(n):
        for j in range(i + 1, n):
            neighbours = j == i + 1 or (i == 0 and j == n - 1)
            meet = _fold_back if neighbours else _segments_meet
            if meet(*sides[i], *sides[j]):
                raise PydanticCustomError(
                    "polygon",
                    "side {i} and side {j} of the polygon cross; give its corners in order",
                    {"i": i + 1, "j": j + 1},
                )
    doubled_area = sum(a[0] * b[1] - b[0] * a[1] for a, b in sides)
    if abs(doubled_area) < 1e-9:
        raise PydanticCustomError("polygon", "the polygon has no area; its corners lie on one line")
    return polygon


def _segments_meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    # The boxes decide where all four lie on one line.
    boxes_meet = all(
        min(a[k], b[k]) <= max(c[k], d[k]) and min(c[k], d[k]) <= max(a[k], b[k]) for k in (0, 1)
    )
    return (
        boxes_meet and _side(a, b, c) * _side(a, b, d) <= 0 and _side(c, d, a) * _side(c, d, b) <= 0
    )


def _fold_back(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether two sides that share a corner lie on one another."""
    if b != c:  # the last side of a polygon and its first
        a, b, d = c, a, b
    dot = (b[0] - a[0]) * (d[0] - b[0]) + (b[1] - a[1]) * (d[1] - b[1])
    return _side(a, b, d) == 0 and dot < 0


def _side(p: Point, q: Point, r: Point) -> float:
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])


def _device_name() -> str:
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().split(".")[0]).strip("-_")
    return host[:64] or "edgecount"
