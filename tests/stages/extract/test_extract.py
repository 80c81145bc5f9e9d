"""The stage that makes mels: its fields, its identity, its outcomes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import UNSET, Item, Mel, Outcome, Report, UtteranceStage, Waveform, as_float
from melmill.stages.extract.stage import Extract
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec, Pcen
from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.resample import resample
from melmill.stages.registry import stage_class
from melmill.storage.utterance import Utterance


def _item(y: NDArray[Any], sr: int, name: str = "a") -> Item:
    utterance = Utterance(
        utterance_id=name,
        subset="",
        speaker_id="",
        chapter_id="",
        text="",
        path=f"{name}.wav",
        size_bytes=0,
        mtime_ns=0,
        source_sr=sr,
        source_n_samples=y.size,
        sr=sr,
        n_samples=y.size,
    )
    return Item(utterance=utterance, inputs={"from": y}, seed=0)


def _noise(n_samples: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-3000, 3000, n_samples).astype(np.int16)


def _run(stage: Extract, *waves: NDArray[Any], sr: int = 16000) -> list[Outcome]:
    source = Waveform(sr=sr, dtype="int16")
    return list(stage.process([_item(y, sr) for y in waves], {"from": source}, stage.produces({"from": [source]})))


def test_it_is_registered_and_fits_the_protocol() -> None:
    assert stage_class("extract") is Extract
    assert isinstance(Extract(), UtteranceStage)


def test_default_is_the_paper() -> None:
    assert Extract().spec == preset("paper")
    assert Extract().produces({"from": [Waveform(sr=16000)]}) == Mel(spec=preset("paper"), dtype="float32")


def test_every_field_of_the_spec_can_be_overridden() -> None:
    hints = typing.get_type_hints(Extract)
    declared = {field.name: field.default for field in dataclasses.fields(Extract)}
    for field in dataclasses.fields(MelSpec):
        assert declared[field.name] is UNSET
        assert type(UNSET) in typing.get_args(hints[field.name])


def test_none_overrides_and_unset_does_not() -> None:
    stage = Extract(preset="hifigan", fmax=None, log=None, floor=None, n_mels=100)
    assert stage.spec == MelSpec(sr=22050, n_mels=100, center="same", pad_mode="reflect", eps=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Extract(preset="tacotron2"), Extract(preset="hifigan_ft"), True),  # two names of one spec
        (Extract(), Extract(fmin=0, power=1), True),  # what the preset says already, written as whole numbers
        (Extract(pcen=Pcen()), Extract(pcen=Pcen(gain=0.98)), True),
        (Extract(), Extract(n_mels=64), False),
        (Extract(), Extract(dtype="float16"), False),
        (Extract(pcen=Pcen()), Extract(pcen=Pcen(gain=0.9)), False),
    ],
)
def test_identity_is_what_is_computed(a: Extract, b: Extract, same: bool) -> None:
    assert (repr(a.identity()) == repr(b.identity())) is same


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"preset": "hifi"}, "preset", "did you mean 'hifigan'"),
        ({"n_mels": 0}, "n_mels", "between 1 and"),
        ({"fmax": 9000.0}, "fmax", "must not exceed sr / 2"),
        ({"log": "ln"}, "floor", "must be positive where a log is taken"),
        ({"preset": "hifigan", "pcen": Pcen()}, "pcen", "excludes log"),
        ({"dtype": "float64"}, "dtype", "must be 'float32' or 'float16', got 'float64'"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        Extract(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([Mel(spec=MelSpec())], "takes waveforms from one node, got mel"),
        ([Report()], "got report"),
        ([], "got nothing"),
    ],
)
def test_only_waveforms_come_in(sources: list[Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Extract().produces({"from": sources})


def test_mels_are_those_of_the_function_in_order() -> None:
    waves = [_noise(16000), _noise(5000, seed=1)]
    outcomes = _run(Extract(log="ln", floor=1e-5), *waves)
    for outcome, y in zip(outcomes, waves, strict=True):
        assert outcome.array is not None
        np.testing.assert_array_equal(outcome.array, mel_spectrogram(y, MelSpec(log="ln", floor=1e-5)))


def test_waveforms_of_another_rate_are_resampled() -> None:
    y = _noise(16000)
    [outcome] = _run(Extract(preset="hifigan"), y)
    expected = mel_spectrogram(resample(as_float(y), 16000, 22050), preset("hifigan"))
    assert outcome.array is not None
    np.testing.assert_array_equal(outcome.array, expected)
    assert outcome.array.shape == (80, 22050 // 256)


def test_one_bad_utterance_does_not_stop_the_others() -> None:
    bad = np.full(4000, np.nan, dtype=np.float32)
    outcomes = _run(Extract(), _noise(4000), np.zeros(0, np.int16), bad, _noise(4000))
    assert [outcome.rejected is None for outcome in outcomes] == [True, False, False, True]
    assert [outcome.rejected.reason.split(":")[0] for outcome in outcomes if outcome.rejected] == [
        "0 samples are shorter than one frame (n_fft=1024, hop_length=256, center=True)",
        "the waveform holds samples that are not finite, or far outside [-1, 1]",
    ]


def test_half_precision_is_rounding_only() -> None:
    y = _noise(16000)
    [single], [half] = _run(Extract(), y), _run(Extract(dtype="float16"), y)
    assert single.array is not None
    assert half.array is not None
    assert half.array.dtype == np.float16
    np.testing.assert_array_equal(half.array, single.array.astype(np.float16))


def test_half_precision_overflow_is_rejected_not_infinite() -> None:
    """Full-scale noise has a power of about n_fft / 4 a bin, so that some bands exceed 65504."""
    loud = np.where(_noise(16000) > 0, 32767, -32768).astype(np.int16)
    [outcome] = _run(Extract(power=2.0, norm=None, scale=100.0, dtype="float16"), loud)
    assert outcome.rejected is not None
    assert "exceeds float16's 65504: use dtype: float32, or a log" in outcome.rejected.reason


def test_importing_the_stage_is_cheap() -> None:
    heavy = "{'librosa', 'numba', 'soxr', 'torch'}"
    code = f"import sys, melmill.stages.extract.stage; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
