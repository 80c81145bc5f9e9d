"""Distances of the set of all reconstructions from that of all recordings."""

from __future__ import annotations

from melmill.stages.score.metric import Metric
from melmill.stages.score.status import Measured, Status

_EMBEDDING = (
    "The embedding is `log_mel`, `speaker` or a program of one's own: see [Distances of sets](#distances-of-sets)"
)
_LIMITS = (
    "It compares distributions, not recordings with reconstructions: it can't hear words that are swapped. Values "
    "of different embeddings have nothing in common."
)
_COST = (
    "The embedding `log_mel` takes a signal at about 1,700 x real time, `speaker` as `speaker_similarity` does. The "
    "report takes under a second for 64 recordings."
)

FAD = Metric(
    name="fad",
    title="FAD",
    better="lower",
    decimals=3,
    needs="set",
    compute=lambda _: Measured.failed(Status.TOO_FEW),
    order=170,
    group="sets",
    says="How far the reconstructions as a set sound from the recordings: 0 where both sets have the same moments. One "
    "value for all recordings.",
    formula=r"Fréchet's distance of two normal distributions, $\|\mu-\hat\mu\|^2+\mathrm{tr}(\Sigma+\hat\Sigma-"
    rf"2(\Sigma\hat\Sigma)^{{1/2}})$, with the moments of the embeddings of all parts. {_EMBEDDING}. The interval is "
    "the jackknife's over groups of recordings.",
    limits="Small sets get too large a distance, by about the inverse of their size: compare systems over the same "
    f"recordings only, and read `fad_inf` beside it. {_LIMITS}",
    reference="Kilgour, Zuluaga, Roblek, Sharifi 2019 (FAD)",
    cost=_COST,
)

FAD_INF = Metric(
    name="fad_inf",
    title="FAD∞",
    better="lower",
    decimals=3,
    needs="set",
    compute=lambda _: Measured.failed(Status.TOO_FEW),
    order=171,
    group="sets",
    says="FAD as sets without end would have it. FAD less this is its bias. Reports have it wherever they have FAD.",
    formula="FAD of subsets, from half of the recordings to all of them; a line over the inverse size, followed "
    f"to 0. {_EMBEDDING}.",
    limits=f"It needs 16 recordings, has no interval, and may be a little below 0. {_LIMITS}",
    reference="Chong, Forsyth 2020; Gui, Gamper, Braun, Emmanouilidou 2024 (FAD-∞)",
    cost=_COST,
)

KAD = Metric(
    name="kad",
    title="KAD",
    better="lower",
    decimals=3,
    needs="set",
    compute=lambda _: Measured.failed(Status.TOO_FEW),
    order=172,
    group="sets",
    says="How far the reconstructions as a set sound from the recordings, without an assumption on how embeddings are "
    "distributed. It has no bias, whatever the size of the set.",
    formula=r"$100\,\mathrm{MMD}^2$ with the kernel $e^{-\|x-y\|^2/2\sigma^2}$, $\sigma$ the median distance of parts "
    "of the recordings. The estimate without bias: parts of one recording are compared neither with one another nor "
    f"with those of its reconstruction. {_EMBEDDING}. The interval is the jackknife's over recordings.",
    limits=f"It may be below 0 where the sets are alike. Its kernel is as wide as the recordings differ. {_LIMITS}",
    reference="Gretton, Borgwardt, Rasch, Schölkopf, Smola 2012 (MMD); Chung, Eu, Lee, Choi, Nam, Chon 2025 (KAD)",
    cost=_COST,
)
