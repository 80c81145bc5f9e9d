"""Templates of pages, and what all of them share: style, script and how names break."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape


def render(template: str, **values: Any) -> bytes:  # noqa: ANN401 - a template shows anything
    """Return a page as UTF-8. All text is escaped, and the page loads nothing.

    Its content security policy allows no script except its own.
    """
    return _environment().get_template(template).render(**_shared(), **values).encode()


@cache
def _environment() -> jinja2.Environment:
    """Return the environment, which keeps the templates that it compiled."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _shared() -> Mapping[str, Any]:
    script = _resource("page.js")
    return {
        "style": Markup(_resource("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _breakable(text: str) -> Markup:
    """Escape a name; a long one, as fan-out makes them, may break after brackets and commas."""
    if len(text) <= 12:
        return escape(text)
    return Markup("<wbr>").join(re.split(r"(?<=[\[,/])", text))


def _resource(name: str) -> str:
    return resources.files("melmill.stages.report").joinpath(name).read_text(encoding="utf-8")
