"""Mels made of mels of another kind: how, how far off, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Item, Kind, Mel, Waveform
from melmill.stages.extract.transcode import Transcode
from melmill.stages.extract.transcoding import route, transcode
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.mels.remap import bands_of, smooth_magnitude, unseen_bands
from melmill.stages.numeric.mels.steps import WaveStep
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample
from melmill.storage.utterance import Utterance

A = MelSpec(sr=16000, n_fft=512, hop_length=128, n_mels=40, log="ln", floor=1e-5, center="same", pad_mode="reflect")
EMPHASIS = WaveStep(step="preemphasis", value=0.97)


def voice(n_samples: int = 9000, sr: int = 16000) -> NDArray[np.float32]:
    """Return a tone of many partials that rises and falls, with some noise."""
    t = np.arange(n_samples) / sr
    phase = 2 * np.pi * (120 * t + 15 * np.sin(2 * np.pi * 2 * t))
    y = sum(np.sin(k * phase) / k for k in range(1, 50))
    y = 0.1 * y * (0.3 + np.sin(2 * np.pi * 3 * t) ** 2) + 1e-3 * np.random.default_rng(0).standard_normal(n_samples)
    return np.asarray(y, dtype=np.float32)


Y = voice()
M = mel_spectrogram(Y, A)

ROUTES = [
    # needed, how, the most that it may be off, dB
    (replace(A, log="log10", shift=1.0, scale=0.5), "exact", 0.0),
    (replace(A, band_mean=(1.0,) * 40, band_std=(2.0,) * 40), "exact", 0.0),
    (replace(A, floor=1e-7), "values", 0.5),  # the floor hid nothing here
    (replace(A, eps=1e-6), "values", 3.0),
    (replace(A, n_mels=30), "magnitude", 1.0),
    (replace(A, power=2.0, log="db", floor=1e-8), "magnitude", 1.5),
    (replace(A, htk=True, norm=None), "magnitude", 1.0),
    (replace(A, wave=(EMPHASIS,)), "magnitude", 2.5),
    (replace(A, center=True), "waveform", 2.5),
    (replace(A, hop_length=100, n_fft=400, win_length=400), "waveform", 2.5),
    (replace(A, sr=12000), "waveform", 2.5),
    (replace(A, wave=(WaveStep(step="rms", value=0.1),)), "waveform", 2.5),
]


@pytest.mark.parametrize(("b", "how", "most_db"), ROUTES)
def test_a_mel_becomes_another(b: MelSpec, how: str, most_db: float) -> None:
    assert route(A, b) == how
    found = transcode(M, A, b, recording=Y, sr=A.sr)
    direct = mel_spectrogram(resample(Y, A.sr, b.sr), b)
    assert found.M.shape == direct.shape
    assert found.M.dtype == np.float32
    assert (found.via, found.unseen) == (how, ())
    if how == "exact":
        np.testing.assert_allclose(found.M, direct, atol=1e-4)
        assert (found.error_db, found.measured) == (0.0, "exact")
    else:
        assert found.measured == "recording"
        assert 0 <= found.error_db < most_db
        # the error is that of the log mel
        nepers = {"ln": 1.0, "db": np.log(10) / 20 * b.power / b.power}[b.log or ""] / b.scale
        unit = 20 / np.log(10) * nepers / (b.power if b.log == "ln" else 1.0)
        assert found.error_db == pytest.approx(float(np.abs(found.M - direct).mean()) * unit, rel=1e-2, abs=1e-4)


def test_without_a_recording_the_error_is_of_the_way_back() -> None:
    found = transcode(M, A, replace(A, center=True))
    assert found.measured == "round trip"
    assert 0 < found.error_db < 2
    made, error_db = transcode(M, A, replace(A, n_mels=30))
    assert made.shape == (30, M.shape[1])
    assert error_db < 0.1  # a magnitude that has the mel is easily found


def test_bands_where_the_mel_holds_nothing_are_told() -> None:
    narrow = replace(A, fmax=4000.0)
    found = transcode(mel_spectrogram(Y, narrow), narrow, A, recording=Y)
    assert found.unseen == tuple(unseen_bands(narrow, A))
    assert found.unseen[-1] == 39
    assert "bands of the result" in found.notes[0]
    assert "guessed" in found.notes[0]
    # they go on as speech does, and not at the floor
    assert found.M[list(found.unseen)].mean() > np.log(1e-5) + 0.5


def test_what_the_mel_lost_is_told() -> None:
    a = replace(A, wave=(WaveStep(step="peak", value=0.9),), last_frame=-11.52)
    found = transcode(mel_spectrogram(Y, a), a, A)
    assert any("its level (peak 0.9)" in note for note in found.notes)
    assert any("its last frame" in note for note in found.notes)


def test_a_peak_is_that_of_another_phase() -> None:
    found = transcode(M, A, replace(A, wave=(WaveStep(step="peak", value=0.5),)))
    assert any("peak 0.5 was set on a waveform of another phase" in note for note in found.notes)


def test_a_pre_emphasis_is_undone() -> None:
    a = replace(A, wave=(EMPHASIS,))
    found = transcode(mel_spectrogram(Y, a), a, A, recording=Y)
    assert found.error_db < 2.5


def test_a_smooth_magnitude_has_the_mel() -> None:
    linear = np.exp(M)
    off = np.abs(np.log(bands_of(smooth_magnitude(linear, A), A) / linear)).mean()
    assert off < 0.01


SPECS = {
    "one frame": (M[:, :1], A, A, None),
    "silence": (np.full_like(M, np.log(1e-5)), A, replace(A, center=True), None),
}


@pytest.mark.parametrize("what", SPECS)
def test_short_and_silent_mels_are_taken(what: str) -> None:
    given, a, b, length = SPECS[what]
    assert np.isfinite(transcode(given, a, b, length=length).M).all()


BAD = [
    # a mel, its kind, the kind needed, what else, error, message
    (np.zeros((40, 0), np.float32), A, A, {}, Unusable, "no frames"),
    (np.full((40, 9), np.nan), A, replace(A, center=True), {}, Unusable, "360 mel values are not finite"),
    (M[:30], A, A, {}, ContractError, r"is \(n_mels=40, n_frames\), got shape \(30, "),
    (np.exp(M) * 255, A, A, {}, Unusable, "no mel of its spec"),
    (M, A, replace(A, center=True), {"length": 100}, Unusable, "the mel has 70 frames but 100 samples have"),
    (M, A, replace(A, center=True), {"recording": Y[:4000]}, Unusable, "is it the mel's own?"),
    (M, A, A, {"via": "magic"}, ParameterError, "via must be one of"),
    (M, A, replace(A, wave=(WaveStep(step="mean"),)), {"via": "magnitude"}, ParameterError, "those of a waveform"),
    (M, replace(A, per_utterance="mean_var"), A, {}, ContractError, "can't be undone without the numbers"),
    (M, replace(A, key_shift=4.0), A, {}, ContractError, "can't be undone"),
]


@pytest.mark.parametrize(("given", "a", "b", "more", "error", "message"), BAD)
def test_what_is_no_mel_is_refused(
    given: NDArray[np.floating], a: MelSpec, b: MelSpec, more: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        transcode(given, a, b, **more)  # type: ignore[arg-type]


def test_names_lists_and_tensors_are_taken() -> None:
    mel = melmill.mel(Y, preset="speecht5")
    made = melmill.transcode(mel.tolist(), "speecht5", "paper")
    np.testing.assert_array_equal(made.M, melmill.transcode(mel, melmill.preset("speecht5"), melmill.MelSpec()).M)
    with pytest.raises(ParameterError, match="did you mean 'hifigan'"):
        melmill.transcode(mel, "speecht5", "hifi_gan")


def utterance(n_samples: int) -> Utterance:
    return Utterance(
        utterance_id="a", subset="", speaker_id="", chapter_id="", text="", path="", size_bytes=0, mtime_ns=0,
        source_sr=16000, source_n_samples=n_samples, sr=16000, n_samples=n_samples,
    )  # fmt: skip


def test_the_stage_makes_mels_with_their_errors() -> None:
    stage = Transcode(preset="speecht5", sr=12000, fmax=6000.0)
    made = Mel(spec=A)
    product = stage.produces({"from": [made]})
    assert product == Mel(spec=stage.spec)
    assert product.kind == Kind.MEL
    item = Item(utterance=utterance(Y.size), inputs={"from": M, "audio": Y}, seed=1)
    (outcome,) = stage.process([item], {"from": made, "audio": Waveform(sr=16000)}, product)
    assert outcome.array is not None
    assert outcome.array.shape == (80, stage.spec.n_frames(-(-Y.size * 12 // 16)))
    assert outcome.row is not None
    assert outcome.row["measured"] == "recording"
    assert outcome.row["via"] == "waveform"
    assert stage.notes(stage.counts([outcome.row])) == []


def test_the_stage_refuses_in_the_plan() -> None:
    with pytest.raises(ContractError, match="can't be undone"):
        Transcode(preset="hifigan").produces({"from": [Mel(spec=replace(A, per_utterance="mean"))]})
    with pytest.raises(ContractError, match="transcode takes mels"):
        Transcode(preset="hifigan").produces({"from": [Waveform(sr=16000)]})
    with pytest.raises(ParameterError, match="quality must be one of"):
        Transcode(preset="hifigan", quality="fast")  # type: ignore[arg-type]
