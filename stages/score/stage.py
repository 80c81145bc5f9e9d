"""Scores of reconstructions: those of two signals, and those of a corpus by the stage `score`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melmill.stages.contract import (
    Input,
    Item,
    Kind,
    OneOf,
    Outcome,
    Processor,
    Product,
    Scalar,
    Scores,
    StageFiles,
    Trained,
    Waveform,
    as_float,
    each,
)
from melmill.stages.numeric.checks import (
    MAX_SR,
    as_array,
    check_bool,
    check_full_scale,
    check_int,
    check_texts,
)
from melmill.stages.numeric.errors import ContractError, ParameterError, StageError
from melmill.stages.numeric.mel import check_waveform
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.score.contract import Pairing
from melmill.stages.score.metric import METRICS, POOLED, Metric, metric
from melmill.stages.score.metrics.words import BY_RECOGNISER
from melmill.stages.score.pair import Pair, within_a_hop
from melmill.stages.score.pairing import Side, joined, named, pairs_digest
from melmill.stages.score.predictor import Predictor
from melmill.stages.score.recogniser import Hear, Recogniser
from melmill.stages.score.status import Measured, Status
from melmill.storage.utterance import Utterance

Lengths = Literal["same", "cut"]

DEFAULT_METRICS = ("pesq_wb", "estoi", "scm", "sc")
"""Metrics that are measured unless others are named."""

_ASR = "asr"  # role of the file of a recogniser, beside those of predictors


def score(
    y: ArrayLike | None,
    y_hat: ArrayLike,
    sr: int,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    spec: MelSpec | None = None,
    text: str = "",
) -> dict[str, Measured]:
    """Return each metric's measurement of a reconstruction.

    Parameters
    ----------
    y, y_hat : array_like, shape (n_samples,)
        Recording and reconstruction: floats with full scale 1, or int16 PCM. Metrics of the
        reconstruction alone need no recording, and y may be None.
    sr : int
        Rate of both, Hz.
    metrics : sequence of str
        Names, see `melmill.stages.score.metric`.
    spec : MelSpec or None
        STFT and mel of the spectral metrics; None: that of the preset ``paper`` at `sr`.
    text : str
        Words that the recording says, for word errors.

    Returns
    -------
    dict of str to Measured
        By name of the metric; `Measured.value` is NaN unless `Measured.status` is ok.

    Raises
    ------
    ParameterError
        There is no such metric, or a parameter has a wrong type or lies outside its range.
    StageError
        A signal is not one channel of float or int16 samples.
    Unusable
        `y` holds floats that lie so far outside [-1, 1] that they must be of another scale.
    """
    check_int("sr", sr, at_least=1, at_most=MAX_SR)
    check_texts("metrics", metrics, "pesq_wb")
    chosen = [metric(name) for name in metrics]
    for one in chosen:
        if one.needs == "set":
            raise ParameterError("metrics", f"names {one.name!r}, which has one value for a whole set: score folders")
    reference, estimate = None if y is None else _signal("y", y), _signal("y_hat", y_hat)
    check_full_scale(estimate if reference is None else reference)
    pair = Pair(
        reference=None if reference is None else as_float(reference), reference_sr=sr, estimate=as_float(estimate),
        estimate_sr=sr, spec=spec or default_spec(sr), text=text,
    )  # fmt: skip
    return {one.name: one.measure(pair) for one in chosen}


def _signal(name: str, y: ArrayLike) -> NDArray[np.float32 | np.float64 | np.int16]:
    """Return an argument of `score` as an array; raise StageError unless it is one channel."""
    samples = as_array(name, y)
    try:
        check_waveform(samples)
    except StageError as error:
        raise StageError(f"{name}: {error}") from error
    return samples


def _misplaced(name: str, *, of_sets: bool) -> str:
    """Return what is wrong with a metric that a stage does not take."""
    if of_sets:
        return f"names {name!r}, which has a value for each recording: give it a node of the stage score"
    if name.endswith(POOLED):
        return f"names {name!r}: reports have it wherever {name.removesuffix(POOLED)!r} is measured, so name that"
    return f"names {name!r}, which has one value for a whole set: give it a node of the stage set_score"


def default_spec(sr: int) -> MelSpec:
    """Return the mel of the spectral metrics where the signals at `sr` Hz were made from none."""
    return replace(preset("paper"), sr=sr)


def _metric_names() -> list[str]:
    """Return the names of all metrics, and those of their columns, which stand for them."""
    return list(dict.fromkeys([*METRICS, *(known.column for known in METRICS.values())]))


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Hold what stages that measure have in common: metrics, the mel that they use, and programs.

    Parameters
    ----------
    metrics : tuple of str
        Names of metrics and of predictors, in the order of the columns.
    preset : str or None
        Mel whose STFT and filter bank the spectral metrics use, and whose rate `si_sdr` uses. None:
        the mel that the reconstruction was made from, or ``paper`` at the recording's rate. Name
        one to compare reconstructions from several mels.
    predictors : mapping of str to Predictor
        Programs of one's own that judge a reconstruction, by the names that `metrics` uses.
    asr : Recogniser or None
        What hears the words that `wer` and `cer` count. None: pocketsphinx.
    """

    uses: ClassVar[str]
    inputs: ClassVar[Mapping[str, Input]]
    of_sets: ClassVar[bool] = False
    """Whether it takes metrics that have one value for a whole set, and only these."""

    metrics: tuple[Annotated[str, OneOf(_metric_names, others=True)], ...] = DEFAULT_METRICS
    preset: Annotated[str, OneOf(preset_names)] | None = None
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    asr: Recogniser | None = None
    _programs_digest: str = field(default="", init=False)
    _programs: tuple[tuple[str, str], ...] = field(default=(), init=False)  # names and URLs of what was read

    def __post_init__(self) -> None:
        """Check the fields."""
        self._check_predictors()
        for one in self._chosen:
            if (one.needs == "set") != self.of_sets:
                raise ParameterError("metrics", _misplaced(one.name, of_sets=self.of_sets))
        if self.asr is not None and not any(name in self.metrics for name in BY_RECOGNISER):
            raise ParameterError("asr", "has no use: add wer or cer to metrics, or leave it out")
        names = [chosen.name for chosen in self._chosen]
        if not names:
            raise ParameterError("metrics", "is empty: name at least one, say [pesq_wb, estoi, scm, sc]")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ParameterError("metrics", f"names {twice[0]!r} twice: leave one out")
        self._preset_spec  # noqa: B018 - the name is checked by looking it up

    def _check_predictors(self) -> None:
        for name in self.predictors:
            if name in _metric_names():
                raise ParameterError("predictors", f"calls a program {name!r}, which is a metric: give it another name")
            if name == _ASR:
                raise ParameterError("predictors", f"calls a program {name!r}, which is a field: give it another name")
            if name not in self.metrics:
                raise ParameterError("predictors", f"{name!r} has no use: name it in metrics, or leave it out")

    def identity(self) -> Mapping[str, Any]:
        """Return the metrics, the mel that they use, and what decides which values they have.

        Scores made without a package that a metric needs are not those made with it.
        """
        spec = self._preset_spec
        identity: dict[str, Any] = {
            "metrics": [chosen.name for chosen in self._chosen],
            "spec": None if spec is None else spec.as_dict(),
        }
        identity.update({f"{one.package}_installed": one.is_installed for one in self._chosen if one.package})
        weights = {one.name: one.digests for one in self._chosen if one.weights}
        if weights:
            identity["weights"] = weights
        # Absent where all are 1, so that the keys of earlier stores stay.
        versions = {one.name: one.version for one in self._chosen if one.version != 1}
        if versions:
            identity["versions"] = versions
        if self.predictors:
            identity["predictors"] = {name: [one.sr, one.output] for name, one in self.predictors.items()}
        if self.asr is not None:
            identity["asr"] = self.asr.identity()
        if self._files:
            identity["programs"] = self.digest
        return identity

    @property
    def digest(self) -> str:
        """SHA-256 of the predictors' programs; empty before they are read."""
        return self._programs_digest

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return where the predictors' programs are; see `FileStage`."""
        if self._programs:
            return {name: (url,) for name, url in self._programs}
        return {name: (url,) for name, url in self._files.items()}

    @property
    def _files(self) -> Mapping[str, str]:
        asr = {} if self.asr is None or self.asr.file is None else {_ASR: self.asr.file}
        return {**{name: one.file for name, one in self.predictors.items()}, **asr}

    def prepared(self, files: StageFiles, digest: str) -> Self:
        """Return the stage that knows its predictors' programs.

        Raises
        ------
        StageError
            A program is missing, can't be read or gives no such output.
        """
        for name, url in self._files.items():
            if name not in files:
                where = _ASR if name == _ASR else "predictors"
                raise ParameterError(
                    where, f"{name}: {url!r} does not exist or is a folder: name the file of the program"
                )
        self._check_programs(files)
        stage = copy(self)
        object.__setattr__(stage, "_programs_digest", digest)
        object.__setattr__(stage, "_programs", tuple((name, file.url) for name, file in files.items()))
        return stage

    def _check_programs(self, files: StageFiles) -> None:
        for name, one in self.predictors.items():
            one.checked(name, files[name])
        if self.asr is not None and _ASR in files:
            self.asr.checked(files[_ASR])

    def trained(self, product: Trained, name: str, digest: str) -> Self:
        """Raise ContractError: nothing that is trained here judges waveforms."""
        raise ContractError(f"{self.uses} can't compute with {name!r}, which trains {product.called}")

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what scores in this process; see `FileStage`."""
        files = read()
        programs = {name: one.opened(name, files[name]) for name, one in self.predictors.items()}
        if self.asr is not None and _ASR in files:
            hear = self.asr.opened(files[_ASR])
            programs |= {name: self._heard_by(metric(name), hear) for name in BY_RECOGNISER}
        return _Opened(self, programs)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return an outcome per utterance."""
        return self.measured(items, inputs, self._chosen)

    def measured(
        self, items: Sequence[Item], inputs: Mapping[str, Product], metrics: Sequence[Metric]
    ) -> Sequence[Outcome]:
        """Return an outcome per utterance, with metrics whose programs are at hand."""
        raise NotImplementedError

    @property
    def _chosen(self) -> tuple[Metric, ...]:
        return tuple(self._named(name) for name in self.metrics)

    def _named(self, name: str) -> Metric:
        if name in self.predictors:
            return self.predictors[name].described(name)
        known = metric(name)
        if self.asr is not None and known.name in BY_RECOGNISER:
            return self._heard_by(known, self.asr.heard)
        return known

    def _heard_by(self, known: Metric, hear: Hear) -> Metric:
        """Return a metric of words that hears by a recogniser of one's own."""
        assert self.asr is not None
        compute = partial(BY_RECOGNISER[known.name], hear=hear)
        return replace(known, package="", weights=(), lowest_sr=self.asr.sr, compute=compute)

    @property
    def _preset_spec(self) -> MelSpec | None:
        return None if self.preset is None else preset(self.preset)


