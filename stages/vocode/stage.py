"""Stages that turn mels into waveforms by neural vocoders.

`vocoder` takes any family, and each family has a stage of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast, get_type_hints

from melmill.stages.contract import (
    Input,
    Kind,
    Mel,
    OneOf,
    Processor,
    Product,
    StageFiles,
    Trained,
    TrainedVocoder,
    Waveform,
)
from melmill.stages.extract.transcoding import VERSION as TRANSCODE_VERSION
from melmill.stages.extract.transcoding import route
from melmill.stages.invert.inversion import DEVICES, Device
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.contract import Difference, differences
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Family
from melmill.stages.vocode.files.companions import CONFIG, FOUND_CONFIG, WEIGHTS, candidates, parse, stated_mel
from melmill.stages.vocode.registry import family as find_family
from melmill.stages.vocode.registry import family_names
from melmill.stages.vocode.shipped import SHIPPED, located

if TYPE_CHECKING:
    from melmill.stages.vocode.cache import Settings

Precision = Literal["float32", "bfloat16", "float16"]
_PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class KnownFiles:
    """What a plan knows of a vocoder's files, without their bytes.

    That is their digest, and what follows from them.
    """

    digest: str
    name: str
    family: str
    spec: MelSpec
    urls: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Vocode:
    """Turn mels into waveforms by a vocoder of any family, recognised by the names of its tensors.

    Parameters
    ----------
    checkpoint : str or None
        The weights: a path or any URL that fsspec knows, or ``melmill-16k``, which comes with
        melmill. None: a node at the port `trained` makes them.
    config : str or None
        Their configuration; None: what the weights themselves say, then what lies beside them.
    mel : str or None
        Preset of the mel that the vocoder needs, where the configuration is wrong about it or
        silent.
    allow_lossy : bool
        Convert the mels to those that it needs even where something is lost.
    transcode : {None, "auto"}
        ``"auto"``: where a conversion would lose something, make the mel that it needs by a
        magnitude or a waveform, as the stage `transcode` does, in place of refusing the mel.
    precision : {"float32", "bfloat16", "float16"}
        Precision of convolutions and matrix products.
    seed : int
        Combined with each utterance's own, for what a stochastic vocoder draws.
    dtype : {"float32", "int16"}
        Type that is stored; int16 is ``32768 y`` rounded to even and clipped to [-32768, 32767].
    device : {"cpu", "cuda"}
        Where it is computed. Results differ by rounding alone.
    compile : bool
        Let torch's compiler fuse its operations, once a process. Results differ by rounding alone.
    """

    uses: ClassVar[str] = "vocoder"
    version: ClassVar[int] = 3
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.MEL})),
        "trained": Input(kinds=frozenset({Kind.VOCODER}), optional=True),
    }
    # None: any.
    family: ClassVar[Family | None] = None

    checkpoint: str | None = field(default=None, metadata={"place": True})
    config: str | None = field(default=None, metadata={"place": True})
    mel: Annotated[str, OneOf(preset_names)] | None = None
    allow_lossy: bool = False
    transcode: Literal["auto"] | None = None
    precision: Precision = "float32"
    seed: int = 0
    dtype: Literal["float32", "int16"] = "float32"
    device: Device = "cpu"
    compile: bool = False
    _known: KnownFiles | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check the parameters; the files check theirs when they are read."""
        choices = {"device": DEVICES, "dtype": ("float32", "int16"), "precision": _PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ParameterError(name, f"must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        check_int("seed", self.seed, at_least=0)
        if self.transcode not in (None, "auto"):
            raise ParameterError("transcode", f"must be 'auto' or null, got {self.transcode!r}")
        if self.transcode is not None and self.allow_lossy:
            raise ParameterError("transcode", "excludes allow_lossy: leave one out")
        if self.mel is not None:
            preset(self.mel)
        self._family_options()

    def __reduce__(self) -> tuple[Callable[[str, Mapping[str, object]], Vocode], tuple[str, Mapping[str, object]]]:
        """Pickle by the name of the stage: each process makes the class of a family for itself."""
        return _unpickled, (self.uses, vars(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the files; empty before they were read."""
        return "" if self._known is None else self._known.digest

    @property
    def known(self) -> KnownFiles:
        """What is known of the files; raise ContractError before they were read."""
        if self._known is None:
            raise ContractError(f"the files of {self.checkpoint!r} were not read: use what `prepared` returns")
        return self._known

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return where the weights and their companion files may be; see `FileStage`."""
        if self._known is not None:
            return {role: (url,) for role, url in self._known.urls.items()}
        if self.checkpoint is None:
            raise ParameterError(
                "checkpoint", "is missing: name the file of the weights, or the node that trains them (trained: NODE)"
            )
        return candidates(located(self.checkpoint), self.config)

    def prepared(self, files: StageFiles, digest: str) -> Vocode:
        """Return the stage with what it needs to know of its files.

        Raises
        ------
        VocoderError
            A file is missing or can't be read, or the files don't fit together.
        """
        for role, url in {WEIGHTS: self.checkpoint, CONFIG: self.config}.items():
            if url is not None and role not in files:
                raise VocoderError(
                    f"{url!r} does not exist or is a folder: name the file of the {role}, or one that comes with "
                    f"melmill ({', '.join(SHIPPED)})"
                )
        name, family, spec = self._shipped(files) or self._loaded(files)
        urls = {role: file.url for role, file in files.items()}
        return self._knowing(KnownFiles(digest=digest, name=name, family=family, spec=spec, urls=urls))

    def _shipped(self, files: StageFiles) -> tuple[str, str, MelSpec] | None:
        """Return name, family and mel of a vocoder that comes with melmill, without torch.

        None: it must be loaded.
        """
        family = SHIPPED.get(self.checkpoint or "")
        if family is None or self.config is not None or self.mel is not None or self._family_name not in (None, family):
            return None
        config = files.get(FOUND_CONFIG)
        spec = None if config is None else stated_mel(config.name, parse(config.name, config.data))
        return None if spec is None else (files[WEIGHTS].name, family, spec)

    def _loaded(self, files: StageFiles) -> tuple[str, str, MelSpec]:
        from melmill.stages.vocode.cache import load_files  # here, as it imports torch

        voc = load_files(files, self._settings())
        return voc.name, voc.family, voc.spec

    def trained(self, product: Trained, name: str, digest: str) -> Vocode:
        """Return the stage that computes with what the node `name` trains; see `FileStage`.

        Raises
        ------
        ParameterError, ContractError
            The stage names files too, or it is of another family.
        """
        for field_name in ("checkpoint", "config", "mel"):
            if getattr(self, field_name) is not None:
                raise ParameterError(field_name, f"and trained exclude each other: {name!r} trains the weights")
        if not isinstance(product, TrainedVocoder):
            raise ContractError(f"{name!r} trains {product.called}, not a vocoder")
        if self._family_name not in (None, product.family):
            raise ContractError(
                f"{name!r} trains a {product.family}, not a {self._family_name}: write uses: {product.family}, or "
                "vocoder"
            )
        return self._knowing(KnownFiles(digest=digest, name=name, family=product.family, spec=product.spec, urls={}))

    def _knowing(self, known: KnownFiles) -> Vocode:
        for name, plain in (("precision", "float32"), ("compile", False)):
            if getattr(self, name) != plain and not find_family(known.family).one_pass:
                others = ", ".join(other for other in family_names() if find_family(other).one_pass)
                raise ParameterError(
                    name,
                    f"of a {known.family} must be {plain!r}, got {getattr(self, name)!r}: others are for {others}",
                )
        stage = copy(self)
        object.__setattr__(stage, "_known", known)
        return stage

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the result: digest of the files, mel that is needed, parameters."""
        options = self._family_options()
        return {
            "files": self.known.digest,
            "family": self.known.family,
            "mel": self.known.spec.as_dict(),
            "precision": self.precision,
            "seed": self.seed,
            "dtype": self.dtype,
            **({} if self.transcode is None else {"transcode": [self.transcode, TRANSCODE_VERSION]}),
            **({} if options is None else vars(options)),
        }

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Return waveforms.

        Raises
        ------
        ContractError
            The mel is not the one needed and can't be converted.
        """
        made = inputs["from"][0]
        if not isinstance(made, Mel):
            raise ContractError(f"'from' must be a mel, got {made!r}")
        differing = differences(made.spec, self.known.spec)
        allowed = ("lossless", "lossy") if self.allow_lossy else ("lossless",)
        wrong = [difference for difference in differing if difference.conversion not in allowed]
        if wrong and self.transcode is None:
            raise ContractError(self._explained(wrong))
        conversions: tuple[tuple[str, str], ...] = tuple((d.field, d.conversion) for d in differing)
        if wrong:
            conversions = (("transcode", route(made.spec, self.known.spec)),)
        return Waveform(sr=self.known.spec.sr, dtype=self.dtype, mel=made.spec, conversions=conversions)

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what computes in this process; see `FileStage`.

        Raises
        ------
        DeviceMissing, CompilerFailed
            This process lacks the device, or what compiling needs.
        """
        from melmill.stages.vocode.cache import cached  # here, as they import torch
        from melmill.stages.vocode.vocoding import Vocoding

        return Vocoding(
            voc=cached(self.digest, self._settings(self.device, self.precision if self.compile else None), read),
            seed=self.seed,
            dtype=self.dtype,
            precision=self.precision,
            allow_lossy=self.allow_lossy,
            transcode=self.transcode is not None,
            batched=self.device != "cpu",
        )

    def _settings(self, device: str = "cpu", compiled: Precision | None = None) -> Settings:
        from melmill.stages.vocode.cache import Settings

        # A training says in its product which mel its files need, whether their layout has words
        # for it or not.
        trained = self.known.spec if self.checkpoint is None else None
        return Settings(
            family=self._family_name,
            mel=trained if self.mel is None else preset(self.mel),
            device=device,
            options=self._family_options(),
            compiled=compiled,
        )

    @property
    def _family_name(self) -> str | None:
        return None if self.family is None else self.family.name

    def _family_options(self) -> Hashable | None:
        """Return the options of the family, checked; None where it has none."""
        if self.family is None or self.family.options is None:
            return None
        given = {option.name: getattr(self, option.name) for option in fields(self.family.options)}
        return cast("Hashable", self.family.options(**given))

    def _explained(self, wrong: Sequence[Difference]) -> str:
        """Say in one line which fields differ and what to do."""
        needed = self.known.spec
        differing = "; ".join(f"{d.field} is {d.a!r}, needed {d.b!r} ({d.fix})" for d in wrong)
        same = next((name for name in preset_names() if not differences(preset(name), needed)), None)
        fix = "" if same is None else f". A mel that fits: {{uses: extract, preset: {same}}}"
        lossy = all(difference.conversion == "lossy" for difference in wrong)
        return f"{self.known.name} needs another mel: {differing}{fix}" + (
            ", or set allow_lossy: true, or transcode: auto" if lossy else ", or set transcode: auto"
        )


@cache
def stage_of(family: str) -> type[Vocode]:
    """Return the stage of one family.

    It is called like the family, and has the fields of its options too.

    Raises
    ------
    VocoderError
        No family has that name.
    """
    described = find_family(family)
    hints = {} if described.options is None else get_type_hints(described.options, include_extras=True)
    options = [] if described.options is None else fields(described.options)
    for option in options:
        if option.default is MISSING:
            raise VocoderError(f"the family {family!r}: its option {option.name!r} must have a default")
    about = "" if described.options is None else inspect.cleandoc(described.options.__doc__ or "").partition("\n\n")[2]
    made = make_dataclass(
        f"{family.capitalize()}",
        [(option.name, hints[option.name], field(default=option.default)) for option in options],
        bases=(Vocode,),
        namespace={"uses": family, "family": described, "__doc__": f"{described.about}\n\n{about}".rstrip()},
        frozen=True,
        kw_only=True,
    )
    return cast("type[Vocode]", made)


def _unpickled(uses: str, state: Mapping[str, object]) -> Vocode:
    stage = object.__new__(Vocode if uses == Vocode.uses else stage_of(uses))
    vars(stage).update(state)
    return stage
