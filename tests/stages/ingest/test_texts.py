"""Whose text each is: files beside recordings, parallel folders, tables, and what is said of the rest."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from melmill.stages.contract import Discovery
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.stages.numeric.errors import ParameterError
from tests.stages.ingest.corpora import Tree

TWO = {"wavs/a.wav": b"", "wavs/b.wav": b""}
ALL = "2 of 2 utterances have texts"


def found(contents: dict[str, bytes], **fields: Any) -> Discovery:
    return AudioFolder(root="x", **fields).discover(Tree(contents), {})


def texts(contents: dict[str, bytes], **fields: Any) -> dict[str, str]:
    return {utterance.path: utterance.text for utterance in found(contents, **fields).utterances}


@pytest.mark.parametrize(
    ("name", "table", "a", "b"),
    [
        # Every table: its name, its bytes, and the texts of a.wav and b.wav.
        ("metadata.csv", "a|one|one\nb|two|", "one", "two"),
        ("metadata.csv", "a|In 1455|In fourteen fifty-five\nb|two|two", "In fourteen fifty-five", "two"),
        # Headers: whatever order, case and language of programs.
        ("metadata.csv", "file_name,transcription\nwavs/a.wav,one\nwavs/b.wav,two\n", "one", "two"),
        ("metadata.csv", "audio_file|text|speaker_name\nwavs/a.wav|one|@ann\nwavs/b.wav|two|@ann", "one", "two"),
        ("metadata.csv", "speaker|Path|Sentence\n7|wavs/a.wav|one\n7|wavs/b.wav|two", "one", "two"),
        ("metadata.csv", "id|text|normalized_text|lang\na|1|one|eng\nb|2|two|eng", "one", "two"),
        ("metadata.csv", "file,raw_transcription,transcription\na,ONE!,one\nb,TWO!,two", "one", "two"),
        ("validated.tsv", "client_id\tpath\tsentence\tup_votes\nx\ta.mp3\tone\t2\ny\tb.mp3\ttwo\t2", "one", "two"),
        # Quotes of CSV: commas, quotes and line ends in a text.
        ("metadata.csv", 'id,text\na,"one, and ""more"""\nb,"two\r\nlines"\n', 'one, and "more"', "two lines"),
        ("metadata.csv", 'a,"one, two"\nb,two', "one, two", "two"),
        ("metadata.csv", 'id,text\na,"this | that"\nb,two', "this | that", "two"),
        ("metadata.csv", 'a,"this | that"\nb,two | more', "this | that", "two | more"),
        ("transcripts.txt", "a\tthis | that\nb\ttwo | more", "this | that", "two | more"),
        ("metadata.tsv", 'id\ttext\na\t"one\ttab"\nb\ttwo', "one\ttab", "two"),
        # Elsewhere quotes are letters, also one that nothing closes.
        ("metadata.csv", 'a|"one"\nb|"two', '"one"', '"two'),
        ("validated.tsv", 'path\tsentence\na.mp3\t"one" he said\nb.mp3\t"two', '"one" he said', '"two'),
        # An id and its text with tabs or blanks between.
        ("transcripts.txt", "a\tone, two\nb\ttwo", "one, two", "two"),
        ("transcripts.txt", "a one, two\nb  two", "one, two", "two"),
        ("wavs/x.trans.txt", "a ONE\r\nb TWO\r\n", "ONE", "TWO"),
        # Lines end with \n, \r\n or \r and with nothing else.
        ("metadata.csv", "a|one\u2028more\x0bthan\x85that\rb|two", "one\u2028more\x0bthan\x85that", "two"),
        # Programs of other systems: their separators, and a mark at the start.
        ("metadata.csv", "\ufeffwavs\\a.wav|one\r\n.\\wavs\\b.wav|two\r\n", "one", "two"),
        # Texts of scripts without blanks.
        ("metadata.csv", "a|你好。|你好\nb|再见。|再见", "你好", "再见"),
    ],
)
def test_a_table_gives_its_texts(name: str, table: str, a: str, b: str) -> None:
    files = {path.replace(".wav", ".mp3") if "validated" in name else path: data for path, data in TWO.items()}
    assert list(texts({**files, name: table.encode()}).values()) == [a, b]


