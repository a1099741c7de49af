import json
from pathlib import Path
from typing import Dict, Optional

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.config import Settings, load, parse
from edgecount.errors import ConfigError

CAMERA = "cameras:\n- name: door\n  source: a.mp4\n"
SECRET = "hunter2-Sw0rdfish"


def good(text: str, environ: Optional[Dict[str, str]] = None) -> Settings:
    return parse(text, "c.yaml", environ or {})


def mistake(text: str, environ: Optional[Dict[str, str]] = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.yaml", environ or {})
    assert caught.value.exit_code == 2
    assert "c.yaml" in str(caught.value)
    return str(caught.value)


def line(start: str, end: str) -> str:
    return f"{CAMERA}  lines: [{{name: l, from: {start}, to: {end}}}]\n"


def zone(polygon: str) -> str:
    return f"{CAMERA}  zones: [{{name: z, polygon: {polygon}}}]\n"


def test_the_least_configuration() -> None:
    found = good(CAMERA)
    assert [c.name for c in found.cameras] == ["door"]
    assert found.mqtt is None
    assert found.secrets() == []


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        good(CAMERA).device = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CAMERA + "  lins: []\n", ["c.yaml:4", "cameras[0].lins", "did you mean 'lines'"]),
        (CAMERA + "mqt: {}\n", ["c.yaml:4", "mqt", "did you mean 'mqtt'"]),
        (CAMERA + "1: 2\n", ["c.yaml:4", "'1'"]),
        (
            line("[0, 0]", "[1.2, 0]"),
            ["c.yaml:4", "lines[0].to[0]", "less than or equal to 1", "1.2"],
        ),
        (line("[0, -0.1]", "[1, 0]"), ["c.yaml:4", "lines[0].from[1]", "-0.1"]),
        (line("[0.5, 0.5]", "[0.5, 0.5]"), ["lines[0]", "same point"]),
        (line("[.nan, 0]", "[1, 0]"), ["lines[0].from[0]", "finite"]),
        (line("[0, 0]", "[.inf, 0]"), ["lines[0].to[0]", "finite"]),
        (line("[0]", "[1, 0]"), ["lines[0].from[1]", "required"]),
        (zone("[[0, 0], [1, 1], [1, 0], [0, 1]]"), ["polygon", "side 1 and side 3", "in order"]),
        (zone("[[0, 0], [1, 1]]"), ["polygon", "at least 3"]),
        (zone("[[0, 0], [0.5, 0.5], [1, 1]]"), ["polygon", "side"]),
        (zone("[[0, 0], [1, 0], [1, 1], [0, 0]]"), ["corners 1 and 4", "by itself"]),
        (zone("[[0, 0], [1, 0], [0.5, 0], [0.5, 1]]"), ["side 1 and side 2"]),
        (CAMERA + "  ignore: [[[0, 0], [1, 1], [1, 0], [0, 1]]]\n", ["ignore", "side 1"]),
        (CAMERA + "- {name: door, source: b}\n", ["cameras", "'door' is given twice"]),
        (
            CAMERA
            + "  lines: [{name: x, from: [0, 0], to: [1, 0]}]\n"
            + "  zones: [{name: x, polygon: [[0, 0], [1, 0], [1, 1]]}]\n",
            ["cameras[0]", "'x' is given twice"],
        ),
        (CAMERA.replace("door", "no"), ["cameras[0].name", "valid string", "False", "in quotes"]),
        (CAMERA.replace("door", "12"), ["cameras[0].name", "in quotes"]),
        (CAMERA.replace("door", "a/b"), ["cameras[0].name", "'a/b'"]),
        (CAMERA + "reset: {at: 14:30}\n", ["reset.at", "put the time in quotes"]),
        (CAMERA + 'reset: {at: "24:00"}\n', ["reset.at", '"04:00"']),
        (CAMERA + "reset: {timezone: Europe/Berln}\n", ["reset.timezone", "Europe/Berln"]),
        (CAMERA + "http: {port: 70000}\n", ["http.port", "65535"]),
        (CAMERA + "model: {name: a, path: b}\n", ["model", "not both"]),
        (CAMERA + "model: {input_size: [0, 416]}\n", ["model.input_size[0]", "32"]),
        (CAMERA + "  tiles: 2by2\n", ["c.yaml:4", "cameras[0].tiles", "e.g. 2x2", "'2by2'"]),
        (CAMERA + "  tiles: 2\n", ["cameras[0].tiles", "COLUMNSxROWS"]),
        (CAMERA + "  tiles: 1x1\n", ["cameras[0].tiles", "2 to 16"]),
        (CAMERA + "  tiles: 5x4\n", ["cameras[0].tiles", "5 × 4 tiles are 20", "2 to 16"]),
        (CAMERA + "  tiles: {columns: 2}\n", ["cameras[0].tiles.rows", "required"]),
        (
            CAMERA + "  tiles: {columns: 2, rows: 2, overlp: 0.1}\n",
            ["cameras[0].tiles.overlp", "did you mean 'overlap'"],
        ),
        (
            CAMERA + "  tiles: {columns: 2, rows: 2, overlap: 0.6}\n",
            ["cameras[0].tiles.overlap", "0.5", "0.6"],
        ),
        (CAMERA + "mqtt: {host: h, prefix: 'a/#'}\n", ["mqtt.prefix", "'#'"]),
        (CAMERA + "places: {hall: {in: [door.x]}}\n", ["'hall'", "'door.x'"]),
        ("cameras: []\n", ["cameras", "at least 1"]),
        ("device: a\n", ["cameras", "required"]),
        ("", ["cameras", "required"]),
        ("# nothing\n", ["cameras", "required"]),
        ("[1, 2]", ["mapping"]),
        ("hello", ["mapping"]),
    ],
)
def test_a_mistake_names_line_key_and_remedy(text: str, told) -> None:
    message = mistake(text)
    for words in told:
        assert words in message


