"""Pitch and energy at the frames of mels, and what sums rows up."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import Item, Mel, Outcome, Product, UtteranceStage, Waveform
from melmill.stages.extract.features.energy import Energy, norms
from melmill.stages.extract.features.f0 import F0
from melmill.stages.extract.features.moments import Moments, decoded, encoded
from melmill.stages.extract.features.tracking import PitchRange, autocorrelation_f0
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names, preset_of
from melmill.stages.numeric.stft import Stft
from melmill.stages.registry import stage_class
from melmill.storage.utterance import Utterance, resampled_length


def _utterance(n_samples: int, sr: int) -> Utterance:
    return Utterance(
        utterance_id="a",
        subset="",
        speaker_id="",
        chapter_id="",
        text="",
        path="a.wav",
        size_bytes=0,
        mtime_ns=0,
        source_sr=sr,
        source_n_samples=n_samples,
        sr=sr,
        n_samples=n_samples,
    )


def _run(stage: UtteranceStage, y: NDArray[Any], spec: MelSpec, sr: int | None = None) -> Outcome:
    """Return what a stage makes of a waveform beside a mel of a spec, whose values it does not read."""
    rate = sr or spec.sr
    inputs: dict[str, Product] = {"from": Waveform(sr=rate), "mel": Mel(spec=spec)}
    M = np.zeros((spec.n_mels, spec.n_frames(resampled_length(y.size, rate, spec.sr))), dtype=np.float32)
    item = Item(utterance=_utterance(y.size, rate), inputs={"from": y, "mel": M}, seed=0)
    (outcome,) = stage.process([item], inputs, stage.produces({port: [one] for port, one in inputs.items()}))
    return outcome


def _array(outcome: Outcome) -> NDArray[np.float32]:
    assert outcome.array is not None, outcome.rejected
    return outcome.array


@cache
def _tone(sr: int, hz: float = 200.0, duration_s: float = 0.5) -> NDArray[np.float32]:
    t = np.arange(round(duration_s * sr)) / sr
    return np.asarray(0.3 * np.sin(2 * np.pi * hz * t), dtype=np.float32)


def _spec(name: str) -> MelSpec:
    """Return the spec of a preset, with numbers of bands where it can't do without."""
    found = preset_of(name)
    ones = (1.0,) * found.spec.n_mels
    more = {"stats": {"band_std": ones}, "band_gain": {"band_gain": ones}}.get(found.needs or "", {})
    return dataclasses.replace(found.spec, **more)  # type: ignore[arg-type]


def _framings() -> list[str]:
    """Return a preset for each framing that presets have."""
    found: dict[tuple[object, ...], str] = {}
    for name in preset_names():
        spec = _spec(name)
        framing = (spec.sr, spec.stft, spec.frames, spec.frame_multiple, spec.last_frame)
        found.setdefault((*framing[:1], *dataclasses.astuple(spec.stft), *framing[2:]), name)
    return list(found.values())


