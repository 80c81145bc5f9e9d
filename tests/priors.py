"""Priors with random weights, for tests that need one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melmill.stages.invert import priors as shipped
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior, Sizes

SMALL = Sizes(width=16, hidden=24, n_blocks=2, kernel=5)
HEADED = Sizes(width=16, hidden=24, n_blocks=1, kernel=5, head=40)


def random_prior(spec: MelSpec, seed: int = 0, sizes: Sizes = SMALL) -> Prior:
    """Return a prior whose guess differs from a smooth magnitude by a neper or so."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in sizes.shapes(spec).items():
        fan_in = int(np.prod(shape[1:]))
        values = rng.standard_normal(shape) / np.sqrt(fan_in)
        if name.endswith("norm.weight"):
            values = 1 + 0.3 * values
        weights[name] = values.astype(np.float16).astype(np.float32)
    return Prior(spec=spec, sizes=sizes, weights=weights, name="random")


def smooth_prior(spec: MelSpec) -> Prior:
    """Return a prior whose network answers 0: its guess is the smooth magnitude."""
    weights = {
        name: 0 * values if name.startswith("out.") else values for name, values in random_prior(spec).weights.items()
    }
    return Prior(spec=spec, sizes=SMALL, weights=weights, name="smooth")


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch, **priors: Prior) -> None:
    """Let melmill come with these priors, and with no others, in this process."""
    for name, prior in priors.items():
        (folder / f"{name}.safetensors").write_bytes(prior.encoded())
    monkeypatch.setattr(shipped, "FOLDER", folder)
