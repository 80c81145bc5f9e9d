"""What a layout of a training set is, and all of them by name."""

from __future__ import annotations

import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeGuard

from numpy.typing import NDArray

from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.formats.exchange.pcm import AudioFormat, Bits, encode_audio
from melmill.stages.plugins import Registry


class Item(NamedTuple):
    """Hold what a training set says of an utterance; texts are ``""`` where nobody knows."""

    id: str
    split: str
    n_samples: int
    text: str = ""
    speaker: str = ""
    sex: str = ""
    subset: str = ""


class Content(NamedTuple):
    """Hold an utterance with its waveform ``(n_samples,)``, and its mel ``(n_mels, n_frames)`` if one is wanted.

    `features` has arrays that go with it by the names of their nodes.
    """

    item: Item
    y: NDArray[Any]
    M: NDArray[Any] | None = None
    features: Mapping[str, NDArray[Any]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """Say what is true of a whole training set.

    Parameters
    ----------
    name : str
        Of the project.
    url : str
        Where the set is written.
    sr : int
        Hz.
    bits : {16, 24}
        Bits per sample.
    items : tuple of Item
        All utterances, in the order of their ids.
    mel : mapping or None
        Fields of the mel spec of its mels.
    """

    name: str
    url: str
    sr: int
    bits: Bits
    items: tuple[Item, ...]
    mel: Mapping[str, Any] | None = None

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, ``train`` first."""
        return tuple(sorted({one.split for one in self.items}, key=lambda name: (name != "train", name)))

    @cached_property
    def speakers(self) -> Mapping[str, int]:
        """Numbers of the speakers by their names."""
        return {name: number for number, name in enumerate(sorted({one.speaker for one in self.items} - {""}))}

    def of(self, split: str) -> list[Item]:
        """Return the utterances of a split."""
        return [one for one in self.items if one.split == split]


@dataclass
class Made:
    """Hold files that were made, and how many of their samples were clipped."""

    files: dict[str, bytes] = field(default_factory=dict)
    n_clipped: int = 0

    def audio(self, content: Content, info: SetInfo, format_: AudioFormat) -> bytes:
        """Return a waveform as a file, and count what is clipped."""
        data, n_clipped = encode_audio(content.y, info.sr, format_, info.bits)
        self.n_clipped += n_clipped
        return data


class SetLayout(ABC):
    """Describe a layout of training sets.

    A set is made in chunks, whose files depend on their utterances alone. The lists of all files are
    made last.
    """

    name: ClassVar[str]
    """What ``melmill export --to`` calls it."""
    says: ClassVar[str]
    """What it is, in a sentence."""
    read_by: ClassVar[str]
    """What reads it, as code."""
    takes_mel: ClassVar[bool] = False
    """Whether it holds mels too."""
    takes_features: ClassVar[bool] = False
    """Whether it holds features and embeddings too."""
    in_shards: ClassVar[bool] = False
    """Whether many utterances share a file: then a chunk is a file, and its utterances are mixed."""

    def check(self, info: SetInfo) -> None:
        """Raise PipelineError if the layout can't hold what it is given."""
        del info

    @abstractmethod
    def files(self, split: str, number: int, n_chunks: int, contents: Sequence[Content], info: SetInfo) -> Made:
        """Return the files of a chunk by their paths.

        Parameters
        ----------
        split : str
        number, n_chunks : int
            Of the chunk in its split, from 0, and how many there are.
        contents : sequence of Content
        info : SetInfo
        """

    @abstractmethod
    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return the files that list all utterances, by their paths."""

    def card_fields(self, info: SetInfo) -> Mapping[str, Any]:
        """Return fields for the head of the dataset card, besides those of all sets."""
        del info
        return {}


def refuse_texts(info: SetInfo, marks: str, name: str) -> None:
    """Raise PipelineError if a text or a speaker holds a mark that separates columns."""
    for one in info.items:
        for said in (one.text, one.speaker):
            mark = next((mark for mark in marks if mark in said), "")
            if mark:
                raise PipelineError(
                    f"--to {name} can't hold {mark!r} in a text, got {one.id!r} with {said[:60]!r}: "
                    "mend the text, or use --to parquet, which holds any"
                )


def refuse_same(info: SetInfo, name_of: Callable[[Item], str], layout: str) -> None:
    """Raise PipelineError if two utterances would have one name in a layout."""
    first: dict[str, str] = {}
    for one in info.items:
        earlier = first.setdefault(name_of(one), one.id)
        if earlier != one.id:
            raise PipelineError(
                f"--to {layout} would name utterances {earlier!r} and {one.id!r} alike, {name_of(one)!r}: "
                "use --to parquet"
            )


def json_line(fields: Mapping[str, Any]) -> str:
    """Return an object as one line of JSON."""
    return json.dumps(fields, ensure_ascii=False, separators=(", ", ": ")) + "\n"


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a tar of files, of the same bytes for the same files."""
    target = io.BytesIO()
    with tarfile.TarFile(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def lines_of(lines: Iterable[str]) -> bytes:
    """Return lines as a file."""
    return "".join(f"{line}\n" for line in lines).encode()


def _is_layout(value: object) -> TypeGuard[SetLayout]:
    return isinstance(value, SetLayout)


LAYOUTS: Registry[SetLayout] = Registry(
    "layout",
    package="melmill.flows.exchange.sets.layouts",
    group="melmill.training_sets",
    is_one=_is_layout,
    name_of=lambda layout: layout.name,
    order=lambda layout: (0, layout.name),
)
"""All layouts of training sets by name."""
