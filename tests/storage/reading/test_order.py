"""The order of a stream: every item once an epoch, however many readers there are, and resumable anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest

from melmill.storage.reading.order import Batching, EpochPlan, Key, Output, Place, Uneven, batches, resumed

SHARDS = np.array([0, 2, 3, 7, 8])
COUNTS = np.array([5, 1, 9, 4, 4])
N_ITEMS = 23


ALONE = Place()


def plan(place: Place = ALONE, **fields: Any) -> EpochPlan:
    return EpochPlan(SHARDS, COUNTS, **{"seed": 3, "epoch": 0, "place": place, **fields})


def outputs(one: EpochPlan, buffer: int = 6, buffer_bytes: int = 10**9) -> Iterator[Output]:
    return one.outputs(buffer=buffer, buffer_bytes=buffer_bytes, n_bytes=lambda entry: [10] * len(entry.items))


def items(one: EpochPlan, **fields: int) -> list[tuple[int, int]]:
    """Return shard and number of every item in order."""
    return [(one.entries[key.entry].shard, key.item) for output in outputs(one, **fields) for key in output.keys]


ALL = {(shard, item) for shard, n in zip(SHARDS.tolist(), COUNTS.tolist(), strict=True) for item in range(n)}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("world_size", "n_workers"), [(1, 1), (1, 2), (2, 1), (3, 2), (4, 3), (5, 5), (30, 2)])
def test_all_readers_together_have_every_item_once(world_size: int, n_workers: int, shuffle: bool) -> None:
    found, sizes = Counter[tuple[int, int]](), []
    for rank in range(world_size):
        own = [
            items(plan(Place(rank, world_size, worker, n_workers), epoch=2, shuffle=shuffle))
            for worker in range(n_workers)
        ]
        sizes.append(sum(map(len, own)))
        for one in own:
            found.update(one)
    assert found == Counter(ALL)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("uneven", "world_size", "each"), [("repeat", 4, 6), ("drop", 4, 5), ("repeat", 30, 1), ("drop", 30, 0)]
)
def test_ranks_can_have_as_many_items(uneven: Uneven, world_size: int, each: int) -> None:
    ranks = [items(plan(Place(rank, world_size), uneven=uneven)) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {each}
    assert all(len(set(rank)) == each for rank in ranks)
    found = Counter(item for rank in ranks for item in rank)
    assert set(found) <= ALL
    if uneven == "repeat":
        assert set(found) == ALL
    else:
        assert not found or max(found.values()) == 1


def test_the_seed_and_the_epoch_choose_the_order() -> None:
    first = items(plan())
    assert items(plan()) == first
    assert items(plan(epoch=1)) != first
    assert items(plan(seed=4)) != first
    assert items(plan(shuffle=False)) == sorted(ALL)
    assert sorted(first) == sorted(ALL)


def test_where_segments_begin_depends_on_no_reader() -> None:
    draws = [plan(Place(rank, 2)).starts(7).integers(1000, size=4).tolist() for rank in range(2)]
    assert draws[0] == draws[1]
    assert plan().starts(8).integers(1000, size=4).tolist() != draws[0]
    assert plan(epoch=1).starts(7).integers(1000, size=4).tolist() != draws[0]


@pytest.mark.parametrize(("buffer", "buffer_bytes"), [(1, 10**9), (4, 10**9), (100, 40), (100, 1), (100, 10**9)])
def test_a_buffer_holds_no_more_than_it_may(buffer: int, buffer_bytes: int) -> None:
    one = plan()
    entered = np.cumsum([0, *(len(entry.items) for entry in one.entries)])
    most = min(buffer, max(1, buffer_bytes // 10))
    seen = set()
    for n_given, output in enumerate(outputs(one, buffer, buffer_bytes)):
        assert output.keys[0] not in seen
        seen.add(output.keys[0])
        assert output.keys[0].entry < output.n_entries
        # What was needed is the buffer and no more than a shard besides.
        assert entered[output.n_entries - 1] - n_given <= most
    assert len(seen) == N_ITEMS


def test_the_buffer_mixes_shards() -> None:
    mixed, apart = ([shard for shard, _ in items(plan(), buffer=size)] for size in (100, 1))
    changes = [sum(a != b for a, b in pairwise(shards)) for shards in (mixed, apart)]
    assert changes[1] <= len(SHARDS) + 1 < changes[0]


def test_an_item_leaves_the_buffer_before_it_is_full() -> None:
    assert next(outputs(plan(), buffer=20)).n_entries < 4


@pytest.mark.parametrize("n_done", [0, 1, 7, N_ITEMS - 1, N_ITEMS, N_ITEMS + 5])
def test_what_follows_is_known_at_any_place(n_done: int) -> None:
    one = plan(Place(0, 2, 1, 2)) if n_done == 1 else plan()
    every = list(outputs(one))
    following, passed = resumed(outputs(one), n_done)
    assert list(following) == every[n_done:]
    expected: dict[int, set[int]] = {}
    for output in every[:n_done]:
        for entry, item in output.keys:
            expected.setdefault(entry, set()).add(item)
    assert passed == expected


def batched(batching: Batching) -> list[list[int]]:
    """Return the lengths of the items of every batch, where an item is as long as its number says."""
    one = plan()
    found = list(batches(outputs(one), batching, lambda key: 10 * (1 + key.item)))
    keys = [key for output in found for key in output.keys]
    assert len(set(keys)) == len(keys)
    assert batching.drop_last or len(keys) == N_ITEMS
    assert all(key.entry < output.n_entries for output in found for key in output.keys)
    return [[10 * (1 + key.item) for key in output.keys] for output in found]


NO_BOUNDS = np.zeros(0, np.int64)


def test_batches_have_their_size() -> None:
    assert [len(one) for one in batched(Batching(5, None, NO_BOUNDS, False))] == [5, 5, 5, 5, 3]
    assert [len(one) for one in batched(Batching(5, None, NO_BOUNDS, True))] == [5, 5, 5, 5]
    assert [len(one) for one in batched(Batching(1, 50, NO_BOUNDS, False))] == [1] * N_ITEMS


def test_batches_are_of_one_bucket() -> None:
    found = batched(Batching(3, None, np.array([25, 55]), True))
    assert found
    for lengths in found:
        assert len(lengths) == 3
        assert len({np.searchsorted([25, 55], length, side="right") for length in lengths}) == 1
    # What is left of the buckets comes too, the shortest first.
    assert sum(map(len, batched(Batching(3, None, np.array([25, 55]), False)))) == N_ITEMS


def test_no_batch_has_more_frames_than_it_may() -> None:
    found = batched(Batching(100, 70, np.array([25, 55]), False))
    assert all(len(lengths) * max(lengths) <= 70 or len(lengths) == 1 for lengths in found)
    assert [90] in found
    assert max(map(len, found)) > 2


def test_batches_are_resumed() -> None:
    one, batching = plan(), Batching(3, 70, np.array([25, 55]), False)

    def made() -> Iterator[Output]:
        return batches(outputs(one), batching, lambda key: 10 * (1 + key.item))

    following, passed = resumed(made(), 4)
    assert list(following) == list(islice(made(), 4, None))
    done = {key for output in islice(made(), 4) for key in output.keys}
    assert {Key(i, item) for i, items in passed.items() for item in items} == done
