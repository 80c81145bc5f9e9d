"""The priors that come with melmill: names, files, and which one fits a mel."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import melmill
from melmill.stages.invert import priors
from melmill.stages.invert.inversion import inverted
from melmill.stages.invert.priors import Choice, fitting, located, shipped_names, shipped_prior
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import decoded
from tests.priors import random_prior, ship, smooth_prior

SMALL = MelSpec(n_fft=256, win_length=256, hop_length=64, n_mels=20)
MAX_BYTES = 6_000_000


def test_what_comes_with_melmill_is_whole_described_and_unambiguous() -> None:
    files = [Path(located(name)) for name in shipped_names()]
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    for file in files:
        assert file.with_suffix(".md").read_text().strip(), f"{file.name} has no card"
        assert decoded(file.name, file.read_bytes()) == shipped_prior(file.stem)
    for one, other in combinations(shipped_names(), 2):
        assert shipped_prior(one).fits(shipped_prior(other).spec) is not None
    assert {path.suffix for path in priors.FOLDER.iterdir() if path.is_file()} <= {".py", ".md", ".safetensors"}


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path, monkeypatch, small=smooth_prior(SMALL), paper=random_prior(MelSpec()))


@pytest.mark.usefixtures("two")
def test_auto_is_the_one_that_fits() -> None:
    assert fitting(MelSpec(log="ln", floor=1e-5, center="same", norm=None)) == Choice(name="paper")
    assert fitting(SMALL) == Choice(name="small")
    # Fewer fields differ from `small`.
    assert fitting(replace(SMALL, n_mels=24)) == Choice(
        name=None,
        note="no prior that comes with melmill fits this mel (the nearest, small: n_mels is 24, needed 20): starting "
        "from NNLS",
    )


def test_without_any_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path, monkeypatch)
    assert fitting(SMALL) == Choice(name=None, note="")


@pytest.mark.usefixtures("two")
def test_names_stand_for_files() -> None:
    assert melmill.load_prior("small") == smooth_prior(SMALL)
    with pytest.raises(
        melmill.ParameterError,
        match=r"prior must be auto, none, paper, small or a file that exists, got 'smal': did you mean 'small'\?",
    ):
        melmill.load_prior("smal")
    with pytest.raises(melmill.ParameterError, match=r"got 'x\.safetensors': check its name"):
        melmill.load_prior("x.safetensors")


@pytest.mark.usefixtures("two")
def test_invert_takes_what_fits_and_the_other_methods_do_not() -> None:
    y = np.zeros(8000, dtype=np.float32)
    y[100::700] = 0.8  # clicks have a smooth magnitude
    M = melmill.mel(y, SMALL)
    assert inverted(M, SMALL).start == "prior"
    assert inverted(M, SMALL, prior="none").start == "nnls"
    assert inverted(M, SMALL, method="admm", n_iter=3).start == "nnls"
    assert inverted(M, SMALL, method="admm", n_iter=3, prior="auto").start == "prior"
    assert inverted(M, SMALL, method="admm", n_iter=3, magnitude="pinv").start == "pinv"
    assert inverted(melmill.mel(y), MelSpec()).start == "nnls"  # a random network is not followed
    assert inverted(melmill.mel(y), MelSpec(), n_iter=1, prior=shipped_prior("paper")).start == "prior"
    # What is not taken leaves no trace.
    np.testing.assert_array_equal(
        melmill.invert(melmill.mel(y), MelSpec(), quality="draft"),
        melmill.invert(melmill.mel(y), MelSpec(), quality="draft", prior="none"),
    )
    np.testing.assert_array_equal(
        melmill.invert(M, SMALL, prior="small", n_iter=4), melmill.invert(M, SMALL, prior="auto", n_iter=4)
    )
    with pytest.raises(melmill.ParameterError, match=r"prior must be 'auto' or 'none', got 'small'"):
        inverted(M, SMALL, prior="small")  # type: ignore[arg-type]
