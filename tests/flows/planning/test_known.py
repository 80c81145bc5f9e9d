"""A corpus is compared with its catalogue by hashes, and a hash alone decides nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from melmill.flows.planning import known as module
from melmill.flows.planning.known import KnownFiles
from melmill.stages.ingest.known import label_state
from melmill.stages.ingest.reader import Reader
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.stages.ingest.readers.mel_folder import MelFolder
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.revisions import Reason
from melmill.storage.files.location import Location
from melmill.storage.utterance import SourceFile, Utterance
from tests.stages.ingest.corpora import Tree, flac, tone

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


def of_file(one: Utterance) -> SourceFile:
    return SourceFile(path=one.path, size_bytes=one.size_bytes, mtime_ns=one.mtime_ns)


def test_what_the_corpus_says_otherwise_is_not_kept(catalogue: Catalogue, colliding: str) -> None:
    known = KnownFiles(catalogue, none_unsure)
    now = [
        utterance(0),
        utterance(1, text="OTHER"),
        utterance(2, size_bytes=1),
        utterance(4, speaker_id="x"),
        utterance(5),
    ]
    asked: list[int] = []

    def state_of(i: int) -> int:
        asked.append(i)
        return label_state(now[i].utterance_id, now[i].labels)

    answer = known.keep_labelled([of_file(one) for one in now], state_of)
    if colliding == "hashes":
        assert answer.kept.tolist() == [True, False, False, False, True]
        assert asked == [0, 1, 3, 4]
    assert answer.has_text.tolist() == answer.kept.tolist()
    assert answer.source_sr.tolist() == (SR * answer.kept).tolist()
    others = [one for one, is_kept in zip(now, answer.kept, strict=True) if not is_kept]
    found = known.utterances([one.path for one in others])
    assert found == [utterance(int(one.utterance_id[1:])) for one in others]
    # To be asked for does not make a file present.
    assert {one.path for one in known.missing()} >= {one.path for one in others}


def test_utterances_lack_what_is_to_be_measured_anew(catalogue: Catalogue) -> None:
    def unsure(shards: np.ndarray, ids: object, lengths: object) -> np.ndarray:
        del shards, lengths
        return np.array([one == "u0007" for one in (ids() if callable(ids) else [])], np.bool_)

    known = KnownFiles(catalogue, unsure)
    assert known.utterances([utterance(6).path, utterance(7).path, "new"]) == [utterance(6), None, None]
    assert not known.keep_labelled([of_file(utterance(7))], lambda _: 0).kept.any()


def mel(n_frames: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((80, n_frames), -2.0, np.float32))
    return file.getvalue()


SOUND, OTHER_SOUND = flac(tone()), flac(tone(22050, 22050), 22050)
SPOKEN = {f"dev/84/1/84-1-{i:04d}.flac": OTHER_SOUND if i == 2 else SOUND for i in range(4)}
FOLDER = {f"a/{i}.flac": OTHER_SOUND if i == 2 else SOUND for i in range(4)}
TABLE = b"0|Nought\n1|One\n3|Three\n"
CORPORA: list[tuple[Reader, dict[str, bytes], dict[str, bytes | None]]] = [
    # Texts with stamps. Those of a chapter change, and it has one file more.
    (
        LibriSpeech(root="r"),
        {**SPOKEN, "dev/84/1/84-1.trans.txt": b"84-1-0000 A\n84-1-0002 C\n", "dev/85/1/85-1-0000.flac": SOUND},
        {"dev/84/1/84-1.trans.txt": b"84-1-0000 A\n84-1-0001 BEE\n", "dev/84/1/84-1-0009.flac": OTHER_SOUND},
    ),
    # A table has no stamp. A recording that is gone, and another with other bytes.
    (
        AudioFolder(root="r"),
        {**FOLDER, "a/metadata.csv": TABLE},
        {"a/metadata.csv": TABLE.replace(b"One", b"Eins"), "a/0.flac": None, "a/3.flac": OTHER_SOUND},
    ),
    # Files of one text each.
    (
        AudioFolder(root="r", sr=16000),
        {**FOLDER, "a/1.txt": b"one"},
        {"a/1.txt": b"ones", "a/2.txt": b"two"},
    ),
    (MelFolder(root="r", preset="paper"), {f"a/{i}.npy": mel(50 + i) for i in range(3)}, {"a/9.npy": b"no mel"}),
]


@pytest.mark.parametrize(("reader", "before", "changes"), CORPORA)
def test_readers_say_the_same_of_a_known_corpus_and_make_what_differs_alone(
    reader: Reader,
    before: dict[str, bytes],
    changes: dict[str, bytes | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plain mapping of all utterances is the reference."""
    tree = Tree(before)
    first = reader.discover(tree, {})
    location = Location(str(tmp_path))
    catalogue = Catalogue.empty(reader.produces({}).sr, 10.0).extended(first.utterances)
    catalogue.write_parts(location)
    catalogue.write_labels(location)
    catalogue = Catalogue.read(location)

    with monkeypatch.context() as patch:
        patch.setattr(Catalogue, "utterances_at", lambda _, rows: pytest.fail("made") if len(rows) else {})
        same = reader.discover(tree, KnownFiles(catalogue, none_unsure))
    assert (same.utterances, same.labels) == ([], {})
    assert same.notes == reader.discover(tree, by_path(catalogue)).notes

    now = Tree({path: data for path, data in {**before, **changes}.items() if data is not None})
    expected, known = reader.discover(now, by_path(catalogue)), KnownFiles(catalogue, none_unsure)
    found = reader.discover(now, known)
    assert (found.notes, found.labels) == (expected.notes, expected.labels)
    assert [one for one in expected.utterances if one in found.utterances] == found.utterances
    kept = [one for one in expected.utterances if one not in found.utterances]
    assert kept
    assert all(by_path(catalogue)[one.path] == one for one in kept)
    known.catalogued([one.path for one in found.utterances])
    gone = [path for path, data in changes.items() if data is None]
    assert [one.path for one in known.missing()] == gone


def by_path(catalogue: Catalogue) -> dict[str, Utterance]:
    return {one.path: one for one in catalogue.utterances()}
