"""The contract of a stage: what it needs, what it makes, and the one method that does its work.

The method depends on the kind of stage:

- `IngestStage.ingest` turns the bytes of a file into an utterance.
- `UtteranceStage.process` works on the utterances of a shard.
- `FileStage.opened` returns what processes them, with files such as weights.
- `TrainingStage.train` learns from a whole corpus, and `ReducingStage.reduce` sums one up.
- `melmill.stages.report.contract.ReportStage.report` makes tables and a page about whole corpora.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from melmill.pcm import as_float as as_float
from melmill.pcm import stored as stored
from melmill.stages.blame import REFUSED, Blame, Verdict, blame
from melmill.stages.contract.products import TRAINED_KINDS as TRAINED_KINDS
from melmill.stages.contract.products import WHOLE_KINDS as WHOLE_KINDS
from melmill.stages.contract.products import CorpusStatistics as CorpusStatistics
from melmill.stages.contract.products import Embedding as Embedding
from melmill.stages.contract.products import EmbeddingRows as EmbeddingRows
from melmill.stages.contract.products import Features as Features
from melmill.stages.contract.products import Inspections as Inspections
from melmill.stages.contract.products import Kind as Kind
from melmill.stages.contract.products import Mel as Mel
from melmill.stages.contract.products import Prints as Prints
from melmill.stages.contract.products import Product as Product
from melmill.stages.contract.products import Report as Report
from melmill.stages.contract.products import Scores as Scores
from melmill.stages.contract.products import Trained as Trained
from melmill.stages.contract.products import TrainedPrior as TrainedPrior
from melmill.stages.contract.products import TrainedVocoder as TrainedVocoder
from melmill.stages.contract.products import TrustRows as TrustRows
from melmill.stages.contract.products import Waveform as Waveform
from melmill.stages.contract.training import Batch as Batch
from melmill.stages.contract.training import TrainingData as TrainingData
from melmill.stages.contract.training import TrainingPlace as TrainingPlace
from melmill.stages.numeric.errors import Unusable
from melmill.stages.task_context import enter_utterance
from melmill.storage.utterance import Labels, Utterance
from melmill.storage.utterance import SourceFile as SourceFile

Scalar = str | int | float | bool | None


class Unset(Enum):
    """Mark a field that the user left out, for fields where None has a meaning (``fmax: null``)."""

    UNSET = "unset"


UNSET = Unset.UNSET


@dataclass(frozen=True)
class OneOf:
    """Annotate a field that takes one of some names, so that editors complete it.

    ``preset: Annotated[str, OneOf(preset_names)]``. With `others` it takes any other text too.
    """

    names: Callable[[], Sequence[str]]
    others: bool = False


@dataclass(frozen=True, kw_only=True)
class Input:
    """Describe an input port.

    Parameters
    ----------
    kinds : frozenset of Kind
        What it accepts. ``WAVEFORM`` accepts ``UTTERANCES`` too.
    many : bool
        It takes all the named nodes together. Otherwise a list of nodes fans the node out.
    words : tuple of str
        Values that the port takes instead of the name of a node (``start: pghi``). The stage has a
        field of the port's name, which holds the word. With a node it keeps its default, and keys
        say that a node is connected.
    values : bool
        Whatever is not the name of a node is a value of the field of the port's name
        (``prior: FILE``). Such a port has words.
    optional : bool
        The input may be left out.
    absent_ok : bool
        The stage also gets utterances that were quarantined on the way to this port, without this
        input.
    other_corpus : bool
        Its utterances may be of another corpus than those of the other ports. The stage is a
        `melmill.stages.score.contract.PairingStage` then, which says what belongs together.
    """

    kinds: frozenset[Kind]
    many: bool = False
    words: tuple[str, ...] = ()
    values: bool = False
    optional: bool = False
    absent_ok: bool = False
    other_corpus: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One utterance on its way into a stage.

    `inputs` holds an array by the name of the input port (``from``, ``against``, ``start``):
    waveforms ``(n_samples,)`` as stored (int16 PCM or float32), mels ``(n_mels, n_frames)``.
    `seed` depends on the utterance id alone.
    """

    utterance: Utterance
    inputs: Mapping[str, NDArray[Any]]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Say why an utterance could not be processed: in one line, and with a traceback.

    `verdict` says whether the utterance is to blame. Without one, a stage refused it on purpose.
    """

    reason: str
    detail: str = ""
    verdict: Verdict = REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Hold some samples of an utterance that a stage prepared: what was made of them, or why nothing.

    Parameters
    ----------
    start, stop : int
        First sample, and the one behind the last, of the utterance as the stage was given it.
    array : ndarray or None
        The waveform ``(n_samples,)`` that was made of them. None: they were dropped.
    reason : str
        Why they were dropped: the same words for all that a rule drops. Empty for what was kept.
    detail : str
        What was found, such as a number.
    """

    start: int
    stop: int
    array: NDArray[Any] | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Hold what a stage made of one utterance.

    Parameters
    ----------
    array : ndarray or None
        A waveform ``(n_samples,)`` or a mel ``(n_mels, n_frames)``.
    row : mapping of str to scalar, or None
        Columns of its row in the node's table.
    trace : mapping of str to ndarray, or None
        Columns with one value for each iteration (``iteration``, ``scm_db``, ...).
    rejected : Rejected or None
        Why it could not be processed. It excludes the others.
    busy_s : float or None
        Time that the device worked on it, s: its share of a batch's time. None: not measured.
    spans : sequence of Span or None
        In place of `array`: what a `PreparingStage` kept and dropped, from the first sample to the
        last. What is kept of an utterance in one piece has its id, and of several pieces each has a
        number behind it.
    """

    array: NDArray[Any] | None = None
    row: Mapping[str, Scalar] | None = None
    trace: Mapping[str, NDArray[Any]] | None = None
    rejected: Rejected | None = None
    busy_s: float | None = None
    spans: Sequence[Span] | None = None


@runtime_checkable
class Stage(Protocol):
    """A registered kind of work: a frozen, keyword-only dataclass of its parameters.

    `uses` is its name in YAML. Raise `version` whenever its results change. `inputs` has its input
    ports by name, and is empty for ingest stages.
    """

    uses: ClassVar[str]
    version: ClassVar[int]
    inputs: ClassVar[Mapping[str, Input]]

    def identity(self) -> Mapping[str, Any]:
        """Return the parameters that decide the result, as plain values.

        The node's key is made of them. Presets are resolved. Leave out where things lie (the root
        of a corpus) and how they are computed (threads, the device).
        """
        ...

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Describe what is made of the products at each port.

        Raises
        ------
        ContractError
            They do not fit.
        """
        ...


