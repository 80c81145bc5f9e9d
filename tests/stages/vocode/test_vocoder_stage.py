"""The vocoder stages by themselves: what they make of items, and what they reject."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch._inductor.config
from numpy.typing import NDArray
from torch._dynamo.utils import counters

import melmill
from melmill.flows.pipeline.stage_files import prepared
from melmill.stages.contract import FileStage, Item, Mel, Outcome, Stage, StageFile, StageFiles, Waveform
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.registry import stage_class
from melmill.stages.vocode.cache import Settings, VocoderCache
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.registry import family, family_names
from melmill.stages.vocode.stage import Vocode, stage_of
from melmill.storage.utterance import Utterance
from tests.stages.vocode.families import test_diffwave
from tests.stages.vocode.families.test_hifigan import CONFIG, LEAST, shapes
from tests.stages.vocode.tiny import TOLERANCE, Golden, mel, relative, saved, tensors


def files_of(config: dict[str, Any], url: str) -> StageFiles:
    weights = StageFile(url=url, data=saved({"generator": tensors(shapes(config))}))
    return {"weights": weights, "beside": StageFile(url="/w/config.json", data=json.dumps(config).encode())}


FILES = files_of(CONFIG, "/w/g_0")
HOP = CONFIG["hop_size"]


def read() -> StageFiles:
    return FILES


def tiny(files: StageFiles = FILES, **parameters: Any) -> Vocode:
    return stage_of("hifigan")(checkpoint="g_0", **parameters).prepared(files, files["weights"].url)


def item(M: NDArray[Any], n_samples: int, sr: int = 8000, seed: int = 7) -> Item:
    utterance = Utterance(
        utterance_id=f"a-{n_samples}", subset="", speaker_id="", chapter_id="", text="", path="", size_bytes=0,
        mtime_ns=0, source_sr=sr, source_n_samples=n_samples, sr=sr, n_samples=n_samples,
    )  # fmt: skip
    return Item(utterance=utterance, inputs={"from": M}, seed=seed)


def run(stage: Vocode, items: list[Item], spec: MelSpec, files: StageFiles = FILES) -> list[Outcome]:
    made = Mel(spec=spec)
    processor = stage.opened(lambda: files)
    return list(processor.process(items, {"from": made}, stage.produces({"from": [made]})))


def array(outcome: Outcome) -> NDArray[Any]:
    assert outcome.array is not None, outcome.rejected
    return outcome.array


def test_every_family_is_a_stage() -> None:
    for name in family_names():
        assert stage_class(name) is stage_of(name)
        stage = stage_of(name)(checkpoint="x")
        assert (stage.uses, stage.family) == (name, family(name))
        assert isinstance(stage, FileStage)
        assert pickle.loads(pickle.dumps(stage)) == stage


def test_importing_the_stages_leaves_torch_alone() -> None:
    code = "import sys, melmill.stages.vocode.stage, melmill.flows.pipeline.graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("n_samples", "why"),
    [(10 * HOP, "exact"), (10 * HOP + 7, "zeros follow"), (10 * HOP - 5, "cut"), (11 * HOP, "a whole hop of zeros")],
)
def test_lengths_are_the_recordings(n_samples: int, why: str) -> None:
    stage, M = tiny(), mel(6, 10)
    (outcome,) = run(stage, [item(M, n_samples)], stage.known.spec)
    y = array(outcome)
    whole = np.pad(array(run(stage, [item(M, 10 * HOP)], stage.known.spec)[0]), (0, HOP))
    np.testing.assert_array_equal(y, whole[:n_samples], err_msg=why)


def test_one_bad_utterance_is_rejected_alone() -> None:
    stage, M = tiny(), mel(6, 10)
    bad = M.copy()
    bad[2, 3] = np.nan
    items = [item(M, 80), item(bad, 80), item(M, 80 + HOP + 1), item(M[:, :0], 3), item(M[:, :4], 32)]
    outcomes = run(stage, items, stage.known.spec)
    reasons = [outcome.rejected and outcome.rejected.reason for outcome in outcomes]
    assert [reason is None for reason in reasons] == [True, False, False, False, True]
    assert reasons[1] == "1 values of the mel are not finite"
    assert reasons[2] == ("the vocoder gave 80 samples, the recording has 89: they may differ by a hop (8) at most")
    assert "the mel has no frames" in str(reasons[3])
    alone = array(run(stage, [items[4]], stage.known.spec)[0])
    np.testing.assert_allclose(array(outcomes[4]), alone, atol=1e-5)


def test_a_conversion_gives_what_the_needed_mel_gives() -> None:
    stage, M = tiny(), mel(6, 10)
    needed = stage.known.spec
    log10 = replace(needed, log="log10")
    M = np.maximum(M, np.float32(np.log(1e-5)))
    expected = array(run(stage, [item(M, 80)], needed)[0])
    np.testing.assert_allclose(
        array(run(stage, [item(M / np.float32(np.log(10.0)), 80)], log10)[0]), expected, atol=1e-4
    )


def test_a_lossy_conversion_is_asked_for() -> None:
    higher = replace(tiny().known.spec, floor=1e-3)
    with pytest.raises(ContractError, match=r"floor is 0.001, needed 1e-05 .*or set allow_lossy: true"):
        tiny().produces({"from": [Mel(spec=higher)]})
    y = array(run(tiny(allow_lossy=True), [item(mel(6, 10), 80)], higher)[0])
    assert y.shape == (80,)
    with pytest.raises(ContractError, match=r"fmin is 20\.0, needed 0"):
        tiny(allow_lossy=True).produces({"from": [Mel(spec=replace(higher, fmin=20.0))]})


def test_a_mel_of_another_kind_is_transcoded_where_that_is_asked_for() -> None:
    needed = tiny().known.spec
    given = replace(needed, center=True, fmin=20.0)
    with pytest.raises(ContractError, match=r"fmin is 20\.0, needed 0.*or set transcode: auto"):
        tiny().produces({"from": [Mel(spec=given)]})
    stage = tiny(transcode="auto")
    product = stage.produces({"from": [Mel(spec=given)]})
    assert product == Waveform(sr=8000, mel=given, conversions=(("transcode", "waveform"),))
    n_samples = 4000
    y = 0.1 * np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    M = melmill.mel(y, given)
    made = array(run(stage, [item(M, n_samples)], given)[0])
    found = melmill.transcode(M, given, needed, length=n_samples, seed=7)
    expected = array(run(tiny(), [item(found.M, n_samples)], needed)[0])
    np.testing.assert_allclose(made, expected, atol=1e-5)
    assert "transcode" not in tiny().identity()
    assert stage.identity() != tiny().identity()
    with pytest.raises(ParameterError, match="transcode excludes allow_lossy"):
        tiny(transcode="auto", allow_lossy=True)
    with pytest.raises(ContractError, match="can't be undone without the numbers"):
        stage.produces({"from": [Mel(spec=replace(given, per_utterance="mean_var"))]})


@pytest.mark.parametrize("n_samples", [80, 83])
def test_frames_that_other_padding_lacks_repeat_those_at_the_ends(n_samples: int) -> None:
    stage = tiny(allow_lossy=True)
    needed = stage.known.spec
    given = replace(needed, center=False)
    with pytest.raises(ContractError, match=r"center is False, needed 'same' .*or set allow_lossy: true"):
        tiny().produces({"from": [Mel(spec=given)]})
    M = mel(6, given.n_frames(n_samples))
    assert M.shape[1] == needed.n_frames(n_samples) - 3
    expected = array(run(stage, [item(np.pad(M, ((0, 0), (1, 2)), mode="edge"), n_samples)], needed)[0])
    np.testing.assert_allclose(array(run(stage, [item(M, n_samples)], given)[0]), expected, atol=1e-5)


def test_the_product_says_which_mel_was_given() -> None:
    given = replace(tiny().known.spec, log="db")
    made = tiny(dtype="int16").produces({"from": [Mel(spec=given)]})
    assert made == Waveform(sr=8000, dtype="int16", mel=given, conversions=(("log", "lossless"),))
    assert tiny().identity()["mel"]["log"] == "ln"


def test_reduced_precision_is_near_and_int16_rounds() -> None:
    M = mel(6, 40)
    full = array(run(tiny(), [item(M, 320)], tiny().known.spec)[0])
    half = array(run(tiny(precision="bfloat16"), [item(M, 320)], tiny().known.spec)[0])
    assert 0 < np.abs(half - full).max() < 0.1
    pcm = array(run(tiny(dtype="int16"), [item(M, 320)], tiny().known.spec)[0])
    np.testing.assert_array_equal(pcm, np.clip(np.rint(full * np.float32(32768)), -32768, 32767).astype(np.int16))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch's compiler needs a C++ compiler")
def test_compiled_it_is_the_same_to_rounding() -> None:
    files = files_of(LEAST, "/w/g_1")
    plain, stage = tiny(files), tiny(files, compile=True)
    items = [item(mel(6, n), 8 * n) for n in (40, 13)]
    expected = [array(outcome) for outcome in run(plain, items, plain.known.spec, files)]
    before = counters["stats"]["unique_graphs"]
    with torch._inductor.config.patch(compile_threads=1):  # rather than starting processes that compile
        outcomes = run(stage, items, stage.known.spec, files)
    for outcome, y in zip(outcomes, expected, strict=True):
        np.testing.assert_allclose(array(outcome), y, rtol=0, atol=1e-5 * np.abs(y).max())
    assert counters["stats"]["unique_graphs"] == before + 1, "one graph for mels of any length"
    assert stage.identity() == plain.identity()


@pytest.mark.parametrize(("name", "value"), [("precision", "bfloat16"), ("compile", True)])
def test_vocoders_of_many_steps_are_neither_reduced_nor_compiled(name: str, value: object) -> None:
    found = test_diffwave.tiny()
    files = {"weights": StageFile(url="w.pt", data=saved({"model": found.state, "params": found.config}))}
    with pytest.raises(
        ParameterError, match=rf"{name} of a diffwave must be .*, got {value!r}: others are for bigvgan"
    ):
        stage_of("diffwave")(checkpoint="w.pt", **{name: value}).prepared(files, "d")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "tpu"}, "device must be one of cpu, cuda, got 'tpu'"),
        ({"dtype": "int8"}, "dtype must be one of float32, int16, got 'int8'"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"mel": "hifigann"}, "did you mean 'hifigan'"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        stage_of("hifigan")(checkpoint="g_0", **parameters)


def test_the_family_of_the_name_must_be_the_weights() -> None:
    with pytest.raises(VocoderError, match="g_0: is no waveglow checkpoint"):
        stage_of("waveglow")(checkpoint="g_0").prepared(FILES, "d")
    with pytest.raises(ContractError, match="the files of 'g_0' were not read"):
        stage_of("hifigan")(checkpoint="g_0").identity()


def test_the_shelf_keeps_what_was_used_last() -> None:
    n_bytes = sum(t.numel() * 4 for t in tensors(shapes(CONFIG)).values())
    shelf, loads = VocoderCache(2 * n_bytes), []

    def get(name: str) -> object:
        def counted() -> StageFiles:
            loads.append(name)
            return read()

        return shelf.get(name, Settings(family=None, mel=None), counted)

    a, b = get("a"), get("b")
    assert get("a") is a
    get("c")
    assert get("a") is a
    assert get("b") is not b
    assert loads == ["a", "b", "c", "b"]


GOLDEN = [
    ("hifigan-v1", "g_00000001", "hifigan"),
    ("bigvgan-v2", "bigvgan_generator.pt", "bigvgan"),
    ("vocos-mel24k", "pytorch_model.bin", "vocos"),
    ("melgan-descript", "best_netG.pt", "melgan"),
    ("univnet-c32-b", "univ_c4_0001.pt", "univnet"),
    ("waveglow", "waveglow_state_dict.pt", "waveglow"),
    ("wavegrad", "weights.pt", "wavegrad"),
    ("diffwave", "weights.pt", "diffwave"),
    ("wavenet-r9y9", "checkpoint_latest.pth", "wavenet"),
]
PLAIN = {"hifigan", "bigvgan", "vocos", "melgan"}


@pytest.mark.real
@pytest.mark.parametrize(("case", "file", "family"), GOLDEN, ids=[family for *_, family in GOLDEN])
def test_every_family_goes_through_the_stage(real_data: Path, case: str, file: str, family: str) -> None:
    folder, M, official = Golden(real_data, case).case()
    M = M if family in PLAIN else M[:, :12]
    declared: Stage = stage_class(family)(checkpoint=str(folder / file))  # type: ignore[call-arg]
    stage = prepared(declared)
    assert isinstance(stage, Vocode)
    spec = stage.known.spec
    n_samples = official.size if family in PLAIN else M.shape[1] * spec.hop_length - 3
    items = [item(M, n_samples, spec.sr, seed) for seed in (1, 2)]
    files = {role: StageFile(url=url, data=Path(url).read_bytes()) for role, (url,) in stage.files().items()}
    first, second = (array(outcome) for outcome in run(stage, items, spec, files))
    assert first.shape == (n_samples,)
    assert np.isfinite(first).all()
    if family in PLAIN:
        assert relative(first, official) < TOLERANCE
        assert relative(second, official) < TOLERANCE
    else:
        assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()
        np.testing.assert_allclose(array(run(stage, items[:1], spec, files)[0]), first, atol=1e-4)
    assert stage.known.family == family
    assert melmill.load_vocoder(folder / file).spec == spec
