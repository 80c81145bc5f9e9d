"""A training stage of another package: it fits the loudness of a tiny HiFi-GAN to recordings."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Kind, Mel, Product, TrainedVocoder, TrainingData, TrainingPlace
from melmill.stages.numeric.errors import ContractError

N_MELS, SEGMENT_FRAMES, BATCH_SIZE, SAVED_EVERY = 20, 24, 4, 5


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Learn the mean magnitude of each band and of the audio by stochastic gradient steps.

    Parameters
    ----------
    steps, seed : int
    dies_at : tuple of int
        Steps at which the process is killed. With `marks` each kills once, else every time.
    marks : str
        A folder to note what was done: a file a death, and the threads that were allowed.
    pause_s : float
        Rest after each step.
    """

    uses: ClassVar[str] = "learner"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.MEL})),
        "audio": Input(kinds=frozenset({Kind.WAVEFORM})),
    }

    steps: int = 30
    seed: int = 0
    threads: int = 2
    dies_at: tuple[int, ...] = ()
    marks: str = ""
    pause_s: float = 0.0

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the weights."""
        return {"steps": self.steps, "seed": self.seed}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> TrainedVocoder:
        """Return the vocoder of the mel that comes in."""
        made = inputs["from"][0]
        if not isinstance(made, Mel) or made.spec.n_mels != N_MELS:
            raise ContractError(f"'from' must be a mel of {N_MELS} bands, got {made!r}")
        return TrainedVocoder(family="hifigan", spec=made.spec)

    def train(self, data: TrainingData, place: TrainingPlace, inputs: Mapping[str, Product]) -> Mapping[str, bytes]:
        """Learn, and bake what was learnt into the last layer's bias."""
        del inputs
        if self.marks and "torch" in sys.modules:
            n_threads = sys.modules["torch"].get_num_threads()
            Path(self.marks, f"threads-{os.environ['OMP_NUM_THREADS']}-{n_threads}").touch()
        state = place.load()
        # Of 20 bands and of the audio; then the steps that were done.
        learnt: NDArray[np.float64] = np.zeros(22) if state is None else np.load(io.BytesIO(state))
        step = int(learnt[-1])
        ids = [utterance.utterance_id for utterance in data.utterances]
        batches = data.batches(ids, segment_frames=SEGMENT_FRAMES, batch_size=BATCH_SIZE, seed=self.seed, first=step)
        for mels, audio in islice(batches, self.steps - step):
            goal = np.append(np.abs(mels.astype(np.float64)).mean(axis=(0, 2)), np.abs(audio.astype(np.float64)).mean())
            learnt[:-1] += 0.2 * (goal - learnt[:-1])
            step += 1
            if step % SAVED_EVERY == 0:
                learnt[-1] = step
                file = io.BytesIO()
                np.save(file, learnt)
                place.save(file.getvalue())
                place.note(f"step {step}: {learnt[-2]:.4f}")
            self._maybe_die(step)
            time.sleep(self.pause_s)
        return self._files(learnt, ids)

    def _maybe_die(self, step: int) -> None:
        if step in self.dies_at:
            if self.marks:
                mark = Path(self.marks, f"died-{step}")
                if mark.exists():
                    return
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _files(self, learnt: NDArray[np.float64], ids: Sequence[str]) -> Mapping[str, bytes]:
        # Here, so that workers that die before need not import torch each time.
        import torch

        from tests.flows.test_vocoders import SMALL
        from tests.stages.vocode.families.test_hifigan import shapes
        from tests.stages.vocode.tiny import saved, tensors

        weights = tensors(shapes(SMALL), self.seed)
        weights["conv_post.bias"] = torch.full_like(weights["conv_post.bias"], float(learnt[-2]))
        return {
            "weights.pt": saved({"generator": weights}),
            "config.json": json.dumps(SMALL).encode(),
            "index.html": b"<p>learnt</p>",
            "README.md": f"learnt {learnt[:-1].tolist()} from {len(ids)} utterances\n".encode(),
        }