def test_a_table_names_speakers() -> None:
    table = b"audio_file|speaker_id|speaker_name|text\nwavs/a.wav|7|Ann|one\nwavs/b.wav||Bob|two\n"
    a, b = found({**TWO, "metadata.csv": table}, folders=("speaker",)).utterances
    assert (a.speaker_id, a.speaker_name, a.text) == ("7", "Ann", "one")
    assert (b.speaker_id, b.text) == ("wavs", "two")  # the folder's, as the table has none


@pytest.mark.parametrize(
    ("columns", "line", "expected"),
    [
        (("path", "text", "speaker"), "{}|hello|225", ("hello", "225")),
        (("id", "speaker", "text"), "{}|225|hello", ("hello", "225")),
        (("path", "-", "text", "-"), "{}|1|hello|eng", ("hello", "")),
        (("path", "-", "-"), "{}|dog|3", ("", "")),
        (("path", "text"), "{}\tthis | that", ("this | that", "")),
        (("text", "path"), "4|{}", ("4", "")),
    ],
)
def test_columns_may_be_declared(columns: tuple[str, ...], line: str, expected: tuple[str, str]) -> None:
    table = "\n".join(line.format(stem) for stem in ("a", "wavs/b.wav")).encode()
    for utterance in found({**TWO, "metadata.csv": table}, columns=columns, folders=()).utterances:
        assert (utterance.text, utterance.speaker_id) == expected
    # A manifest's columns, of which a header is no row. Tables have a shape of their own.
    files = {**TWO, "metadata.csv": b"a|x|225", "list.txt": table.replace(b"a", b"wavs/a.wav", 1)}
    if expected[0]:
        listed = found(files, columns=columns, folders=(), manifest="list.txt").utterances
        assert [(one.text, one.speaker_id) for one in listed] == [expected] * 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        # No text is ever a speaker, a language or a length.
        ("a|one|225\nb|two|226", r"'metadata.csv': line 1 is 'a', 'one', '225', where the third column is no norm"),
        ("a|one two|ann\nb|two|ann", r"columns: \[path, text, -\] in the right order"),
        ("a|Ann is here|ann\nb|I am ann|ann\nb|No ann|ann\nc|ann, so|ann", "the third column is no normalised form"),
        ("a|one|one|spk|eng", r"'one', 'spk' and 1 more, 5 columns without a header; write columns: \[path, text, -,"),
        ("a|225\nb|226", "where the second column holds numbers alone"),
        ("a|one\nb", "line 2 is 'b', 1 column without a header"),
        ("a", "line 1 is 'a', 1 column without a header"),
        ("a|one\nb|two|words|more", "line 2 is 'b', 'two', 'words', 'more', 4 columns without"),
        # Headers that leave something open.
        ("clip_no|text|lang\na|one|eng", "a header that names no path and no id"),
        ("id|text|sentence\na|one|two", "a header that names several texts"),
        # Rows that do not fit.
        ("id,text\na,one, two\n", r"got 3 columns on line 2 \('a', 'one', ' two'\) where its header has 2; .* quotes"),
        ('id,text\na,"one" two\n', r"whose quotes are those of CSV, got 'metadata.csv', line 2"),
        ('id,text\nb,two\na,"one\n', r"got 'metadata.csv', line 3: unexpected end of data"),
    ],
)
def test_a_table_of_uncertain_columns_is_refused(table: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        found({**TWO, "metadata.csv": table.encode()})


def test_a_row_of_another_width_than_declared_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"got 3 columns on line 2 \('b', 'x', 'y'\) where columns declares 2"):
        found({**TWO, "metadata.csv": b"a|one\nb|x|y"}, columns=("path", "text"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("path", "words"), "columns must hold only path, id, text, speaker, speaker_name, -, got 'words'"),
        (("text", "speaker"), r"columns must name path \(or id\) once, .* got \['text', 'speaker'\]"),
        (("path", "id"), "must name path"),
        (("path", "text", "text"), "each other column at most once"),
    ],
)
def test_declared_columns_are_checked(columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        AudioFolder(root="x", columns=columns)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        # Beside the recording.
        ({"s/p/a.wav": b"", "s/p/a.txt": b"one"}, "one"),
        ({"s/p/a.WAV": b"", "s/p/a.TXT": b"one"}, "one"),
        ({"s/p/a.wav": b"", "s/p/a.lab": b"one"}, "one"),
        ({"s/p/a.wav": b"", "s/p/a.LAB": b"later", "s/p/a.txt": b"one"}, "one"),
        ({"s/p/a.wav": b"", "s/p/a.lab": b"0 50 sil\n50 97 h#\n"}, ""),  # labels with times
        # TIMIT's sample numbers go, other numbers stay.
        ({"s/p/a.WAV": b"", "s/p/a.TXT": b"0 46797 She had it.\r\n"}, "She had it."),
        ({"s/p/a.wav": b"", "s/p/a.txt": b"0 7 Bond"}, "0 7 Bond"),
        ({"s/p/a.wav": b"", "s/p/a.txt": b"0 46797 33000"}, "0 46797 33000"),
        ({"s/p/a.wav": b"", "s/p/a.txt": b"2001 46797 words"}, "2001 46797 words"),
        # VCTK's parallel folder, for two microphones.
        ({"txt/p/a.txt": b"one", "wav48/p/a.wav": b""}, "one"),
        ({"txt/p/a.txt": b"one", "wav/p/a.wav": b""}, "one"),
        ({"v/txt/p/a.txt": b"one", "v/wav48_silence_trimmed/p/a_mic2.flac": b""}, "one"),
        ({"txt/p/a.txt": b"one", "other/p/a.wav": b""}, ""),
        # What lies inside a text stays.
        ({"s/p/a.wav": b"", "s/p/a.txt": "one\u2028 two\r\n lines ".encode()}, "one\u2028 two lines"),
    ],
)
def test_a_file_of_one_text_is_found(files: dict[str, bytes], text: str) -> None:
    assert list(texts(files).values()) == [text]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_match_in_any_normal_form(form: Any) -> None:
    path, stem = unicodedata.normalize(form, "wavs/é.wav"), {"NFC": "NFD", "NFD": "NFC"}[form]
    name = unicodedata.normalize(stem, "é")  # type: ignore[arg-type]
    for files in ({f"wavs/{name}.txt": b"yes"}, {"metadata.csv": f"{name}|yes".encode()}):
        assert texts({path: b"", **files}) == {path: "yes"}
    assert texts({path: b"", "list.txt": f"wavs/{name}|yes".encode()}, manifest="list.txt") == {path: "yes"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_tell_encodings(encoding: str) -> None:
    files = {**TWO, "metadata.csv": "a|sí\n".encode(encoding), "wavs/b.txt": "où".encode(encoding)}
    assert list(texts(files).values()) == ["sí", "où"]
    assert list(texts({**TWO, "l": "wavs/a|sí".encode(encoding)}, manifest="l").values()) == ["sí"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_declared(encoding: str) -> None:
    # A file that is UTF-8 stays so.
    files = {**TWO, "metadata.csv": "a|sí\n".encode(encoding), "wavs/b.txt": "où".encode()}
    with pytest.raises(ParameterError, match=r"encoding must be said for 'metadata.csv', which is not utf-8: byte \d"):
        found(files)
    assert list(texts(files, encoding=encoding).values()) == ["sí", "où"]
    with pytest.raises(ParameterError, match="encoding must be said for 'l', which is not utf-8"):
        found({**TWO, "l": "wavs/a|sí".encode(encoding)}, manifest="l")


def test_a_wrong_byte_is_named() -> None:
    with pytest.raises(ParameterError, match=r"'wavs/a.txt', .* not utf-8: byte 7, on line 3, is 0xe9; .* latin-1"):
        found({**TWO, "wavs/a.txt": b"one\r\n\rc\xe9"})
    with pytest.raises(ParameterError, match=r"not cp1252: byte 1, on line 1, is 0x81"):
        found({**TWO, "wavs/a.txt": b"a\x81"}, encoding="cp1252")
    with pytest.raises(ParameterError, match=r"not utf-16: byte 4, on line 1"):
        found({**TWO, "wavs/a.txt": "ab".encode("utf-16")[:-1]})
    for encoding in ("nothing", "hex", ""):
        with pytest.raises(ParameterError, match="encoding must be the name of a text encoding"):
            AudioFolder(root="x", encoding=encoding)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"metadata.csv": b"a|one\na|two"}, r"two for 'wavs/a': 'one' \(metadata.csv:1\) and 'two' \(metadata.csv:2\)"),
        ({"metadata.csv": b"a|one\nwavs/a.wav|two"}, r"\(metadata.csv:1\) and 'two' \(metadata.csv:2\); remove one"),
        (
            {"metadata.csv": b"a|one", "transcripts.txt": b"b x\na two"},
            r"'one' \(metadata.csv:1\) and 'two' \(transcripts.txt:2\)",
        ),
        ({"metadata.csv": b"id|speaker\na|7\na|8"}, r"one speaker for each utterance, got two for 'wavs/a': '7' \(me"),
    ],
)
def test_two_texts_of_one_utterance_are_named(tables: dict[str, bytes], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        found({**TWO, **tables})


def test_the_same_text_may_be_said_twice() -> None:
    assert (
        texts({**TWO, "metadata.csv": b"a|one\nb|two\na|one\n", "transcripts.txt": b"a one\n"})["wavs/a.wav"] == "one"
    )
    # The nearest table goes before those above it.
    assert texts({**TWO, "metadata.csv": b"a|far\nb|two", "wavs/metadata.csv": b"a|near"})["wavs/a.wav"] == "near"


def test_a_bare_name_of_several_files_gives_none_of_them_a_text() -> None:
    files = {"s1/001.wav": b"", "s2/001.wav": b"", "s2/002.wav": b"", "metadata.csv": b"001|hers\n002|his\n"}
    expected = {"s1/001.wav": "", "s2/001.wav": "", "s2/002.wav": "his"}
    assert texts(files) == expected
    assert found(files).notes == (
        "1 of 3 utterances have texts; first without: 's1/001.wav'",
        "warning: metadata.csv: 1 name of several files, none of which gets a text; first: line 1 '001' fits "
        "'s1/001.wav', 's2/001.wav'; write paths",
    )
    # Nor does it where only one of them is wanted.
    assert texts(files, files=("s1/*",)) == {"s1/001.wav": ""}
    assert texts({**files, "metadata.csv": b"s1/001|hers\n002|his"})["s1/001.wav"] == "hers"


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        ({"metadata.csv": b"a|one\nb|two"}, (ALL,)),
        ({"wavs/a.txt": b"one", "wavs/b.txt": b"two"}, (ALL,)),
        (
            {"metadata.csv": b"x|one\ny|two\na|three"},
            (
                "1 of 2 utterances have texts; first without: 'wavs/b.wav'",
                "metadata.csv: 2 lines of 3 fit no file; first: line 1 'x'",
            ),
        ),
        (
            {"metadata.csv": b"filename,label\na.wav,dog\nb.wav,cat"},
            (
                "0 of 2 utterances have texts; first without: 'wavs/a.wav'",
                "metadata.csv: its header names no text: 'filename', 'label'",
            ),
        ),
        (
            {"metadata.csv": b""},
            ("0 of 2 utterances have texts; first without: 'wavs/a.wav'", "metadata.csv: it has no lines"),
        ),
        (
            {"elsewhere/a.txt": b"one", "elsewhere/b.txt": b"two"},
            (
                "0 of 2 utterances have texts; first without: 'wavs/a.wav'",
                "2 files of texts fit no recording; first: 'elsewhere/a.txt'",
            ),
        ),
        # A corpus of sounds says nothing of texts.
        ({}, ()),
        ({"c.wav": b"", "README.txt": b"Sounds."}, ()),
        ({"._metadata.csv": b"\x00", ".Trashes/metadata.csv": b"a|b|c|d"}, ()),
    ],
)
def test_notes_say_how_many_have_texts_and_why_others_do_not(files: dict[str, bytes], notes: tuple[str, ...]) -> None:
    assert found({**TWO, **files}).notes == notes