@pytest.mark.parametrize("name", _framings())
def test_features_have_the_frames_of_their_mel(name: str) -> None:
    spec = _spec(name)
    y = _tone(spec.sr)
    n_frames = spec.n_frames(y.size)
    f0, voiced = _array(_run(F0(), y, spec))
    assert f0.shape == voiced.shape == _array(_run(Energy(), y, spec))[0].shape == (n_frames,)
    middle = slice(n_frames // 3, n_frames // 2)
    np.testing.assert_allclose(f0[middle], 200.0, rtol=2e-3)
    assert voiced[middle].all()


# A preset, the rate of the recordings, and a method.
@pytest.mark.parametrize("method", ["autocorrelation", "dio", "harvest"])
@pytest.mark.parametrize(("name", "sr"), [("hifigan", 22050), ("paper", 24000), ("vocos_24khz", 24000)])
def test_a_value_belongs_to_the_middle_of_its_window(name: str, sr: int, method: Any) -> None:
    if method != "autocorrelation":
        pytest.importorskip("pyworld")
    spec = preset(name)
    t = np.arange(sr) / sr
    y = sum(np.sin(2 * np.pi * k * (100 * t + 100 * t * t)) / k for k in range(1, 6)) * 0.1
    f0, voiced = _array(_run(F0(method=method), np.asarray(y, dtype=np.float32), spec, sr=sr))
    centres = (spec.stft.centre + spec.hop_length * np.arange(f0.size)) / spec.sr
    inside = (centres > 0.15) & (centres < 0.85) & (voiced > 0)
    assert inside.sum() > 20
    # Half a hop is more than 1 Hz of this glide.
    assert abs(np.median(f0[inside] - (100 + 200 * centres[inside]))) < 0.35


def test_an_unvoiced_stretch_is_found() -> None:
    spec = preset("hifigan")
    y = _tone(spec.sr, duration_s=1.5).copy()
    gap = slice(round(0.5 * spec.sr), round(0.9 * spec.sr))
    y[gap] = 0.05 * np.random.default_rng(0).standard_normal(gap.stop - gap.start)
    f0, voiced = _array(_run(F0(), y, spec))
    s = (spec.stft.centre + spec.hop_length * np.arange(f0.size)) / spec.sr
    assert not voiced[(s > 0.53) & (s < 0.87)].any()
    assert voiced[((s > 0.03) & (s < 0.47)) | ((s > 0.93) & (s < 1.47))].all()
    assert (f0[voiced == 0] == 0).all()
    whole = _array(_run(F0(unvoiced="interpolate"), y, spec))
    np.testing.assert_allclose(whole[0], 200.0, rtol=0.02)
    np.testing.assert_array_equal(whole[1], voiced)


@pytest.mark.parametrize("hz", [70.0, 110.0, 333.3, 600.0])
def test_tones_have_their_pitch(hz: float) -> None:
    f0 = autocorrelation_f0(
        _tone(16000, hz), 16000, np.arange(2000.0, 6000.0, 160.0), PitchRange(fmin=65.0, fmax=800.0, threshold=0.45)
    )
    np.testing.assert_allclose(f0, hz, rtol=2e-3)


def test_silence_has_no_pitch_and_no_energy() -> None:
    spec = preset("paper")
    outcome = _run(F0(), np.zeros(8000, dtype=np.int16), spec)
    assert not _array(outcome).any()
    assert outcome.row == {"f0_median_hz": None, "voiced_share": 0.0}
    assert not _array(_run(Energy(), np.zeros(8000, dtype=np.int16), spec)).any()


def test_frames_that_fill_up_a_multiple_hold_nothing() -> None:
    spec = dataclasses.replace(preset("paper"), last_frame=0.0, frame_multiple=16)
    y = _tone(spec.sr)
    n_real = preset("paper").n_frames(y.size)
    f0 = _array(_run(F0(), y, spec))
    assert f0.shape[1] % 16 == 0
    assert not f0[:, n_real:].any()
    assert f0[1, n_real // 2] == 1


def test_energy_is_the_norm_of_the_transform() -> None:
    spec = preset("hifigan")
    y = np.random.default_rng(0).normal(0, 0.1, 6000).astype(np.float32)
    expected = np.linalg.norm(Stft(spec.stft, np.float64).forward(y), axis=1)
    np.testing.assert_allclose(_array(_run(Energy(), y, spec))[0], expected, rtol=1e-5)
    assert norms(y, spec).shape == expected.shape


def test_energy_in_db_is_a_level() -> None:
    spec = preset("paper")
    level = _array(_run(Energy(measure="rms", log="db"), _tone(spec.sr), spec))[0]
    expected = 20 * np.log10(0.3 / np.sqrt(2))
    np.testing.assert_allclose(level[5:-5], expected, atol=0.05)


def test_a_mel_of_another_recording_is_refused() -> None:
    spec = preset("paper")
    inputs: dict[str, Product] = {"from": Waveform(sr=16000), "mel": Mel(spec=spec)}
    item = Item(
        utterance=_utterance(8000, 16000),
        inputs={"from": _tone(16000), "mel": np.zeros((80, 99), dtype=np.float32)},
        seed=0,
    )
    (outcome,) = F0().process([item], inputs, Mel(spec=spec))
    assert outcome.rejected is not None
    assert "the mel has 99 frames, but a waveform of 8000 samples at 16000 Hz has 32" in outcome.rejected.reason


# Fields, and what is said of them.
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"method": "crepe"}, "method must be"),
        ({"fmin": 700.0}, "fmax must be at least 1.5 times fmin = 700 Hz"),
        ({"threshold": 1.5}, "threshold"),
        ({"unvoiced": "nan"}, "unvoiced must be"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        F0(**fields)


def test_inputs_of_another_kind_are_refused() -> None:
    with pytest.raises(ContractError, match="f0 takes mels at 'mel', got waveform"):
        F0().produces({"from": [Waveform(sr=16000)], "mel": [Waveform(sr=16000)]})
    assert stage_class("f0") is F0


def test_moments_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1e3, 2.0, (3, 500))
    counted = rng.random(x.shape) < 0.6
    counted[2] = False
    parts = [Moments.of(x[:, a:b], counted[:, a:b]) for a, b in ((0, 1), (1, 1), (1, 300), (300, 500))]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merged(part)
    for row in (0, 1):
        values = x[row, counted[row]]
        assert whole.count[row] == values.size
        np.testing.assert_allclose(whole.mean[row], values.mean(), rtol=1e-12)
        np.testing.assert_allclose(whole.std[row], values.std(), rtol=1e-9)
        assert (whole.minimum[row], whole.maximum[row]) == (values.min(), values.max())
    assert (whole.count[2], whole.mean[2]) == (0, 0)
    rows, by_speaker, read = decoded(encoded({"b": whole, "a": parts[0]}, ["x", "y", "z"]))
    assert (rows, sorted(by_speaker)) == (("x", "y", "z"), ["a", "b"])
    np.testing.assert_array_equal(read.count, whole.count + parts[0].count)


def test_what_is_no_file_of_statistics_is_refused() -> None:
    from melmill.stages.numeric.errors import StageError

    with pytest.raises(StageError, match="holds no statistics"):
        decoded(b"PK\x03\x04 cut short")


def test_a_voice_needs_its_package() -> None:
    import importlib.util

    from melmill.stages.contract import Embedding
    from melmill.stages.extract.features.voice import SpeakerEmbedding
    from melmill.stages.numeric.errors import StageError

    source = Waveform(sr=16000)
    if importlib.util.find_spec("resemblyzer") is None:
        with pytest.raises(StageError, match=r"package 'resemblyzer' is not installed.*pip install resemblyzer"):
            SpeakerEmbedding().produces({"from": [source]})
        return
    assert SpeakerEmbedding().produces({"from": [source]}) == Embedding(sr=16000, size=256)
    voice = SpeakerEmbedding()
    rng = np.random.default_rng(0)
    y = (rng.normal(0, 0.1, 32000) * np.interp(np.arange(32000), [0, 16000, 32000], [0, 1, 0])).astype(np.float32)
    items = [Item(utterance=_utterance(part.size, 16000), inputs={"from": part}, seed=0) for part in (y, y[:100])]
    long, short = voice.process(items, {"from": source}, source)
    assert long.array is not None
    assert long.array.shape == (256, 1)
    np.testing.assert_allclose(np.linalg.norm(long.array), 1.0, rtol=1e-5)
    assert short.rejected is not None
    assert "too short to tell a voice by" in short.rejected.reason
