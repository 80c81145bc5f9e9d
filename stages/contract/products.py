"""Products: what nodes make, and what flows through their ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

from melmill.stages.numeric.melspec import MelSpec


class Kind(StrEnum):
    """What flows through a port."""

    UTTERANCES = "utterances"
    WAVEFORM = "waveform"
    MEL = "mel"
    SCORES = "scores"
    TRUST = "trust"
    EMBEDDINGS = "embeddings"
    REPORT = "report"
    VOCODER = "vocoder"
    PRIOR = "prior"
    PRINTS = "fingerprints"
    FEATURES = "features"
    EMBEDDING = "embedding"
    STATISTICS = "statistics"
    INSPECTIONS = "inspections"


# Kinds that a training makes, and what is learnt of a whole corpus in one task like it.
TRAINED_KINDS = frozenset({Kind.VOCODER, Kind.PRIOR, Kind.STATISTICS})

# Kinds that one task makes of a whole corpus. All others are made by one task for each shard.
WHOLE_KINDS = TRAINED_KINDS | {Kind.REPORT}


def declared(node: str) -> str:
    """Return the name that a node was declared by, without the values of its fan-out.

    >>> declared("admm[n_iter=10,rho=0.1]")
    'admm'
    """
    return node.partition("[")[0]


@dataclass(frozen=True, kw_only=True)
class _Product:
    """Describe what a node makes.

    Parameters
    ----------
    node : str
        Name of the node. Stages leave it empty, and the graph fills it in.
    """

    node: str = ""


@dataclass(frozen=True, kw_only=True)
class Waveform(_Product):
    """Describe waveforms ``(n_samples,)``.

    Parameters
    ----------
    sr : int
        Sampling rate, Hz.
    dtype : {"float32", "int16"}
        What is stored.
    mel : MelSpec or None
        Spec of the mel that they were made from. None for recordings.
    conversions : tuple of (str, str)
        Fields in which that mel was not the one needed, and how each was converted.
    corpus : bool
        An ingest stage makes them: they are utterances with a catalogue.
    referenced : bool
        They stay in the corpus. The store has hashes of the files and of the samples, and a task that
        reads them calls `IngestStage.ingest` again.
    reshaped : bool
        They have other lengths or other ids than what they were made of. So they are a corpus of
        their own, whose catalogue follows from the spans that were kept.
    """

    sr: int
    dtype: Literal["int16", "float32"] = "float32"
    mel: MelSpec | None = None
    conversions: tuple[tuple[str, str], ...] = ()
    corpus: bool = False
    referenced: bool = False
    reshaped: bool = False

    @property
    def kind(self) -> Kind:
        """Kind of port that it fits."""
        return Kind.UTTERANCES if self.corpus else Kind.WAVEFORM


@dataclass(frozen=True, kw_only=True)
class Mel(_Product):
    """Describe mel spectrograms ``(n_mels, n_frames)``.

    An ingest stage may make them too. Its utterances have no recordings then, and the shortest
    lengths that give as many frames.

    Parameters
    ----------
    spec : MelSpec
    dtype : {"float16", "float32"}
        What is stored.
    """

    spec: MelSpec
    dtype: Literal["float16", "float32"] = "float32"
    kind: ClassVar[Kind] = Kind.MEL

    @property
    def sr(self) -> int:
        """Rate of the waveforms that the mels are of, Hz."""
        return self.spec.sr


@dataclass(frozen=True, kw_only=True)
class Features(_Product):
    """Describe numbers that follow the frames of a mel, ``(n_rows, n_frames)`` in float32.

    An utterance has as many frames as its mel.

    Parameters
    ----------
    spec : MelSpec
        The mel whose frames they have.
    rows : tuple of str
        What each row is: ``f0``, ``voiced``, ``energy``, ...
    """

    spec: MelSpec
    rows: tuple[str, ...]
    dtype: ClassVar[Literal["float32"]] = "float32"
    kind: ClassVar[Kind] = Kind.FEATURES

    @property
    def sr(self) -> int:
        """Rate of the waveforms under the frames, Hz."""
        return self.spec.sr


@dataclass(frozen=True, kw_only=True)
class Embedding(_Product):
    """Describe vectors of a fixed size, one for each utterance, ``(size, 1)`` in float32.

    Parameters
    ----------
    sr : int
        Rate of the waveforms that they are of, Hz.
    size : int
    """

    sr: int
    size: int
    dtype: ClassVar[Literal["float32"]] = "float32"
    kind: ClassVar[Kind] = Kind.EMBEDDING


@dataclass(frozen=True, kw_only=True)
class _Measurements(_Product):
    """Describe a table of what metrics measured.

    Parameters
    ----------
    metrics : tuple of str
        Columns of the table.
    """

    metrics: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scores(_Measurements):
    """Describe a table of scores, one row per utterance.

    Parameters
    ----------
    scored : str
        Name of the node whose waveforms are scored.
    """

    scored: str
    kind: ClassVar[Kind] = Kind.SCORES


@dataclass(frozen=True, kw_only=True)
class TrustRows(_Measurements):
    """Describe measurements of damaged recordings, one row per damaged version.

    Parameters
    ----------
    damaged : str
        Name of the node whose waveforms are damaged.
    """

    damaged: str
    kind: ClassVar[Kind] = Kind.TRUST


@dataclass(frozen=True, kw_only=True)
class EmbeddingRows(_Measurements):
    """Describe embeddings of recordings and of reconstructions, for metrics of whole sets.

    Parameters
    ----------
    scored : str
        Name of the node whose waveforms are compared, as a set, with the recordings.
    embedding : str
        Name of the embedding.
    """

    scored: str
    embedding: str
    kind: ClassVar[Kind] = Kind.EMBEDDINGS


@dataclass(frozen=True, kw_only=True)
class Prints(_Product):
    """Describe a table of what tells equal and similar audio, one row per utterance."""

    kind: ClassVar[Kind] = Kind.PRINTS


@dataclass(frozen=True, kw_only=True)
class Inspections(_Product):
    """Describe a table of what recordings are like, one row per utterance.

    Parameters
    ----------
    inspected : str
        Name of the node whose waveforms were measured.
    """

    inspected: str
    kind: ClassVar[Kind] = Kind.INSPECTIONS


@dataclass(frozen=True, kw_only=True)
class Report(_Product):
    """Describe a folder of tables and a page over all utterances."""

    kind: ClassVar[Kind] = Kind.REPORT


@dataclass(frozen=True, kw_only=True)
class Trained(_Product):
    """Describe what a training makes, by the mel that it needs.

    Parameters
    ----------
    spec : MelSpec
    """

    spec: MelSpec
    kind: ClassVar[Kind]
    # The files that a stage computes with, by role. A training may make others beside them.
    files: ClassVar[Mapping[str, str]]

    @property
    def called(self) -> str:
        """What it is, for messages."""
        return f"a {self.kind}"


@dataclass(frozen=True, kw_only=True)
class TrainedVocoder(Trained):
    """Describe a vocoder that a training makes: its family and the mel that it needs."""

    family: str
    kind: ClassVar[Kind] = Kind.VOCODER
    files: ClassVar[Mapping[str, str]] = {"weights": "weights.pt", "config": "config.json"}

    @property
    def called(self) -> str:
        """What it is, for messages."""
        return f"a {self.family}"


@dataclass(frozen=True, kw_only=True)
class TrainedPrior(Trained):
    """Describe a prior that a training makes: the mel that it needs."""

    kind: ClassVar[Kind] = Kind.PRIOR
    files: ClassVar[Mapping[str, str]] = {"prior": "prior.safetensors"}


@dataclass(frozen=True, kw_only=True)
class CorpusStatistics(Trained):
    """Describe statistics of mels or features over a corpus.

    Parameters
    ----------
    spec : MelSpec
        The mel that they are of, or whose frames the features have.
    of : {Kind.MEL, Kind.FEATURES}
        What they are of.
    rows : tuple of str
        What each row of the features is. Empty for mels, whose rows are bands.
    """

    of: Kind = Kind.MEL
    rows: tuple[str, ...] = ()
    kind: ClassVar[Kind] = Kind.STATISTICS
    files: ClassVar[Mapping[str, str]] = {"statistics": "statistics.npz"}

    @property
    def called(self) -> str:
        """What they are, for messages."""
        return "statistics"


Product = (
    Waveform | Mel | Features | Embedding | Inspections | Scores | TrustRows | EmbeddingRows | Prints | Report | Trained
)
