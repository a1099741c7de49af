import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.redact import MASK, Redactor, mask_url, url_passwords


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://u:p@h/x", "rtsp://u:***@h/x"),
        ("rtsp://u:p@h:554/x", "rtsp://u:***@h:554/x"),
        ("rtsp://:p@h", "rtsp://:***@h"),
        ("rtsp://u:p@s@s@h/x", "rtsp://u:***@h/x"),
        ("rtsp://u:p:s@h/x", "rtsp://u:***@h/x"),
        ("rtsp://me@home.org:p@h/x", "rtsp://me@home.org:***@h/x"),
        ("rtsp://u:p/s?s#@h/x", "rtsp://u:***@h/x"),
        ("rtsp://u:p@[fe80::1]:554/x", "rtsp://u:***@[fe80::1]:554/x"),
        ("from rtsp://a:p@h/x to mqtts://b:q@k", "from rtsp://a:***@h/x to mqtts://b:***@k"),
        ("http://h/x?user=u&password=p&y=1", "http://h/x?user=u&password=***&y=1"),
        ("http://h/x?Token=abc", "http://h/x?Token=***"),
        ("user-id=u user-pw=\"p q\" ! sink", "user-id=u user-pw=*** ! sink"),
        ("rtsp://h:554/x", "rtsp://h:554/x"),
        ("rtsp://u@h/x", "rtsp://u@h/x"),
        ("mail u:p@h", "mail u:p@h"),
        ("", ""),
    ],
)  # fmt: skip
def test_passwords_of_urls(text: str, masked: str) -> None:
    assert mask_url(text) == masked
    assert mask_url(masked) == masked


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=3, max_size=30))
def test_no_password_survives_in_a_url(rest: str) -> None:
    password = "q7" + rest
    assert password not in mask_url(f"cannot open rtsp://viewer:{password}@10.0.0.5/stream1: gone")


@settings(deadline=None)
@given(st.text(min_size=1))
def test_the_password_of_a_whole_url_is_found_whatever_it_holds(password: str) -> None:
    assert password in url_passwords(f"rtsp://viewer:{password}@10.0.0.5/stream1")


def test_encoded_passwords_are_found_in_both_forms() -> None:
    assert {"p%40s", "p@s"} <= set(url_passwords("rtsp://u:p%40s@h"))


def test_a_text_without_urls_holds_no_passwords() -> None:
    assert url_passwords("usb:0") == []


def test_known_secrets_go_wherever_they_stand() -> None:
    redact = Redactor(["swordfish", "sword"])
    assert redact("swordfish, sword, and crossword") == "***, ***, and cros***"


def test_secrets_are_no_patterns() -> None:
    assert Redactor(["a.c+"])("abc a.c+ aac") == f"abc {MASK} aac"


@pytest.mark.parametrize("secrets", [[], ["", "a", "ab"]])
def test_short_secrets_do_not_tear_words_apart(secrets) -> None:
    redact = Redactor(secrets)
    assert redact("a cab, about") == "a cab, about"
    assert redact("rtsp://u:ab@h") == "rtsp://u:***@h"
