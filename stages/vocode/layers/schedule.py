"""Noise schedules of diffusion vocoders, and the options of their stages, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melmill.stages.vocode.errors import VocoderError

# Tolerance for schedules that are stored rounded, some to float32.
_SLACK = 1e-7


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions:
    """The fields that a stage of a diffusion vocoder has besides those of all vocoders.

    Parameters
    ----------
    betas : tuple of float or None
        Noise variance of each step, the cleanest first; None: what its files say.
    correction : bool
        Griffin-Lim between the first steps (Liu et al. 2024).
    """

    betas: tuple[float, ...] | None = None
    correction: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """Hold one reverse step, ``y <- clip(gain (y - share eps(y, time)) + sigma z, -1, 1)``.

    Parameters
    ----------
    gain, share, sigma : float
        ``1 / sqrt(alpha_n)``, ``beta_n / sqrt(1 - alphabar_n)``, and the standard deviation of the
        fresh noise z. That is 0 at the last step.
    time : float
        Time that the network gets: ``sqrt(alphabar_n)`` for WaveGrad, a place in the training
        schedule for DiffWave.
    """

    gain: float
    share: float
    sigma: float
    time: float


def checked_betas(betas: Sequence[float]) -> tuple[float, ...]:
    """Return a schedule as plain floats.

    Raises
    ------
    VocoderError
        It holds something else than noise variances in (0, 1).
    """
    try:
        values = tuple(float(beta) for beta in betas)
    except (TypeError, ValueError, OverflowError) as error:
        raise VocoderError(f"a noise schedule is a list of variances in (0, 1), got {betas!r}") from error
    wrong = [beta for beta in values if not 0 < beta < 1]
    if wrong or not values:
        raise VocoderError(
            f"a noise schedule holds a variance in (0, 1) for each step, got {wrong[0] if wrong else 'no step'}"
        )
    return values


def signal_levels(betas: Sequence[float]) -> NDArray[np.float64]:
    """Return ``sqrt(alphabar)`` of every step, the share of the signal that is left.

    >>> signal_levels([0.36, 0.75]).tolist()
    [0.8, 0.4]
    """
    return np.asarray(np.sqrt(np.cumprod(1.0 - np.asarray(betas, dtype=np.float64))))


def reverse_steps(betas: Sequence[float], times: Sequence[float]) -> list[Step]:
    """Return the steps of ancestral sampling, noisiest first.

    Parameters
    ----------
    betas, times : sequence of float
        Noise variances and the times that the network gets, in order of diffusion (the cleanest
        first).

    References
    ----------
    Ho, Jain and Abbeel 2020, algorithm 2 with sigma^2 = betatilde; Chen et al. 2021, algorithm 2;
        Kong et al. 2021, algorithm 2.
    """
    noise = 1.0 - signal_levels(betas) ** 2
    before = np.concatenate([[0.0], noise[:-1]])
    sigmas = np.sqrt(before / noise * np.asarray(betas))
    return [
        Step(
            gain=float((1.0 - beta) ** -0.5),
            share=float(beta / noise[n] ** 0.5),
            sigma=float(sigmas[n]),
            time=float(times[n]),
        )
        for n, beta in reversed(list(enumerate(betas)))
    ]


def training_times(betas: Sequence[float], training: Sequence[float]) -> list[float]:
    """Return where the training schedule has the same noise as each step of another schedule.

    A place between two steps is a fraction, linear in ``sqrt(alphabar)``.

    Raises
    ------
    VocoderError
        A step has less or more noise than the network saw in training.

    References
    ----------
    Kong et al. 2021, appendix B (fast sampling).

    Examples
    --------
    >>> [round(place, 6) for place in training_times([0.36, 0.4375], training=[0.36, 0.75])]
    [0.0, 0.5]
    """
    seen = signal_levels(training)
    asked = signal_levels(betas)
    outside = np.flatnonzero((asked > seen[0] + _SLACK) | (asked < seen[-1] - _SLACK))
    if outside.size:
        n = int(outside[0])
        raise VocoderError(
            f"step {n} of the noise schedule keeps {asked[n]:.6g} of the signal, training saw {seen[-1]:.6g} to "
            f"{seen[0]:.6g}: give betas whose products stay in that range"
        )
    return [float(place) for place in np.interp(-asked, -seen, np.arange(len(seen)))]
