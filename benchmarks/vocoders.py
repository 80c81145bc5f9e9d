"""Measure the vocoder families on one CPU thread: ``python -m benchmarks.vocoders``.

Models have their published sizes, with random weights and mels, on which the time does not depend.
WaveNet gets a tenth of the speech, because it makes one sample at a time. With ``--device cuda`` and
no CUDA device the command says so and exits with 1.

The table shows for each family the time to load it and its speed, one utterance at a time. It also
shows the speed of a padded batch, and the share of the stage's time in which the device computes.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import click
import numpy as np
import torch
from numpy.typing import NDArray

import melmill
from benchmarks.figure import Figure, table
from benchmarks.precision import item
from melmill.stages.contract import Mel, Waveform
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.families.bigvgan.network import BigVgan
from melmill.stages.vocode.families.bigvgan.periodic import Snake
from melmill.stages.vocode.families.diffwave.network import DiffWave
from melmill.stages.vocode.families.diffwave.network import Sizes as DiffWaveSizes
from melmill.stages.vocode.families.hifigan.layouts import Layout
from melmill.stages.vocode.families.hifigan.network import HifiGan
from melmill.stages.vocode.families.hifigan.sizes import Sizes, hifigan_mel
from melmill.stages.vocode.families.melgan.network import MelGan
from melmill.stages.vocode.families.melgan.sizes import Layout as MelGanLayout
from melmill.stages.vocode.families.melgan.sizes import MelGanSizes
from melmill.stages.vocode.families.univnet.kernels import LvcSizes
from melmill.stages.vocode.families.univnet.network import UnivNet
from melmill.stages.vocode.families.vocos.network import Vocos, VocosSizes
from melmill.stages.vocode.families.waveglow.network import WaveGlow
from melmill.stages.vocode.families.waveglow.sizes import WaveGlowSizes
from melmill.stages.vocode.families.wavegrad.network import WaveGrad
from melmill.stages.vocode.families.wavenet.network import Preprocessing, WaveNet
from melmill.stages.vocode.families.wavenet.network import Sizes as WaveNetSizes
from melmill.stages.vocode.families.wavenet.outputs import Logistic
from melmill.stages.vocode.families.wavenet.upsampling import MixedFirst, Smoothed
from melmill.stages.vocode.files.checkpoint import read
from melmill.stages.vocode.loaded import LoadedVocoder
from melmill.stages.vocode.network import Vocoder
from melmill.stages.vocode.vocoding import Vocoding

# Kong et al. 2020, configuration V1; BigVGAN v2 for 24 kHz and 100 bands.
_V1 = Sizes(
    n_mels=80, channels=512, rates=(8, 8, 2, 2), kernels=(16, 16, 4, 4), block_kernels=(3, 7, 11),
    dilations=((1, 3, 5),) * 3, paired=True,
)  # fmt: skip
_V2 = replace(_V1, n_mels=100, channels=1536, rates=(4, 4, 2, 2, 2, 2), kernels=(8, 8, 4, 4, 4, 4))
_LVC = LvcSizes(
    n_mels=100, width=32, dilations=(1, 3, 9, 27), kernel=3, hidden=64, n_residuals=3, hidden_kernel=3, input_kernel=5,
    slope=0.2,
)  # fmt: skip
_VOCOS = VocosSizes(
    n_mels=100, width=512, hidden=1536, n_blocks=8, scaled=True, n_fft=1024, hop_length=256, center=True
)
_MELGAN = MelGanSizes(
    n_mels=80, widths=(512, 256, 128, 64, 32), rates=(8, 8, 2, 2), end_kernel=7, block_kernel=3, dilations=(1, 3, 9)
)
_DESCRIPT = MelGanLayout(root="model", block="", stacked=False, normalises=False, audio=None, preset="melgan")
_GLOW = WaveGlowSizes(
    n_mels=80, n_group=8, widths=(8,) * 4 + (6,) * 4 + (4,) * 4, n_layers=8, width=256, kernel=3, up_kernel=1024
)
_DIFFWAVE = DiffWaveSizes(channels=64, n_features=128, embedding=512, n_layers=30, cycle=10, kernels=((3, 32), (3, 32)))
_WAVENET = WaveNetSizes(residual=128, gate=256, skip=128, out=30, kernel=3, layers=24, stacks=4, condition_bias=False)
# Of utterances that go through the stage, as a shard has several.
BATCHES = 3
# Of both papers' fast sampling, six steps.
_SIX = (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)


def _wavegrad() -> WaveGrad:
    model = WaveGrad((32, 128, 128, 256, 512), (768, 512, 512, 256, 128, 128), (5, 5, 3, 2, 2), preset("wavegrad"))
    model.betas = _SIX
    return model


def _diffwave() -> DiffWave:
    model = DiffWave(_DIFFWAVE, np.linspace(1e-4, 0.05, 50).tolist(), preset("diffwave"))
    model.betas = _SIX
    return model


def _hifigan() -> HifiGan:
    return HifiGan(_V1, preset("hifigan"), Layout(mel=hifigan_mel))


def _bigvgan() -> BigVgan:
    spec = preset("bigvgan_v2_24khz_100band_256x")
    return BigVgan(_V2, spec, Snake(kind="snakebeta", log_scale=True), tanh=False, last_bias=False)


def _wavenet() -> WaveNet:
    spec = preset("wavenet_r9y9")
    upsampler = MixedFirst(spec.n_mels, 2, Smoothed((4, 4, 4, 4), 3, None))
    return WaveNet(_WAVENET, Logistic(n_mixtures=10), upsampler, spec, Preprocessing())


_SAMPLE_BY_SAMPLE = "wavenet (r9y9)"
FAMILIES: Mapping[str, Callable[[], Vocoder]] = {
    "hifigan V1": _hifigan,
    "bigvgan v2, 24 kHz": _bigvgan,
    "vocos, 24 kHz": lambda: Vocos(_VOCOS, preset("vocos_24khz")),
    "melgan (descript)": lambda: MelGan(_MELGAN, preset("melgan"), _DESCRIPT),
    "univnet c32": lambda: UnivNet(_LVC, (8, 8, 4), 64, preset("univnet")),
    "waveglow": lambda: WaveGlow(_GLOW, preset("waveglow"), 1.0),
    "wavegrad, 6 steps": _wavegrad,
    "diffwave, 6 steps": _diffwave,
    "melmill-16k, its own weights": lambda: melmill.load_vocoder("melmill-16k").model,
    _SAMPLE_BY_SAMPLE: _wavenet,
}


@click.command()
@click.option("--seconds", default=1.0, help="Speech in an utterance.")
@click.option("--n-batch", type=int, help="Utterances in a batch; by default 4 on the CPU and 32 on a GPU.")
@click.option("--device", default="cpu", help="Device, as torch names it.")
@click.option(
    "--family", "names", multiple=True, type=click.Choice([*FAMILIES]), help="This family alone; may be repeated."
)
def main(seconds: float, n_batch: int | None, device: str, names: Sequence[str]) -> None:
    """Print one table: time to load each family, and its speed alone and in a batch."""
    if device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device: nothing was measured")
        sys.exit(1)
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for name in names or FAMILIES:
        made_s = seconds / 10 if name == _SAMPLE_BY_SAMPLE else seconds
        figures += measured(name, FAMILIES[name], made_s, n_batch or (4 if device == "cpu" else 32), device)
    print(table(figures))


def measured(name: str, make: Callable[[], Vocoder], seconds: float, n_batch: int, device: str) -> list[Figure]:
    """Return the figures of a family."""
    data = weights(make())
    started = time.perf_counter()
    model = make()
    model.load_state_dict(dict(read(name, data).state))
    voc = LoadedVocoder(model=_finished(model).to(device), name=name, device=device)
    load_s = time.perf_counter() - started
    M = mel(voc, seconds)
    made_s = voc(M).size / voc.spec.sr  # the first time it allocates, and chooses kernels
    alone = _seconds(lambda: [voc(M) for _ in range(n_batch)])
    together = _seconds(lambda: voc.together([M[:, i:] for i in range(n_batch)], range(n_batch)))
    return [
        Figure(name=f"{name}: {len(data) / 2**20:.0f} MiB, to load", measured=load_s, unit="s"),
        Figure(name="  speech a second", measured=n_batch * made_s / alone, unit="s/s"),
        Figure(
            name=f"  a batch of {n_batch} against one by one",
            measured=alone / together,
            unit="x",
            goal=None if device == "cpu" else 5,
            at_least=True,
        ),
        *through_the_stage(voc, M, n_batch),
    ]


def through_the_stage(voc: LoadedVocoder, M: NDArray[np.float32], n_batch: int) -> list[Figure]:
    """Return the speed of the stage over several batches, and the device's share of the time."""
    n_samples = voc.model.n_samples(M.shape[1] + 2 * voc.model.context)
    items = [item(place, M, n_samples, voc.spec.sr) for place in range(BATCHES * n_batch)]
    stage = Vocoding(voc=voc, batched=voc.device != "cpu")
    started = time.perf_counter()
    outcomes = stage.process(items, {"from": Mel(spec=voc.spec)}, Waveform(sr=voc.spec.sr))
    wall_s = time.perf_counter() - started
    speech_s = sum(0 if outcome.array is None else outcome.array.size for outcome in outcomes) / voc.spec.sr
    return [
        Figure(name="  speech a second, through the stage", measured=speech_s / wall_s, unit="s/s"),
        Figure(
            name="  of that time the device is at work",
            measured=100 * sum(outcome.busy_s or 0.0 for outcome in outcomes) / wall_s,
            unit="%",
        ),
    ]


def weights(model: Vocoder) -> bytes:
    """Return a checkpoint of random weights, scaled so that layers neither vanish nor explode."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5 if value.ndim else value
        for key, value in model.state_dict().items()
    }
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def mel(voc: LoadedVocoder, seconds: float) -> NDArray[np.float32]:
    """Return a random mel in the range of the vocoder's own."""
    spec = voc.spec
    low, high = spec.clip or (-8.0, 1.0)
    shape = (spec.n_mels, round(seconds * spec.sr / spec.hop_length))
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def _finished(model: Vocoder) -> Vocoder:
    # What loading a checkpoint does beyond its tensors, for random matrices.
    for name, buffer in model.named_buffers():
        if name.endswith("inverse"):
            buffer.copy_(torch.eye(len(buffer)))
    return model.eval().requires_grad_(False)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