class CorpusTree(Protocol):
    """The files below the root of a corpus, on a disk or in an object store."""

    def walk(self) -> Iterator[SourceFile]:
        """Iterate over all files, sorted by path, and what can't be taken with its `problem`."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        ...

    def head(self, path: str, n: int) -> bytes:
        """Return the first `n` bytes of a file, or all of a shorter file."""
        ...

    def files(self, paths: Iterable[str]) -> Mapping[str, SourceFile]:
        """Return those of some paths that are files."""
        ...

    def members(self, path: str) -> Iterator[SourceFile]:
        """Iterate over the members of an archive, sorted, with paths that `read` takes."""
        ...

    def rows(self, path: str, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Iterate over the rows of a Parquet or Arrow file; of bytes they have the number."""
        ...


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Hold what an ingest stage finds in a corpus.

    Parameters
    ----------
    utterances : list of Utterance
        Those that the stage has kept are left out (`melmill.stages.ingest.known`).
    notes : tuple of str
        What a person should know of the corpus, a line each: files that were passed over, and
        tables of texts that fit no utterance. Plans and runs show them.
    labels : mapping of str to Labels
        What the corpus says now of known utterances whose labels were others, by id.
    further : iterable of Utterance
        More utterances, if a list of all would take too much memory. They are gone through once.
    """

    utterances: list[Utterance] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    labels: Mapping[str, Labels] = field(default_factory=dict)
    further: Iterable[Utterance] = ()

    def every(self) -> Iterator[Utterance]:
        """Return all utterances, to be gone through once."""
        return chain(self.utterances, self.further)


@runtime_checkable
class IngestStage(Stage, Protocol):
    """A stage that finds the utterances of a corpus and decodes their files."""

    @property
    def root(self) -> str:
        """Where the corpus lies: a path, or any URL that fsspec knows. Not part of the identity."""
        ...

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> Discovery:
        """Return the utterances of the corpus, and what a person should know of it.

        Parameters
        ----------
        tree : CorpusTree
        known : mapping of str to Utterance
            Utterances of the catalogue, by path. If a file has the same size and time as then, its
            utterance is returned as it is. Plans pass a `melmill.stages.ingest.known.Known`.
        """
        ...

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the waveform or the mel that the file of one utterance holds.

        An exception puts the utterance in quarantine.

        Parameters
        ----------
        utterance : Utterance
            As `discover` returned it.
        data : bytes
            The whole file at ``utterance.path``.
        """
        ...


