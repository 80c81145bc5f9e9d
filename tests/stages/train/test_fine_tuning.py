"""Published checkpoints are trained further, and written back in their own layout."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import melmill
from melmill.stages.contract import Mel, Product, StageFile, TrainedVocoder, Waveform
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.discriminators import given_discriminators
from melmill.stages.train.recipe import Recipe
from melmill.stages.train.stage import recipe_of
from melmill.stages.train.vocoder_stage import TrainVocoder
from melmill.stages.train.vocoder_trainer import VocoderTrainer
from melmill.stages.vocode.files.checkpoint import containers, read, read_files
from melmill.stages.vocode.files.rewriting import rewritten
from melmill.stages.vocode.loaded import load
from tests.stages.train.memory import Memory, Place
from tests.stages.vocode.tiny import TOLERANCE, relative

CHECKPOINTS = [
    ("hifigan-v1", "g_00000001", "config.json"),
    ("hifigan-v1", "g_00000001.legacy", "config.json"),
    ("hifigan-v3", "g_00000001.no_weight_norm", "config.json"),
    ("bigvgan-v1", "g_05000000", "config.json"),
    ("bigvgan-v2", "bigvgan_generator.pt", "config.json"),
    ("vocos-mel24k", "pytorch_model.bin", "config.yaml"),
    ("univnet-c32-b", "univ_c4_0001.pt", "default_c32.yaml"),
]
IDS = [f"{folder}, {file}" for folder, file, _ in CHECKPOINTS]


def files_of(folder: Path, file: str, config: str) -> dict[str, StageFile]:
    return {
        role: StageFile(url=str(folder / name), data=(folder / name).read_bytes())
        for role, name in {"weights": file, "config": config}.items()
    }


def tensors(data: bytes) -> Mapping[str, Any]:
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return containers(content)[1]


def stage(files: dict[str, StageFile], **fields: Any) -> TrainVocoder:
    if "discriminators" in files:
        fields["init_discriminators"] = files["discriminators"].url
    usual: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "segment_frames": 10,
        "adversarial_from": 2,
        "discriminator_width": 2,
        "held_out": 1,
        "save_every": 2,
        "ema": 0.5,
        "learning_rate": 2e-3,
    }
    made = TrainVocoder(**{**usual, "init": files["weights"].url, **fields})
    return made.prepared(files, "0" * 64).opened(lambda: files)


@pytest.fixture
def golden(real_data: Path) -> Path:
    """Return the folder of official answers."""
    folder = real_data / "golden"
    if not (folder / "hifigan-v1").is_dir():
        pytest.skip(f"no official checkpoints at {folder}")
    return folder


@pytest.fixture(scope="module")
def long_voice() -> NDArray[np.float32]:
    """Return 0.6 s of a voice-like signal at 24 kHz; `Memory` has pieces of twice that at some speeds."""
    t = np.arange(14400) / 24000
    y = sum(np.sin(2 * np.pi * 130 * k * t + k) / k for k in range(1, 30)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return np.asarray(0.05 * y + 0.001 * np.random.default_rng(0).normal(size=t.size), dtype=np.float32)


def trained(made: TrainVocoder, memory: Memory, place: Place) -> dict[str, bytes]:
    spec = memory.spec
    return dict(made.train(memory, place, {"from": Mel(spec=spec), "audio": Waveform(sr=spec.sr)}))


def fine_tuner(
    files: dict[str, StageFile],
    memory: Memory,
    *,
    rate: float,
    frozen: tuple[str, ...] = (),
    adversarial_from: int | None = None,
) -> VocoderTrainer:
    made = stage(files, learning_rate=rate, adversarial_from=adversarial_from, steps=100, frozen=frozen)
    return VocoderTrainer(recipe_of(made, Recipe), memory.spec, files)


def spec_of(files: dict[str, StageFile]) -> MelSpec:
    return load(read_files(files)).spec


@pytest.mark.parametrize(("folder", "file", "config"), CHECKPOINTS, ids=IDS)
def test_a_checkpoint_written_back_is_the_same(folder: str, file: str, config: str, golden: Path) -> None:
    files = files_of(golden / folder, file, config)
    before = load(read_files(files))
    data = rewritten(file, files["weights"].data, before.model.state_dict())
    old, new = tensors(files["weights"].data), tensors(data)
    assert list(old) == list(new)
    for name, tensor in old.items():
        if isinstance(tensor, torch.Tensor):
            assert (new[name].shape, new[name].dtype) == (tensor.shape, tensor.dtype)
    again = load(read_files({**files, "weights": StageFile(url=file, data=data)}))
    M = np.load(golden / folder / "mel.npy")
    assert relative(again(M, seed=1), before(M, seed=1)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "file", "config"), [CHECKPOINTS[0], *CHECKPOINTS[4:]], ids=[IDS[0], *IDS[4:]])
def test_a_checkpoint_is_trained_and_loads_in_its_layout(
    folder: str, file: str, config: str, golden: Path, long_voice: NDArray[np.float32], tmp_path: Path
) -> None:
    files = files_of(golden / folder, file, config)
    memory = Memory(long_voice, spec_of(files))
    made = trained(stage(files), memory, Place())
    assert tensors(made["weights.pt"]).keys() == tensors(files["weights"].data).keys()
    weights, settings = tmp_path / file, tmp_path / config
    weights.write_bytes(made["weights.pt"])
    settings.write_bytes(files["config"].data)
    voc = melmill.load_vocoder(weights, config=settings)
    M, _ = memory.whole("u0")
    y = voc(M)
    assert np.isfinite(y).all()
    assert relative(y, load(read_files(files))(M)) > 1e-3  # it has learnt something


def test_it_resumes_to_the_byte(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    memory = Memory(long_voice, spec_of(files))

    def learnt(n_steps: int, state: bytes | None = None) -> VocoderTrainer:
        trainer = fine_tuner(files, memory, rate=1e-3, adversarial_from=2)
        if state is not None:
            trainer.resume(state)
        batches = trainer.batches(memory, list(memory.waves))
        for _ in range(n_steps):
            trainer.learn(next(batches))
        return trainer

    def weights(trainer: VocoderTrainer) -> bytes:
        return rewritten("g", files["weights"].data, trainer.model.state_dict())

    assert weights(learnt(2, learnt(2).state())) == weights(learnt(4))


def test_the_loss_falls(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    memory = Memory(long_voice, spec_of(files))
    trainer = fine_tuner(files, memory, rate=5e-3)
    batches = trainer.batches(memory, list(memory.waves))
    losses = [trainer.learn(next(batches))["spectral"] for _ in range(24)]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_frozen_parts_stay_as_they_are(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    memory = Memory(long_voice, spec_of(files))
    trainer = fine_tuner(files, memory, rate=1e-2, frozen=("ups.*", "conv_pre.*"))
    batches = trainer.batches(memory, list(memory.waves))
    for _ in range(2):
        trainer.learn(next(batches))
    before = read("g", files["weights"].data).state
    after = trainer.generator.state_dict()
    for name, tensor in before.items():
        changed = float((after[name] - tensor).abs().max()) > 1e-7
        assert changed != name.startswith(("ups.", "conv_pre.")), name


def test_what_can_not_be_fine_tuned_is_refused(golden: Path) -> None:
    folder = golden
    files = files_of(folder / "hifigan-v1", "g_00000001", "config.json")
    silent = Memory(np.full(14400, 0.01, np.float32), spec_of(files))
    with pytest.raises(melmill.ParameterError, match=r"'nothing\.\*' matches no tensor"):
        fine_tuner(files, silent, rate=1e-3, frozen=("nothing.*",))
    with pytest.raises(melmill.ParameterError, match="must leave a tensor to train"):
        fine_tuner(files, silent, rate=1e-3, frozen=("*",))
    with pytest.raises(melmill.ParameterError, match="give init too"):
        TrainVocoder(frozen=("ups.*",))
    other = replace(spec_of(files), fmax=7600.0)
    inputs: dict[str, list[Product]] = {"from": [Mel(spec=other)], "audio": [Waveform(sr=other.sr)]}
    with pytest.raises(melmill.ContractError, match="was trained with another mel: fmax is 7600"):
        stage(files).produces(inputs)
    framed = replace(spec_of(files), center=True)
    product = stage(files).produces({"from": [Mel(spec=framed)], "audio": [Waveform(sr=framed.sr)]})
    assert isinstance(product, TrainedVocoder)
    assert product.family == "hifigan"
    melgan = files_of(folder / "melgan-descript", "best_netG.pt", "args.yml")
    with pytest.raises(melmill.ParameterError, match="which is a melgan"):
        stage(melgan)
    with pytest.raises(melmill.VocoderError, match="does not exist"):
        TrainVocoder(init="nowhere/g_1").prepared({}, "")


class Official(torch.nn.Module):
    """A discriminator with the names and norms of its official code, in a tenth of the widths."""

    def __init__(self, conv: Any, layers: list[tuple[int, Any, Any, int]], post: Any, norm: Any) -> None:
        super().__init__()
        sizes = [1, *(width for width, *_ in layers)]
        self.convs = torch.nn.ModuleList(
            norm(conv(sizes[i], width, kernel, stride, half(kernel), groups=groups))
            for i, (width, kernel, stride, groups) in enumerate(layers)
        )
        self.conv_post = norm(conv(sizes[-1], 1, post, 1, half(post)))

    def forward(self, x: torch.Tensor, slope: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = []
        for conv in self.convs:
            x = torch.nn.functional.leaky_relu(conv(x), slope)
            features.append(x)
        return self.conv_post(x).flatten(1), features


def half(kernel: Any) -> Any:
    return tuple(size // 2 for size in kernel) if isinstance(kernel, tuple) else kernel // 2


def periods() -> list[Official]:
    layers = [(width, (5, 1), (3 if i < 4 else 1, 1), 1) for i, width in enumerate((3, 6, 12, 16, 16))]
    return [Official(torch.nn.Conv2d, layers, (3, 1), torch.nn.utils.weight_norm) for _ in range(5)]


def scales() -> list[Official]:
    layers = list(
        zip(
            (16, 16, 32, 32, 64, 64, 64),
            (15, 41, 41, 41, 41, 41, 5),
            (1, 2, 2, 4, 4, 1, 1),
            (1, 4, *[16] * 4, 1),
            strict=True,
        )
    )
    norms = (torch.nn.utils.spectral_norm, *[torch.nn.utils.weight_norm] * 2)
    return [Official(torch.nn.Conv1d, layers, 3, norm) for norm in norms]


def spectra() -> list[Official]:
    layers = [(4, (3, 9), (1, 2) if 0 < i < 4 else 1, 1) for i in range(4)] + [(4, (3, 3), 1, 1)]
    return [Official(torch.nn.Conv2d, layers, (3, 3), torch.nn.utils.weight_norm) for _ in range(3)]


def folded(y: torch.Tensor, period: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(y[:, None], (0, -y.shape[1] % period), "reflect")
    return padded.reshape(len(y), 1, -1, period)


def halved(y: torch.Tensor, times: int) -> torch.Tensor:
    x = y[:, None]
    for _ in range(times):
        x = torch.nn.AvgPool1d(4, 2, padding=2)(x)
    return x


def spectrum(y: torch.Tensor, n_fft: int, hop: int, win: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(y[:, None], [(n_fft - hop) // 2] * 2, "reflect")[:, 0]
    frames = torch.nn.functional.pad(torch.ones(win), [(n_fft - win) // 2, -(-(n_fft - win) // 2)])
    magnitude: torch.Tensor = torch.fft.rfft(padded.unfold(1, n_fft, hop) * frames).abs()
    return magnitude.transpose(1, 2)[:, None]


RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
# How a file is laid out, what each of its discriminators sees of a waveform, and the slope of its rectifiers.
GIVEN: dict[str, tuple[Any, ...]] = {
    "hifigan": (periods(), scales(), lambda mpd, msd: {"mpd": mpd, "msd": msd, "optim_d": {}, "steps": 1}, {}, 0.1),
    "bigvgan": (periods(), spectra(), lambda mpd, mrd: {"mpd": mpd, "mrd": mrd, "steps": 1}, {}, 0.1),
    "univnet": (
        periods(),
        spectra(),
        lambda mpd, mrd: {
            "model_d": {
                f"{group}.{name}": tensor
                for group, state in (("MRD", mrd), ("MPD", mpd))
                for name, tensor in state.items()
            }
        },
        {"mpd": {"periods": [2, 3, 5, 7, 11], "lReLU_slope": 0.2}, "mrd": {"resolutions": str(list(RESOLUTIONS))}},
        0.2,
    ),
}


@pytest.mark.parametrize("layout", GIVEN)
def test_given_discriminators_judge_as_their_own_code_does(layout: str, long_voice: NDArray[np.float32]) -> None:
    first, second, laid_out, config, slope = GIVEN[layout]
    states = [torch.nn.ModuleDict({"discriminators": torch.nn.ModuleList(one)}).state_dict() for one in (first, second)]
    buffer = io.BytesIO()
    torch.save(laid_out(*states), buffer)
    made = given_discriminators(StageFile(url="do_1", data=buffer.getvalue()), config).eval()
    y = torch.from_numpy(np.stack([long_voice[:3000], long_voice[3000:6000]]))
    views = [folded(y, period) for period in (2, 3, 5, 7, 11)]
    views += [halved(y, times) for times in range(3)] if layout == "hifigan" else [spectrum(y, *r) for r in RESOLUTIONS]
    with torch.no_grad():
        judged, features = made(y)
        for i, (network, view) in enumerate(zip([*first, *second], views, strict=True)):
            judgement, wanted = network.eval()(view, slope)
            torch.testing.assert_close(judged[i], judgement, rtol=1e-4, atol=1e-5)
            for mine, theirs in zip(features[i], wanted, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_training_learns_from_given_discriminators_and_resumes(golden: Path, long_voice: NDArray[np.float32]) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    states = [
        torch.nn.ModuleDict({"discriminators": torch.nn.ModuleList(m)}).state_dict() for m in (periods(), scales())
    ]
    buffer = io.BytesIO()
    torch.save({"mpd": states[0], "msd": states[1]}, buffer)
    files = {**files, "discriminators": StageFile(url="do_1", data=buffer.getvalue())}
    memory = Memory(long_voice, spec_of(files))

    def learnt(n_steps: int, state: bytes | None = None) -> VocoderTrainer:
        trainer = fine_tuner(files, memory, rate=1e-3, adversarial_from=0)
        if state is not None:
            trainer.resume(state)
        batches = trainer.batches(memory, list(memory.waves))
        for _ in range(n_steps):
            losses = trainer.learn(next(batches))
            assert {"discriminators", "adversarial", "features"} <= losses.keys()
        return trainer

    resumed, whole = learnt(1, learnt(1).state()), learnt(2)
    assert resumed.discriminators is not None
    assert whole.discriminators is not None
    for mine, other in ((resumed.generator, whole.generator), (resumed.discriminators, whole.discriminators)):
        for (name, a), b in zip(mine.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_what_holds_no_discriminators_is_told(golden: Path) -> None:
    files = files_of(golden / "hifigan-v1", "g_00000001", "config.json")
    with pytest.raises(melmill.VocoderError, match="g_00000001: holds no discriminators: expected mpd with msd or mrd"):
        given_discriminators(files["weights"], {})
    cut = {
        f"discriminators.0.{name}": tensor
        for name, tensor in periods()[0].state_dict().items()
        if "convs.3" not in name
    }
    buffer = io.BytesIO()
    torch.save({"mpd": cut}, buffer)
    with pytest.raises(melmill.VocoderError, match="mpd 0 has 4 layers, expected 5"):
        given_discriminators(StageFile(url="do_1", data=buffer.getvalue()), {})
    with pytest.raises(melmill.ParameterError, match="needs adversarial_from"):
        TrainVocoder(init="g_1", init_discriminators="do_1", adversarial_from=None)
    with pytest.raises(melmill.ParameterError, match="give init too"):
        TrainVocoder(init_discriminators="do_1")


def test_the_key_of_a_training_without_a_checkpoint_is_as_before() -> None:
    assert not {"init", "init_config", "init_discriminators", "frozen"} & TrainVocoder().identity().keys()
