"""The inverter stages: contracts, outcomes and what they reject."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import (
    FileStage,
    Item,
    Mel,
    Outcome,
    Scores,
    Stage,
    StageFile,
    TrainedPrior,
    TrainedVocoder,
    UtteranceStage,
    Waveform,
)
from melmill.stages.invert import stages
from melmill.stages.invert.inversion import Inversion, invert_batch, pose, shortest_length, solve_all
from melmill.stages.numeric.errors import ContractError, DeviceMissing, ParameterError, Unusable
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec, Pcen
from melmill.stages.numeric.prior import Prior
from melmill.stages.numeric.solver import Problem
from melmill.stages.registry import stage_class
from melmill.storage.utterance import Utterance
from tests.priors import random_prior

PAPER = MelSpec()
NAMES = ["admm", "admm_gla", "griffin_lim", "ipalm", "pghi", "raar"]


def utterance(n_samples: int, sr: int = 16000) -> Utterance:
    return Utterance(
        utterance_id=f"84-121123-{n_samples}", subset="", speaker_id="", chapter_id="", text="", path="", size_bytes=0,
        mtime_ns=0, source_sr=sr, source_n_samples=n_samples, sr=sr, n_samples=n_samples,
    )  # fmt: skip


def item(y: NDArray[Any], spec: MelSpec = PAPER, seed: int = 7, **inputs: NDArray[Any]) -> Item:
    return Item(utterance=utterance(y.size), inputs={"from": mel_spectrogram(y, spec), **inputs}, seed=seed)


def run(stage: UtteranceStage, items: list[Item], spec: MelSpec = PAPER) -> list[Outcome]:
    mel = Mel(spec=spec)
    return list(stage.process(items, {"from": mel}, stage.produces({"from": [mel]})))


def array(outcome: Outcome) -> NDArray[Any]:
    assert outcome.rejected is None, outcome.rejected
    assert outcome.array is not None
    return outcome.array


def registered(name: str, **parameters: Any) -> UtteranceStage:
    stage = stage_class(name)(**parameters)
    assert isinstance(stage, UtteranceStage)
    return stage


Admm, AdmmGla, GriffinLim, Invert, Ipalm, Pghi, Raar = (
    partial(registered, name) for name in ("admm", "admm_gla", "griffin_lim", "invert", "ipalm", "pghi", "raar")
)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pghi"])
def test_every_inverter_improves_on_its_start(name: str, voice: NDArray[np.float32]) -> None:
    outcome = run(registered(name, n_iter=40, trace=True), [item(voice)])[0]
    assert array(outcome).shape == voice.shape
    assert array(outcome).dtype == np.float32
    assert outcome.trace is not None
    assert outcome.trace["iteration"].tolist() == list(range(41))
    assert outcome.trace["scm_db"][-1] < outcome.trace["scm_db"][0] - 8


def test_pghi_is_one_pass(voice: NDArray[np.float32]) -> None:
    outcome = run(Pghi(trace=True), [item(voice)])[0]
    assert outcome.trace is not None
    assert outcome.trace["iteration"].tolist() == [0]
    random = run(GriffinLim(n_iter=1, trace=True), [item(voice)])[0].trace
    assert random is not None
    assert outcome.trace["scm_db"][0] < random["scm_db"][0] - 8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "spec",
    [PAPER, replace(PAPER, center="same", pad_mode="reflect"), replace(PAPER, power=2.0, log="db", floor=1e-10)],
    ids=["paper", "HiFi-GAN framing", "log power"],
)
def test_an_outcome_does_not_depend_on_its_neighbours(name: str, spec: MelSpec, voice: NDArray[np.float32]) -> None:
    stage = registered(name) if name == "pghi" else registered(name, n_iter=3)
    items = [item(y, spec, seed) for seed, y in enumerate((voice, voice[:5000], voice[700:8000], voice[:1200]))]
    together = [array(outcome).tobytes() for outcome in run(stage, items, spec)]
    alone = [array(run(stage, [one], spec)[0]).tobytes() for one in items[::-1]]
    assert together == alone[::-1]


def test_invert_is_the_automatic_method(voice: NDArray[np.float32]) -> None:
    mine = array(run(Invert(quality="draft", prior="none"), [item(voice)])[0])
    named = Admm(lam=85.8, schedule="swing", n_iter=20)
    assert mine.tobytes() == array(run(named, [item(voice)])[0]).tobytes()
    assert Invert(prior="none").identity()["quality"] == "good"
    with pytest.raises(ParameterError, match="quality must be one of 'draft', 'good', 'best', got 'fine'"):
        Invert(quality="fine")
    for parameters, message in (({"n_iter": 0}, "n_iter must be at least 1"), ({"start": "random"}, "start must be")):
        with pytest.raises(ParameterError, match=message):
            Invert(**parameters)


def test_invert_starts_from_a_nodes_waveforms(voice: NDArray[np.float32]) -> None:
    mine = array(run(Invert(n_iter=7, prior="none"), [item(voice, start=voice)])[0])
    named = Admm(lam=85.8, schedule="swing", n_iter=7)
    assert mine.tobytes() == array(run(named, [item(voice, start=voice)])[0]).tobytes()
    assert mine.tobytes() != array(run(Invert(n_iter=7, prior="none"), [item(voice)])[0]).tobytes()


def test_random_phase_depends_on_both_seeds(voice: NDArray[np.float32]) -> None:
    def bytes_of(stage_seed: int, item_seed: int) -> bytes:
        stage = GriffinLim(n_iter=1, seed=stage_seed)
        return array(run(stage, [item(voice[:4000], seed=item_seed)])[0]).tobytes()

    assert bytes_of(0, 1) == bytes_of(0, 1)
    assert len({bytes_of(0, 1), bytes_of(1, 1), bytes_of(0, 2), bytes_of(1, 0)}) == 4


def test_a_bad_mel_is_rejected_alone(voice: NDArray[np.float32]) -> None:
    good = item(voice[:4000])
    broken = good.inputs["from"].copy()
    broken[3, 5] = np.nan
    nan = Item(utterance=good.utterance, inputs={"from": broken}, seed=0)
    cut = Item(utterance=good.utterance, inputs={"from": good.inputs["from"][:, :-1]}, seed=0)
    first, second, third, last = run(Admm(n_iter=2), [good, nan, cut, good])
    assert array(first).tobytes() == array(last).tobytes()
    assert second.rejected is not None
    assert second.rejected.reason == "1 mel values are not finite"
    assert third.rejected is not None
    assert "the mel has 15 frames but 4000 samples have 16" in third.rejected.reason


def test_a_bad_mel_is_rejected_alone_from_a_batch(monkeypatch: pytest.MonkeyPatch, voice: NDArray[np.float32]) -> None:
    import torch

    from melmill.stages.numeric.batched import device, inverter

    if not torch.cuda.is_available():  # the engine itself, on the device that there is
        monkeypatch.setattr(inverter, "placement", lambda _, dtype: device.placement("cpu", dtype))
    good, longer = item(voice[:4000]), item(voice[:9000])
    nan = Item(utterance=good.utterance, inputs={"from": np.full_like(good.inputs["from"], np.nan)}, seed=0)
    outcomes = run(Admm(n_iter=1, trace=True, device="cuda"), [good, nan, longer, good])
    assert outcomes[1].rejected is not None
    assert outcomes[1].rejected.reason == "1280 mel values are not finite"
    for outcome, expected in zip(outcomes, run(Admm(n_iter=1, trace=True), [good, nan, longer, good]), strict=True):
        if outcome.rejected is None:
            assert outcome.trace is not None
            assert outcome.trace["iteration"].tolist() == [0, 1]
            np.testing.assert_allclose(array(outcome), array(expected), atol=1e-3 * np.abs(array(expected)).max())


def test_a_missing_device_is_no_utterances_fault(voice: NDArray[np.float32]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(DeviceMissing, match="device 'cuda' needs a CUDA device"):
        run(Admm(n_iter=1, device="cuda"), [item(voice[:4000])])


def test_the_device_decides_no_key() -> None:
    assert Admm(device="cuda").identity() == Admm().identity()


def test_silence_and_one_frame_are_no_special_case() -> None:
    items = [item(np.zeros(4000, dtype=np.float32)), item(np.full(100, 0.1, dtype=np.float32))]
    silent, short = run(Admm(n_iter=5), items)
    assert not array(silent).any()
    assert array(short).shape == (100,)
    assert np.isfinite(array(short)).all()


def test_a_nodes_waveforms_start_the_iteration(voice: NDArray[np.float32]) -> None:
    pcm = np.rint(voice * 32767).astype(np.int16)
    stage = Admm(n_iter=5)
    mel, wave = Mel(spec=PAPER), Waveform(sr=16000, dtype="int16")
    product = stage.produces({"from": [mel], "start": [wave]})
    outcome = stage.process([item(voice, start=pcm)], {"from": mel, "start": wave}, product)[0]
    start = pcm.astype(np.float32) / 32768
    expected = melmill.invert(
        mel_spectrogram(voice, PAPER), PAPER, method="admm", n_iter=5, start=start, length=voice.size
    )
    assert array(outcome).tobytes() == expected.tobytes()


def test_int16_is_rounded_and_clipped(voice: NDArray[np.float32]) -> None:
    loud = item(40 * voice)
    as_float, as_int = (array(run(Admm(n_iter=3, dtype=dtype), [loud])[0]) for dtype in ("float32", "int16"))
    assert as_int.dtype == np.int16
    assert np.abs(as_float).max() > 1
    np.testing.assert_array_equal(as_int, np.clip(np.rint(as_float * 32768), -32768, 32767))


def test_output_has_the_recordings_length_at_the_mels_rate() -> None:
    spec = replace(PAPER, sr=22050)
    source = utterance(16001)
    M = np.ones((80, spec.n_frames(22052)), dtype=np.float32)
    outcome = run(Ipalm(n_iter=1), [Item(utterance=source, inputs={"from": M}, seed=0)], spec)[0]
    assert array(outcome).shape == (22052,)


def test_product_names_rate_type_and_mel() -> None:
    spec = replace(PAPER, sr=22050)
    assert Raar(dtype="int16").produces({"from": [Mel(spec=spec)]}) == Waveform(sr=22050, dtype="int16", mel=spec)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"from": [Waveform(sr=16000)]}, "'from' must be a mel"),
        ({"from": [Mel(spec=PAPER)], "start": [Waveform(sr=22050)]}, "'start' is at 22050 Hz but .* at 16000 Hz"),
        ({"from": [Mel(spec=PAPER)], "start": [Scores(metrics=(), scored="")]}, "'start' must be a waveform"),
        ({"from": [Mel(spec=replace(PAPER, pcen=Pcen(gain=1.0)))]}, "PCEN with gain=1.0 can't be undone"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Admm().produces(inputs)


@pytest.mark.parametrize(
    ("stage", "parameters", "message"),
    [
        (GriffinLim, {"momentum": 1.5}, r"momentum must be in \[0, 1\), got 1.5"),
        (AdmmGla, {"rho": -0.1}, "rho must not be negative"),
        (Raar, {"beta": 2.0}, r"beta must be in \(0, 1\]"),
        (Ipalm, {"alpha": -1.0}, r"alpha must be in \[0, 1\)"),
        (Admm, {"lam": 0.0}, "lam must be positive"),
        (Admm, {"n_iter": 0}, "n_iter must be at least 1, got 0"),
        (Admm, {"start": "phgi"}, "start must be one of random, zero, pghi or a node, got 'phgi'"),
        (Admm, {"magnitude": "ls"}, "magnitude must be 'nnls' or 'pinv', got 'ls'"),
        (Pghi, {"dtype": "float16"}, "dtype must be 'float32' or 'int16', got 'float16'"),
        (Pghi, {"device": "gpu"}, "device must be 'cpu' or 'cuda', got 'gpu'"),
        (Pghi, {"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_wrong_parameters_name_their_field(
    stage: Callable[..., Stage], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message) as raised:
        stage(**parameters)
    assert raised.value.field == next(iter(parameters))


def test_identity_holds_every_parameter() -> None:
    assert GriffinLim(momentum=0.99).identity() == {
        "magnitude": "nnls", "seed": 0, "trace": False, "dtype": "float32", "n_iter": 100, "start": "random",
        "momentum": 0.99,
    }  # fmt: skip
    assert Admm().identity()["start"] == "pghi"


def test_a_stage_is_pickled_by_name_and_fields() -> None:
    stage = Admm(n_iter=3, start="zero", lam=85.8)
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_import_is_light() -> None:
    code = "import sys, melmill.stages.invert.stages; print(*{'numba', 'librosa', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


HIFIGAN = MelSpec(sr=22050, fmax=8000.0, log="ln", floor=1e-5, center="same", pad_mode="reflect", eps=1e-9)
TOO_LOUD = r"its values are -9\.76\d* to 73\.6\d*, and the spec has log: ln; they look like log: db"


def in_db() -> NDArray[np.float32]:
    """Return a mel whose values overflow if they are read as ln, though each is finite undone."""
    M = np.random.default_rng(0).uniform(-9.0, 70.0, (80, 43)).astype(np.float32)
    M[0, :2] = -9.7605, 73.6899
    return M


@pytest.mark.parametrize("name", [*NAMES, "auto"])
def test_a_mel_that_overflows_is_refused(name: str) -> None:
    with pytest.raises(Unusable, match=TOO_LOUD):
        melmill.invert(in_db(), HIFIGAN, method=name, n_iter=None if name in ("auto", "pghi") else 4)


def test_a_mel_of_a_batch_that_overflows_is_named() -> None:
    quiet = np.full((80, 43), -5.0, dtype=np.float32)
    with pytest.raises(Unusable, match=rf"^mels\[1\]: .*{TOO_LOUD}"):
        invert_batch([quiet, in_db()], HIFIGAN, method="admm", n_iter=4)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_mel_that_overflows_is_rejected_alone(name: str, dtype: str) -> None:
    fields = {} if name == "pghi" else {"n_iter": 4}
    n_samples = shortest_length(HIFIGAN, 43)
    mels = [np.full((80, 43), -5.0, dtype=np.float32), in_db()]
    items = [Item(utterance=utterance(n_samples, 22050), inputs={"from": M}, seed=7) for M in mels]
    fine, loud = run(registered(name, dtype=dtype, **fields), items, HIFIGAN)
    assert np.isfinite(array(fine)).all()
    assert loud.rejected is not None
    assert re.search(TOO_LOUD, loud.rejected.reason)


def test_a_mel_that_overflows_is_rejected_alone_from_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_cpu(problems: Sequence[Problem], spec: MelSpec, device: str) -> list[Inversion]:
        assert device == "cuda"
        return solve_all(problems, spec)

    monkeypatch.setattr(stages, "solve_all", on_cpu)
    quiet = np.full((80, 43), -5.0, dtype=np.float32)
    n_samples = shortest_length(HIFIGAN, 43)
    mels = [quiet[:, :0], in_db(), quiet]
    items = [Item(utterance=utterance(n_samples, 22050), inputs={"from": M}, seed=7) for M in mels]
    empty, loud, fine = run(Admm(n_iter=4, device="cuda"), items, HIFIGAN)
    assert empty.rejected is not None
    assert loud.rejected is not None
    assert re.search(TOO_LOUD, loud.rejected.reason)
    assert np.isfinite(array(fine)).all()


def with_prior(stage: Stage, prior: Prior) -> tuple[Stage, Callable[[], dict[str, StageFile]]]:
    """Return a stage that knows its prior, and what reads the prior's file."""
    assert isinstance(stage, FileStage)
    files = {"prior": StageFile(url="file:///p.safetensors", data=prior.encoded())}
    return stage.prepared(files, "abc"), lambda: files


