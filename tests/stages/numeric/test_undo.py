"""What the mel bank gave, recovered from what was stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.mel import magnitude_spec, mel_spectrogram, range_found, to_linear
from melmill.stages.numeric.mels.pcen import inverse_pcen, pcen
from melmill.stages.numeric.melspec import MelSpec, Pcen


@pytest.fixture(scope="module")
def y() -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    envelope = np.repeat(10.0 ** rng.uniform(-4.0, -0.5, 40), 500)
    return np.asarray(envelope * rng.standard_normal(20000), dtype=np.float32)


EXACT = [
    # nothing to undo
    {},
    {"power": 2.0},
    # each log, at each power, with a floor that nothing reaches
    {"log": "ln", "floor": 1e-10},
    {"log": "log10", "floor": 1e-10},
    {"log": "db", "floor": 1e-10},
    {"log": "db", "floor": 1e-20, "power": 2.0},
    # affine maps, with and without a log
    {"shift": 80.0, "scale": 0.01, "log": "db", "floor": 1e-10},
    {"shift": 1e-3, "scale": 3.0},
    # a power law, a normalised window, both
    {"compression": 0.3},
    {"normalized": True},
    {"normalized": True, "power": 2.0, "compression": 0.5},
    # a clip that nothing reaches
    {"clip": (-100.0, 100.0), "log": "ln", "floor": 1e-10},
    # PCEN, its special forms, and what may follow it
    {"pcen": Pcen()},
    {"pcen": Pcen(gain=0.5, bias=10.0, power=0.25, time_constant_s=0.06)},
    {"pcen": Pcen(power=0.0)},
    {"pcen": Pcen(bias=0.0)},
    {"pcen": Pcen(gain=0.0)},
    {"pcen": Pcen(), "power": 2.0, "normalized": True, "scale": 0.1},
]


@pytest.mark.parametrize("fields", EXACT)
def test_undone_mel_is_the_linear_mel(y: NDArray[np.float32], fields: dict[str, Any]) -> None:
    spec = MelSpec(**fields)
    linear = to_linear(mel_spectrogram(y, spec), spec)
    assert linear.dtype == np.float32
    np.testing.assert_allclose(linear, mel_spectrogram(y, magnitude_spec(spec)), rtol=2e-5, atol=1e-9)


def test_magnitude_spec_keeps_bank_framing_and_power() -> None:
    spec = MelSpec(sr=22050, power=2.0, center="same", eps=1e-9, normalized=True, compression=0.3, clip=(0.0, 1.0))
    assert magnitude_spec(spec) == MelSpec(sr=22050, power=2.0, center="same", eps=1e-9)


def test_hidden_values_stay_where_floor_and_clip_left_them() -> None:
    quiet = np.zeros(4096, dtype=np.float32)
    floored = MelSpec(log="ln", floor=1e-5)
    np.testing.assert_allclose(to_linear(mel_spectrogram(quiet, floored), floored), 1e-5, rtol=1e-5)
    clipped = MelSpec(log="db", floor=1e-5, shift=80.0, scale=0.01, clip=(0.0, 1.0))
    np.testing.assert_allclose(to_linear(mel_spectrogram(quiet, clipped), clipped), 1e-4, rtol=1e-5)


def test_negative_predictions_are_zero_energy() -> None:
    M = np.full((80, 2), -0.5, dtype=np.float32)
    assert not to_linear(M, MelSpec()).any()
    assert not to_linear(M, MelSpec(compression=0.5)).any()
    assert not to_linear(M, MelSpec(pcen=Pcen())).any()


@pytest.mark.parametrize(("dtype", "worst_db"), [(np.float32, 1e-3), (np.float16, 0.5)])
@pytest.mark.parametrize("level", [1.0, 2.0**31])  # the level that librosa recommends is the harder one
def test_pcen_survives_storage(y: NDArray[np.float32], dtype: Any, worst_db: float, level: float) -> None:
    """Within 80 dB of the loudest value an energy comes back from stored values to `worst_db`."""
    M = level * mel_spectrogram(y, MelSpec()).astype(np.float64)
    stored = pcen(M, Pcen(), 62.5).astype(dtype).astype(np.float64)
    lowest = 1e-4 * M.max()
    again = np.maximum(inverse_pcen(stored, Pcen(), 62.5), lowest)
    assert np.abs(20 * np.log10(again / np.maximum(M, lowest))).max() < worst_db


@pytest.mark.parametrize("gain", [1.0, 1.2])
def test_pcen_that_saturates_is_refused(gain: float) -> None:
    with pytest.raises(ContractError, match=f"gain={gain} can't be undone.*gain <= 0.99"):
        to_linear(np.ones((80, 4)), MelSpec(pcen=Pcen(gain=gain)))


def test_pcen_value_that_no_energy_gives_is_refused() -> None:
    with pytest.raises(ContractError, match=r"value as large as .* is made by no finite energy"):
        to_linear(np.full((80, 4), 1e30), MelSpec(pcen=Pcen()))


@pytest.mark.parametrize(
    ("M", "error", "message"),
    [
        (np.zeros((63, 80)), ContractError, r"\(n_mels=80, n_frames\), got shape \(63, 80\).*transpose"),
        (np.zeros(80), ContractError, r"got shape \(80,\)"),
        (np.full((80, 3), np.nan), Unusable, "240 mel values are not finite"),
        (np.full((80, 3), 1000.0), Unusable, "mel value 1000 exceeds"),
    ],
)
def test_what_is_no_mel_of_the_spec_is_refused(M: NDArray[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        to_linear(M, MelSpec(log="ln", floor=1e-5))


@pytest.mark.parametrize(
    ("made", "values", "found"),
    [
        ({"log": "ln", "floor": 1e-5}, (-20.0, 104.0), "-20 to 104, and the spec has log: ln; they look like log: db"),
        ({"log": "log10", "floor": 1e-5}, (-80.0, 45.0), "the spec has log: log10; they look like log: db"),
        ({"log": "ln", "floor": 1e-5}, (0.0, 500.0), "they look like log: null"),
        ({"log": "log10", "floor": 1e-5, "sr": 22050}, (-11.5, 9.5), "they look like log: ln (preset bigvgan_22khz"),
        ({"log": "db", "floor": 1e-5}, (-1.0, 9000.0), "the spec has log: db; say how the mel was made"),
    ],
)
def test_a_message_says_what_the_values_look_like(made: dict[str, Any], values: tuple[float, ...], found: str) -> None:
    M = np.tile(np.array([values]), (80, 1))
    assert found in range_found(M, MelSpec(**made))


@pytest.mark.parametrize(("log", "loudest"), [("ln", 104.0), ("log10", 45.0), ("db", 800.0)])
def test_a_mel_past_float32_is_refused_with_its_range(log: Any, loudest: float) -> None:
    M = np.full((80, 2), -9.0)
    M[3, 1] = loudest
    with pytest.raises(Unusable, match=rf"^mel value {loudest:g} exceeds .*; its values are -9 to {loudest:g}, and"):
        to_linear(M, MelSpec(log=log, floor=1e-5))