LIBRI = {"s/1/2/1-2-0000.flac": b"", "s/1/2/1-2-0001.flac": b""}


@pytest.mark.parametrize(
    ("transcript", "fields", "expected"),
    [
        ("1-2-0000 ONE TWO\n1-2-0001 TWO\n", {}, ["ONE TWO", "TWO"]),
        ("1-2-0000\tONE TWO\r\n1-2-0001   TWO\r\n", {}, ["ONE TWO", "TWO"]),
        ("1-2-0000 ONE\u2028MORE\r1-2-0001 TWO", {}, ["ONE\u2028MORE", "TWO"]),
        ("1-2-0000 ONE\n1-2-0000 ONE\n", {}, ["ONE", ""]),
    ],
)
def test_transcripts_of_chapters_are_read(transcript: str, fields: dict[str, Any], expected: list[str]) -> None:
    files = {**LIBRI, "s/1/2/1-2.trans.txt": transcript.encode()}
    assert [u.text for u in LibriSpeech(root="x", **fields).discover(Tree(files), {}).utterances] == expected


def test_transcripts_of_chapters_are_refused_by_line() -> None:
    def read(data: bytes) -> None:
        LibriSpeech(root="x").discover(Tree({**LIBRI, "s/1/2/1-2.trans.txt": data}), {})

    with pytest.raises(ParameterError, match=r"'ONE' \(s/1/2/1-2.trans.txt:1\) and 'TWO' \(s/1/2/1-2.trans.txt:3\)"):
        read(b"1-2-0000 ONE\n\n1-2-0000 TWO\n")
    with pytest.raises(ParameterError, match=r"'s/1/2/1-2.trans.txt', which is not utf-8: byte 9, on line 1, is 0xc9"):
        read(b"1-2-0000 \xc9T\xc9")


