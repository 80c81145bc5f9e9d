"""Which pool of workers a node's tasks go to, and which device they compute on there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from melmill.cluster.workers import GPU_POOL
from melmill.flows.pipeline.convert import convert, field_types
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import Located
from melmill.stages.contract import Stage
from melmill.stages.invert.inversion import Device

CPU, GPU = "cpu", GPU_POOL
# Not a pool: it asks for GPU workers if the cluster has some, and for CPU workers otherwise.
ANY = "any"


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where the tasks of a node go.

    Parameters
    ----------
    pool : str
        Pool of the cluster.
    asked : str
        What the pipeline asks for: that pool, or ``any``.
    """

    pool: str
    asked: str

    def __str__(self) -> str:
        """Name the pool, and add ``any`` if that was asked for.

        >>> print(Route(pool="gpu", asked="gpu"), Route(pool="cpu", asked="any"))
        gpu cpu (any)
        """
        return self.pool if self.pool == self.asked else f"{self.pool} ({self.asked})"


def route(name: str, value: Located | None, where: str, pools: Collection[str]) -> Route:
    """Return where the tasks of a node go.

    Parameters
    ----------
    name : str
        Name of the node.
    value : Located or None
        Its field ``pool``, if it has one.
    where : str
        ``file:line`` of the node.
    pools : collection of str
        Names of the cluster's pools.

    Raises
    ------
    PipelineError
        The cluster has no such pool.
    """
    asked = CPU if value is None else convert(value, str, f"pool of {name!r}")
    where = where if value is None else value.where
    if asked == ANY and ANY in pools:
        raise PipelineError("a pool can't be called 'any', which means 'gpu, or else cpu': rename it", where)
    pool = asked if asked != ANY else GPU if GPU in pools else CPU
    if pool not in pools:
        # A GPU worker needs two threads: one task computes while the other reads or writes.
        size, other = ("{workers: 1, threads: 2}", f", or say pool: {ANY}") if pool == GPU else ("{workers: 1}", "")
        raise PipelineError(
            f"node {name!r} runs in pool {asked!r}, but the cluster has only {', '.join(sorted(pools))}: "
            f"add {pool}: {size} under cluster: pools:{other}",
            where,
        )
    return Route(pool=pool, asked=asked)


def with_device(cls: type[Stage], fields: Mapping[str, Located], to: Route, where: str) -> dict[str, Located]:
    """Return a node's fields, with ``device: cuda`` in the pool of GPUs.

    It is added if the stage has a device and the pipeline names none.
    """
    if to.pool == GPU and "device" not in fields and field_types(cls).get("device") == Device:
        return {**fields, "device": Located("cuda", where)}
    return dict(fields)


def device(stage: Stage) -> str:
    """Return what a stage computes on, as torch names it. A stage without a choice uses the CPU."""
    return str(getattr(stage, "device", CPU))


def cpu_fallbacks(routes: Mapping[str, Route]) -> str | None:
    """Say in one line which nodes asked for any pool and got CPU workers; None if there are none.

    Parameters
    ----------
    routes : mapping of str to Route
        By the name of the node.
    """
    names = [name for name, to in routes.items() if to == Route(pool=CPU, asked=ANY)]
    if not names:
        return None
    return f"{', '.join(names)}: pool {ANY} means pool {CPU} here, because the cluster has no pool {GPU}"
