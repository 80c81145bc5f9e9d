from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch import Tensor

from melmill.stages.contract import Mel, Waveform
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.wavenet.network import Preprocessing, Sizes, WaveNet
from melmill.stages.vocode.families.wavenet.outputs import Categorical, Gaussian, Logistic, Output
from melmill.stages.vocode.families.wavenet.upsampling import MixedFirst, Smoothed, Transposed, Upsampler
from melmill.stages.vocode.files.companions import parse
from melmill.stages.vocode.loaded import load
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.registry import family
from melmill.stages.vocode.vocoding import Vocoding
from tests.stages.vocode.test_vocoder_stage import array, item
from tests.stages.vocode.tiny import Golden, assert_padding_is_not_heard, randomised, relative

N_MELS, SCALES, HOP = 6, [3, 2, 4], 24
SPEC = replace(preset("wavenet_r9y9"), n_mels=N_MELS, hop_length=HOP)

# input_type, output_distribution, outputs and what they are
OUTPUTS: dict[str, tuple[str, str, int, Output]] = {
    "logistic": ("raw", "Logistic", 9, Logistic(n_mixtures=3)),
    "gaussian": ("raw", "Normal", 2, Gaussian(n_mixtures=1)),
    "gaussian with a logit": ("raw", "Normal", 3, Gaussian(n_mixtures=1)),
    "gaussians": ("raw", "Normal", 6, Gaussian(n_mixtures=2)),
    "mu-law": ("mulaw", "Logistic", 9, Logistic(n_mixtures=3, mu=255)),
    "classes": ("mulaw-quantize", "Logistic", 256, Categorical(n_classes=256)),
}
# context, and what makes the upsampler
UPSAMPLERS: dict[str, tuple[int, Callable[[], Upsampler]]] = {
    "mixed first": (2, lambda: MixedFirst(N_MELS, 2, Smoothed(SCALES, 1, None))),
    "mixed first, without context": (0, lambda: MixedFirst(N_MELS, 0, Smoothed(SCALES, 3, torch.nn.Tanh))),
    "smoothed": (2, lambda: Smoothed(SCALES, 5, torch.nn.LeakyReLU, context=2)),
}
ACTIVATIONS = {"mixed first, without context": "Tanh", "smoothed": "LeakyReLU"}


def made(output: str = "logistic", upsampler: str = "mixed first", kernel: int = 3) -> tuple[WaveNet, dict[str, Any]]:
    """Return a random model, and the hyperparameters that it has upstream."""
    kind, distribution, n_outputs, meaning = OUTPUTS[output]
    context, network = UPSAMPLERS[upsampler]
    sizes = Sizes(residual=5, gate=8, skip=7, out=n_outputs, kernel=kernel, layers=6, stacks=2, condition_bias=False)
    model = WaveNet(sizes, meaning, network(), SPEC, Preprocessing())
    model.load_state_dict(randomised(model))
    config = {
        "input_type": kind,
        "output_distribution": distribution,
        "quantize_channels": 256,
        "stacks": 2,
        "cin_pad": context,
        "hop_size": HOP,
        "upsample_params": {"upsample_scales": SCALES, "upsample_activation": ACTIVATIONS.get(upsampler, "none")},
    }
    return model.eval().requires_grad_(False), config


def checkpoint(**changes: Any) -> Checkpoint:
    model, config = made()
    return Checkpoint(name="wavenet.pth", state=model.state_dict(), config={**config, **changes}, layout="state_dict")


