r"""Train the network by which `melmill mel identify` tells how a mel was made without its recording.

python -m benchmarks.identify_model CORPORA [--out FILE] [--clips N] [--steps N] [--without CORPUS ...]

CORPORA holds a folder of recordings for each corpus. The file that comes with melmill was made by

python -m benchmarks.identify_model ../shared/corpora-more --without LJSpeech --speakers-not-of ../shared/corpora \
    --clips 70 --steps 1000
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.identify_data import (
    EQUAL,
    NORMALISATIONS,
    Clip,
    clips,
    normalised,
    owner,
    predicted,
    recordings,
    unknown_make,
)
from melmill.flows.exchange.identify.blind import FILE, digest
from melmill.flows.exchange.identify.candidates import candidates
from melmill.flows.exchange.identify.explaining import Setup
from melmill.flows.exchange.identify.features import features
from melmill.flows.exchange.identify.fits import best_form
from melmill.flows.exchange.identify.looks import FEWEST_FRAMES
from melmill.flows.exchange.identify.matching import Recording
from melmill.safetensors import Stored, packed
from melmill.stages.numeric.errors import EmptyBandWarning, StageError
from melmill.stages.numeric.mel import mel_range, mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec

_WIDTHS = (256, 128)
_SLOPE = 0.1
# Of all clips, those that judge when to stop and how to calibrate.
_JUDGED = 0.12
_VERSIONS = 2
# Clips of which mels by all specs are compared with each other.
_COMPARED = 4
_UNKNOWN = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Hold features, what they are of, and which speaker's."""

    x: NDArray[np.float32]
    make: NDArray[np.int64]
    bands: NDArray[np.int64]
    speaker: list[str]


def floors_of(specs: Sequence[MelSpec]) -> list[float]:
    """Return the lowest values that mels of the specs have."""
    found = set()
    for spec in specs:
        try:
            lowest = round(float(mel_range(spec).lowest), 4)
        except (StageError, ValueError):
            continue
        if np.isfinite(lowest):
            found.add(lowest)
    return sorted(found)


def examples(chosen: Sequence[Clip], floors: Sequence[float], seed: int, jobs: int) -> Examples:
    """Make mels of the clips by every spec and by unknown makes, and read their features."""
    with ProcessPoolExecutor(jobs) as pool:
        parts = list(pool.map(_of_clip, chosen, [floors] * len(chosen), range(seed, seed + len(chosen))))
    return Examples(
        x=np.concatenate([part.x for part in parts]),
        make=np.concatenate([part.make for part in parts]),
        bands=np.concatenate([part.bands for part in parts]),
        speaker=[speaker for part in parts for speaker in part.speaker],
    )


def _of_clip(clip: Clip, floors: Sequence[float], seed: int) -> Examples:
    warnings.simplefilter("ignore", EmptyBandWarning)
    rng = np.random.default_rng(seed)
    x, make, bands = [], [], []
    for label, M in _mels(clip, [candidate.spec for candidate in candidates()], rng):
        for _ in range(_VERSIONS):
            made = predicted(M, rng) if rng.random() < 0.4 else M
            kind = "none" if rng.random() < 0.5 else str(rng.choice(NORMALISATIONS))
            values = np.asarray(normalised(made, kind, rng), dtype=np.float64)
            x.append(features(values, floors))
            make.append(label)
            bands.append(len(M))
    speaker = [f"{clip.corpus}/{clip.speaker}"] * len(x)
    return Examples(x=np.stack(x), make=np.array(make), bands=np.array(bands), speaker=speaker)


def _mels(clip: Clip, specs: Sequence[MelSpec], rng: np.random.Generator) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield a mel by every spec with its number, and by unknown makes with the number after the last."""
    makes = list(enumerate(specs))
    makes += [(len(specs), unknown_make(rng, specs)) for _ in range(int(_UNKNOWN * len(specs)))]
    at: dict[int, NDArray[np.float32]] = {}
    for label, spec in makes:
        if spec.sr not in at:
            at[spec.sr] = clip.at(spec.sr)
        try:
            M = mel_spectrogram(at[spec.sr], spec).astype(np.float64)
        except StageError:
            continue
        if M.shape[1] >= FEWEST_FRAMES and M.std() > 0:
            yield label, M


def equalities(chosen: Sequence[Clip], specs: Sequence[MelSpec]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how often mels of clips by one spec (rows) are those of another: as they are, or normalised."""
    warnings.simplefilter("ignore", EmptyBandWarning)
    equal, alike = np.zeros((len(specs), len(specs))), np.zeros((len(specs), len(specs)))
    for clip in chosen:
        heard = Recording(y=clip.y, sr=clip.sr)
        mels = [heard.mel(spec, Setup()) for spec in specs]
        for (i, M), (j, N) in itertools.permutations(enumerate(mels), 2):
            if M is None or N is None or M.shape != N.shape or specs[i].sr != specs[j].sr:
                continue
            fit = best_form(M, N, EQUAL)
            equal[i, j] += fit.how == "as it is" and fit.misfit <= EQUAL
            alike[i, j] += fit.misfit <= EQUAL
    return equal / len(chosen), alike / len(chosen)


def network(n_features: int, n_out: int) -> nn.Sequential:
    """Return a network with random weights."""
    sizes = (n_features, *_WIDTHS)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.LeakyReLU(_SLOPE), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))