def test_texts_decide_no_key() -> None:
    plain = AudioFolder(root="x").identity()
    assert AudioFolder(root="x", columns=("path", "text"), encoding="latin-1").identity() == plain
    assert LibriSpeech(root="x", encoding="latin-1").identity() == LibriSpeech(root="x").identity()


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({"wavs/a.txt": b"one", "metadata.csv": b"b|two"}, {"metadata.csv": b"b|two, mended"}),
        ({"wavs/a.txt": b"one"}, {"wavs/a.txt": b"one, mended"}),
        ({"wavs/a.txt": b"one"}, {"wavs/a.txt": b"one", "wavs/b.lab": b"added"}),
        ({"wavs/a.txt": b"one", "wavs/b.txt": b"two"}, {}),
        ({"metadata.csv": b"id|text|speaker\na|one|7"}, {"metadata.csv": b"id|text|speaker\na|one|8"}),
    ],
)
def test_changed_texts_are_noticed_and_no_file_of_one_text_is_read_twice(
    files: dict[str, bytes], changed: dict[str, bytes]
) -> None:
    stage = AudioFolder(root="x")
    first = stage.discover(Tree({**TWO, **files}), {}).utterances
    known = {utterance.path: utterance for utterance in first}
    again = Tree({**TWO, **files})
    assert stage.discover(again, known).labels == {}
    assert again.n_read == sum("metadata" in path for path in files)
    now = stage.discover(Tree({**TWO, **changed}), known)
    fresh = {one.utterance_id: one.labels for one in stage.discover(Tree({**TWO, **changed}), {}).utterances}
    assert now.labels == {
        one.utterance_id: fresh[one.utterance_id] for one in first if fresh[one.utterance_id] != one.labels
    }
    assert now.labels
    assert now.utterances == first
    assert all(mine is known[mine.path] for mine in now.utterances)  # so no recording is read again