@dataclass(frozen=True, kw_only=True)
class Comparing(Measuring):
    """Hold what stages have in common that compare waveforms with recordings.

    Parameters
    ----------
    pairs : str or None
        Table of estimates and references, where `from` is of another corpus than `against`; a path
        or URL. None: pairs have the same ids, or paths that end alike.
    metrics, preset, predictors, asr
        See `Measuring`.
    """

    pairs: str | None = field(default=None, metadata={"place": True})
    _pairs_digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.pairs == "":
            raise ParameterError("pairs", "must be the path of a table, or be left out, got ''")

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the values; the table of pairs counts by its content."""
        return {**super().identity(), **({"pairs": self._pairs_digest} if self._pairs_digest else {})}

    def with_pairs(self, data: bytes) -> Self:
        """Return the stage that knows its table of pairs; see `PairingStage`."""
        stage = copy(self)
        object.__setattr__(stage, "_pairs_digest", pairs_digest(data))
        return stage

    def pair(
        self,
        utterances: Sequence[Utterance],
        others: Sequence[Utterance],
        inputs: Mapping[str, Product],
        table: bytes | None,
    ) -> Pairing:
        """Return which estimate belongs to which recording, with notes on what has no partner."""
        estimate, reference = cast("Waveform", inputs["from"]), cast("Waveform", inputs["against"])
        references, estimates = Side(reference.node, utterances), Side(estimate.node, others)
        found, notes = joined(references, estimates, table)
        return Pairing(partners=found, notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class Score(Comparing):
    """Measure every reconstruction with every metric.

    Each value has a status beside it; a measurement that failed has a status and no value.

    Parameters
    ----------
    lengths : {"same", "cut"}
        What happens where lengths differ by more than a hop: the status is ``error``, or both are
        cut to the shorter.
    trust : bool
        Damage recordings in known steps too, and report which metric hears it: a node of the stage
        `trust` beside this one, with its metrics. It changes no score.
    embedding : str
        Of metrics of whole sets, ``fad`` and ``kad``: ``log_mel``, ``speaker``, or the name of one of
        `predictors`. They are of a node of the stage `set_score` beside this one.
    metrics, preset, predictors, asr, pairs
        See `Measuring` and `Comparing`.
    """

    uses: ClassVar[str] = "score"
    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM}), absent_ok=True, other_corpus=True),
        "against": Input(kinds=frozenset({Kind.WAVEFORM}), optional=True),
    }

    lengths: Lengths = "same"
    trust: bool = False
    embedding: str = "log_mel"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.lengths not in get_args(Lengths):
            raise ParameterError("lengths", f"must be one of {', '.join(get_args(Lengths))}, got {self.lengths!r}")
        check_bool("trust", self.trust)

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the values. `trust` and `embedding` are not among it: they are of other nodes."""
        identity = {
            **super().identity(),
            "pesq_timeout_s": 60.0,  # these two, so that the keys of earlier stores stay
            "pesq_installed": False,
        }
        if self.lengths != "same":
            identity["lengths"] = self.lengths
        return identity

    def pair(
        self,
        utterances: Sequence[Utterance],
        others: Sequence[Utterance],
        inputs: Mapping[str, Product],
        table: bytes | None,
    ) -> Pairing:
        """Return which estimate belongs to which recording, with notes on what differs."""
        estimate, reference = cast("Waveform", inputs["from"]), cast("Waveform", inputs["against"])
        paired = super().pair(utterances, others, inputs, table)
        found, notes = paired.partners, list(paired.notes)
        spec = self._spec(estimate, reference)
        if estimate.sr != reference.sr:
            notes.append(
                f"{estimate.node!r} has {estimate.sr} Hz and {reference.node!r} {reference.sr} Hz: spectral metrics "
                f"resample to {spec.sr} Hz, and others to a rate of their own"
            )
        made = {one.utterance_id: one for one in others}
        both = [(one, made[found[one.utterance_id]]) for one in utterances if one.utterance_id in found]
        return Pairing(partners=found, notes=(*notes, *self._lengths_notes(both, spec)))

    def _lengths_notes(self, both: Sequence[tuple[Utterance, Utterance]], spec: MelSpec) -> Iterator[str]:
        """Yield a line on pairs that differ by a hop at most, and one on those that differ more."""
        near, far = 0, []
        for reference, estimate in both:
            # Without a length the file can't be read, and will be in quarantine.
            if reference.n_samples and estimate.n_samples and reference.duration_s != estimate.duration_s:
                lengths = reference.n_samples, reference.sr, estimate.n_samples, estimate.sr
                if within_a_hop(*lengths, spec):
                    near += 1
                else:
                    name = reference.utterance_id
                    far.append(f"{name} ({estimate.duration_s:.3f} s for {reference.duration_s:.3f} s)")
        if near:
            yield f"{near:,} of {len(both):,} pairs differ in length by a hop at most, and are cut to the shorter"
        if far and self.lengths == "cut":
            yield f"{len(far):,} of {len(both):,} pairs differ in length by more, and are cut too: {named(far)}"
        elif far:
            yield (
                f"{len(far):,} of {len(both):,} pairs differ in length by more than a hop, and get the status error: "
                f"{named(far)}; lengths: cut compares what both have"
            )

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Scores:
        """Describe the table of the node at the port `from`.

        Raises
        ------
        ContractError
            There are no recordings, and a metric compares with them.
        """
        comparing = [chosen.name for chosen in self._chosen if chosen.compares]
        if "against" not in inputs and comparing:
            alone = ", ".join(known.name for known in METRICS.values() if not known.compares)
            raise ContractError(
                f"metrics {', '.join(comparing)} compare with recordings, and no input 'against' names them: add the "
                f"node of the recordings, or choose metrics that need none ({alone})"
            )
        return Scores(metrics=tuple(chosen.column for chosen in self._chosen), scored=inputs["from"][0].node)

    def measured(
        self, items: Sequence[Item], inputs: Mapping[str, Product], metrics: Sequence[Metric]
    ) -> Sequence[Outcome]:
        """Return one row per utterance, with a value and a status for each metric.

        A metric has two columns, ``<column>`` (NaN without a value) and ``status_<column>``. One with
        a pooled value has ``weight_<column>`` too. An utterance without a reconstruction has the
        status `missing_estimate` everywhere.
        """
        estimate, reference = cast("Waveform", inputs["from"]), cast("Waveform | None", inputs.get("against"))
        return each(items, lambda item: Outcome(row=self._row(item, estimate, reference, metrics)))

    def _row(
        self, item: Item, estimate: Waveform, reference: Waveform | None, metrics: Sequence[Metric]
    ) -> dict[str, Scalar]:
        if "from" not in item.inputs:
            return _as_row((one, Measured.failed(Status.MISSING_ESTIMATE)) for one in metrics)
        recording = None if reference is None else item.inputs["against"]
        pair = Pair(
            reference=None if recording is None else as_float(recording),
            reference_sr=estimate.sr if reference is None else reference.sr,
            estimate=as_float(item.inputs["from"]),
            estimate_sr=estimate.sr,
            spec=self._spec(estimate, reference),
            cut=self.lengths == "cut",
            text=item.utterance.text,
        )
        return _as_row((one, one.measure(pair)) for one in metrics)

    def _spec(self, estimate: Waveform, reference: Waveform | None) -> MelSpec:
        """Return the mel of the spectral metrics: the recording's rate counts where there is none."""
        return self._preset_spec or estimate.mel or default_spec((reference or estimate).sr)


@dataclass(frozen=True)
class _Opened:
    """Score with the programs of predictors."""

    stage: Measuring
    programs: Mapping[str, Metric]

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return an outcome per utterance; see `Measuring.measured`."""
        metrics = tuple(self.programs.get(chosen.name, chosen) for chosen in self.stage._chosen)
        return self.stage.measured(items, inputs, metrics)


def _as_row(measured: Iterable[tuple[Metric, Measured]]) -> dict[str, Scalar]:
    row: dict[str, Scalar] = {}
    for chosen, result in measured:
        row[chosen.column] = result.value
        row[chosen.status_column] = result.status.value
        if chosen.pooled:
            row[chosen.weight_column] = result.weight if result.status is Status.OK else np.nan
    return row