@pytest.mark.parametrize("name", ["status", "command", "response", "place", "aggregate"])
def test_a_topic_is_no_camera_name(name: str) -> None:
    assert f"'{name}' is a topic" in mistake(CAMERA.replace("door", name))


def test_a_place_names_the_nearest_line() -> None:
    text = line("[0, 0]", "[1, 0]") + "places: {hall: {in: [door.I]}}\n"
    assert "did you mean 'door.l'" in mistake(text)
    assert good(text.replace("door.I", "door.l")).places["hall"].enters == ["door.l"]


def test_tiles_in_short_and_at_length() -> None:
    (short,) = good(CAMERA + "  tiles: 3x2\n").cameras
    (long,) = good(CAMERA + "  tiles: {columns: 3, rows: 2, overlap: 0.2}\n").cameras
    assert short.tiles == long.tiles
    assert short.tiles is not None
    assert short.tiles.pictures == 6
    assert short.tiles.model_copy(update={"whole": True}).pictures == 7


def test_all_mistakes_are_told_at_once() -> None:
    message = mistake(line("[0, 2]", "[1, 3]") + "http: {port: x}\n")
    assert message.count("c.yaml:") == 3


@pytest.mark.parametrize(
    "polygon",
    [
        # A U, whose two upper sides lie on one line without meeting.
        "[[0,0],[1,0],[1,1],[0.7,1],[0.7,0.5],[0.3,0.5],[0.3,1],[0,1]]",
        # A corner in the middle of a straight side.
        "[[0,0],[0.5,0],[1,0],[1,1]]",
        "[[0,0],[1,0],[1,1],[0,1]]",
    ],
)
def test_simple_polygons_are_taken(polygon: str) -> None:
    assert len(good(zone(polygon)).cameras[0].zones[0].polygon) == len(json.loads(polygon))


sixteenths = st.integers(0, 16).map(lambda n: n / 16)