class Processor(Protocol):
    """An object that works on the utterances of a shard."""

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return one outcome for each item, in order.

        The same items give the same bytes. Apart from rounding, an outcome does not depend on the
        other items.

        Parameters
        ----------
        items : sequence of Item
            Utterances of one shard.
        inputs : mapping of str to Product
            Product at each port.
        product : Product
            What `produces` returned.
        """
        ...


@runtime_checkable
class UtteranceStage(Stage, Processor, Protocol):
    """A stage that works shard by shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFile:
    """Hold a file that a stage computes with: its whole URL and its bytes."""

    url: str
    data: bytes

    @property
    def name(self) -> str:
        """Last part of its URL, for messages."""
        return self.url.rpartition("/")[2]


StageFiles = Mapping[str, StageFile]


@runtime_checkable
class FileStage(Stage, Protocol):
    """A stage that works shard by shard with files of its own, such as weights.

    As declared, it only names them. They are read once when the graph is built, for `prepared`.
    Tasks get what that returns, which holds nothing large. Where they run, the files are read again
    for `opened`.
    """

    @property
    def digest(self) -> str:
        """SHA-256 of the files that it was prepared with. Empty before."""
        ...

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return paths or URLs by role. The first that exists is the file.

        A prepared stage returns those of the files that it was prepared with.
        """
        ...

    def prepared(self, files: StageFiles, digest: str) -> Stage:
        """Return the stage with what its identity and contract need of its files; raise StageError.

        Parameters
        ----------
        files : mapping of str to StageFile
            By role. A role without a file is left out.
        digest : str
            SHA-256 of the bytes of all. It stands for them in the identity.
        """
        ...

    def trained(self, product: Trained, name: str, digest: str) -> Stage:
        """Return the stage as it computes with what a training makes, instead of its own files.

        Parameters
        ----------
        product : Trained
        name : str
            Name of the training's node.
        digest : str
            Stands for the files in the identity, and tells them from others that a process keeps
            open.

        Raises
        ------
        StageError
            It can't compute with that.
        """
        ...

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what computes in this process.

        `read` returns the files that the stage was prepared with.
        """
        ...


@runtime_checkable
class TrainingStage(Stage, Protocol):
    """A stage that learns from a whole corpus, in one task."""

    @property
    def threads(self) -> int:
        """Threads that numerical libraries may use. Not part of the identity."""
        ...

    def train(self, data: TrainingData, place: TrainingPlace, inputs: Mapping[str, Product]) -> Mapping[str, bytes]:
        """Return the files that were learned, by name.

        They are the `files` of its product, and others such as a page, ``index.html``. A training
        that is stopped at any moment and begun again returns the same bytes as one that is not.

        Parameters
        ----------
        data : TrainingData
        place : TrainingPlace
            It may hold a state, from which the training goes on.
        inputs : mapping of str to Product
            Product at each port.
        """
        ...


class CorpusArrays(Protocol):
    """What a node made of a whole corpus, a shard at a time."""

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        ...

    def shards(self, first: int = 0) -> Iterator[Mapping[Utterance, NDArray[Any]]]:
        """Yield the arrays of one shard after the other by utterance, from shard number `first` on."""
        ...


