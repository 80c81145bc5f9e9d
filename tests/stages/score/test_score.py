"""The stage that scores: its parameters, its table and its values on speech."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Item, Scalar, Scores, Stage, UtteranceStage, Waveform
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.presets import preset
from melmill.stages.registry import stage_class
from melmill.stages.score.metric import METRICS
from melmill.stages.score.networks.weights import digest_of
from melmill.stages.score.stage import Score
from melmill.storage.utterance import Utterance

PAPER = preset("paper")
SPEECH = Waveform(sr=16000, dtype="int16", corpus=True)
MADE = Waveform(sr=16000, mel=PAPER)
FAST = ("estoi", "scm", "sc", "lsd", "mel_mae", "mcd", "si_sdr")


def item(**inputs: NDArray[Any]) -> Item:
    utterance = Utterance(
        utterance_id="1-2-0000",
        subset="dev-clean",
        speaker_id="1",
        chapter_id="2",
        text="",
        path="1-2-0000.flac",
        size_bytes=1,
        mtime_ns=0,
        source_sr=16000,
        source_n_samples=16000,
        sr=16000,
        n_samples=16000,
    )
    return Item(utterance=utterance, inputs={name.strip("_"): array for name, array in inputs.items()}, seed=0)


def row(stage: Score, one: Item, estimate: Waveform = MADE, reference: Waveform = SPEECH) -> Mapping[str, Scalar]:
    inputs = {"from": estimate, "against": reference}
    (outcome,) = stage.process([one], inputs, stage.produces({port: [found] for port, found in inputs.items()}))
    assert outcome.rejected is None
    assert outcome.row is not None
    return outcome.row


def voice(n: int = 32000, sr: int = 16000, noise: float = 1e-3) -> NDArray[np.float32]:
    t = np.arange(n) / sr
    tone = sum(np.sin(2 * np.pi * 140 * k * t + k * k) / k for k in range(1, 25))
    hiss = noise * np.random.default_rng(0).standard_normal(n)
    return np.asarray(0.1 * tone * (np.sin(2 * np.pi * 1.5 * t) > -0.5) + hiss, dtype=np.float32)


def pcm(y: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(np.round(y * 32768), dtype=np.int16)


def test_it_is_the_registered_stage() -> None:
    assert stage_class("score") is Score
    assert isinstance(Score(), Stage)
    assert isinstance(Score(), UtteranceStage)


def test_columns_are_named_by_the_metrics_in_order() -> None:
    stage = Score(metrics=("sc", "pesq_nb", "mel_mae", "lsd"))
    assert stage.produces({"from": [MADE], "against": [SPEECH]}) == Scores(
        metrics=("sc_db", "pesq_nb", "mel_mae", "lsd_db"), scored=""
    )
    columns = ["sc_db", "status_sc_db", "pesq_nb", "status_pesq_nb", "mel_mae", "status_mel_mae"]
    assert list(row(stage, item(from_=voice(), against=pcm(voice()))))[:6] == columns


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"metrics": ("pesq_wb", "stio")}, "metrics", r"no metric 'stio'; did you mean 'stoi'\?"),
        ({"metrics": ()}, "metrics", "is empty: name at least one"),
        ({"metrics": ("scm", "sc", "scm_db")}, "metrics", "names 'scm' twice"),
        ({"preset": "hifigann"}, "preset", "hifigan"),
    ],
)
def test_a_wrong_parameter_is_refused(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        Score(**fields)
    assert caught.value.field == field


def test_the_identity_resolves_names() -> None:
    assert Score(metrics=("scm_db",)).identity() == Score(metrics=("scm",)).identity()
    assert Score(preset="tacotron2").identity() == Score(preset="waveglow").identity()  # one mel by two names
    assert Score(preset="paper").identity() != Score().identity()


def test_a_missing_reconstruction_has_its_status_everywhere() -> None:
    names = [one.name for one in METRICS.values() if one.needs != "set"]
    stage = Score(metrics=tuple(names))
    found = row(stage, item(against=pcm(voice())))
    statuses = {name: value for name, value in found.items() if name.startswith("status_")}
    assert set(statuses.values()) == {"missing_estimate"}
    assert len(statuses) == len(names)
    assert all(math.isnan(float(str(value))) for name, value in found.items() if name not in statuses)


def test_the_same_items_give_the_same_row() -> None:
    one = item(from_=voice() * 0.9, against=pcm(voice()))
    assert row(Score(metrics=FAST), one) == row(Score(metrics=FAST), one)


def test_int16_is_read_as_pcm() -> None:
    x, y = pcm(voice()), pcm(0.5 * voice())
    as_pcm = row(Score(metrics=FAST), item(from_=y, against=x))
    as_float = row(Score(metrics=FAST), item(from_=y.astype(np.float32) / 32768, against=x))
    assert as_pcm == as_float
    assert as_pcm["sc_db"] == pytest.approx(20 * np.log10(0.5), abs=0.01)


def test_the_mel_is_the_one_that_the_estimate_was_made_from() -> None:
    one = item(from_=voice() + 0.01, against=pcm(voice()))
    stage = Score(metrics=("scm", "mel_mae"))
    speecht5 = Waveform(sr=16000, mel=preset("speecht5"))
    assert row(stage, one, speecht5) == row(Score(metrics=stage.metrics, preset="speecht5"), one)
    assert row(stage, one, Waveform(sr=16000)) == row(stage, one, MADE)  # a recording: the paper's at its rate
    assert row(stage, one, speecht5) != row(stage, one, MADE)


def test_two_rates_are_compared_at_that_of_the_recording() -> None:
    # one voice computed at two rates, and above it what the rate of the recording can't hold
    x, y = voice(32000, 16000, noise=0.0), voice(44100, 22050, noise=0.0)
    y = y + np.asarray(0.1 * np.sin(2 * np.pi * 9500 * np.arange(44100) / 22050), dtype=np.float32)
    found = row(Score(metrics=("scm", "estoi")), item(from_=y, against=pcm(x)), Waveform(sr=22050))
    assert (found["status_scm_db"], found["status_estoi"]) == ("ok", "ok")
    assert float(str(found["estoi"])) > 0.99
    assert float(str(found["scm_db"])) < -30


def test_lengths_that_differ_by_more_than_a_hop_are_an_error_unless_they_are_cut() -> None:
    one = item(from_=voice(32000)[:31000] * 0.9, against=pcm(voice(32000)))
    assert row(Score(metrics=("sc",)), one)["status_sc_db"] == "error"
    both = item(from_=voice(32000)[:31000] * 0.9, against=pcm(voice(32000))[:31000])
    assert row(Score(metrics=("sc",), lengths="cut"), one) == row(Score(metrics=("sc",)), both)


def test_one_bad_utterance_costs_itself_alone() -> None:
    good = item(from_=voice() * 0.9, against=pcm(voice()))
    bad = item(from_=voice() * np.float32(np.nan), against=pcm(voice()))
    lost = item(from_=voice())  # the flow gives no such item; if it did, quarantine must say so
    inputs = {"from": MADE, "against": SPEECH}
    stage = Score(metrics=("scm",))
    outcomes = stage.process([bad, good, lost], inputs, stage.produces({"from": [MADE], "against": [SPEECH]}))
    assert [outcome.row and outcome.row["status_scm_db"] for outcome in outcomes] == ["non_finite", "ok", None]
    assert outcomes[2].rejected is not None


@pytest.mark.real
def test_scores_of_speech_equal_the_libraries(real_data: Path) -> None:
    # What Masuyama et al. report: SCM and SC by their formulas in float64, PESQ and ESTOI by the
    # usual packages.
    pesq, pystoi, librosa = (pytest.importorskip(name) for name in ("pesq", "pystoi", "librosa"))
    soundfile = pytest.importorskip("soundfile")
    E = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80, dtype=np.float64)
    for path in sorted(real_data.glob("corpora/LibriSpeech/test-other/*/*/*-0003.flac"))[:3]:
        x, sr = soundfile.read(path, dtype="int16")
        D = librosa.stft(x / 32768, n_fft=1024, hop_length=256, pad_mode="constant")
        phase = np.angle(D) + np.random.default_rng(0).uniform(-1, 1, D.shape)
        y = librosa.istft(np.abs(D) * np.exp(1j * phase), hop_length=256, length=x.size).astype(np.float32)
        A, A_hat = np.abs(D), np.abs(librosa.stft(y.astype(float), n_fft=1024, hop_length=256, pad_mode="constant"))
        found = row(Score(), item(from_=y, against=x))
        reference = (x / 32768).astype(np.float32)
        scm = 20 * np.log10(np.linalg.norm(E @ A_hat - E @ A) / np.linalg.norm(E @ A))
        assert found["scm_db"] == pytest.approx(scm, abs=1e-5)
        assert found["sc_db"] == pytest.approx(20 * np.log10(np.linalg.norm(A_hat - A) / np.linalg.norm(A)), abs=1e-5)
        assert found["pesq_wb"] == pytest.approx(pesq.pesq(sr, reference, y, "wb"), abs=1e-3)
        assert found["estoi"] == pytest.approx(pystoi.stoi(reference, y, sr, extended=True), abs=1e-6)


def test_the_key_holds_the_weights_and_whether_their_package_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "melmill_test_weights"
    package.mkdir()
    (package / "__init__.py").write_text("")
    network = replace(METRICS["sc"], name="net", column="net", package=package.name, weights=("net.bin",))
    monkeypatch.setitem(METRICS._built_in, "net", network)
    identities = [Score(metrics=("net",)).identity()]
    monkeypatch.syspath_prepend(tmp_path)
    for content in (b"first", b"other", b"first"):
        (package / "net.bin").write_bytes(content)
        digest_of.cache_clear()  # as each process reads the weights once
        identities.append(Score(metrics=("net",)).identity())
    absent, first, other, again = identities
    assert "weights" not in absent or absent["weights"] == {"net": []}
    assert first["weights"] == {"net": [hashlib.sha256(b"first").hexdigest()]}
    assert first == again != other
    assert (absent[f"{package.name}_installed"], first[f"{package.name}_installed"]) == (False, True)
    assert "weights" not in Score(metrics=("sc",)).identity()


@pytest.mark.parametrize(("name", "value"), [("jobs", 2), ("lengths", "cut")])
def test_what_is_for_folders_is_refused_with_signals(name: str, value: object) -> None:
    y = voice(8000)
    with pytest.raises(ParameterError, match=f"{name} is for folders, got {value!r} with signals"):
        melmill.score(y, y, 16000, metrics=["sc"], **{name: value})  # type: ignore[call-overload]
