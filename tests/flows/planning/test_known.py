"""A corpus is compared with its catalogue by hashes, and a hash alone decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from melmill.flows.planning import known as module
from melmill.flows.planning.known import KnownFiles
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.revisions import Reason
from melmill.storage.files.location import Location
from melmill.storage.utterance import Utterance

SR = 16000
N = 300


def utterance(index: int, **fields: object) -> Utterance:
    made = Utterance(
        utterance_id=f"u{index:04d}",
        subset="dev",
        speaker_id=str(index % 7),
        chapter_id="1",
        text=f"TEXT {index}",
        path=f"dev/{index}.flac",
        size_bytes=100 + index,
        mtime_ns=1000 + index,
        source_sr=SR,
        source_n_samples=SR,
        sr=SR,
        n_samples=SR,
    )
    return made._replace(**fields)  # type: ignore[arg-type]


@pytest.fixture
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Return a stored catalogue of two parts, of which two rows are retired."""
    location = Location(str(tmp_path_factory.mktemp("catalogue")))
    Catalogue.empty(SR, 10.0).extended(map(utterance, range(N - 20))).write_parts(location)
    grown = Catalogue.read(location).extended(map(utterance, range(N - 20, N)))
    grown.retiring([(utterance(3), Reason.REMOVED), (utterance(N - 1), Reason.REMOVED)]).write_parts(location)
    return Catalogue.read(location)


CURRENT = [i for i in range(N) if i not in (3, N - 1)]


def none_unsure(shards: np.ndarray, ids: object, lengths: object) -> np.ndarray:
    del ids, lengths
    return np.zeros(len(shards), np.bool_)


def keep(known: KnownFiles, utterances: Sequence[Utterance]) -> list[bool]:
    columns = zip(*((one.path, one.size_bytes, one.mtime_ns) for one in utterances), strict=True)
    kept: list[bool] = known.keep(*map(list, columns)).tolist()
    return kept


@pytest.fixture(params=["hashes", "one hash for all", "few hashes"])
def colliding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let different paths have one hash, as may happen among very many."""
    if request.param != "hashes":
        n_hashes = 1 if request.param == "one hash for all" else 100
        hashes = lambda paths: np.array([len(path) * 7 + hash(path) % n_hashes for path in paths], np.int64)  # noqa: E731
        monkeypatch.setattr(module, "_hashes", hashes if n_hashes > 1 else lambda paths: np.zeros(len(paths), np.int64))
    return str(request.param)


def test_what_is_as_catalogued_is_kept(catalogue: Catalogue) -> None:
    known = KnownFiles(catalogue, none_unsure)
    files = [
        utterance(0),
        utterance(1, size_bytes=1),
        utterance(2, mtime_ns=1),
        utterance(3),  # retired
        utterance(N, path="new.flac"),
        utterance(N - 2),
    ]
    assert keep(known, files) == [True, False, False, False, False, True]
    assert [one.utterance_id for one in known.missing()] == [
        utterance(i).utterance_id for i in CURRENT if i not in (0, N - 2)
    ]


def test_the_catalogued_utterance_of_a_file_is_found(catalogue: Catalogue, colliding: str) -> None:
    known = KnownFiles(catalogue, none_unsure)
    asked = [utterance(i).path for i in (5, 3, N - 2, 17)] + ["new.flac"]
    assert known.catalogued(asked) == [utterance(5), None, utterance(N - 2), utterance(17), None], colliding
    missing = {one.utterance_id for one in known.missing()}
    assert missing == {utterance(i).utterance_id for i in CURRENT if i not in (5, N - 2, 17)}


def test_a_file_is_kept_or_asked_for_whatever_its_hash(catalogue: Catalogue, colliding: str) -> None:
    known = KnownFiles(catalogue, none_unsure)
    files = [utterance(i) for i in CURRENT]
    kept = keep(known, files)
    assert all(kept) if colliding == "hashes" else not all(kept)
    rest = [one for one, is_kept in zip(files, kept, strict=True) if not is_kept]
    assert known.catalogued([one.path for one in rest]) == rest
    assert list(known.missing()) == []


def test_it_is_a_mapping_of_what_is_sure(catalogue: Catalogue, colliding: str) -> None:
    def unsure(shards: np.ndarray, ids: object, lengths: object) -> np.ndarray:
        del lengths
        wanted = ids() if callable(ids) else []
        return np.array([one in ("u0007", "u0290") for one in wanted], np.bool_)

    known = KnownFiles(catalogue, unsure)
    assert not any(keep(known, [utterance(7), utterance(290)])), colliding
    expected = {utterance(i).path: utterance(i) for i in CURRENT if i not in (7, 290)}
    assert dict(known) == expected
    assert (len(known), utterance(7).path in known, known.get("new.flac")) == (N - 4, False, None)
    # What a stage measured anew is still compared with its row.
    assert known.catalogued([utterance(7).path]) == [utterance(7)]


def test_an_empty_catalogue_knows_nothing() -> None:
    known = KnownFiles(Catalogue.empty(SR, 10.0), none_unsure)
    assert keep(known, [utterance(1)]) == [False]
    assert known.catalogued(["a", "b"]) == [None, None]
    assert (list(known.missing()), dict(known)) == ([], {})
