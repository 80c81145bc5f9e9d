"""Where a scheduler shows its pages and metrics."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from melmill.cluster.settings import HTTP
from melmill.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

# Dask's own port; where it is taken the scheduler uses a free one.
PORT = 8787

# A scheduler elsewhere may show its pages to its own machine alone.
ANSWER_S = 2.0


def scheduler_options(spec: ClusterSpec) -> dict[str, Any]:
    """Return the options of a scheduler that melmill starts on this machine.

    Without `dashboard` there is still a small server of metrics and health on a free port of the loopback device.
    """
    if not spec.dashboard:
        return HTTP
    return {"dashboard": True, "dashboard_address": f"127.0.0.1:{PORT}" if spec.dashboard is True else spec.dashboard}


def links(client: Client, spec: ClusterSpec) -> tuple[str | None, str | None]:
    """Return the addresses of the scheduler's pages and of its metrics; None for what it does not serve.

    Of a scheduler that others started, what answers from here is told.
    """
    if "dashboard" not in client.scheduler_info(n_workers=0)["services"]:
        return None, None
    pages: str = client.dashboard_link
    metrics = f"{pages.removesuffix('/status')}/metrics"
    if spec.type == "address":
        return _answering(pages), _answering(metrics)
    shown = spec.dashboard and missing_bokeh(spec) is None
    return pages if shown else None, metrics if importlib.util.find_spec("prometheus_client") else None


def _answering(url: str) -> str | None:
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=ANSWER_S):
            return url
    except OSError:
        return None


def missing_bokeh(spec: ClusterSpec) -> str | None:
    """Say that the pages asked for need a package that is not installed; None where nothing is missing."""
    if not spec.dashboard or spec.type == "address" or importlib.util.find_spec("bokeh"):
        return None
    return "no dashboard: bokeh is not installed; install melmill[observe], or bokeh"
