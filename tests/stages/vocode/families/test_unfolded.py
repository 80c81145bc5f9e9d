"""Learned steps from a PGHI start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import melmill
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.generators import fresh
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.loaded import LoadedVocoder, load
from melmill.stages.vocode.network import Checkpoint
from tests.stages.vocode.tiny import assert_batch_is_each_alone, relative

SPEC = MelSpec(sr=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, log="ln", floor=1e-5)
LINEAR = replace(SPEC, log=None, floor=None)


def state(*, silent: bool = False) -> dict[str, torch.Tensor]:
    """Return weights; `silent` ones answer the start itself."""
    found = fresh("unfolded", "small", SPEC, seed=0).model.state_dict()
    if not silent:
        torch.manual_seed(0)
        for key, value in found.items():
            if ".out." in key:
                found[key] = 0.03 * torch.randn_like(value)
    return dict(found)


def vocoder(**changes: bool) -> LoadedVocoder:
    return load(Checkpoint(name="small", state=state(**changes), mel=SPEC))


@pytest.fixture(scope="module")
def wave(voice: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(voice[::2])


def test_begins_where_pghi_ends(wave: NDArray[np.float32]) -> None:
    M = melmill.mel(wave, SPEC)
    y = vocoder(silent=True)(M)
    start = melmill.invert(M, SPEC, method="pghi", length=y.size)
    # What a start leaves unsaid, magnitudes under 1e-5, is not silence to a step.
    assert relative(y, start) < 1e-4


def test_learned_steps_change_the_start(wave: NDArray[np.float32]) -> None:
    M = melmill.mel(wave, SPEC)
    assert relative(vocoder()(M), vocoder(silent=True)(M)) > 0.02


ENDS_BY_MEL = {"model": "unfolded", "ends": "mel"}


def test_ends_by_the_mel_hold_what_the_mel_says(wave: NDArray[np.float32]) -> None:
    # A recording that stops in the middle of a sound, as cut ones do.
    M = melmill.mel(wave[: 100 * SPEC.hop_length], SPEC)
    errors = {}
    for ends in ("network", "mel"):
        y = load(Checkpoint(name="small", state=state(), mel=SPEC, config={"model": "unfolded", "ends": ends}))(M)
        error_db = 20 / np.log(10) * np.abs(melmill.mel(y, SPEC) - M)
        errors[ends] = error_db[:, [0, 1, -2, -1]].mean()
        middle = error_db[:, 8:-8].mean()
    assert errors["mel"] < 0.5 * errors["network"]
    assert errors["mel"] < middle


def test_ends_are_by_the_network_or_the_mel() -> None:
    with pytest.raises(VocoderError, match=r"small: 'ends' of its configuration must be 'network' or 'mel', got 'cut'"):
        load(Checkpoint(name="small", state=state(), mel=SPEC, config={"model": "unfolded", "ends": "cut"}))


@pytest.mark.parametrize("config", [{"model": "unfolded"}, ENDS_BY_MEL])
def test_a_batch_is_each_alone(config: dict[str, str]) -> None:
    # Directions of faint bins follow the last bit of their parts.
    voc = load(Checkpoint(name="small", state=state(), mel=SPEC, config=config))
    assert_batch_is_each_alone(voc, (40, 3, 21), tolerance=2e-4)


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_the_shortest_mels(n_frames: int) -> None:
    y = vocoder()(np.full((20, n_frames), -3.0, dtype=np.float32))
    assert y.shape == ((n_frames - 1) * 64,)
    assert np.isfinite(y).all()


def test_silence_stays_faint() -> None:
    y = vocoder(silent=True)(np.full((20, 30), np.log(1e-5), dtype=np.float32))
    assert np.abs(y).max() < 1e-3


def test_sizes_follow_from_the_tensors() -> None:
    fewer = {key: value for key, value in state().items() if not key.startswith("steps.2.")}
    assert load(Checkpoint(name="two steps", state=fewer, mel=SPEC)).model.state_dict().keys() == fewer.keys()


def test_needs_its_mel_and_centred_frames() -> None:
    with pytest.raises(VocoderError, match="does not say its mel"):
        load(Checkpoint(name="w.pt", state=state()))
    with pytest.raises(VocoderError, match="center is 'same'"):
        load(Checkpoint(name="w.pt", state=state(), mel=replace(SPEC, center="same")))


def test_a_mel_of_other_bands_is_another_network() -> None:
    with pytest.raises(VocoderError, match=r"steps\.0\.embed\.weight.*has shape"):
        load(Checkpoint(name="w.pt", state=state(), mel=replace(SPEC, n_mels=24)))