@pytest.mark.parametrize("name", ["invert", *NAMES])
def test_a_prior_guesses_the_start_of_every_inverter(name: str, voice: NDArray[np.float32]) -> None:
    prior = random_prior(PAPER)
    stage, read = with_prior(
        registered(name, prior="p.safetensors", **({} if name == "pghi" else {"n_iter": 1})), prior
    )
    assert isinstance(stage, FileStage)
    items, mel = [item(voice[:4000], seed=seed) for seed in (1, 2)], Mel(spec=PAPER)
    opened = pickle.loads(pickle.dumps(stage)).opened(read)
    outcomes = opened.process(items, {"from": mel}, stage.produces({"from": [mel]}))
    plain = run(registered(name, prior="none", **({} if name == "pghi" else {"n_iter": 1})), items)
    for outcome, without, one in zip(outcomes, plain, items, strict=True):
        assert np.abs(array(outcome) - array(without)).max() > 1e-4
        if name == "invert":
            seeded = replace(stage.recipe(None, one.seed), prior=prior)  # type: ignore[attr-defined]
            problem = pose(one.inputs["from"], PAPER, seeded, 4000)
            np.testing.assert_array_equal(array(outcome), solve_all([problem], PAPER)[0].y)


def test_a_prior_is_in_the_identity_by_its_digest() -> None:
    stage, _ = with_prior(Invert(prior="p.safetensors"), random_prior(PAPER))
    without = Invert(prior="none").identity()
    assert "prior" not in without
    # A prior has its own number of iterations, which the key holds.
    assert (without["n_iter"], stage.identity()) == (None, {**without, "prior": "abc", "guided": 2, "n_iter": 42})
    few, _ = with_prior(Invert(prior="p.safetensors", n_iter=7), random_prior(PAPER))
    assert few.identity() == {**without, "prior": "abc", "guided": 2, "n_iter": 7}
    with pytest.raises(ContractError, match="prior: auto was not resolved: use what `chosen` returns"):
        Invert().identity()
    assert not Invert(prior="none").files()  # type: ignore[attr-defined]