@settings(deadline=None)
@given(st.lists(st.tuples(sixteenths, sixteenths), min_size=3, max_size=8, unique=True))
def test_a_polygon_is_taken_whichever_corner_comes_first(corners) -> None:
    def taken(polygon) -> bool:
        try:
            good(zone(json.dumps(polygon)))
        except ConfigError:
            return False
        return True

    reversed_ = list(reversed(corners))
    turned = corners[1:] + corners[:1]
    assert len({taken(corners), taken(reversed_), taken(turned)}) == 1


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("a: [\n", "line 2"),
            ("cameras:\n\t- name: x\n", "line 2"),
            ("a: b: c\n", "line 1"),
            ("a: 1\n---\nb: 2\n", "another document"),
            ("a: \x00", "not valid YAML"),
            ("a: !!python/object/apply:os.system [x]\n", "cameras"),
            ("a: !!python/name:os.system ''\n", "not valid YAML"),
            (CAMERA + "device: 2020-99-99\n", "c.yaml:4: device"),
            (CAMERA + "device: 2020-01-01\n", "in quotes"),
            (CAMERA + "  fps: 1" + "0" * 5000, "cameras[0].fps"),
            (CAMERA + "  fps: !!int x\n", "c.yaml:4: cameras[0].fps"),
            (CAMERA + "http: {}\nhttp: {}\n", "c.yaml:5: http: given twice"),
            (CAMERA + "  fps: 1\n  fps: 1\n", "c.yaml:5: cameras[0].fps: given twice"),
            ("? [1]\n: 2\n", "a key is a word"),
            ("? {a: 1}\n: 2\n", "a key is a word"),
            (CAMERA + "  <<: 3\n", "'<<' takes a mapping"),
            ("cameras: &a [*a]\n", "refers to itself"),
            ("&a {cameras: *a}\n", "refers to itself"),
            ("a: &a {<<: *a}\n", "refers to itself"),
            # Deeper than any recursion limit that other tests of the same process may leave.
            pytest.param("a: " + "[" * 20000, "nested too deeply", id="deep"),
            pytest.param("a: " + "[" * 20000 + "]" * 20000, "nested too deeply", id="deep, closed"),
        ],
    )
    def test_broken(self, text: str, told: str) -> None:
        assert told in mistake(text)

    @pytest.mark.parametrize("start", ["[l, l, l, l, l, l, l, l]", "{x: 1}"])
    def test_aliases_that_multiply_each_other(self, start: str) -> None:
        text = f"a0: &a0 {start}\n"
        for i in range(1, 12):
            aliases = ", ".join([f"*a{i - 1}"] * 10)
            text += f"a{i}: &a{i} " + (
                f"[{aliases}]\n" if "[" in start else f"{{<<: [{aliases}]}}\n"
            )
        assert "multiply each other" in mistake(text)

    def test_anchors_save_typing(self) -> None:
        found = good(
            "cameras:\n- &first {name: a, source: x, fps: 10, max_fps: 5}\n"
            "- {<<: *first, name: b, fps: 12}\n"
        )
        assert [(c.name, c.fps, c.max_fps) for c in found.cameras] == [("a", 10, 5), ("b", 12, 5)]

    def test_the_first_of_several_merged_goes_first(self) -> None:
        found = good(
            "cameras:\n- &a {name: a, source: x, fps: 10}\n- &b {name: b, source: y, fps: 20}\n"
            "- {<<: [*a, *b], name: c}\n"
        )
        assert (found.cameras[2].source, found.cameras[2].fps) == ("x", 10)

    def test_keys_are_taken_as_written(self) -> None:
        text = line("[0, 0]", "[1, 0]") + "places: {on: {in: [door.l]}, 12: {out: [door.l]}}\n"
        assert sorted(good(text).places) == ["12", "on"]

    def test_a_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + CAMERA.encode())
        assert load(path, {}).cameras[0].name == "door"

    @pytest.mark.parametrize("content", [b"\xff\xfe", CAMERA.encode("utf-16"), b"a: \xe9"])
    def test_not_utf8(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "c.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"c\.yaml"):
            load(path, {})

    def test_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "gone.yaml"):
            with pytest.raises(ConfigError, match="cannot read the configuration"):
                load(path, {})


