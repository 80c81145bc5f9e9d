"""Training small priors for real, for a few steps, and what their losses and segments are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Mel, TrainedPrior, Waveform
from melmill.stages.numeric.batched.prior import agreeing, bank_of
from melmill.stages.numeric.compiled.prior import guess
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior, Sizes, decoded
from melmill.stages.train.augmentation import Augmentation, Spectra, magnitude
from melmill.stages.train.prior_losses import LOSSES, Frames, Segment, agreed, project, unrolled
from melmill.stages.train.prior_stage import TrainPrior
from melmill.stages.train.prior_trainer import PriorTrainer, error_db
from melmill.stages.train.recipe import PriorRecipe
from tests.priors import HEADED, random_prior, ship
from tests.stages.train.memory import Memory, Place, assert_foreign_states_refused, resumed_at_step_2

SPEC = MelSpec(sr=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20)
CPU = torch.device("cpu")
AS_RECORDED = Augmentation(speed=1.0, gain_db=0.0, tilt_db=0.0)


@pytest.fixture(scope="module")
def memory(voice: NDArray[np.float32]) -> Memory:
    return Memory(voice, SPEC)


def stage(**fields: Any) -> TrainPrior:
    usual: dict[str, Any] = {
        "width": 16,
        "n_blocks": 2,
        "kernel": 3,
        "head": 16,
        "steps": 6,
        "batch_size": 2,
        "segment_frames": 12,
        "held_out": 1,
        "save_every": 2,
        "ema": 0.5,
    }
    return TrainPrior(**{**usual, **fields})


def trained(memory: Memory, place: Place, **fields: Any) -> dict[str, bytes]:
    return dict(stage(**fields).train(memory, place, {"from": Mel(spec=memory.spec), "audio": Waveform(sr=8000)}))


def prior_of(files: dict[str, bytes]) -> Prior:
    return decoded("prior.safetensors", files["prior.safetensors"])


@pytest.fixture(scope="module")
def whole(memory: Memory) -> dict[str, bytes]:
    return trained(memory, Place())


def test_what_is_trained_is_a_prior_that_inverters_take(
    whole: dict[str, bytes], memory: Memory, tmp_path: Path
) -> None:
    (tmp_path / "p.safetensors").write_bytes(whole["prior.safetensors"])
    prior = melmill.load_prior(tmp_path / "p.safetensors")
    assert (prior.spec, prior.sizes.width, prior.sizes.hidden, prior.sizes.n_blocks) == (SPEC, 16, 32, 2)
    M, y = memory.whole("u0")
    guided = melmill.invert(M, SPEC, prior=prior, n_iter=3, length=y.size)
    assert np.isfinite(guided).all()
    assert np.abs(guided - melmill.invert(M, SPEC, n_iter=3, length=y.size)).max() > 1e-3


def test_interrupted_and_resumed_gives_the_same_bytes(memory: Memory, whole: dict[str, bytes]) -> None:
    assert resumed_at_step_2(lambda place: trained(memory, place)) == whole


def test_a_foreign_state_is_refused(memory: Memory) -> None:
    assert_foreign_states_refused(lambda place, **fields: trained(memory, place, **fields), width=24)


def test_learning_lowers_the_losses_and_beats_nnls(memory: Memory) -> None:
    as_recorded = {"speed": 1.0, "gain_db": 0.0, "tilt_db": 0.0}
    files = trained(memory, Place(), steps=150, batch_size=8, learning_rate=5e-3, ema=0.9, save_every=50, **as_recorded)
    rows = [line.rsplit(",", 2) for line in files["curves.csv"].decode().splitlines()[1:]]

    def values(name: str) -> list[float]:
        return [float(row[2]) for row in rows if row[0] == name]

    compressed = values("held out,compressed")
    assert compressed[-1] < compressed[0]
    (nnls,) = set(values('NNLS,"magnitude error, dB"'))
    assert values('held out,"magnitude error, dB"')[-1] < nnls - 1.0


@pytest.mark.parametrize("option", [{"n_updates": 2}, {"unrolled": 2, "segment_frames": 16}, {"squared": 5.0}])
def test_every_loss_trains(memory: Memory, option: dict[str, Any], whole: dict[str, bytes]) -> None:
    other = prior_of(trained(memory, Place(), steps=2, held_out=0, **option))
    assert other != prior_of(trained(memory, Place(), steps=2, held_out=0))
    assert other != prior_of(whole)


def test_a_log_mel_of_another_framing_trains(voice: NDArray[np.float32]) -> None:
    spec = replace(SPEC, log="ln", floor=1e-5, center="same", eps=1e-9, fmax=3000.0, power=2.0)
    files = trained(Memory(voice, spec), Place(), steps=2)
    assert prior_of(files).spec == spec
    assert "NNLS" in files["README.md"].decode()


def test_the_page_shows_curves_and_scores_with_and_without_it(whole: dict[str, bytes]) -> None:
    page = whole["index.html"].decode()
    for words in ("magnitude error, dB", "NNLS", "held out", "invert good, prior", "griffin_lim 100"):
        assert words in page
    assert "<b>words" not in page


def test_the_card_says_what_it_is_and_how_far_off(whole: dict[str, bytes]) -> None:
    card = whole["README.md"].decode()
    assert "A prior for mel inversion" in card
    assert "8 utterances" in card
    assert "2 utterances of 1 other speakers" in card
    assert "Error of the starting magnitude on held-out speakers: NNLS -" in card
    assert "| invert good, prior |" in card
    assert "device" not in card


def test_without_held_out_speakers_there_are_weights_and_a_card(memory: Memory) -> None:
    files = trained(memory, Place(), held_out=0, steps=1)
    assert files.keys() == {"prior.safetensors", "README.md", "curves.csv"}
    assert "Error of the starting" not in files["README.md"].decode()


def test_the_state_holds_tensors_and_plain_values_only(memory: Memory) -> None:
    place = Place()
    trained(memory, place, steps=2)
    assert place.state is not None
    assert torch.load(io.BytesIO(place.state), weights_only=True)["step"] == 2


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(SPEC, id="linear"),
        pytest.param(replace(SPEC, log="ln", floor=1e-3), id="a floor that hides much"),
        pytest.param(replace(SPEC, power=2.0, norm=None, fmax=3000.0), id="power"),
        pytest.param(replace(SPEC, normalized=True, eps=1e-5, log="log10", floor=1e-5), id="normalized, eps"),
        pytest.param(replace(SPEC, win_length=200, center=False), id="a shorter window"),
    ],
)
def test_the_mel_of_a_segment_is_the_one_that_extraction_makes(spec: MelSpec, voice: NDArray[np.float32]) -> None:
    y = voice[: 64 * 100]
    padded = np.pad(y, spec.stft.pad)
    n = spec.n_frames(y.size)
    made = Spectra(spec, AS_RECORDED, n, CPU)
    bands = made.bands(magnitude(made.spectra(torch.from_numpy(padded)[None])))[0, :n].numpy().T
    expected = to_linear(melmill.mel(y, spec), spec)
    np.testing.assert_allclose(bands, expected, rtol=2e-4, atol=1e-6 * expected.max())


def test_a_segment_as_recorded_has_the_spectrum_of_its_middle(voice: NDArray[np.float32]) -> None:
    made = Spectra(SPEC, AS_RECORDED, 10, CPU)
    y = voice[None, : made.feed_frames * 64]
    start = (y.shape[1] - (9 * 64 + 256)) // 2
    expected = made.spectra(torch.from_numpy(y[:, start : start + 9 * 64 + 256]))
    torch.testing.assert_close(made.drawn(y, np.random.default_rng(0)), expected, rtol=0, atol=1e-6)


def test_speeds_move_tones_and_a_filter_scales_bins() -> None:
    change = Augmentation(speed=1.25, gain_db=0.0, tilt_db=0.0)
    made = Spectra(SPEC, change, 10, CPU)
    tone = np.sin(2 * np.pi * 1000 / 8000 * np.arange(made.feed_frames * 64)).astype(np.float32)
    D = made.drawn(np.tile(tone, (50, 1)), np.random.default_rng(0))
    assert D.shape == (50, 10, 129)
    bins = magnitude(D).mean(dim=1).argmax(dim=1)
    assert 25 <= int(bins.min()) < 28
    assert 37 <= int(bins.max()) <= 40
    tilted = Spectra(SPEC, replace(change, speed=1.0, tilt_db=6.0), 10, CPU)
    plain = Spectra(SPEC, AS_RECORDED, 10, CPU)
    noise = np.random.default_rng(1).standard_normal((200, tilted.feed_frames * 64)).astype(np.float32)
    gains = 20 * (magnitude(tilted.drawn(noise, np.random.default_rng(0)))[:, 0]).log10()
    gains -= 20 * (magnitude(plain.drawn(noise, np.random.default_rng(0)))[:, 0]).log10()
    assert 4.5 < float(gains.std()) < 7.5


def segment(memory: Memory, factor: float = 1.0) -> tuple[Segment, Frames]:
    """Return a segment whose guess is the true magnitude times a factor."""
    made = Spectra(SPEC, AS_RECORDED, 30, CPU)
    D = made.spectra(torch.from_numpy(memory.waves["u1"][None, : 29 * 64 + 256]))
    A = magnitude(D)
    own = torch.ones(A.shape[:2], dtype=torch.bool)
    frames = Frames(window=made.window, hop_length=64)
    return Segment(Y=factor * A, A=A, D=D, m=made.bands(A), own=own, unit=1.0), frames


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_zero_for_the_truth_and_sees_own_frames_alone(name: str, memory: Memory) -> None:
    right, _ = segment(memory)
    wrong, _ = segment(memory, 2.0)
    loss = LOSSES[name]
    assert float(loss(right.Y, right)) == 0
    assert float(loss(wrong.Y, wrong)) > 0.01
    own = wrong.own.clone()
    own[:, :20] = False
    Y = torch.where(own[..., None], wrong.A, wrong.Y)
    assert float(loss(Y, replace(wrong, own=own))) == 0


def test_updates_make_a_guess_agree_with_the_mel(memory: Memory) -> None:
    wrong, _ = segment(memory, 2.0)
    bank = bank_of(SPEC, CPU)
    assert agreed(wrong, bank, 0) is wrong.Y
    Y = agreed(wrong, bank, 1)
    assert error_db((Y @ bank.E).numpy(), wrong.m.numpy()) < -60
    torch.testing.assert_close(agreeing(Y, wrong.m, bank, 1), agreed(wrong, bank, 2))


def test_unrolling_keeps_a_consistent_magnitude_and_changes_another(memory: Memory) -> None:
    right, frames = segment(memory)
    for n_iter in (1, 3):
        torch.testing.assert_close(unrolled(right.Y, right, frames, n_iter), right.A, rtol=1e-3, atol=1e-3)
    rough = replace(right, Y=right.Y * torch.rand(right.Y.shape, generator=torch.Generator().manual_seed(0)))
    Z = unrolled(rough.Y, rough, frames, 1)
    assert float((Z - rough.Y)[:, 10:20].abs().max()) > 0.1
    torch.testing.assert_close(Z[:, :4], rough.Y[:, :4])


def test_a_projection_is_a_projection() -> None:
    frames = Frames(window=torch.hann_window(256), hop_length=64)
    X = torch.randn(1, 30, 129, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    once = project(X, frames)
    torch.testing.assert_close(project(once, frames)[:, 4:-4], once[:, 4:-4], rtol=1e-3, atol=1e-3)


def test_losses_do_not_depend_on_the_norm_of_the_bank(memory: Memory) -> None:
    found = []
    for spec in (SPEC, replace(SPEC, norm=None)):
        recipe = PriorRecipe(**{name: getattr(stage(), name) for name in PriorRecipe.__dataclass_fields__})
        made = PriorTrainer(recipe, spec)
        found.append(made.unit * float(made._segment(np.stack([memory.waves["u2"][:3000]] * 2)).A.max()))
    assert 0.5 < found[0] / found[1] < 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 100}, "width must be a multiple of 8, got 100"),
        ({"head": 12}, "head must be a multiple of 8, got 12"),
        ({"begin": "papper"}, "begin must be .*random.*paper.*papper"),
        ({"kernel": 4}, "kernel must be odd, got 4"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\)"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"held_out": -1}, "held_out must not be negative"),
        ({"speed": 0.8}, r"speed must be in \[1, 2\], got 0.8"),
        ({"gain_db": -1.0}, "gain_db"),
        ({"n_updates": -1}, "n_updates must not be negative"),
        ({"compressed": 0.0, "log": 0.0}, "compressed must be above 0, or log or squared, got 0.0"),
        ({"device": "gpu"}, "device must be"),
    ],
)
def test_wrong_fields(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        stage(**change)


def test_what_it_makes_and_what_it_refuses() -> None:
    def produced(spec: MelSpec, **fields: Any) -> Any:
        return stage(**fields).produces({"from": [Mel(spec=spec)], "audio": [Waveform(sr=8000)]})

    assert produced(SPEC) == TrainedPrior(spec=SPEC)
    with pytest.raises(ContractError, match="'audio' has 8000 Hz, but the mels are of 16000 Hz"):
        produced(replace(SPEC, sr=16000))
    with pytest.raises(ParameterError, match="segment_frames must be at least 9 with unrolled"):
        produced(SPEC, unrolled=1, segment_frames=8)


@pytest.mark.parametrize(
    ("sizes", "head"), [(Sizes(width=16, hidden=32, n_blocks=2, kernel=3), 40), (replace(HEADED, hidden=32), 40)]
)
def test_a_training_begins_with_what_a_prior_computes(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: Sizes, head: int
) -> None:
    prior = random_prior(SPEC, sizes=sizes)
    ship(tmp_path, monkeypatch, mine=prior)
    own = {"n_blocks": sizes.n_blocks, "kernel": sizes.kernel, "head": head, "begin": "mine"}
    begun = prior_of(trained(memory, Place(), steps=1, learning_rate=1e-9, held_out=0, **own))
    assert (begun.sizes.width, begun.sizes.head) == (16, head)
    M, _ = memory.whole("u1")
    np.testing.assert_allclose(guess(M, SPEC, begun).Y, guess(M, SPEC, prior).Y, rtol=0.02, atol=1e-3 * M.max())
    assert stage(**own).identity()["begin"] == prior.digest
    with pytest.raises(ContractError, match="the prior 'mine' was trained with another mel"):
        stage(**own).produces({"from": [Mel(spec=replace(SPEC, n_mels=24))], "audio": [Waveform(sr=8000)]})


def test_a_training_can_not_begin_with_a_prior_of_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ship(tmp_path, monkeypatch, mine=random_prior(SPEC))
    with pytest.raises(ParameterError, match="hidden must be 24, as of the prior that it begins with, got 32"):
        stage(begin="mine", kernel=5)
    ship(tmp_path, monkeypatch, other=random_prior(SPEC, sizes=Sizes(width=16, hidden=32, n_blocks=2, kernel=3)))
    with pytest.raises(ParameterError, match="head must be 0, or at least 32 with begin, got 16"):
        stage(begin="other")


def test_the_device_is_not_part_of_what_is_learnt() -> None:
    assert stage(device="cuda", threads=8, save_every=3).identity() == stage().identity()
