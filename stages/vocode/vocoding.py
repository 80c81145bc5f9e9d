"""Turn the mels of a shard into waveforms, so that the device never waits for the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from melmill.stages.contract import Item, Mel, Outcome, Product, each, stored
from melmill.stages.extract.transcode import fitted
from melmill.stages.extract.transcoding import transcode
from melmill.stages.numeric.batched.device import batches, device_lock, in_halves
from melmill.stages.numeric.contract import conversion, convert
from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.task_context import enter_utterance
from melmill.stages.vocode.layers.basic import Precision, at
from melmill.stages.vocode.loaded import Launched, LoadedVocoder, Staged
from melmill.storage.utterance import resampled_length

_BATCH_BYTES = 2 * 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """Hold utterances that go together.

    `launched` has several parts where the device's memory is too small.
    """

    items: Sequence[Item]
    rejected: Sequence[tuple[Item, Outcome]]
    staged: Staged | None
    launched: Sequence[Launched] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocoding:
    """Turn mels into waveforms of their recordings' lengths.

    Parameters
    ----------
    voc : LoadedVocoder
    seed : int
        Combined with each utterance's own.
    dtype : {"float32", "int16"}
        Type that is stored.
    precision : {"float32", "bfloat16", "float16"}
        Precision of convolutions and matrix products.
    allow_lossy : bool
        Convert mels even where something is lost.
    transcode : bool
        Where a conversion would lose something, make the mel that is needed by a magnitude or a
        waveform.
    batched : bool
        Work as a GPU needs it: on utterances of like length together, while threads of the host
        prepare the next batch and finish the last one. On the CPU padding would only cost time, and
        a task computes on one thread.
    """

    voc: LoadedVocoder
    seed: int = 0
    dtype: Literal["float32", "int16"] = "float32"
    precision: Precision = "float32"
    allow_lossy: bool = False
    transcode: bool = False
    batched: bool = False

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the waveform of every mel. The shard alone decides which mels go together."""
        del product
        made = inputs["from"]
        if not isinstance(made, Mel):
            raise ContractError(f"'from' must be a mel, got {made!r}")
        prepare = partial(self._prepared, spec=made.spec)
        finish = partial(self._finished, spec=made.spec)
        if self.batched:
            todo = [[items[place] for place in batch] for batch in self._batches(items)]
            device = torch.device(self.voc.device)
            batches_done = overlapped(todo, prepare, self._launched, finish, device_lock(device))
        else:
            batches_done = [finish(self._launched(prepare([item]))) for item in items]
        outcomes = {id(item): outcome for pairs in batches_done for item, outcome in pairs}
        return [outcomes[id(item)] for item in items]

    def _batches(self, items: Sequence[Item]) -> list[list[int]]:
        most_frames = max(1, _BATCH_BYTES // (self.voc.model.sample_bytes * self.voc.spec.hop_length))
        return batches([item.inputs["from"].shape[1] for item in items], most_frames)

    def _prepared(self, items: Sequence[Item], spec: MelSpec) -> _Batch:
        mels: list[NDArray[np.float32]] = []

        def needed(item: Item) -> Outcome:
            mels.append(self._needed(item, spec))
            return Outcome()

        outcomes = list(zip(items, each(items, needed), strict=True))
        good = [item for item, outcome in outcomes if outcome.rejected is None]
        staged = self.voc.staged(mels, [self._seed(item) for item in good]) if good else None
        return _Batch(items=good, rejected=[pair for pair in outcomes if pair[1].rejected], staged=staged)

    def _launched(self, batch: _Batch) -> _Batch:
        staged = batch.staged
        if staged is None:
            return batch

        if not self.batched:
            enter_utterance(batch.items[0].utterance.utterance_id)

        def launch(rows: Sequence[int]) -> list[Launched]:
            with at(self.precision, self.voc.device):
                return [self.voc.launched(staged if len(rows) == len(batch.items) else self.voc.part(staged, rows))]

        return replace(batch, staged=None, launched=in_halves(launch, range(len(batch.items))))

    def _finished(self, batch: _Batch, spec: MelSpec) -> list[tuple[Item, Outcome]]:
        items, outcomes = iter(batch.items), list(batch.rejected)
        for launched in batch.launched:
            waves, busy_s = self.voc.waves(launched)
            for y, n_frames in zip(waves, launched.n_frames, strict=True):
                item = next(items)
                (outcome,) = each([item], partial(self._outcome, y=y, made=spec))
                outcomes.append((item, replace(outcome, busy_s=busy_s * n_frames / sum(launched.n_frames))))
        return outcomes

    def _length(self, item: Item) -> int:
        return resampled_length(item.utterance.n_samples, item.utterance.sr, self.voc.spec.sr)

    def _needed(self, item: Item, spec: MelSpec) -> NDArray[np.float32]:
        """Return the mel that the vocoder needs.

        Frames that other framing lacks repeat those at the ends.
        """
        M, length = item.inputs["from"], self._length(item)
        if M.shape[1] == 0:
            raise Unusable("the mel has no frames: the recording is shorter than a window")
        self.voc.model.check_length(M.shape[1])
        if not np.isfinite(M).all():
            raise Unusable(f"{int((~np.isfinite(M)).sum())} values of the mel are not finite")
        if self.transcode and conversion(spec, self.voc.spec) not in ("same", "lossless"):
            own = resampled_length(item.utterance.n_samples, item.utterance.sr, spec.sr)
            found = transcode(M, spec, self.voc.spec, length=own, seed=item.seed)
            return fitted(found.M, self.voc.spec.n_frames(length))
        M = convert(M, spec, self.voc.spec, allow_lossy=self.allow_lossy)
        return np.pad(M, ((0, 0), _lacking(M.shape[1], spec, self.voc.spec, length)), mode="edge")

    def _seed(self, item: Item) -> int:
        return int(np.random.SeedSequence((item.seed, self.seed)).generate_state(1, np.uint64)[0])

    def _outcome(self, item: Item, y: NDArray[np.float32], made: MelSpec) -> Outcome:
        self.voc.check_result(y, item.inputs["from"], made)
        length, spec = self._length(item), self.voc.spec
        if abs(y.size - length) > spec.hop_length:
            raise Unusable(
                f"the vocoder gave {y.size} samples, the recording has {length}: they may differ by a hop "
                f"({spec.hop_length}) at most"
            )
        return Outcome(array=stored(np.pad(y[:length], (0, max(0, length - y.size))), self.dtype))


def _lacking(n_frames: int, made: MelSpec, needed: MelSpec, length: int) -> tuple[int, int]:
    """Return how many frames a mel that was framed with less padding lacks at each end.

    Numbers are rounded down.
    """
    if made.stft.pad >= needed.stft.pad:
        # A mel may lack its last frame beside.
        lacks = made.frames != "all" and needed.frames == "all"
        return 0, max(0, needed.n_frames(length) - n_frames) if lacks else 0
    before = (needed.stft.pad - made.stft.pad) // needed.hop_length
    return before, max(0, needed.n_frames(length) - n_frames - before)


Batch = TypeVar("Batch")
Prepared = TypeVar("Prepared")
Computed = TypeVar("Computed")
Finished = TypeVar("Finished")


def overlapped(
    batches: Sequence[Batch],
    prepare: Callable[[Batch], Prepared],
    compute: Callable[[Prepared], Computed],
    finish: Callable[[Computed], Finished],
    lock: AbstractContextManager[None],
) -> list[Finished]:
    """Return the results of batches that are computed one after the other in this thread.

    While one batch is computed, a thread prepares the next and another finishes the one before. The
    first batch is prepared before the lock is held, and the last is finished after it is released.
    What a step raises is raised here.

    Parameters
    ----------
    batches : sequence
    prepare, compute, finish : callable
        The steps of a batch. `compute` may return before the device is done. The device then has
        two batches at most.
    lock : context manager
        Held while batches are computed.
    """
    finished: list[Future[Finished]] = []
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        prepared = [ahead.submit(prepare, batch) for batch in batches[:1]]
        with lock:
            for index in range(len(batches)):
                ready = prepared.pop().result()
                prepared += [ahead.submit(prepare, batch) for batch in batches[index + 1 : index + 2]]
                if index > 1:
                    finished[index - 2].result()
                finished.append(behind.submit(finish, compute(ready)))
    return [one.result() for one in finished]