def audible(model: WaveNet, n_frames: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    noise = model.noise(n_frames, generator)
    return torch.rand(1, model.spec.n_mels, n_frames, generator=generator), [draw[None] for draw in noise]


@pytest.fixture
def answers(golden: Callable[[str], Golden]) -> Golden:
    return golden("wavenet-r9y9")


def official(golden: Golden) -> WaveNet:
    config = parse("hparams.json", (golden.folder / "hparams.json").read_bytes())
    model = family("wavenet").build(replace(golden.checkpoint("checkpoint_latest.pth"), config=config))
    assert isinstance(model, WaveNet)
    return model


@pytest.mark.real
def test_the_forced_network_is_the_official_one(answers: Golden) -> None:
    model, mel = official(answers), answers.tensor("mel")[None]
    assert relative(model.condition(mel)[0, :4], answers.tensor("upsampled_cond")) < 1e-5
    parameters = model.teacher_forced(answers.tensor("teacher_x")[None], mel)
    assert relative(parameters[0], answers.tensor("teacher_params")) < 1e-5


@pytest.mark.real
def test_what_it_draws_is_the_official_waveform(answers: Golden) -> None:
    model, mel = official(answers), answers.tensor("mel")[None]
    y = model(mel, noise=[answers.tensor("u_mix")[None], answers.tensor("u_logistic")[None]])
    assert relative(y[0], answers.tensor("wav")) < 1e-5
    assert model.n_samples(mel.shape[2]) == y.shape[1]


@pytest.mark.real
def test_its_mel_is_the_preset_with_its_bands(answers: Golden) -> None:
    assert official(answers).spec == replace(preset("wavenet_r9y9"), n_mels=20)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_sample_by_sample_is_all_at_once(output: str, kernel: int) -> None:
    # the samples that it drew, taught back to it, must be the ones that its parameters and the draws give
    model, _ = made(output, kernel=kernel)
    mel, noise = audible(model, 9)
    assert model.n_samples(9) > 100  # more than the network looks back
    drawn: list[Tensor] = []
    heard, model.output = model.output, Recorder(model.output, drawn)
    y = model(mel, noise=noise)
    samples = torch.stack(drawn, dim=1)
    model.output = heard
    first = torch.full((1, 1), 127) if output == "classes" else torch.zeros(1, 1)
    parameters = model.teacher_forced(torch.cat([first.to(samples.dtype), samples[:, :-1]], dim=1), mel)
    again = heard.sample(parameters[0].T, tuple(draws[0] for draws in noise))
    assert relative(heard.heard(again), y[0]) < 1e-5
    assert float(y.std()) > 0.01


class Recorder:
    """Pass an output on, keeping what was drawn."""

    def __init__(self, output: Output, drawn: list[Tensor]) -> None:
        self.output, self.drawn = output, drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.output, name)

    def sample(self, parameters: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        self.drawn.append(self.output.sample(parameters, draws))
        return self.drawn[-1]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_checkpoints_of_all_kinds(output: str, upsampler: str) -> None:
    model, config = made(output, upsampler)
    built = family("wavenet").build(Checkpoint(name="wavenet.pth", state=model.state_dict(), config=config))
    assert isinstance(built, WaveNet)
    assert built.output == OUTPUTS[output][3]
    assert built.context == UPSAMPLERS[upsampler][0]
    assert built.spec == SPEC
    mel, noise = audible(model, 7)
    assert torch.equal(built(mel, noise=noise), model(mel, noise=noise))
    assert built.n_samples(7) == (7 - 2 * built.context) * HOP == noise[0].shape[1]


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_a_batch_equals_its_utterances(upsampler: str) -> None:
    assert_padding_is_not_heard(made(upsampler=upsampler)[0], [9, 6, 7])


def test_a_batch_of_classes_equals_its_utterances() -> None:
    assert_padding_is_not_heard(made("classes")[0], [9, 6])


def test_a_wavenet_of_2018() -> None:
    # its running sum of skips, halved in power at every layer, is written out here
    sizes = Sizes(residual=5, gate=8, skip=7, out=9, kernel=3, layers=4, stacks=2, condition_bias=True)
    upsampler = Transposed([4, 6], 3, torch.nn.ReLU)
    model = WaveNet(sizes, Logistic(n_mixtures=3), upsampler, SPEC, Preprocessing()).requires_grad_(False)
    model.load_state_dict(randomised(model))
    state = {
        key.replace("upsample_net.up_layers.", "upsample_conv."): value for key, value in model.state_dict().items()
    }
    config = {"input_type": "raw", "stacks": 2, "upsample_scales": [4, 6], "log_scale_min": -3.0, "hop_size": 24}
    old = Checkpoint(name="2018.pth", state=state, config=config, layout="state_dict", mel=SPEC)
    built = family("wavenet").build(old)
    assert isinstance(built, WaveNet)
    assert built.output == Logistic(n_mixtures=3, log_scale_min=-3.0)

    mel, samples = torch.rand(1, N_MELS, 4), torch.rand(1, 96) * 2 - 1
    condition = model.condition(mel)
    x = model.first_conv(samples[:, None])
    skips = torch.zeros(())
    for i, layer in enumerate(model.conv_layers):
        x, skip = layer(x, condition)
        skips = skip if i == 0 else (skips + skip) * 0.5**0.5
    assert relative(built.teacher_forced(samples, mel), model.last_conv_layers(skips)) < 1e-6
    with pytest.raises(VocoderError, match=r"a WaveNet of 2018 .* framed by lws"):
        family("wavenet").build(replace(old, mel=None))


def test_the_recipe_is_undone() -> None:
    model, _ = made()
    model.recipe = Preprocessing(gain=0.5, emphasised=True)
    recording = np.random.default_rng(0).standard_normal((2, 500)).astype(np.float32)
    learnt = 0.5 * lfilter([1.0, -0.85], [1.0], recording)
    assert torch.allclose(
        model.restored(torch.from_numpy(learnt.astype(np.float32))), torch.from_numpy(recording), atol=1e-5
    )


def test_mels_are_normalised_by_the_recipes_statistics() -> None:
    mean, scale = torch.linspace(-3, -1, N_MELS), torch.linspace(1, 2, N_MELS)
    plain = family("wavenet").build(checkpoint())
    normalising = family("wavenet").build(replace(checkpoint(), stats={"mean": mean, "scale": scale}))
    assert isinstance(plain, WaveNet)
    assert isinstance(normalising, WaveNet)
    mel = torch.rand(1, N_MELS, 8)
    expected = plain.condition((mel - mean[:, None]) / scale[:, None])
    assert torch.equal(normalising.condition(mel), expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": 8}, r"'conv_layers.6.conv.weight' .*8, 5, 3.* is missing"),
        ({"residual_channels": 64}, r"'first_conv.weight' has shape \(5, 1, 1\).* \(64, 1, 1\)"),
        ({"out_channels": 30}, r"'last_conv_layers.3.weight' has shape \(9, 7, 1\).* \(30, 7, 1\)"),
        ({"kernel_size": 2}, r"'conv_layers.0.conv.weight' has shape \(8, 5, 3\).* \(8, 5, 2\)"),
        ({"cin_pad": 1}, r"'upsample_net.conv_in.weight' has shape \(6, 6, 5\).* \(6, 6, 3\)"),
        ({"stacks": 4}, "stacks=4 in the config must divide its 6 layers"),
        ({"hop_size": 256}, r"upsample_scales \[3, 2, 4\] make 24 samples of a frame.* hop_size=256"),
        ({"upsample_params": {"upsample_scales": [3, 8]}}, r"unexpected tensor|has shape"),
        ({"upsample_params": {"mode": "bilinear"}}, "mode 'bilinear' in the config, expected 'nearest'"),
        ({"upsample_params": {"upsample_activation": "Mish"}}, "upsample_activation 'Mish' is none of none, ELU"),
        ({"input_type": "float"}, "input_type 'float' is none of 'raw', 'mulaw', 'mulaw-quantize'"),
        ({"input_type": "mulaw-quantize"}, "9 outputs for quantize_channels=256: must be equal"),
        ({"input_type": "mulaw-quantize", "quantize_channels": 9}, "9 classes, expected at least 128"),
        ({"output_distribution": "Laplace"}, "output_distribution 'Laplace' of 9 outputs"),
        ({"postprocess": "denoise"}, "postprocess 'denoise' is none of"),
    ],
)
def test_a_config_that_is_not_the_weights(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        family("wavenet").build(checkpoint(**config))


@pytest.mark.parametrize("field", ["stacks", "input_type"])
def test_what_the_weights_cannot_say_must_be_given(field: str) -> None:
    config = {key: value for key, value in checkpoint().config.items() if key != field}
    with pytest.raises(VocoderError, match=f"the weights don't say '{field}': give the hyperparameters"):
        family("wavenet").build(replace(checkpoint(), config=config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_speakers.weight": torch.ones(7, 4)}, "of several speakers"),
        ({"conv_layers.0.conv1x1g.weight": torch.ones(8, 4, 1)}, "of several speakers"),
    ],
)
def test_models_of_several_speakers_are_refused(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        family("wavenet").build(replace(checkpoint(), state={**checkpoint().state, **changes}))


def test_a_model_that_reads_no_mel_is_refused() -> None:
    state = {key: value for key, value in checkpoint().state.items() if not key.startswith("upsample_net")}
    with pytest.raises(VocoderError, match="no tensor 'upsample_net"):
        family("wavenet").build(replace(checkpoint(), state=state))


def test_a_mel_must_be_longer_than_its_context() -> None:
    model, _ = made()
    with pytest.raises(VocoderError, match="a mel of 4 frames is all context: 2 at each end"):
        model(torch.rand(1, N_MELS, 4))


def test_draws_must_be_those_of_the_output() -> None:
    model, _ = made()
    mel, noise = audible(model, 6)
    with pytest.raises(VocoderError, match=r"needs draws of shapes \[\(48, 3\), \(48,\)\], got \[\(48, 3\)\]"):
        model(mel, noise=noise[:1])


def test_loaded_it_makes_all_samples_of_a_mel_as_the_stage_does() -> None:
    """It repeats the frames at the ends, which are context to the network, and undoes the recipe."""
    voc = load(checkpoint(postprocess="inv_preemphasis", global_gain_scale=0.5))
    assert isinstance(voc.model, WaveNet)
    n_frames, context = 7, voc.model.context
    assert context > 0
    M = np.random.default_rng(0).uniform(0.0, 1.0, (N_MELS, n_frames)).astype(np.float32)
    y = voc(M, seed=5)
    assert y.shape == (n_frames * HOP,)

    padded = torch.from_numpy(np.pad(M, ((0, 0), (context, context)), mode="edge"))
    noise = voc.model.noise(n_frames + 2 * context, torch.Generator().manual_seed(5))
    made = voc.model(padded[None], noise=[draw[None] for draw in noise])[0].numpy()
    np.testing.assert_allclose(y, lfilter([1.0], [1.0, -0.85], made) / 0.5, rtol=1e-5)
    np.testing.assert_array_equal(voc(M, noise=[draw.numpy() for draw in noise]), y)

    one = item(M, y.size, SPEC.sr)
    (outcome,) = Vocoding(voc=voc).process([one], {"from": Mel(spec=voc.spec)}, Waveform(sr=SPEC.sr))
    seed = int(np.random.SeedSequence((one.seed, 0)).generate_state(1, np.uint64)[0])
    np.testing.assert_array_equal(array(outcome), voc(M, seed=seed))
