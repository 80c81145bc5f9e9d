"""Without its recording, the presets that may have made a mel are ranked by a small network."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.flows.exchange.identify.blind import FILE, SHA256, digest, model
from melmill.flows.exchange.identify.candidates import candidates
from melmill.flows.exchange.identify.features import features


def test_the_network_is_the_one_that_was_measured() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SHA256


def test_the_network_knows_the_presets() -> None:
    unknown = [candidate.names[0] for candidate in candidates() if digest(candidate) not in model().makes]
    assert len(unknown) <= len(candidates()) // 20, f"train the network anew: {unknown}"


def test_probabilities_are_of_makes_with_as_many_bands() -> None:
    rng = np.random.default_rng(0)
    chances = model().probabilities(np.cumsum(rng.normal(size=(80, 60)), axis=1))
    assert chances.sum() == pytest.approx(1.0)
    assert all(chance == 0 for chance, n in zip(chances[:-1], model().bands, strict=True) if n != 80)


@pytest.mark.parametrize("preset", ["hifigan", "vocos_24khz"])
def test_the_preset_of_speech_is_among_the_first(preset: str, speech: NDArray[np.float32]) -> None:
    M = melmill.mel(speech, preset=preset, sr=22050)
    found = melmill.identify(M.T)
    assert found.verdict == "likely"
    assert found.transposed
    assert preset in {name for match in found.matches for name in match.presets}
    confidences = [match.confidence or 0.0 for match in found.matches]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) <= 1.0 + 1e-9
    assert not found.fits


def test_overlaps_and_pace_do_not_depend_on_a_normalisation(speech: NDArray[np.float32]) -> None:
    M = melmill.mel(speech, preset="hifigan")
    a, b = features(M, []), features(0.1 * M + 3.0, [])
    # The two of the shape, quantiles of the values as they are, shares, tops and moments come first.
    np.testing.assert_allclose(a[17:], b[17:], atol=2e-3)
