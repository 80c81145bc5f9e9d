"""The vocoder stages' batches, as a GPU gets them, on torch's CPU device: padded, halved, and in step with the host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.contract import Item, Mel, Outcome, Waveform
from melmill.stages.numeric.batched.device import FifoLock
from melmill.stages.task_context import current_task, thread_statuses
from melmill.stages.vocode import vocoding
from melmill.stages.vocode.loaded import LoadedVocoder, load
from melmill.stages.vocode.vocoding import Vocoding
from tests.stages.vocode.families import (
    test_bigvgan,
    test_diffwave,
    test_exported,
    test_hifigan,
    test_melgan,
    test_unfolded,
    test_univnet,
    test_vocos,
    test_waveglow,
    test_wavegrad,
    test_wavenet,
)
from tests.stages.vocode.test_overlap import Moments
from tests.stages.vocode.test_vocoder_stage import array, item
from tests.stages.vocode.tiny import checkpoint, mel

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def hifigan() -> LoadedVocoder:
    return load(checkpoint({"generator": test_hifigan.STATE}, config=test_hifigan.CONFIG))


def bigvgan() -> LoadedVocoder:
    config = test_bigvgan.CONFIG
    return load(checkpoint({"generator": test_bigvgan.state_of(config)}, config=config))


def exported() -> LoadedVocoder:
    program = test_exported.torchscript(test_exported.Net())
    return LoadedVocoder(model=test_exported.loaded("torchscript", program), name="net.pt", device="cpu")


TINY: Mapping[str, Callable[[], LoadedVocoder]] = {
    "hifigan": hifigan,
    "bigvgan": bigvgan,
    "vocos, center": lambda: load(checkpoint(test_vocos.state_of(), config=test_vocos.config_of("center"))),
    "vocos, same": lambda: load(checkpoint(test_vocos.state_of(), config=test_vocos.config_of("same"))),
    "melgan": lambda: test_melgan.made(test_melgan.DESCRIPT),
    "unfolded": test_unfolded.vocoder,
    "univnet": lambda: test_univnet.made(test_univnet.TINY, config=test_univnet.TINY.config),
    "waveglow": lambda: test_waveglow.made(test_waveglow.TINY),
    "wavegrad": lambda: load(test_wavegrad.tiny()),
    "diffwave": lambda: load(test_diffwave.tiny()),
    "wavenet": lambda: load(test_wavenet.checkpoint()),
    "exported": exported,
}
# Five like each other, one of its own, three; recordings a little shorter or longer than what the frames give.
FRAMES = (24, 19, 24, 20, 21, 11, 6, 5, 6)
OFF = (0, 0, -1, 1, -2, 0, 1, -1, 0)


def items_of(voc: LoadedVocoder, frames: Sequence[int] = FRAMES) -> list[Item]:
    made = []
    for place, (n_frames, off) in enumerate(zip(frames, OFF, strict=False)):
        M = mel(voc.spec.n_mels, n_frames, seed=place)
        made.append(item(M, voc.model.n_samples(n_frames + 2 * voc.model.context) + off, voc.spec.sr, seed=place))
    return made


def run(voc: LoadedVocoder, items: Sequence[Item], *, padded: bool) -> list[Outcome]:
    product = Waveform(sr=voc.spec.sr)
    return list(Vocoding(voc=voc, batched=padded).process(items, {"from": Mel(spec=voc.spec)}, product))


def on(voc: LoadedVocoder, device: str) -> LoadedVocoder:
    return LoadedVocoder(model=voc.model.to(device), name=voc.name, device=device)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("name", TINY)
def test_padded_is_one_by_one_to_rounding_and_of_exact_lengths(name: str, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    voc = TINY[name]()
    items = items_of(voc)
    expected = [array(outcome) for outcome in run(voc, items, padded=False)]
    batches: list[int] = []
    voc = on(voc, device)
    forward = voc.model.forward

    def counted(mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        batches.append(len(mel))
        result: Tensor = forward(mel, lengths, noise)
        return result

    voc.model.forward = counted  # type: ignore[method-assign]
    outcomes = run(voc, items, padded=True)
    assert sorted(batches, reverse=True)[0] > 1, "nothing was together"
    assert sum(batches) == len(items)
    for one, outcome, y in zip(items, outcomes, expected, strict=True):
        found = array(outcome)
        assert found.shape == (one.utterance.n_samples,)
        np.testing.assert_allclose(found, y, rtol=0, atol=(1e-3 if device == "cuda" else 1e-4) * np.abs(y).max())


class Cramped:
    """Stands in for a device's memory that holds so many frames: a fault, as of one that is nearly full."""

    def __init__(self, voc: LoadedVocoder, most_frames: int) -> None:
        self.most_frames = most_frames
        self.tried: list[tuple[int, int]] = []
        self._forward = voc.model.forward
        voc.model.forward = self  # type: ignore[method-assign]

    def __call__(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        self.tried.append((len(mel), mel.shape[-1]))
        if len(mel) * mel.shape[-1] > self.most_frames:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        result: Tensor = self._forward(mel, lengths, noise)
        return result


@pytest.mark.parametrize("name", ["hifigan", "vocos, center", "waveglow", "diffwave"])
def test_batches_that_memory_does_not_hold_are_halved(name: str) -> None:
    voc = TINY[name]()
    items = items_of(voc)
    expected = [array(outcome) for outcome in run(voc, items, padded=False)]
    cramped = Cramped(voc, 2 * 24)
    outcomes = run(voc, items, padded=True)
    # the longest first; halves are no longer than their own longest, as the second is
    assert cramped.tried[:3] == [(5, 24), (2, 24), (3, 21)]
    for one, outcome, y in zip(items, outcomes, expected, strict=True):
        assert array(outcome).shape == (one.utterance.n_samples,)
        np.testing.assert_allclose(array(outcome), y, rtol=0, atol=1e-4 * np.abs(y).max())
        assert outcome.busy_s is not None
        assert outcome.busy_s > 0


def test_an_utterance_that_memory_does_not_hold_is_an_error() -> None:
    voc = hifigan()
    Cramped(voc, 23)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(voc, items_of(voc), padded=True)


def test_a_bad_utterance_leaves_its_batch_as_it_is() -> None:
    voc = hifigan()
    items = items_of(voc)
    bad, none = items[3].inputs["from"].copy(), items[6].inputs["from"][:, :0]
    bad[0, 0] = np.inf
    ill = [*items[:3], item(bad, 10), *items[4:6], item(none, 10), *items[7:]]
    outcomes = run(voc, ill, padded=True)
    assert [place for place, outcome in enumerate(outcomes) if outcome.rejected] == [3, 6]
    for place, outcome in enumerate(run(voc, items, padded=True)):
        if place not in (3, 6):
            np.testing.assert_allclose(array(outcomes[place]), array(outcome), atol=1e-5)


def test_a_mel_that_is_too_short_for_the_layers_is_rejected_alone() -> None:
    voc = TINY["melgan"]()
    outcomes = run(voc, items_of(voc, [9, 3, 9]), padded=True)
    reasons = [outcome.rejected and outcome.rejected.reason for outcome in outcomes]
    assert reasons[1] == (
        "too short for melgan: a mel of 3 frames, but its layers reflect their input, which takes at least 4"
    )
    assert [reasons[0], reasons[2]] == [None, None]


def test_a_batch_of_nothing_but_bad_utterances_is_not_computed() -> None:
    voc = hifigan()
    cramped = Cramped(voc, 10**6)
    outcomes = run(voc, [item(np.full((6, n), np.nan, dtype=np.float32), 10) for n in (9, 9, 2)], padded=True)
    assert [outcome.rejected is None for outcome in outcomes] == [False] * 3
    assert cramped.tried == []


def test_the_utterance_at_hand_is_known_while_it_is_computed() -> None:
    voc, seen = hifigan(), []
    forward = voc.model.forward

    def looked_at(mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        (status,) = thread_statuses()
        seen.append(status.utterance_id)
        result: Tensor = forward(mel, lengths, noise)
        return result

    voc.model.forward = looked_at  # type: ignore[method-assign]
    items = items_of(voc, [9, 5])
    with current_task("task"):
        run(voc, items, padded=False)
    assert seen == [one.utterance.utterance_id for one in items]


class Watched:
    """Tells which batch is prepared, computed and finished, batches being known by their frames."""

    def __init__(self, voc: LoadedVocoder, moments: Moments, while_computed: Callable[[int], None]) -> None:
        self.moments, self.while_computed = moments, while_computed
        self._forward, self._noise, self._n_samples = voc.model.forward, voc.model.noise, voc.model.n_samples
        self._computing = threading.Lock()
        for name in ("forward", "noise", "n_samples"):
            setattr(voc.model, name, getattr(self, name))

    def noise(self, n_frames: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        self.moments.happen(f"prepared {n_frames}")
        return self._noise(n_frames, generator)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        assert self._computing.acquire(blocking=False), "two at a time"
        try:
            self.moments.happen(f"computed {mel.shape[-1]}")
            self.while_computed(mel.shape[-1])
            result: Tensor = self._forward(mel, lengths, noise)
            return result
        finally:
            self._computing.release()

    def n_samples(self, n_frames: int) -> int:
        self.moments.happen(f"finished {n_frames}")
        return self._n_samples(n_frames)


def test_the_next_batch_is_prepared_and_the_last_finished_while_one_is_computed() -> None:
    voc, frames, moments = hifigan(), [24, 16, 11, 7], Moments()
    items = items_of(voc, frames)

    def others(n_frames: int) -> None:
        place = frames.index(n_frames)
        if place + 1 < len(frames):
            moments.wait(f"prepared {frames[place + 1]}")
        if place > 0:
            moments.wait(f"finished {frames[place - 1]}")

    Watched(voc, moments, others)
    assert all(outcome.rejected is None for outcome in run(voc, items, padded=True))


def test_tasks_of_a_process_take_turns_with_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One has the device to its end, while the other has read and converted what it begins with."""
    voc, moments, turns = hifigan(), Moments(), FifoLock()
    one, other = items_of(voc, [24, 12]), items_of(voc, [21, 10])

    def while_computed(n_frames: int) -> None:
        if n_frames == 24:
            moments.wait("prepared 21")

    Watched(voc, moments, while_computed)
    monkeypatch.setattr(vocoding, "device_lock", lambda device: turns.hold())

    def task(items: Sequence[Item]) -> list[NDArray[Any]]:
        return [array(outcome) for outcome in run(voc, items, padded=True)]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(task, one)
        moments.wait("computed 24")
        second = pool.submit(task, other)
        assert len(first.result()) == len(second.result()) == 2
    computed = [moment for moment in moments.seen if moment.startswith("computed")]
    assert computed == ["computed 24", "computed 12", "computed 21", "computed 10"]
