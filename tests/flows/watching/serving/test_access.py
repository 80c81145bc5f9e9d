"""Who may read the status page."""

from __future__ import annotations

import base64

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.watching.serving.access import Access


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_password(host: str) -> None:
    assert Access(host=host).admits(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_others_need_one(host: str) -> None:
    with pytest.raises(PipelineError, match=r"--host: other machines can reach .* needs a password"):
        Access(host=host)
    assert not Access(host=host, password="right word").admits(None)


def test_a_short_password_is_refused() -> None:
    with pytest.raises(PipelineError, match="must have 8 characters at least"):
        Access(host="127.0.0.1", password="1234567")


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic("me:pässword:1"), True),
        (basic(":pässword:1"), True),  # any user name will do
        (basic("me:pässword:1").replace("Basic", "basic"), True),
        (basic("me:pässword:"), False),
        (basic("pässword:1"), False),
        (basic("me"), False),
        ("Basic !!!", False),
        ("Bearer pässword:1", False),
        ("", False),
        (None, False),
    ],
)
def test_the_password_must_be_right(header: str | None, expected: bool) -> None:
    assert Access(host="127.0.0.1", password="pässword:1").admits(header) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:80", True),
        ("localhost", True),
        ("localhost:8780", True),
        ("[::1]:80", True),
        ("[::1]", True),
        ("evil.example:80", False),  # a name that its owner lets mean 127.0.0.1
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_a_name_of_elsewhere_is_not_served(host: str, expected: bool) -> None:
    assert Access(host="127.0.0.1").knows_host(host) == expected