class TestSubstitution:
    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("${A}", "one"),
            ("x${A}y${B}z", "xoneytwoz"),
            ("${C:-three}", "three"),
            ("${C:-}x", "x"),
            ("${A:-three}", "one"),
            ("${EMPTY}x", "x"),
            ("${EMPTY:-full}", "full"),
            ("$${A}", "${A}"),
            ("$A", "$A"),
            ("$$", "$$"),
            ("${TWICE}", "${A}"),
        ],
    )
    def test_values(self, written: str, value: str) -> None:
        environ = {"A": "one", "B": "two", "EMPTY": "", "TWICE": "${A}"}
        text = CAMERA.replace("a.mp4", json.dumps(written))
        assert good(text, environ).cameras[0].source == value

    def test_numbers(self) -> None:
        assert good(CAMERA + "http: {port: '${PORT}'}\n", {"PORT": "81"}).http.port == 81

    def test_a_secret_file(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text(f"{SECRET}\n", encoding="utf-8")
        text = CAMERA + f"mqtt: {{host: h, username: u, password: '${{file:{secret}}}'}}\n"
        assert good(text).secrets() == [SECRET]

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ("${NOPE}", ["NOPE is not set", "${NOPE:-default}"]),
            ("${file:/nonexistent/secret}", ["/nonexistent/secret", "cannot be read"]),
            ("${}", ["${NAME:-default}"]),
            ("${A-b}", ["${NAME:-default}"]),
            ("${A", ["without '}'"]),
        ],
    )
    def test_mistakes(self, written: str, told) -> None:
        message = mistake(CAMERA.replace("a.mp4", json.dumps(written)))
        for words in ("c.yaml:3", "cameras[0].source", *told):
            assert words in message

    def test_every_missing_variable_is_told(self) -> None:
        message = mistake("device: ${ONE}\n" + CAMERA.replace("a.mp4", "${TWO}"))
        assert "ONE" in message
        assert "TWO" in message


class TestSecrets:
    @pytest.mark.parametrize(
        "text",
        [
            CAMERA.replace("a.mp4", f"rtsp://u:{SECRET}@h/x") + "  fps: zero\n",
            CAMERA.replace("door", f"rtsp://u:{SECRET}@h/x"),
            f"cameras: rtsp://u:{SECRET}@h/x\n",
            f"cameras: 'rtsp://u:{SECRET} with blanks@h/x'\n",
            f"cameras: rtsp://u:with/slash/{SECRET}@h/x\n",
            f"cameras: rtsp://me@home.org:{SECRET}@h/x\n",
            f"cameras: rtsp://h/x?user=u&password={SECRET}\n",
            f"cameras: gst:rtspsrc location=rtsp://h user-pw={SECRET} ! fakesink\n",
            CAMERA + f"mqtt: {{host: h, username: u, password: {SECRET}, port: x}}\n",
            CAMERA + f"mqtt: {{host: h, username: u, passwrod: {SECRET}}}\n",
            CAMERA + f"mqtt: {{host: h, username: u, password: [{SECRET}]}}\n",
            CAMERA + f"mqtt: {{host: h, password: *{SECRET}}}\n",
            CAMERA + f"mqtt: {{host: h, password: !{SECRET} x}}\n",
            CAMERA + f"mqtt: {{host: h, password: '{SECRET}}}\n",
            CAMERA + f'mqtt: {{host: h, password: "\\q{SECRET}"}}\n',
            CAMERA + f"mqtt:\n  host: h\n  password: {SECRET}: x\n",
            CAMERA.replace("door", "a/${PW}"),
            CAMERA + "http: {port: '${PW}'}\n",
            CAMERA + "http: {port: 'x${PW}'}\n",
            CAMERA + "http: {port: '${NONE:-" + SECRET + "}'}\n",
            CAMERA + "mqtt: {host: h, username: u, password: '${PW}', port: 0}\n",
        ],
    )
    def test_a_password_is_in_no_message(self, text: str) -> None:
        assert SECRET not in mistake(text, {"PW": SECRET})
        assert "Sw0rdfish" not in mistake(text, {"PW": SECRET})

    def test_a_number_as_password_is_not_told(self) -> None:
        message = mistake(CAMERA + "mqtt: {host: h, username: u, password: 987654}\n")
        assert "987654" not in message
        assert "put it in quotes" in message

    @settings(deadline=None, max_examples=60)
    @given(st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=3, max_size=20))
    def test_whatever_the_environment_holds_is_in_no_message_and_no_repr(self, rest: str) -> None:
        secret = "q7" + rest
        environ = {"PW": secret}
        for text in (
            CAMERA + "http: {port: '${PW}'}\n",
            CAMERA.replace("door", "'a/${PW}'"),
            CAMERA.replace("a.mp4", "rtsp://u:${PW}@h/x") + "  fps: zero\n",
            CAMERA + "mqtt: {host: h, username: u, password: '${PW}', port: 0}\n",
        ):
            try:
                message = repr(good(text, environ))
            except ConfigError as error:
                message = str(error)
            assert secret not in message
            assert repr(secret)[1:-1] not in message
        found = good(
            CAMERA.replace("a.mp4", "'rtsp://u:${PW}@h/x'")
            + "mqtt: {host: h, username: u, password: '${PW}'}\n",
            environ,
        )
        assert secret not in repr(found) + str(found) + repr(found.cameras[0])
        assert secret in found.secrets()

    def test_percent_encoded_passwords_are_secret_in_both_forms(self) -> None:
        found = good(CAMERA.replace("a.mp4", "rtsp://u:p%40ss%2Fw@h/x")).secrets()
        assert {"p%40ss%2Fw", "p@ss/w"} <= set(found)

    def test_passwords_of_gstreamer_sources_are_secret(self) -> None:
        source = f"'gst:rtspsrc location=rtsp://h user-id=u user-pw=\"{SECRET}\" ! fakesink'"
        assert SECRET in good(CAMERA.replace("a.mp4", source)).secrets()


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True).filter(
    lambda n: n not in ("status", "command", "response", "place", "aggregate")
)
points = st.tuples(st.floats(0, 1), st.floats(0, 1))


