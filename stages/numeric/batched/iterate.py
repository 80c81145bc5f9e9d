"""Iterations on a batch: transform, step, transform back; on CUDA as one graph that is launched again and again."""

from __future__ import annotations

from collections.abc import Callable

import torch

from melmill.stages.numeric.batched.methods import Iteration
from melmill.stages.numeric.batched.pair import packed
from melmill.stages.numeric.batched.placement import Placement
from melmill.stages.numeric.batched.projection import Projection


def iterate(
    iteration: Iteration, projection: Projection, place: Placement, watch: Callable[[], None] | None = None
) -> None:
    """Make all iterations on the projection's signals; `watch` is called after every one."""
    step = place.kernel(iteration.step)
    state = [packed(part) if place.fused and part.is_complex() else part for part in iteration.state]
    now = iteration.parameters.new_empty(iteration.parameters.shape[1])

    def once() -> None:
        Z = projection.analyse()
        step(packed(Z) if place.fused else Z, *state, *iteration.rest, now)
        del Z
        projection.synthesise(iteration.state[0])

    again = once
    for done, parameters in enumerate(iteration.parameters):
        now.copy_(parameters)
        if done == 1 and place.device.type == "cuda":
            again = _graph(once).replay
        again()
        if watch is not None:
            watch()


def _graph(once: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Record an iteration, which spares the launches of its kernels one by one; it must have run before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        once()
    return graph
