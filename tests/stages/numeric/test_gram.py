"""Matrices made once from a bank are right, and have the same last bits on every CPU.

Linear algebra would take other kernels on another CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from melmill.stages.numeric.errors import EmptyBandWarning
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.lanes.gram import factors, independent, inverse, pseudo_inverse, spectral_norm
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names

# Kernels of OpenBLAS that run on any x86 with AVX2.
KERNELS = ("Prescott", "Haswell")

# All that an inverter makes once of a bank, in float64. Rounded to float32, most differences would
# be hidden.
MADE_ONCE = """
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.compiled.magnitude import balance
from melmill.stages.numeric.compiled.misfit import resolvent
from melmill.stages.numeric.lanes.gram import pseudo_inverse
from melmill.stages.numeric.presets import preset

for name in {names}:
    bank = bank_of(preset(name))
    factor = resolvent(bank, 0.1, "float64")
    for made in (balance(bank.E), pseudo_inverse(bank.E), factor.lower.weights, factor.over_diagonal):
        digest.update(made.tobytes())
"""
LINEAR_ALGEBRA = "digest.update(np.linalg.pinv(np.random.default_rng(0).standard_normal((80, 513))).tobytes())"
SCRIPT = """
import hashlib
import numpy as np

digest = hashlib.sha256()
{}
print(digest.hexdigest())
"""


LARGEST = "riffusion"
# Few and many bands, narrow and wide ones, with and without dependent ones.
SOME = ("hifigan", "vocos_24khz", "whisper_80", "audioldm_48k", "chatterbox_voice_encoder")


def distinct() -> list[str]:
    """Return a preset of each bank; many projects share one. The largest takes longer than all others."""
    found: dict[tuple[object, ...], str] = {}
    for name in preset_names():
        spec = preset(name)
        bank = (spec.bank_sr, spec.sr, spec.n_fft, spec.n_mels, spec.fmin, spec.top_hz, spec.htk, spec.norm, spec.power)
        found.setdefault(bank, name)
    return [name for name in found.values() if name != LARGEST]


# Bands that are nearly dependent, with a singular value of 3e-6: leaving a row out and leaving that
# value out differ by as much.
NEARLY = {"whisper_80": 1e-5}
# Smaller singular values, relative to the largest, are those of rounding.
ROUNDING = 1e-5


def error_of_pseudo_inverse(spec: MelSpec) -> float:
    """Return the largest difference from that by a singular value decomposition, relative to its largest value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyBandWarning)
        E = bank_of(spec).E
    expected = np.linalg.pinv(E, rcond=ROUNDING)
    return float(np.abs(pseudo_inverse(E) - expected).max() / np.abs(expected).max())


def test_pseudo_inverses_are_those_of_a_singular_value_decomposition() -> None:
    empty_bands = MelSpec(sr=48000, n_fft=512, win_length=512, hop_length=128, n_mels=200)
    errors = {name: error_of_pseudo_inverse(preset(name)) for name in distinct()}
    errors["empty bands"] = error_of_pseudo_inverse(empty_bands)
    assert {name: error for name, error in errors.items() if error > NEARLY.get(name, 1e-8)} == {}
    assert len(errors) > 50


@pytest.mark.slow
def test_the_pseudo_inverse_of_many_bands_is_that_of_a_singular_value_decomposition() -> None:
    assert error_of_pseudo_inverse(preset(LARGEST)) < 1e-8


def test_dependent_rows_share_what_they_say() -> None:
    E = np.array([[1.0, 2.0, 0.0, 0.0], [2.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 3.0, 0.0]])

    np.testing.assert_allclose(pseudo_inverse(E), np.linalg.pinv(E), atol=1e-14)
    assert np.count_nonzero(independent(E @ E.T)) == 2


def test_a_matrix_is_its_factors_product_and_its_inverse_undoes_it() -> None:
    A = np.cov(np.random.default_rng(1).standard_normal((30, 100)))
    L, d = factors(A)

    np.testing.assert_allclose(L * d @ L.T, A, atol=1e-14)
    np.testing.assert_array_equal(L, np.tril(L))
    np.testing.assert_allclose(inverse(A) @ A, np.eye(30), atol=1e-12)


def test_a_small_shift_is_enough_for_dependent_rows_and_none_is_an_error() -> None:
    E = np.array([[1.0, 2.0], [2.0, 4.0]])
    A = E @ E.T + 1e-10 * np.eye(2)

    np.testing.assert_allclose(inverse(A) @ A, np.eye(2), atol=1e-4)
    for make in (factors, inverse):
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            make(np.array([[1.0, 1.0], [1.0, 1.0]]))


def test_the_norm_is_the_largest_singular_value() -> None:
    E = bank_of(preset("librosa")).E * np.linspace(1, 9, 128)[:, np.newaxis]

    assert spectral_norm(E) == pytest.approx(np.linalg.norm(E, 2), rel=1e-12)


def digests(work: str) -> list[str]:
    """Return the digest of what each kind of kernels makes."""
    found = []
    for kernels in KERNELS:
        environment = {**os.environ, "OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(work)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    return found


@pytest.fixture(scope="module")
def several_kernels() -> None:
    if len(set(digests(LINEAR_ALGEBRA))) == 1:
        pytest.skip("linear algebra has no kernels to choose from here")


@pytest.mark.usefixtures("several_kernels")
def test_what_is_made_once_has_the_same_bytes_whichever_kernels_linear_algebra_takes() -> None:
    assert len(set(digests(MADE_ONCE.format(names=SOME)))) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("several_kernels")
def test_so_it_has_for_every_bank() -> None:
    assert len(set(digests(MADE_ONCE.format(names=[*distinct(), LARGEST])))) == 1
