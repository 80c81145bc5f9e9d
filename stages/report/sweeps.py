"""Sweeps: nodes of a report that differ in nothing but numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from melmill.stages.contract.products import declared
from melmill.stages.report.contract import Provenance

# With more scored nodes than these, boxes, pictures and lists show only some of them.
CROWDED = 12
ITERATIONS = "n_iter"
# Seeds are numbers, but no axis: nothing lies between two of them.
_NAMES = frozenset({"seed"})
# Fewer nodes make no sweep.
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Hold nodes of one declaration that differ in nothing but one or two numbers.

    Parameters
    ----------
    name : str
        The declared node, with what distinguishes the sweep from its other sweeps: ``admm``,
        ``admm[start=pghi]``.
    axes : tuple of str
        The one or two parameters that differ.
    points : mapping of str to tuple of float
        Values along `axes` by node, in the order of the nodes.
    """

    name: str
    axes: tuple[str, ...]
    points: Mapping[str, tuple[float, ...]]

    @property
    def is_map(self) -> bool:
        """Whether it has two axes."""
        return len(self.axes) == 2

    def values(self, axis: str) -> list[float]:
        """Return the values along an axis, ascending."""
        at = self.axes.index(axis)
        return sorted({point[at] for point in self.points.values()})

    def iterations(self, node: str) -> float:
        """Return a node's number of iterations; 0 where that is no axis."""
        return self.points[node][self.axes.index(ITERATIONS)] if ITERATIONS in self.axes else 0.0


def find_sweeps(made: Iterable[Provenance], nodes: Sequence[str]) -> list[Sweep]:
    """Return the sweeps of three or more scored nodes, in the order of the nodes.

    Where more than two numbers differ, the two with the most values become the axes. The others
    split the nodes into several sweeps.
    """
    by_name = {one.name: one for one in made}
    families: dict[str, list[Provenance]] = {}
    for node in nodes:
        if node in by_name:
            families.setdefault(declared(node), []).append(by_name[node])
    return [sweep for name, family in families.items() for sweep in _of_family(name, family)]


def _of_family(name: str, family: Sequence[Provenance]) -> list[Sweep]:
    differing = _differing(family)
    numbers = [
        key
        for key in differing
        if key not in _NAMES and all(type(one.parameters[key]) in (int, float) for one in family)
    ]
    axes = sorted(numbers, key=lambda key: -len(_distinct(family, key)))[:2]
    rest = [key for key in differing if key not in axes]
    common = set[str].intersection(*(set(one.inputs) for one in family))
    parts: dict[tuple[str, ...], list[Provenance]] = {}
    for one in family:
        differs = [f"{key}={one.parameters[key]}" for key in rest] + [node for node in one.inputs if node not in common]
        parts.setdefault(tuple(differs), []).append(one)
    sweeps = []
    for pieces, part in parts.items():
        here = tuple(key for key in _differing(part) if key in axes)
        if len(part) >= FEWEST and here:
            # The label repeats what the nodes' own names say, and no spec that follows from an input.
            label = ",".join(piece for piece in pieces if piece in part[0].name)
            points = {one.name: tuple(float(one.parameters[key]) for key in here) for one in part}
            sweeps.append(Sweep(name=f"{name}[{label}]" if label else name, axes=here, points=points))
    return sweeps


def _differing(family: Sequence[Provenance]) -> list[str]:
    """Return the parameters that all nodes have and that differ, in their own order."""
    shared = [key for key in family[0].parameters if all(key in one.parameters for one in family)]
    return [key for key in shared if len(_distinct(family, key)) > 1]


def _distinct(family: Sequence[Provenance], key: str) -> set[str]:
    return {repr(one.parameters[key]) for one in family}


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Say which nodes of a report belong together, and which of them the page shows in full.

    Parameters
    ----------
    nodes : tuple of str
        All scored nodes.
    sweeps : tuple of Sweep
    shown : tuple of str
        Nodes with a box, a curve and audio: all nodes, or one of each sweep where there are more
        than `CROWDED`.
    """

    nodes: tuple[str, ...]
    sweeps: tuple[Sweep, ...]
    shown: tuple[str, ...]

    @property
    def is_crowded(self) -> bool:
        """Whether the page shows only some nodes in full."""
        return len(self.shown) < len(self.nodes)

    def standing_for(self, sweep: Sweep) -> str:
        """Return the last shown node of a sweep, which gives the sweep's line its colour."""
        return [node for node in self.shown if node in sweep.points][-1]

    def curved(self) -> list[str]:
        """Return the shown nodes, except those whose curve is the beginning of another's."""
        return [node for node in self.shown if not any(_goes_on(sweep, node) for sweep in self.sweeps)]


def arrange(made: Iterable[Provenance], nodes: Sequence[str], goodness: Mapping[str, float]) -> Arrangement:
    """Arrange scored nodes.

    Parameters
    ----------
    made : iterable of Provenance
        The pipeline's nodes.
    nodes : sequence of str
        The scored ones.
    goodness : mapping of str to float
        The first metric of each node, signed so that larger is better, without nodes that have no
        value. A sweep is shown by its node with the most iterations, and by the best of several.
    """
    sweeps = tuple(find_sweeps(made, nodes))
    shown = list(nodes)
    if len(nodes) > CROWDED:
        for sweep in sweeps:
            best = max(sweep.points, key=lambda node: (sweep.iterations(node), goodness.get(node, float("-inf"))))
            shown = [node for node in shown if node == best or node not in sweep.points]
    return Arrangement(nodes=tuple(nodes), sweeps=sweeps, shown=tuple(shown))


def _goes_on(sweep: Sweep, node: str) -> bool:
    """Tell whether another node of the sweep does the same iterations and then more."""
    if node not in sweep.points or ITERATIONS not in sweep.axes:
        return False
    at = sweep.axes.index(ITERATIONS)

    def but_iterations(point: tuple[float, ...]) -> tuple[float, ...]:
        return point[:at] + point[at + 1 :]

    own = sweep.points[node]
    return any(other[at] > own[at] and but_iterations(other) == but_iterations(own) for other in sweep.points.values())