def trained(
    data: Examples, possible: torch.Tensor, steps: int, seed: int
) -> tuple[nn.Sequential, NDArray[np.float64], NDArray[np.float64], float]:
    """Train on most speakers; return the network, the features' mean and scale, and the temperature."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    speakers = sorted(set(data.speaker))
    held = set(rng.permutation(speakers)[: max(1, int(_JUDGED * len(speakers)))])
    judged = np.array([speaker in held for speaker in data.speaker])
    mean, scale = data.x[~judged].mean(axis=0), data.x[~judged].std(axis=0) + 1e-3
    x = torch.from_numpy(np.clip((data.x - mean) / scale, -8, 8).astype(np.float32))
    y, allowed = torch.from_numpy(data.make), possible[torch.from_numpy(data.bands)]
    model = network(x.shape[1], possible.shape[1])
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    rows = torch.from_numpy(np.flatnonzero(~judged))
    draws = torch.Generator().manual_seed(seed)
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (512,), generator=draws)]
        noisy = x[batch] + 0.2 * torch.randn(x[batch].shape, generator=draws)
        loss = nn.functional.cross_entropy(
            model(noisy).masked_fill(~allowed[batch], -1e9), y[batch], label_smoothing=0.0
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 500 == 0:
            click.echo(f"step {step}: loss {float(loss.detach()):.3f}")
    model.eval()
    with torch.no_grad():
        logits = model(x[judged]).masked_fill(~allowed[judged], -1e9)
    temperature = min(
        np.geomspace(0.5, 10.0, 60), key=lambda t: float(nn.functional.cross_entropy(logits / t, y[judged]))
    )
    top = logits.topk(3, dim=1).indices
    right = (top == y[judged][:, None]).any(dim=1).float().mean()
    click.echo(f"{int(judged.sum())} mels of {len(held)} speakers held out: top-3 {float(right):.3f}, the make itself")
    click.echo(f"temperature {temperature:.2f}")
    return model, mean.astype(np.float64), scale.astype(np.float64), float(temperature)


def file_of(model: nn.Sequential, numbers: Mapping[str, NDArray[np.float64]], about: dict[str, object]) -> bytes:
    """Return the network as the bytes of its file, in float16."""
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    arrays: dict[str, NDArray[Any]] = {name: numbers[name].astype("<f4") for name in ("mean", "scale")}
    arrays |= {name: np.rint(255 * numbers[name]).astype("u1") for name in ("equal", "alike")}
    for index, layer in enumerate(linear):
        arrays[f"weight{index}"] = layer.weight.detach().numpy().astype("<f2")
        arrays[f"bias{index}"] = layer.bias.detach().numpy().astype("<f2")
    stored = {
        name: Stored({"<f4": "F32", "<f2": "F16", "|u1": "U8"}[array.dtype.str], array.shape, array.tobytes())
        for name, array in arrays.items()
    }
    return packed(stored, {"about": json.dumps(about)})


@click.command()
@click.argument("corpora", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=FILE, show_default=True)
@click.option("--clips", "n_clips", default=120, show_default=True)
@click.option("--steps", default=6000, show_default=True)
@click.option("--without", multiple=True, help="Leave this corpus out. Repeatable.")
@click.option("--speakers-not-of", type=click.Path(path_type=Path), help="Leave out who speaks in these corpora.")
@click.option("--cache", type=click.Path(path_type=Path), help="Keep the features in this .npz file.")
@click.option("--jobs", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    corpora: Path,
    out: Path,
    n_clips: int,
    steps: int,
    without: Sequence[str],
    speakers_not_of: Path | None,
    cache: Path | None,
    jobs: int,
    seed: int,
) -> None:
    """Train the network and write its file."""
    warnings.simplefilter("ignore", EmptyBandWarning)
    torch.set_num_threads(1)
    specs = [candidate.spec for candidate in candidates()]
    floors = floors_of(specs)
    rng = np.random.default_rng(seed)
    folder = speakers_not_of
    others = {owner(path, folder) for path in recordings(folder)} if folder is not None else set()
    found = recordings(corpora, without=without, speakers=others)
    paths = [found[i] for i in rng.permutation(len(found))[:n_clips]]
    chosen = list(clips(paths, corpora, rng, longest_s=4.0))
    click.echo(f"{len(chosen)} of {len(found)} clips, {len({clip.speaker for clip in chosen})} speakers")
    if cache is not None and cache.exists():
        kept = np.load(cache)
        data = Examples(x=kept["x"], make=kept["make"], bands=kept["bands"], speaker=list(kept["speaker"]))
        equal, alike = kept["equal"], kept["alike"]
    else:
        data = examples(chosen, floors, seed, jobs)
        equal, alike = equalities(chosen[:_COMPARED], specs)
        if cache is not None:
            made = {"x": data.x, "make": data.make, "bands": data.bands, "speaker": np.array(data.speaker)}
            np.savez(cache, **made, equal=equal, alike=alike)
    click.echo(f"{len(data.x)} mels, {data.x.shape[1]} features, {len(specs)} makes")
    possible = torch.zeros(1 + max(spec.n_mels for spec in specs), len(specs) + 1, dtype=torch.bool)
    possible[:, -1] = True
    for index, spec in enumerate(specs):
        possible[spec.n_mels, index] = True
    model, mean, scale, temperature = trained(data, possible, steps, seed)
    about = {
        "makes": [digest(candidate) for candidate in candidates()],
        "bands": [spec.n_mels for spec in specs],
        "floors": floors,
        "temperature": temperature,
    }
    data_bytes = file_of(model, {"mean": mean, "scale": scale, "equal": equal, "alike": alike}, about)
    out.write_bytes(data_bytes)
    click.echo(f"{out}: {len(data_bytes):,} bytes, sha256 {hashlib.sha256(data_bytes).hexdigest()}")


if __name__ == "__main__":
    main()
