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
from melmill.stages.numeric.presets import preset, preset_names

for name in preset_names():
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


def empty_bands() -> MelSpec:
    return MelSpec(sr=48000, n_fft=512, win_length=512, hop_length=128, n_mels=200)


# Bands that are nearly dependent, with a singular value of 3e-6: leaving a row out and leaving that
# value out differ by as much.
NEARLY = {"whisper_80": 1e-5}
# Smaller singular values, relative to the largest, are those of rounding.
ROUNDING = 1e-5


@pytest.mark.parametrize(
    ("spec", "tolerance"),
    [*((preset(name), NEARLY.get(name, 1e-8)) for name in preset_names()), (empty_bands(), 1e-8)],
    ids=[*preset_names(), "empty bands"],
)
def test_the_pseudo_inverse_is_that_of_a_singular_value_decomposition(spec: MelSpec, tolerance: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyBandWarning)
        E = bank_of(spec).E
    expected = np.linalg.pinv(E, rcond=ROUNDING)

    np.testing.assert_allclose(pseudo_inverse(E), expected, atol=tolerance * np.abs(expected).max())


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


def test_what_is_made_once_has_the_same_bytes_whichever_kernels_linear_algebra_takes() -> None:
    if len(set(digests(LINEAR_ALGEBRA))) == 1:
        pytest.skip("linear algebra has no kernels to choose from here")

    assert len(set(digests(MADE_ONCE))) == 1
