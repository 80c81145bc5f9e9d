"""Stages that make waveforms of mels by neural vocoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from melmill.stages.contract import Input, Kind, Mel, OneOf, Processor, Product, StageFiles, TrainedVocoder, Waveform
from melmill.stages.invert.inversion import DEVICES, Device
from melmill.stages.numeric.contract import Difference, differences
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.configuration import EXTRAS, configurations, own_mel, parse
from melmill.stages.vocode.shipped import SHIPPED, located

if TYPE_CHECKING:
    from melmill.stages.vocode.session import Settings

Precision = Literal["float32", "bfloat16", "float16"]
_PRECISIONS = ("float32", "bfloat16", "float16")
# The others repeat steps, whose errors add up and which a compiler would unroll, or are programs of their own.
_ONE_PASS = frozenset({"bigvgan", "hifigan", "melgan", "unfolded", "univnet", "vocos", "waveglow"})


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What a plan knows of a vocoder's files: none of their bytes."""

    digest: str
    name: str
    family: str
    spec: MelSpec
    urls: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Vocoder:
    """A vocoder of any family, told by the names of its tensors.

    Parameters
    ----------
    checkpoint : str or None
        The weights: a path or any URL that fsspec knows, or ``melmill-16k``, which comes with melmill; None where a
        node at the port `trained` makes them.
    config : str or None
        Their configuration; None: what the weights themselves say, then what lies beside them.
    mel : str or None
        Preset of the mel that it needs, where the configuration is wrong about it or silent.
    allow_lossy : bool
        Convert the mels to those that it needs even where something is lost.
    precision : {"float32", "bfloat16", "float16"}
        Of convolutions and products of matrices.
    seed : int
        Combined with each utterance's own, for what a stochastic vocoder draws.
    dtype : {"float32", "int16"}
        What is stored; int16 is ``32768 y`` rounded to even and clipped to [-32768, 32767].
    device : {"cpu", "cuda"}
        Where it is computed; the results are the same but for rounding.
    compile : bool
        Fuse its operations by torch's compiler, once a process; the results are the same but for rounding.
    """

    uses: ClassVar[str] = "vocoder"
    version: ClassVar[int] = 3
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.MEL})),
        "trained": Input(kinds=frozenset({Kind.VOCODER}), optional=True),
    }
    family: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = ()

    checkpoint: str | None = None
    config: str | None = None
    mel: Annotated[str, OneOf(preset_names)] | None = None
    allow_lossy: bool = False
    precision: Precision = "float32"
    seed: int = 0
    dtype: Literal["float32", "int16"] = "float32"
    device: Device = "cpu"
    compile: bool = False
    _known: _Known | None = field(default=None, init=False)

    def __init_subclass__(cls, *, family: str | None = None) -> None:
        """Make a stage of one family, which is called as its checkpoints are."""
        super().__init_subclass__()
        if family is not None:
            cls.uses = cls.family = family

    def __post_init__(self) -> None:
        """Check the parameters; the files check theirs when they are read."""
        choices = {"device": DEVICES, "dtype": ("float32", "int16"), "precision": _PRECISIONS}
        for name, words in choices.items():
            if getattr(self, name) not in words:
                raise ParameterError(name, f"must be one of {', '.join(words)}, got {getattr(self, name)!r}")
        if self.seed < 0:
            raise ParameterError("seed", f"must not be negative, got {self.seed!r}")
        if self.mel is not None:
            preset(self.mel)

    @property
    def digest(self) -> str:
        """SHA-256 of the files; empty before they were read."""
        return "" if self._known is None else self._known.digest

    @property
    def known(self) -> _Known:
        """What is known of the files; raise ContractError before they were read."""
        if self._known is None:
            raise ContractError(f"the files of {self.checkpoint!r} were not read: use what `prepared` returns")
        return self._known

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return where the weights and what belongs to them may lie; see `FileStage`."""
        if self._known is not None:
            return {role: (url,) for role, url in self._known.urls.items()}
        if self.checkpoint is None:
            raise ParameterError(
                "checkpoint", "is missing: name the file of the weights, or the node that trains them (trained: NODE)"
            )
        weights = located(self.checkpoint)
        folder, slash, name = weights.rpartition("/")
        found = {role: [folder + slash + other for other in names] for role, names in EXTRAS.items()}
        if self.config is not None:
            return {"weights": (weights,), "config": (self.config,), **found}
        beside = [folder + slash + other for other in configurations(name)]
        return {"weights": (weights,), "beside": beside, **found}

    def prepared(self, files: StageFiles, digest: str) -> Vocoder:
        """Return the stage with what it needs to know of its files.

        Raises
        ------
        VocoderError
            A file is missing or can't be read, or they don't fit together.
        """
        wanted = {"weights": self.checkpoint} | ({} if self.config is None else {"config": self.config})
        for role, url in wanted.items():
            if role not in files:
                raise VocoderError(
                    f"{url!r} does not exist or is a folder: name the file of the {role}, or one that comes with "
                    f"melmill ({', '.join(SHIPPED)})"
                )
        name, family, spec = self._shipped(files) or self._loaded(files)
        urls = {role: file.url for role, file in files.items()}
        return self._knowing(_Known(digest=digest, name=name, family=family, spec=spec, urls=urls))

    def _shipped(self, files: StageFiles) -> tuple[str, str, MelSpec] | None:
        """Return name, family and mel of a vocoder that comes along, without torch; None where it must be loaded."""
        family = SHIPPED.get(self.checkpoint or "")
        if family is None or self.config is not None or self.mel is not None or self.family not in (None, family):
            return None
        beside = files.get("beside")
        spec = None if beside is None else own_mel(beside.name, parse(beside.name, beside.data))
        return None if spec is None else (files["weights"].name, family, spec)

    def _loaded(self, files: StageFiles) -> tuple[str, str, MelSpec]:
        from melmill.stages.vocode.session import load_files  # here, as it imports torch

        voc = load_files(files, self._settings())
        return voc.name, voc.family, voc.spec

    def trained(self, product: TrainedVocoder, name: str, digest: str) -> Vocoder:
        """Return the stage that computes with what the node `name` trains; see `FileStage`.

        Raises
        ------
        ParameterError, ContractError
            It names files too, or it is of another family.
        """
        for field_name in ("checkpoint", "config", "mel"):
            if getattr(self, field_name) is not None:
                raise ParameterError(field_name, f"and trained exclude each other: {name!r} trains the weights")
        if self.family not in (None, product.family):
            raise ContractError(
                f"{name!r} trains a {product.family}, not a {self.family}: write uses: {product.family}, or vocoder"
            )
        return self._knowing(_Known(digest=digest, name=name, family=product.family, spec=product.spec, urls={}))

    def _knowing(self, known: _Known) -> Vocoder:
        for name, plain in (("precision", "float32"), ("compile", False)):
            if getattr(self, name) != plain and known.family not in _ONE_PASS:
                raise ParameterError(
                    name,
                    f"of a {known.family} must be {plain!r}, got {getattr(self, name)!r}: others are for "
                    f"{', '.join(sorted(_ONE_PASS))}",
                )
        stage = copy(self)
        object.__setattr__(stage, "_known", known)
        return stage

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the result: the files by their digest, the mel that is needed, the parameters."""
        return {
            "files": self.known.digest,
            "family": self.known.family,
            "mel": self.known.spec.as_dict(),
            "precision": self.precision,
            "seed": self.seed,
            "dtype": self.dtype,
            **{name: getattr(self, name) for name in self.options},
        }

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Return waveforms; raise ContractError where the mel is not what is needed and can't be made it."""
        made = inputs["from"][0]
        if not isinstance(made, Mel):
            raise ContractError(f"'from' must be a mel, got {made!r}")
        found = differences(made.spec, self.known.spec)
        bridged = ("lossless", "lossy") if self.allow_lossy else ("lossless",)
        wrong = [difference for difference in found if difference.conversion not in bridged]
        if wrong:
            raise ContractError(self._explained(wrong))
        conversions = tuple((difference.field, difference.conversion) for difference in found)
        return Waveform(sr=self.known.spec.sr, dtype=self.dtype, mel=made.spec, conversions=conversions)

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what computes in this process; see `FileStage`.

        Raises
        ------
        DeviceMissing, CompilerFailed
            This process lacks the device, or what compiling needs.
        """
        from melmill.stages.vocode.session import kept  # here, as they import torch
        from melmill.stages.vocode.vocoding import Vocoding

        return Vocoding(
            voc=kept(self.digest, self._settings(self.device, self.precision if self.compile else None), read),
            seed=self.seed,
            dtype=self.dtype,
            precision=self.precision,
            allow_lossy=self.allow_lossy,
            batched=self.device != "cpu",
        )

    def _settings(self, device: str = "cpu", compiled: Precision | None = None) -> Settings:
        from melmill.stages.vocode.session import Settings

        # A training says in its product what its files need, whatever their layout has words for.
        trained = self.known.spec if self.checkpoint is None else None
        return Settings(
            family=self.family,
            mel=trained if self.mel is None else preset(self.mel),
            device=device,
            options=tuple((name, getattr(self, name)) for name in self.options),
            compiled=compiled,
        )

    def _explained(self, wrong: Sequence[Difference]) -> str:
        """Say in one line which fields differ and what to do."""
        needed = self.known.spec
        fields = "; ".join(f"{d.field} is {d.a!r}, needed {d.b!r} ({d.fix})" for d in wrong)
        same = next((name for name in preset_names() if not differences(preset(name), needed)), None)
        fix = "" if same is None else f". A mel that fits: {{uses: extract, preset: {same}}}"
        lossy = all(difference.conversion == "lossy" for difference in wrong)
        return f"{self.known.name} needs another mel: {fields}{fix}" + (", or set allow_lossy: true" if lossy else "")


class HifiGan(Vocoder, family="hifigan"):
    """HiFi-GAN (Kong et al. 2020)."""


class BigVgan(Vocoder, family="bigvgan"):
    """BigVGAN (Lee et al. 2023)."""


class Vocos(Vocoder, family="vocos"):
    """Vocos (Siuzdak 2024)."""


class MelGan(Vocoder, family="melgan"):
    """MelGAN (Kumar et al. 2019)."""


class UnivNet(Vocoder, family="univnet"):
    """UnivNet (Jang et al. 2021)."""


class Unfolded(Vocoder, family="unfolded"):
    """Learned steps from a PGHI start, as `train_vocoder` makes them."""


class WaveNet(Vocoder, family="wavenet"):
    """WaveNet (van den Oord et al. 2016)."""


class Exported(Vocoder, family="exported"):
    """A program: TorchScript, a torch.export archive or ONNX. It is code: name only those that you trust."""


@dataclass(frozen=True, kw_only=True)
class WaveGlow(Vocoder, family="waveglow"):
    """WaveGlow (Prenger et al. 2019).

    Parameters
    ----------
    sigma : float or None
        Standard deviation of the noise; None: what its configuration says.
    """

    options: ClassVar[tuple[str, ...]] = ("sigma",)
    sigma: float | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.sigma is not None and self.sigma < 0:
            raise ParameterError("sigma", f"must not be negative, got {self.sigma!r}")


@dataclass(frozen=True, kw_only=True)
class _Diffusion(Vocoder):
    """A diffusion vocoder.

    Parameters
    ----------
    betas : tuple of float or None
        Noise variance of each step, the cleanest first; None: what its files say.
    correction : bool
        Griffin-Lim between the first steps (Liu et al. 2024).
    """

    options: ClassVar[tuple[str, ...]] = ("betas", "correction")
    betas: tuple[float, ...] | None = None
    correction: bool = False


class WaveGrad(_Diffusion, family="wavegrad"):
    """WaveGrad (Chen et al. 2021)."""


class DiffWave(_Diffusion, family="diffwave"):
    """DiffWave (Kong et al. 2021)."""