@runtime_checkable
class ReducingStage(Stage, Protocol):
    """A stage that sums up what one node made of a whole corpus, in one task, shard by shard."""

    def reduce(self, data: CorpusArrays, place: TrainingPlace, inputs: Mapping[str, Product]) -> Mapping[str, bytes]:
        """Return the files of its product by name, and perhaps others.

        One that is stopped at any moment and begun again returns the same bytes as one that is not.

        Parameters
        ----------
        data : CorpusArrays
        place : TrainingPlace
            It may hold a state, from which the work goes on.
        inputs : mapping of str to Product
            Product at each port.
        """
        ...


@runtime_checkable
class ChoosingStage(Stage, Protocol):
    """A stage that chooses what it computes with by what its inputs are."""

    def chosen(self, inputs: Mapping[str, Sequence[Product]]) -> Stage:
        """Return the stage with its choice; raise StageError. The graph asks before it reads files.

        Parameters
        ----------
        inputs : mapping of str to sequence of Product
            Products at each port.
        """
        ...


@runtime_checkable
class CountingStage(Stage, Protocol):
    """A stage whose records count something of its utterances, of which plans and runs tell."""

    def counts(self, rows: Sequence[Mapping[str, object]]) -> Mapping[str, int]:
        """Return the counts of a shard whose outcomes had these rows. Those of shards add up."""
        ...

    def notes(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Return what a person should know of the stage and of such counts, a line each."""
        ...


@runtime_checkable
class PreparingStage(UtteranceStage, Protocol):
    """A stage that makes waveforms of waveforms, and says of every sample what became of it.

    Its outcomes have `Outcome.spans`. If its product is not `Waveform.reshaped`, what it keeps of an
    utterance is all of it. If it `splits`, it may keep several parts.
    """

    splits: ClassVar[bool]

    @property
    def prepares(self) -> Literal[True]:
        """Tells it from other stages."""
        ...

    def counts(self, spans: Sequence[tuple[int, str]], sr: int) -> Mapping[str, int]:
        """Return the milliseconds that were kept and dropped, by reason, of lengths in samples."""
        ...

    def notes(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Return what a person should know of such counts, a line each."""
        ...


@runtime_checkable
class PrintsStage(UtteranceStage, Protocol):
    """A stage that needs the table of a whole corpus, which a node of `Kind.PRINTS` made."""

    def knowing(self, columns: Mapping[str, Sequence[Any]]) -> Processor:
        """Return what processes utterances, given the columns of the table, in order of shard.

        What it makes of an utterance depends on no rows after its own.
        """
        ...


@runtime_checkable
class SampledStage(Stage, Protocol):
    """A stage that works on some utterances of a corpus, whatever its size.

    Those that are not drawn reach it without inputs, so that all its ports have `Input.absent_ok`.
    """

    @property
    def sample_size(self) -> int:
        """About how many utterances are drawn, by a hash of their ids; all of a smaller corpus."""
        ...


class OfUtterance(Protocol):
    """A piece of work that belongs to one utterance."""

    @property
    def utterance(self) -> Utterance:
        """The utterance."""
        ...


ItemT = TypeVar("ItemT", bound=OfUtterance)


def each(items: Sequence[ItemT], one: Callable[[ItemT], Outcome]) -> list[Outcome]:
    """Return the outcome of each item. An exception becomes a rejection with its traceback.

    An exception that machines cause is raised: the others would fail too.
    """
    outcomes = []
    for item in items:
        enter_utterance(item.utterance.utterance_id)
        try:
            outcomes.append(one(item))
        except Exception as error:
            if blame(error).blame >= Blame.LIKELY_MACHINE:
                raise
            outcomes.append(Outcome(rejected=rejection(error)))
    enter_utterance("")
    return outcomes


def rejection(error: Exception) -> Rejected:
    """Return the rejection that an exception means, with the reason that quarantine shows."""
    reason = str(error) if isinstance(error, Unusable) else f"{type(error).__name__}: {error}"
    return Rejected(reason=reason, detail="".join(traceback.format_exception(error)), verdict=blame(error))
