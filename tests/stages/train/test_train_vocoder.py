"""Training small generators for real, for a few steps."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Mel, StageFile, TrainedVocoder, Waveform
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train import loop, losses
from melmill.stages.train.discriminators import fresh_discriminators, phase_rotated
from melmill.stages.train.generators import fresh
from melmill.stages.train.held_out import split
from melmill.stages.train.vocoder_stage import TrainVocoder
from melmill.stages.vocode.families.hifigan.training import factors
from melmill.stages.vocode.files.checkpoint import read_files
from melmill.stages.vocode.loaded import load
from tests.stages.train.memory import Memory, Place, assert_foreign_states_refused, resumed_at_step_2

SPEC = MelSpec(sr=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, log="ln", floor=1e-5)
FRAMES = 16


@pytest.fixture(scope="module")
def memory(voice: NDArray[np.float32]) -> Memory:
    return Memory(voice, SPEC)


def stage(**fields: Any) -> TrainVocoder:
    usual: dict[str, Any] = {
        "generator": "unfolded",
        "size": "small",
        "steps": 6,
        "batch_size": 2,
        "segment_frames": FRAMES,
        "adversarial_from": 3,
        "discriminator_width": 2,
        "held_out": 1,
        "save_every": 2,
        "ema": 0.5,
    }
    return TrainVocoder(**{**usual, **fields})


def trained(memory: Memory, place: Place, **fields: Any) -> dict[str, bytes]:
    return dict(stage(**fields).train(memory, place, {"from": Mel(spec=SPEC), "audio": Waveform(sr=8000)}))


@pytest.fixture(scope="module")
def whole(memory: Memory) -> dict[str, bytes]:
    return trained(memory, Place())


def loaded(files: dict[str, bytes]) -> Any:
    return load(
        read_files({role: StageFile(url=name, data=files[name]) for role, name in TrainedVocoder.files.items()})
    )


@pytest.mark.parametrize(
    "generator",
    ["vocos", pytest.param("hifigan", marks=pytest.mark.slow), pytest.param("unfolded", marks=pytest.mark.slow)],
)
def test_what_is_trained_loads_and_gives_waveforms(memory: Memory, generator: str) -> None:
    files = trained(memory, Place(), generator=generator, steps=2, adversarial_from=1)
    voc = loaded(files)
    assert (voc.family, voc.spec) == (generator, SPEC)
    M, y = memory.whole("u0")
    made = voc(M)
    assert abs(made.size - y.size) <= SPEC.hop_length
    assert np.isfinite(made).all()


def test_weights_and_configuration_load_as_a_vocoder(whole: dict[str, bytes], tmp_path: Path, memory: Memory) -> None:
    for name in ("weights.pt", "config.json"):
        (tmp_path / name).write_bytes(whole[name])
    M, _ = memory.whole("u0")
    voc = melmill.load_vocoder(str(tmp_path / "weights.pt"))
    np.testing.assert_array_equal(voc(M), loaded(whole)(M))


def test_interrupted_and_resumed_gives_the_same_bytes(memory: Memory, whole: dict[str, bytes]) -> None:
    assert resumed_at_step_2(lambda place: trained(memory, place)) == whole


def test_a_foreign_state_is_refused(memory: Memory) -> None:
    assert_foreign_states_refused(lambda place, **fields: trained(memory, place, **fields), generator="vocos")


def test_learning_lowers_the_loss(memory: Memory) -> None:
    files = trained(memory, Place(), steps=60, adversarial_from=None, save_every=30)
    rows = [line.split(",") for line in files["curves.csv"].decode().splitlines()[1:]]
    spectral = [float(row[3]) for row in rows if row[:2] == ["training", "spectral"]]
    assert np.mean(spectral[-10:]) < 0.9 * np.mean(spectral[:10])


def test_the_page_shows_curves_scores_and_audio_with_text_escaped(whole: dict[str, bytes]) -> None:
    page = whole["index.html"].decode()
    assert "held out" in page
    assert "griffin_lim 100" in page
    assert page.count("<audio") == 2 * 4
    assert "&lt;b&gt;words" in page
    assert "<b>words" not in page


def test_the_card_says_what_it_is(whole: dict[str, bytes]) -> None:
    card = whole["README.md"].decode()
    assert "`unfolded`" in card
    assert "8 utterances" in card
    assert "2 utterances of 1 other speakers" in card
    assert "| griffin_lim 100 |" in card
    assert "device" not in card


class CountedIds(list[str]):
    """Ids that count how often somebody went through them."""

    n_passes = 0

    def __iter__(self) -> Iterator[str]:
        self.n_passes += 1
        return super().__iter__()


def test_ids_are_not_gone_through_for_every_utterance(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, held = split(memory.utterances, 1, seed=0)
    counted = CountedIds(ids)
    monkeypatch.setattr(loop, "split", lambda *_: (counted, held))
    trained(memory, Place(), steps=1)
    # Drawing the one batch takes a pass, too.
    assert counted.n_passes == 2


def test_held_out_speakers_are_never_trained_with(memory: Memory) -> None:
    ids, held = split(memory.utterances, 1, seed=0)
    assert len(held) == 2
    assert len({utterance.speaker_id for utterance in held}) == 1
    assert not {utterance.utterance_id for utterance in held} & set(ids)
    assert len(split(memory.utterances, 100, seed=0)[1]) == 2


def test_without_held_out_speakers_there_are_weights_and_a_card(memory: Memory) -> None:
    files = trained(memory, Place(), held_out=0, steps=1)
    assert {"weights.pt", "config.json", "README.md", "curves.csv"} <= files.keys()


def test_half_precision_trains(memory: Memory) -> None:
    files = trained(memory, Place(), precision="bfloat16", steps=2, adversarial_from=1)
    assert np.isfinite(loaded(files)(memory.whole("u1")[0])).all()


def test_phase_augmentation_turns_both_alike(voice: NDArray[np.float32]) -> None:
    y = torch.from_numpy(np.stack([voice[:8192], voice[4000:12192]]))
    a, b = phase_rotated((y, 0.5 * y), torch.Generator().manual_seed(0))
    torch.testing.assert_close(a, 2 * b, rtol=0, atol=1e-5)
    assert float((a - y).norm() / y.norm()) > 0.1
    torch.testing.assert_close(a.norm(dim=1), y.norm(dim=1), rtol=0.2, atol=0)


def test_discriminators_learn_to_tell_noise_from_a_voice(voice: NDArray[np.float32]) -> None:
    torch.manual_seed(0)
    judges = fresh_discriminators(2)
    real = torch.from_numpy(voice[None, 2000:6000])
    fake = 0.1 * torch.randn(1, 4000)
    optimiser = torch.optim.AdamW(judges.parameters(), 1e-2)
    found = []
    for _ in range(30):
        loss = losses.discriminator_loss(judges(real)[0], judges(fake)[0])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.8 * found[0]


def test_spectral_loss_is_zero_for_the_same_and_grows_with_noise(voice: NDArray[np.float32]) -> None:
    y = torch.from_numpy(voice[None])
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = [float(losses.spectral_loss(y + level * noise, y)) for level in (0.0, 0.001, 0.01)]
    assert found[0] == 0
    assert found[1] < found[2]


def test_the_state_holds_tensors_and_plain_values_only(memory: Memory) -> None:
    place = Place()
    trained(memory, place, steps=2)
    assert place.state is not None
    assert torch.load(io.BytesIO(place.state), weights_only=True)["step"] == 2


def test_a_published_configuration_is_among_the_files(memory: Memory) -> None:
    made = fresh("hifigan", "base", SPEC, seed=0)
    assert made.config["upsample_rates"] == [8, 8]
    assert json.loads(json.dumps(made.config)) == made.config


@pytest.mark.parametrize("hop_length", [64, 200, 240, 256, 275, 300, 441, 11])
def test_rates_multiply_to_the_hop(hop_length: int) -> None:
    assert int(np.prod(factors(hop_length))) == hop_length


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "wavenet"}, "generator must be one of vocos, hifigan, unfolded, got 'wavenet'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\)"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"held_out": -1}, "held_out must not be negative"),
    ],
)
def test_wrong_fields(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        stage(**change)


def test_what_it_makes_and_what_it_refuses() -> None:
    audio = Waveform(sr=8000)
    produced: Callable[..., Any] = lambda spec, **fields: stage(**fields).produces(  # noqa: E731
        {"from": [Mel(spec=spec)], "audio": [audio]}
    )
    assert produced(SPEC) == TrainedVocoder(family="unfolded", spec=SPEC)
    from dataclasses import replace

    with pytest.raises(ContractError, match="vocos learns from log mels"):
        produced(replace(SPEC, log=None, floor=None), generator="vocos")
    with pytest.raises(ContractError, match="center: 'same'"):
        produced(replace(SPEC, center="same"))
    with pytest.raises(ContractError, match="'audio' has 8000 Hz"):
        produced(replace(SPEC, sr=16000))
    with pytest.raises(ParameterError, match="segment_frames must be at least 8"):
        produced(SPEC, segment_frames=7)


def test_the_device_is_not_part_of_what_is_learnt() -> None:
    assert stage(device="cuda", threads=8, save_every=3).identity() == stage().identity()