@st.composite
def configurations(draw):
    cameras = []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        lines = [
            {"name": n, "from": list(start), "to": list(end)}
            for n, (start, end) in draw(
                st.dictionaries(
                    names, st.tuples(points, points).filter(lambda p: p[0] != p[1]), max_size=3
                )
            ).items()
        ]
        cameras.append(
            {"name": name, "source": draw(st.text(min_size=1)), "fps": 12.5, "lines": lines}
        )
    return {
        "device": draw(names),
        "cameras": cameras,
        "http": {"port": draw(st.integers(0, 65535))},
        "max_wait_ms": draw(st.floats(0, 1e6)),
    }


@settings(deadline=None)
@given(configurations())
def test_what_is_written_is_read(configuration) -> None:
    for camera in configuration["cameras"]:
        camera["source"] = camera["source"].replace("${", "")
    found = good(yaml.safe_dump(configuration))
    again = found.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert again == configuration
    assert good(yaml.safe_dump(again)) == found


def test_the_schema_describes_every_field() -> None:
    schema = Settings.model_json_schema(by_alias=True)
    definitions = [schema, *schema["$defs"].values()]
    assert all(
        "description" in field or "$ref" in field or "allOf" in field
        for definition in definitions
        for field in definition.get("properties", {}).values()
    )


def test_secrets_from_files_and_telling_variables_are_known_wherever_they_stand(tmp_path):
    (tmp_path / "mqtt").write_text("from-a-file\nsecond line\n")
    text = f"""
    device: ${{SITE}}
    cameras:
      - {{name: door, source: "gst:rtspsrc location=x user-pw=${{DOOR_PASSWORD}} ! appsink"}}
    mqtt: {{host: broker, username: edge, password_file: {tmp_path / "mqtt"}}}
    """
    settings = parse(text, "c.yaml", {"SITE": "lobby", "DOOR_PASSWORD": "planted"})
    assert {"planted", "from-a-file"} <= set(settings.secrets())
    assert "lobby" not in settings.secrets()
    assert "planted" in settings.model_copy(update={"device": "x"}).secrets()
