"""Train small priors of several kinds for as many steps each, and compare them on unheard speakers.

python -m benchmarks.prior_networks FOLDER [--steps N] [--only TEXT]

FOLDER holds the recordings at 16 kHz that `benchmarks.prior_corpus` links. Losses and magnitude error
are of recordings of LibriSpeech that it keeps to judge by, without test-other. A kind takes 2 to 9
minutes of one core at 1,200 steps. Products are counted a frame: 0.6 million take 9 ms for 12 s of
speech in the compiled engine, as ten iterations of ADMM do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import click
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import melmill
from benchmarks.prior_corpus import JUDGES, choose
from melmill.stages.numeric.batched.prior import PriorNetwork, agreeing, bank_of
from melmill.stages.numeric.compiled.prior import FLOOR, HIGHEST, row_sums
from melmill.stages.numeric.prior import Sizes
from melmill.stages.numeric.resample import resample
from melmill.stages.numeric.stft import Stft
from melmill.stages.train.augmentation import Augmentation, Spectra, magnitude
from melmill.stages.train.prior_trainer import error_db, one_cycle

Array = NDArray[np.float32]
SPEC = melmill.preset("paper")
N_BINS = SPEC.stft.n_bins
CPU = torch.device("cpu")
BATCH, FRAMES, RATE = 16, 64, 1.5e-3
COMPRESSED, LOG = 10.0, 0.1
JUDGED, JUDGED_S = 24, 5.0
UNIT = 16.0 * float(row_sums(SPEC).mean())


class Network(PriorNetwork):
    """A prior's network of the sizes, with more in it before the bins or after them."""

    def __init__(self, sizes: Sizes, patterns: int = 0, channels: int = 0) -> None:
        super().__init__(SPEC, sizes)
        self.patterns = self.refining = None
        if patterns:
            choice, book = nn.Linear(sizes.width, patterns), nn.Linear(patterns, N_BINS, bias=False)
            nn.init.normal_(choice.weight, std=0.3)
            nn.init.normal_(book.weight, std=0.1)
            self.patterns = nn.Sequential(choice, nn.Softmax(-1), book)
        if channels:
            last = nn.Conv2d(channels, 1, (3, 7), padding=(1, 3))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(cast("Tensor", last.bias))
            first = nn.Conv2d(2, channels, (3, 7), padding=(1, 3))
            self.refining = nn.Sequential(first, nn.GELU(), last).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, m: Tensor) -> Tensor:
        """Return the log magnitude ``(B, T, n_bins)`` of linear mels, nepers."""
        x = torch.log(m / self.sums + FLOOR)
        h = self.embed_norm(self.embed(x.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            h = block(h)
        h = self.out_norm(h)
        guess = self.out(h if self.head is None else functional.gelu(self.head(h)))
        if self.patterns is not None:
            guess = guess + self.patterns(h)
        smooth = x @ self.spread
        guess = guess + smooth
        if self.refining is not None:
            seen = torch.stack([guess, smooth], 1).to(memory_format=torch.channels_last)
            guess = guess + self.refining(seen)[:, 0]
        clamped: Tensor = guess.clamp(max=HIGHEST)
        return clamped


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A network, and how it is trained."""

    sizes: Sizes
    options: Mapping[str, int] = field(default_factory=dict)
    exponent: float = 0.5  # of the magnitudes whose difference is the loss
    n_updates: int = 0
    rate: float = RATE


_HEADED = Sizes(n_blocks=3, head=320)
KINDS: Mapping[str, Kind] = {
    "four blocks": Kind(sizes=Sizes(n_blocks=4)),
    "three blocks and a head of 320": Kind(sizes=_HEADED),
    "two blocks and a head of 480": Kind(sizes=Sizes(n_blocks=2, head=480)),
    "width 128, three blocks, a head of 480": Kind(sizes=Sizes(width=128, hidden=256, n_blocks=3, head=480)),
    "four blocks and a book of 128 patterns": Kind(sizes=Sizes(n_blocks=4), options={"patterns": 128}),
    "four blocks, then 3 x 7 frames and bins in 8 channels": Kind(sizes=Sizes(n_blocks=4), options={"channels": 8}),
    "head, loss of 0.3rd powers": Kind(sizes=_HEADED, exponent=0.3),
    "head, loss of magnitudes": Kind(sizes=_HEADED, exponent=1.0),
    "head, loss after 3 updates": Kind(sizes=_HEADED, n_updates=3),
    "head, twice the rate": Kind(sizes=_HEADED, rate=2 * RATE),
}


def losses(Y: Tensor, A: Tensor, own: Tensor, exponent: float) -> Tensor:
    """Return what `train_prior` minimises by default: differences of powers and of logs."""

    def mean(values: Tensor) -> Tensor:
        return (values * own[..., None]).sum() / (own.sum().clamp(min=1) * N_BINS)

    powers = [(UNIT * magnitude + 1e-8) ** exponent for magnitude in (Y, A)]
    logs = [(UNIT * magnitude + 1e-4).log() for magnitude in (Y, A)]
    return COMPRESSED * mean((powers[0] - powers[1]).abs()) + LOG * mean((logs[0] - logs[1]).abs())


def trained(kind: Kind, waves: list[Array], steps: int) -> nn.Module:
    """Return the averaged network after some steps on random segments."""
    torch.manual_seed(0)
    network = Network(kind.sizes, **kind.options)
    # Over the last tenth of the steps: a longer average of so few would keep what was drawn at first.
    decay = get_ema_multi_avg_fn(1 - 10 / max(steps, 10))  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=decay)
    optimiser = torch.optim.AdamW(network.parameters(), lr=kind.rate, betas=(0.9, 0.99))
    spectra = Spectra(SPEC, Augmentation(speed=1.25, gain_db=20.0, tilt_db=3.0), FRAMES, CPU)
    n_samples, bank = spectra.feed_frames * SPEC.hop_length, bank_of(SPEC, CPU)
    share = np.array([wave.size for wave in waves]) / sum(wave.size for wave in waves)
    for step in range(steps):
        rng = np.random.default_rng([step, 1])
        drawn = [_cut(waves[i], n_samples, rng) for i in rng.choice(len(waves), BATCH, p=share)]
        A = magnitude(spectra.drawn(np.stack(drawn), rng))
        bands = spectra.bands(A)
        level = spectra.gains(rng, BATCH) / bands.amax(dim=(1, 2)).clamp(min=1e-30)
        m = bands * level[:, None, None]
        Y = network(m).exp()
        Y = agreeing(Y, m, bank, kind.n_updates) if kind.n_updates else Y
        for group in optimiser.param_groups:
            group["lr"] = kind.rate * one_cycle(step / steps)
        optimiser.zero_grad()
        own = (bands > spectra.floor).any(dim=2)
        losses(Y, A * level[:, None, None], own, kind.exponent).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        averaged.update_parameters(network)
    return averaged


def _cut(wave: Array, n_samples: int, rng: np.random.Generator) -> Array:
    start = int(rng.integers(0, max(1, wave.size - n_samples)))
    part = wave[start : start + n_samples]
    return np.pad(part, (0, n_samples - part.size))


@torch.no_grad()
def judged(network: nn.Module, waves: list[Array]) -> tuple[float, float]:
    """Return the mean magnitude error, dB, and the mean difference of square roots on unheard speakers."""
    bank, found = bank_of(SPEC, CPU), []
    for y in waves:
        linear, D = melmill.mel(y, SPEC), Stft(SPEC.stft).forward(y)
        A = np.abs(D if D.shape[1] == N_BINS else D.T) / linear.max()
        m = torch.from_numpy(linear.T / linear.max())[None]
        Y = agreeing(network(m).exp(), m, bank)[0].numpy()
        found.append((error_db(Y, A), COMPRESSED * float(np.abs(np.sqrt(UNIT * Y) - np.sqrt(UNIT * A)).mean())))
    return cast("tuple[float, float]", tuple(np.mean(found, axis=0)))


def products(network: Network) -> int:
    """Return the products of numbers that one frame takes."""
    matrices = [p for name, p in network.named_parameters() if p.ndim > 1 and not name.startswith("refining")]
    refining = network.refining.parameters() if network.refining is not None else ()
    return int(sum(p.numel() for p in matrices) + N_BINS * sum(p.numel() for p in refining if p.ndim > 1))


def _read(files: list[Path], longest_s: float | None = None) -> list[Array]:
    waves = []
    for file in files:
        y, sr = soundfile.read(file, dtype="float32", always_2d=True)
        wave: Array = y.mean(axis=1) if sr == SPEC.sr else resample(y.mean(axis=1), sr, SPEC.sr)
        waves.append(wave if longest_s is None else wave[: int(longest_s * SPEC.sr)])
    return waves


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--steps", default=1200, show_default=True)
@click.option("--only", default="", help="Kinds whose names contain this text.")
def main(folder: Path, steps: int, only: str) -> None:
    """Print a Markdown table with a row for each kind of network."""
    torch.set_num_threads(1)
    base = Path(os.environ.get("MELMILL_REAL_DATA", Path(__file__).parents[2] / "shared"))
    _, held = choose([base / "corpora", base / "corpora-more"])
    unheard = [file for corpus, _, file in held if corpus == "LibriSpeech" and JUDGES not in file.parts]
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
    if not files or not unheard:
        sys.exit(f"{folder} holds no recordings, or {base} none of LibriSpeech to judge by")
    waves, judges = _read(files), _read(unheard[:: max(1, len(unheard) // JUDGED)][:JUDGED], JUDGED_S)
    print(f"{len(files)} recordings, {steps} steps; {len(judges)} unheard ones\n")
    print("| network | million products a frame | magnitude error dB | difference of roots | CPU a step |")
    print("|---|---|---|---|---|")
    for title, kind in KINDS.items():
        if only in title:
            began = time.process_time()
            network = trained(kind, waves, steps)
            cpu_ms = 1e3 * (time.process_time() - began) / steps
            error, difference = judged(network, judges)
            count = products(Network(kind.sizes, **kind.options)) / 1e6
            print(f"| {title} | {count:.2f} | {error:.2f} | {difference:.4f} | {cpu_ms:.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
