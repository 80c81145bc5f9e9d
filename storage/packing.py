"""Pack utterances into shards: a pure function of their ids and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from melmill.storage.utterance import Utterance

# Bounds what rounding to whole frames can add to a shard's length.
MAX_UTTERANCES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Utterances that make one shard, in storage order, and how many slots of the arrays they fill."""

    utterances: tuple[Utterance, ...]
    n_slots: int


def pack(utterances: Sequence[Utterance], capacity: int) -> Iterator[Packed]:
    """Yield shards of at most `capacity` samples and `MAX_UTTERANCES` utterances.

    Utterances are taken in order of length class and id, so that those of a shard are of like length, whatever
    order they came in. One longer than a shard gets a shard of its own, of as many slots as it needs.

    Parameters
    ----------
    utterances : sequence of Utterance
    capacity : int
        Samples that one slot holds.
    """
    group: list[Utterance] = []
    room = capacity
    for utterance in sorted(utterances, key=lambda u: (length_class(u.n_samples), u.utterance_id)):
        if group and (utterance.n_samples > room or len(group) == MAX_UTTERANCES):
            yield _packed(group, capacity)
            group, room = [], capacity
        group.append(utterance)
        room -= utterance.n_samples
    if group:
        yield _packed(group, capacity)


def length_class(n_samples: int) -> int:
    """Return the quarter octave that a length lies in; whole-number arithmetic, so alike on every machine.

    >>> [length_class(n) for n in (0, 16000, 19483, 19484, 32768)]
    [0, 55, 56, 57, 60]
    """
    return max(0, (n_samples**4).bit_length() - 1)


def _packed(group: list[Utterance], capacity: int) -> Packed:
    n_samples = sum(utterance.n_samples for utterance in group)
    return Packed(utterances=tuple(group), n_slots=max(1, -(-n_samples // capacity)))
