"""Lists of the files wanted."""

from __future__ import annotations

from typing import Any

import pytest

from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.numeric.errors import ParameterError
from tests.stages.ingest.corpora import Tree

FILES = {"wavs/a.wav": b"", "wavs/b.wav": b"", "wavs/c.flac": b"", "wavs/b.txt": b"Beside."}


def found(manifest: bytes, **fields: Any) -> dict[str, str]:
    stage = AudioFolder(root="x", manifest="list.txt", **fields)
    return {u.path: u.text for u in stage.discover(Tree({**FILES, "list.txt": manifest}), {}).utterances}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (b"wavs/a.wav\nwavs/c.flac\n", {"wavs/a.wav": "", "wavs/c.flac": ""}),
        # The order is the corpus's, so that a list that is sorted anew is the same corpus.
        (b"wavs/c.flac|See.\nwavs/a.wav|Hey.", {"wavs/a.wav": "Hey.", "wavs/c.flac": "See."}),
        # Without suffix; with another one; from the current folder; blank lines; a byte order mark;
        # DOS lines.
        (b"wavs/a\n\n  \nwavs/b.npy\n", {"wavs/a.wav": "", "wavs/b.wav": "Beside."}),
        (b"\xef\xbb\xbf./wavs/a.wav|Hey.\r\n", {"wavs/a.wav": "Hey."}),
        # A text of the list goes before one beside the recording.
        (b"wavs/b.wav|Listed.\n", {"wavs/b.wav": "Listed."}),
        (b"wavs/b.wav|\n", {"wavs/b.wav": "Beside."}),
    ],
)
def test_a_manifest_chooses_files_and_gives_texts(manifest: bytes, expected: dict[str, str]) -> None:
    assert found(manifest) == expected


def test_patterns_choose_among_what_is_listed() -> None:
    assert found(b"wavs/a.wav\nwavs/c.flac", files=("*.wav",)) == {"wavs/a.wav": ""}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        # What lies between a path and a text is no guess.
        (b"wavs/b.wav|7|Listed.\n", r"'list.txt': line 1 is 'wavs/b.wav', '7', 'Listed.', where the third column"),
        (b"\n \n", "manifest must list files, got 'list.txt' with none"),
        (b"wavs/a.wav\nwavs/b.wav\nwavs/a", "once, got 'wavs/a' on lines 1 and 3 of 'list.txt'"),
        (
            b"wavs/a.wav\na.wav\nwavs/q.wav|text",
            r"with 2 of 3 that are not there: 'a' \(line 2\), 'wavs/q' \(line 3\); paths are relative to root and read "
            r"like 'wavs/a'",
        ),
        (b"1\n2\n3\n4\n5", r"'3' \(line 3\) and 2 more"),
    ],
)
def test_a_manifest_that_will_not_do_is_explained(manifest: bytes, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        found(manifest)


def test_a_manifest_that_is_not_there_is_explained() -> None:
    class Gone(Tree):
        def read(self, path: str) -> bytes:
            raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ParameterError, match=r"manifest must be a file below 'x', got 'lst\.txt': No such file"):
        AudioFolder(root="x", manifest="lst.txt").discover(Gone(FILES), {})


def test_only_a_manifest_that_is_given_is_in_the_identity() -> None:
    assert "manifest" not in AudioFolder(root="x").identity()
    assert AudioFolder(root="x", manifest="a").identity() != AudioFolder(root="x", manifest="b").identity()
