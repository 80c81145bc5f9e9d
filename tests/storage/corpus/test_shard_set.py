"""Sets of shards are sets, in little memory."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melmill.storage.corpus.shard_set import ShardSet, union

shards = st.sets(st.integers(0, 300))


@given(shards, shards)
def test_it_is_a_set(one: set[int], other: set[int]) -> None:
    a: Set[int] = ShardSet.of(one)
    b: Set[int] = ShardSet.of(other)
    assert a == one
    assert (a == b) == (one == other)
    assert list(a) == sorted(one)
    assert len(a) == len(one)
    assert a & b == one & other
    assert a - b == one - other
    assert set(union([a, other])) == one | other
    assert [index in a for index in range(-1, 303)] == [index in one for index in range(-1, 303)]
    asked = np.arange(-1, 303)
    assert ShardSet.of(a).has(asked).tolist() == [index in one for index in asked.tolist()]
    assert np.flatnonzero(ShardSet.of(a).sized(100)).tolist() == sorted(index for index in one if index < 100)
