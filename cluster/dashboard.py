"""Where a scheduler shows its pages and metrics."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from melmill.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

# Dask's own port; where it is taken the scheduler uses a free one.
PORT = 8787


def scheduler_options(spec: ClusterSpec) -> dict[str, Any]:
    """Return the options of a scheduler that melmill starts on this machine.

    Without `dashboard` there is still a small server of metrics and health on a free port of the loopback device.
    """
    if not spec.dashboard:
        return {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    return {"dashboard": True, "dashboard_address": f"127.0.0.1:{PORT}" if spec.dashboard is True else spec.dashboard}


def links(client: Client, spec: ClusterSpec) -> tuple[str | None, str | None]:
    """Return the addresses of the scheduler's pages and of its metrics; None for what it does not serve.

    Of a scheduler that others started, what it says is told.
    """
    if "dashboard" not in client.scheduler_info(n_workers=0)["services"]:
        return None, None
    pages: str = client.dashboard_link
    shown = spec.type == "address" or (spec.dashboard and missing_bokeh(spec) is None)
    metrics = spec.type == "address" or importlib.util.find_spec("prometheus_client")
    return pages if shown else None, f"{pages.removesuffix('/status')}/metrics" if metrics else None


def missing_bokeh(spec: ClusterSpec) -> str | None:
    """Say that the pages asked for need a package that is not installed; None where nothing is missing."""
    if not spec.dashboard or spec.type == "address" or importlib.util.find_spec("bokeh"):
        return None
    return "no dashboard: bokeh is not installed; install melmill[observe], or bokeh"
