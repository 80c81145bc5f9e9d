"""The page of a listening test: one HTML file, beside a script of sounds for each trial."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from melmill.stages.score.listeners.answers import LONGEST_LISTENER
from melmill.stages.score.listeners.design import FORMAT, Design

PAGE = "index.html"
# A server puts the address here to which the page sends its results. Without one, listeners save a file.
RESULTS_META = '<meta name="melmill-results" content="">'
_TEST = re.compile(r'<script type="application/json" id="test">(.*?)</script>', re.DOTALL)


def index_page(design: Design, title: str = "") -> bytes:
    """Return the page of a test as UTF-8.

    It knows the blind names of the sounds alone. Systems, utterances and the seed are not in it. Its
    content security policy allows its own script and the scripts of sounds beside it.
    """
    script, style = _resource("page.js"), _resource("page.css")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return (
        environment.from_string(_resource("page.html.j2"))
        .render(
            title=title or f"{design.test.title} listening test",
            test=Markup(_embedded(public(design, title))),
            results_meta=Markup(RESULTS_META),
            style=Markup(style),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        .encode()
    )


def public(design: Design, title: str = "") -> dict[str, Any]:
    """Return what listeners may know of a test."""
    kind = design.test
    return {
        "format": FORMAT,
        "id": design.test_id,
        "kind": kind.name,
        "title": title or f"{kind.title} listening test",
        "question": kind.question,
        "instructions": list(kind.instructions),
        "longest_listener": LONGEST_LISTENER,
        "trials": [{"name": trial.name, "stimuli": list(trial.stimuli)} for trial in design.trials],
    }


def read_public(page: bytes) -> dict[str, Any] | None:
    """Return what a page says of its test, None for another page."""
    found = _TEST.search(page.decode(errors="replace"))
    if found is None:
        return None
    made: dict[str, Any] = json.loads(found[1])
    return made


def _embedded(value: object) -> str:
    """Return a value as JSON that can't end its element."""
    text = json.dumps(value, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    return resources.files("melmill.flows.runs.listening").joinpath(name).read_text(encoding="utf-8")