def test_a_prior_must_be_read_and_fit() -> None:
    stage, _ = with_prior(Invert(prior="p.safetensors"), random_prior(PAPER))
    with pytest.raises(ContractError, match=r"the prior 'p.safetensors' .* another mel: n_mels is 64, needed 80"):
        stage.produces({"from": [Mel(spec=replace(PAPER, n_mels=64))]})
    for act in (Invert(prior="p").identity, lambda: Invert(prior="p").produces({"from": [Mel(spec=PAPER)]})):
        with pytest.raises(ContractError, match=r"the prior 'p' was not read: use what `prepared` returns"):
            act()
    with pytest.raises(ContractError, match=r"the prior 'p.safetensors' was not read: use what `opened` returns"):
        run(cast("UtteranceStage", stage), [])
    with pytest.raises(ParameterError, match="prior must be auto, none, a prior's name or its file, got 3"):
        Invert(prior=3)
    with pytest.raises(ParameterError, match="a node that trains a prior or a file that exists, got 'p': check"):
        cast("FileStage", Invert(prior="p")).prepared({}, "")


def test_a_training_takes_the_place_of_the_file() -> None:
    stage = cast("FileStage", Invert()).trained(TrainedPrior(spec=PAPER), "tuned", "abc")
    assert stage.identity() == {**Invert(prior="none").identity(), "n_iter": 42, "prior": "abc", "guided": 2}
    assert not cast("FileStage", stage).files()
    with pytest.raises(ContractError, match=r"the prior 'tuned' was trained .* n_mels is 64, needed 80"):
        stage.produces({"from": [Mel(spec=replace(PAPER, n_mels=64))]})
    with pytest.raises(ContractError, match=r"the prior 'tuned' was not read: use what `opened` returns"):
        run(cast("UtteranceStage", stage), [])
    with pytest.raises(ContractError, match=r"invert can't compute with 'tuned', which trains a vocos"):
        cast("FileStage", Invert()).trained(TrainedVocoder(spec=PAPER, family="vocos"), "tuned", "abc")
    with pytest.raises(ContractError, match=r"'tuned' trains a prior, not a vocoder"):
        cast("FileStage", stage_class("vocoder")()).trained(TrainedPrior(spec=PAPER), "tuned", "abc")
