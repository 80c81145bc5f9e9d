"""Which pool of workers a node's tasks go to, and which device they compute on there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melmill.cluster.workers import GPU_POOL
from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.convert import convert, field_types
from melmill.flows.pipeline.located import Located
from melmill.stages.contract import Stage
from melmill.stages.invert.inversion import Device

if TYPE_CHECKING:
    from melmill.flows.pipeline.graph import Node

CPU, GPU = "cpu", GPU_POOL
# Is no pool: GPU workers where there are some, otherwise CPU workers.
ANY = "any"


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where the tasks of a node go.

    Parameters
    ----------
    pool : str
        Of the cluster.
    asked : str
        What the pipeline asks for: that pool, or ``any``.
    """

    pool: str
    asked: str

    def __str__(self) -> str:
        """Name the pool, and what was asked for where that is no pool.

        >>> print(Route(pool="gpu", asked="gpu"), Route(pool="cpu", asked="any"))
        gpu cpu (any)
        """
        return self.pool if self.pool == self.asked else f"{self.pool} ({self.asked})"


def route(name: str, value: Located | None, where: str, pools: Collection[str]) -> Route:
    """Return where the tasks of the node `name` go, which says `value`; raise PipelineError where no pool fits."""
    asked = CPU if value is None else convert(value, str, f"pool of {name!r}")
    where = where if value is None else value.where
    if asked == ANY and ANY in pools:
        raise PipelineError("the cluster calls a pool 'any', which nodes say for 'gpu or else cpu': rename it", where)
    pool = asked if asked != ANY else GPU if GPU in pools else CPU
    if pool not in pools:
        # One task of a GPU worker computes while another reads or writes.
        size, other = ("{workers: 1, threads: 2}", f", or say pool: {ANY}") if pool == GPU else ("{workers: 1}", "")
        raise PipelineError(
            f"node {name!r} runs in pool {asked!r}, but the cluster has only {', '.join(sorted(pools))}: "
            f"add {pool}: {size} under cluster: pools:{other}",
            where,
        )
    return Route(pool=pool, asked=asked)


def with_device(cls: type[Stage], fields: Mapping[str, Located], to: Route, where: str) -> dict[str, Located]:
    """Return a node's fields with the device of its pool, where its stage has one and the pipeline names none."""
    if to.pool == GPU and "device" not in fields and field_types(cls).get("device") == Device:
        return {**fields, "device": Located("cuda", where)}
    return dict(fields)


def device(stage: Stage) -> str:
    """Return what a stage computes on, in torch's words; one that has no choice uses the CPU."""
    return str(getattr(stage, "device", CPU))


def fallen(nodes: Iterable[Node]) -> str | None:
    """Say in one line which nodes asked for any pool and got CPU workers; None where there are none."""
    names = [node.name for node in nodes if node.route == Route(pool=CPU, asked=ANY)]
    if not names:
        return None
    return f"{', '.join(names)}: pool {ANY} is pool {CPU} here, as the cluster declares no pool {GPU}"
