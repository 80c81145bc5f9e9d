"""Stages that invert mel spectrograms without a network: one is made from each solver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import (
    Input,
    Item,
    Kind,
    Mel,
    OneOf,
    Outcome,
    Processor,
    Product,
    StageFiles,
    Trained,
    TrainedPrior,
    Waveform,
    as_float,
    each,
    stored,
)
from melmill.stages.invert.inversion import (
    DEVICES,
    PRIOR,
    Device,
    Inversion,
    check_prior,
    check_result,
    pose,
    solve_all,
)
from melmill.stages.invert.priors import AUTO, NONE, Choice, expected, fitting, located, prior_names, shipped_names
from melmill.stages.numeric.checks import MAX_N_ITER, check_bool, check_choice, check_int
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import FALLBACK_VERSION, GUIDED_VERSION, Prior, decoded
from melmill.stages.numeric.solver import MAGNITUDES, MagnitudeStart, Problem, Recipe, Solver, solver_of_stage
from melmill.storage.utterance import resampled_length

# Raise it when a change moves the results of all inverters.
_SHARED_VERSION = 3

PriorName = Annotated[str, OneOf(prior_names, others=True)]

# Role of a prior's file.
(_PRIOR,) = TrainedPrior.files

_MEL = Input(kinds=frozenset({Kind.MEL}))
_PRIOR_INPUT = Input(kinds=frozenset({Kind.PRIOR}), words=(AUTO, NONE), values=True, optional=True)


@dataclass(frozen=True, kw_only=True)
class KnownPrior:
    """What a plan knows of a prior: digest and URL of its file, name, and the mel it needs.

    The URL of one that a node trains is empty.
    """

    digest: str
    url: str
    name: str
    spec: MelSpec


@dataclass(frozen=True, kw_only=True)
class Inverter:
    """Invert mel spectrograms by a solver.

    `inverter_stage` makes a subclass for each solver, with the solver's parameters as fields.

    Parameters
    ----------
    magnitude : {"nnls", "pinv"}
        Starting magnitude: non-negative least squares, or the clipped pseudo-inverse.
    seed : int
        Seed of random phases, combined with each utterance's own.
    trace : bool
        Store the SCM of every iteration.
    dtype : {"float32", "int16"}
        Type that is stored. int16 is ``32768 y``, rounded to even and clipped to [-32768, 32767].
    device : {"cpu", "cuda"}
        Where it is computed. The results are the same but for rounding.
    prior : str
        Learned prior, whose network guesses the starting magnitude in place of `magnitude`: one
        that comes with melmill, a file (a path or any URL that fsspec knows), or the node that
        trains it. ``"none"``: there is none. ``"auto"``: the one that comes with melmill and fits
        the mel, for utterances that would not lose by it.
    """

    uses: ClassVar[str]
    version: ClassVar[int]
    inputs: ClassVar[Mapping[str, Input]]
    solver: ClassVar[type[Solver]]

    magnitude: MagnitudeStart = "nnls"
    seed: int = 0
    trace: bool = False
    dtype: Literal["float32", "int16"] = "float32"
    device: Device = "cpu"
    prior: PriorName = field(default=NONE, metadata={"place": True})
    _known: KnownPrior | None = field(default=None, init=False)
    _choice: Choice | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check the parameters; the solver checks its own."""
        check_choice("device", self.device, DEVICES)
        if not isinstance(self.prior, str) or not self.prior:
            raise ParameterError("prior", f"must be {AUTO}, {NONE}, a prior's name or its file, got {self.prior!r}")
        check_choice("dtype", self.dtype, ("float32", "int16"))
        check_int("seed", self.seed, at_least=0)
        check_bool("trace", self.trace)
        check_choice("magnitude", self.magnitude, MAGNITUDES)
        method = self._recipe(self.solver.default_start, None, 0).method
        if self.device != "cpu" and method is not None and method.batched is None:
            raise ParameterError("device", f"must be 'cpu', got {self.device!r}: {method.name!r} has no form for a GPU")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name and fields: a class that is made at run time is in no module."""
        return _restored, (self.uses, vars(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the prior's file; empty without one, and before it was read."""
        return "" if self._known is None else self._known.digest

    @property
    def _used(self) -> str | None:
        """Name, file or node of the prior in use; None where there is none."""
        if self._known is not None and not self._known.url:
            return self._known.name
        if self.prior == AUTO:
            return None if self._choice is None else self._choice.name
        return None if self.prior == NONE else self.prior

    @property
    def _falls_back(self) -> bool:
        return self.prior == AUTO and self._choice is not None and self._choice.name is not None

    def chosen(self, inputs: Mapping[str, Sequence[Product]]) -> Inverter:
        """Return the stage with the prior that ``prior: auto`` means for its mel; see `ChoosingStage`."""
        if self.prior != AUTO or inputs.get("prior"):
            return self
        stage = copy(self)
        object.__setattr__(stage, "_choice", fitting(_mel_spec(inputs["from"][0])))
        return stage

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return where the prior's file is, if it has one; see `FileStage`."""
        used = self._used
        if used is None or (self._known is not None and not self._known.url):
            return {}
        if self._known is None or used in shipped_names():
            return {_PRIOR: (located(used),)}  # what comes with melmill may lie elsewhere on a worker
        return {_PRIOR: (self._known.url,)}

    def prepared(self, files: StageFiles, digest: str) -> Inverter:
        """Return the stage with what it needs to know of its prior.

        Raises
        ------
        ParameterError
            The file is missing or no prior.
        """
        if self._used is None:
            return self
        if _PRIOR not in files:
            raise ParameterError("prior", expected(self._used, "a node that trains a prior"))
        file = files[_PRIOR]
        return self._knowing(
            KnownPrior(digest=digest, url=file.url, name=file.name, spec=decoded(file.name, file.data).spec)
        )

    def trained(self, product: Trained, name: str, digest: str) -> Inverter:
        """Return the stage that computes with the prior that the node `name` trains; see `FileStage`.

        Raises
        ------
        ContractError
            It trains something else.
        """
        if not isinstance(product, TrainedPrior):
            raise ContractError(f"{self.uses} can't compute with {name!r}, which trains {product.called}")
        return self._knowing(KnownPrior(digest=digest, url="", name=name, spec=product.spec))

    def _knowing(self, known: KnownPrior) -> Inverter:
        stage = copy(self)
        object.__setattr__(stage, "_known", known)
        return stage

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what computes in this process; see `FileStage`."""
        if self._used is None:
            return self
        file = read()[_PRIOR]
        return _WithPrior(stage=self, prior=decoded(file.name, file.data))

    def recipe(self, start: NDArray[np.float32] | None, seed: int) -> Recipe:
        """Return how to invert an utterance of that seed, with the waveform at its port `start`."""
        del start
        return self._recipe(self.solver.default_start, None, seed)

    def _recipe(self, start: str | NDArray[np.float32], n_iter: int | None, seed: int) -> Recipe:
        own = {field.name: getattr(self, field.name) for field in fields(self.solver)}
        solver, guided = self.solver(**own), self._used is not None
        method, own_n_iter = solver.resolved(n_iter, guided=guided)
        return Recipe(
            method=method,
            n_iter=own_n_iter,
            start=start,
            magnitude=self.magnitude,
            fallback_n_iter=solver.resolved(n_iter)[1] if self._falls_back else None,
            seed=(seed, self.seed),
            trace=self.trace,
        )

    def identity(self) -> Mapping[str, Any]:
        """Return all parameters but the device. A prior is known by its digest.

        Raises
        ------
        ContractError
            The prior was not chosen, or its file was not read.
        """
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        del own["device"], own["prior"]
        if self._used is None:
            if self.prior == AUTO and self._choice is None:
                raise ContractError("prior: auto was not resolved: use what `chosen` returns")
            return own
        own |= {"prior": self._prior_known().digest, "guided": GUIDED_VERSION}
        if own.get("n_iter", 0) is None:
            own["n_iter"] = self.recipe(None, 0).n_iter
        return {**own, "fallback": FALLBACK_VERSION} if self._falls_back else own

    def _prior_known(self) -> KnownPrior:
        if self._known is None:
            raise ContractError(f"the prior {self._used!r} was not read: use what `prepared` returns")
        return self._known

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Check the mel and the starting waveform; return waveforms at the mel's rate."""
        spec = _mel_spec(inputs["from"][0])
        if self._used is not None:
            known = self._prior_known()
            check_prior(known.name, known.spec, spec)
        for start in inputs.get("start", ()):
            if not isinstance(start, Waveform):
                raise ContractError(f"'start' must be a waveform, got {start!r}: name a node that makes waveforms")
            if start.sr != spec.sr:
                raise ContractError(
                    f"'start' is at {start.sr} Hz but the mel is of audio at {spec.sr} Hz: "
                    "start from waveforms at the mel's rate"
                )
        return Waveform(sr=spec.sr, dtype=self.dtype, mel=spec)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return a waveform for each mel.

        The CPU inverts each by itself. A GPU inverts padded batches, which changes outcomes by
        rounding alone.

        Raises
        ------
        DeviceMissing
            The process lacks the device.
        ContractError
            The stage has a prior: use what `opened` returns.
        """
        del product
        undecided = self.prior == AUTO and self._choice is None and self._known is None
        stage = self.chosen({"from": [inputs["from"]]}) if undecided else self
        if stage._used is not None:
            raise ContractError(f"the prior {stage._used!r} was not read: use what `opened` returns")
        return stage.inverted(items, _mel_spec(inputs["from"]), None)

    def inverted(self, items: Sequence[Item], spec: MelSpec, prior: Prior | None) -> Sequence[Outcome]:
        """Return a waveform for each mel of a spec, see `process`, with the stage's prior."""

        def problem(item: Item) -> Problem:
            return self._problem(item, spec, prior)

        if self.device == "cpu":
            return each(items, lambda item: self._outcome(item, solve_all([problem(item)], spec)[0], spec))
        problems = []

        def posed(item: Item) -> Outcome:
            problems.append(problem(item))
            return Outcome()

        outcomes = each(items, posed)
        results = iter(solve_all(problems, spec, self.device))
        good = [item for item, outcome in zip(items, outcomes, strict=True) if outcome.rejected is None]
        finished = iter(each(good, lambda item: self._outcome(item, next(results), spec)))
        return [outcome if outcome.rejected else next(finished) for outcome in outcomes]

    def _problem(self, item: Item, spec: MelSpec, prior: Prior | None) -> Problem:
        utterance, start = item.utterance, item.inputs.get("start")
        length = resampled_length(utterance.n_samples, utterance.sr, spec.sr)
        recipe = self.recipe(None if start is None else as_float(start), item.seed)
        return pose(item.inputs["from"], spec, replace(recipe, prior=prior), length)

    def _outcome(self, item: Item, result: Inversion, spec: MelSpec) -> Outcome:
        check_result(result, item.inputs["from"], spec)
        row = {"start": result.start} if self._falls_back else None
        return Outcome(array=stored(result.y, self.dtype), row=row, trace=result.trace)

    def counts(self, rows: Sequence[Mapping[str, object]]) -> Mapping[str, int]:
        """Return how many utterances started from the prior and from elsewhere; see `CountingStage`."""
        return dict(Counter(str(row["start"]) for row in rows))

    def notes(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Say why ``prior: auto`` takes none, and how many utterances fell back."""
        if self.prior != AUTO or self._choice is None:
            return ()
        n, total = sum(counts.values()) - counts.get(PRIOR, 0), sum(counts.values())
        fell_back = f"{n:,} of {total:,} utterances started without the prior {self._used!r}, which would have lost"
        return [line for line, said in ((self._choice.note, True), (fell_back, n)) if line and said]


@dataclass(frozen=True, kw_only=True)
class _WithPrior:
    """An inverter with its prior in this process's memory."""

    stage: Inverter
    prior: Prior

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return a waveform for each mel, see `Inverter.process`."""
        del product
        return self.stage.inverted(items, _mel_spec(inputs["from"]), self.prior)


@dataclass(frozen=True, kw_only=True)
class IterativeInverter(Inverter):
    """Invert mel spectrograms by a solver that iterates.

    Parameters
    ----------
    n_iter : int
        Number of iterations, at least 1. `invert` takes None too: as its quality says.
    start : str
        Starting phase: ``"random"``, ``"zero"`` or ``"pghi"``, of which a stage may offer fewer.
        Waveforms at the port `start` give theirs instead.
    """

    n_iter: int | None = 100
    start: str = "random"

    def __post_init__(self) -> None:
        """Check the parameters; the solver checks its own."""
        if self.n_iter is not None or self.solver.default_n_iter is not None:
            check_int("n_iter", self.n_iter, at_least=1, at_most=MAX_N_ITER)
        if self.start not in self.solver.starts:
            raise ParameterError(
                "start", f"must be one of {', '.join(self.solver.starts)} or a node, got {self.start!r}"
            )
        super().__post_init__()

    def recipe(self, start: NDArray[np.float32] | None, seed: int) -> Recipe:
        """Return how to invert an utterance of that seed, with the waveform at its port `start`."""
        return self._recipe(self.start if start is None else start, self.n_iter, seed)


@cache
def inverter_stage(uses: str) -> type[Inverter] | None:
    """Return the stage of a solver: a dataclass of the shared fields and of the solver's own.

    Parameters
    ----------
    uses : str
        Name of the stage.

    Returns
    -------
    type of Inverter, or None
        None where no solver makes a stage of that name.
    """
    solver = solver_of_stage(uses)
    if solver is None:
        return None
    hints = get_type_hints(solver)
    made: list[tuple[str, Any, Any]] = []
    made.append(("prior", PriorName, field(default=solver.default_prior, metadata={"place": True})))
    inputs = {"from": _MEL}
    if solver.starts:
        n_iter_type = int | None if solver.default_n_iter is None else int
        made += [("n_iter", n_iter_type, solver.default_n_iter), ("start", str, solver.default_start)]
        inputs["start"] = Input(kinds=frozenset({Kind.WAVEFORM}), words=solver.starts, optional=True)
    inputs["prior"] = _PRIOR_INPUT
    made += [(own.name, hints[own.name], field(default=own.default)) for own in fields(solver)]
    stage = make_dataclass(
        solver.__name__,
        made,
        bases=(IterativeInverter if solver.starts else Inverter,),
        namespace={
            "__doc__": solver.__doc__,
            "__module__": __name__,
            "uses": solver.uses,
            "version": _SHARED_VERSION + solver.version,
            "inputs": inputs,
            "solver": solver,
        },
        frozen=True,
        kw_only=True,
    )
    assert issubclass(stage, Inverter)
    return stage


def _restored(uses: str, state: Mapping[str, Any]) -> Inverter:
    made = inverter_stage(uses)
    if made is None:
        raise ParameterError("uses", f"{uses!r} is no inverter in this process: install its package here too")
    stage = object.__new__(made)
    vars(stage).update(state)
    return stage


def _mel_spec(product: Product) -> MelSpec:
    if not isinstance(product, Mel):
        raise ContractError(f"'from' must be a mel, got {product!r}: name a node that makes mels")
    to_linear(np.empty((product.spec.n_mels, 0)), product.spec)  # raises where no mel of this spec can be undone
    return product.spec
