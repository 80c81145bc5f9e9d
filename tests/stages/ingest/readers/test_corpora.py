"""Readers of published corpora, each on a tiny tree in the true layout."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from melmill.stages.ingest.corpus import CorpusReader
from melmill.stages.ingest.reader import READERS
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.files.sources import SourceTree
from tests.stages.ingest.readers.published import (
    AISHELL3,
    COMMON_VOICE,
    CORPORA,
    KSS,
    LIBRITTS,
    LJSPEECH,
    MLS,
    TIMIT,
    VCTK,
    VCTK_080,
    Published,
    read,
    reader,
    said,
)


@pytest.mark.parametrize("uses", CORPORA)
def test_a_published_corpus_is_read(tmp_path: Path, uses: str) -> None:
    utterances, notes, _ = read(reader(uses, CORPORA[uses].write(tmp_path), sr=16000))
    assert said(utterances) == CORPORA[uses].expected
    n_texts = sum(bool(one.text) for one in utterances.values())
    assert any(note.startswith(f"{n_texts} of {len(utterances)} utterances have texts") for note in notes)


@pytest.mark.parametrize("uses", CORPORA)
def test_the_recordings_have_the_rates_of_the_corpus(tmp_path: Path, uses: str) -> None:
    utterances, _, _ = read(reader(uses, CORPORA[uses].write(tmp_path), sr=16000))
    assert {one.source_sr for one in utterances.values()} == set(CORPORA[uses].audio.values())


@pytest.mark.parametrize("uses", CORPORA)
def test_a_corpus_is_recognised_by_its_own_reader_alone(uses: str) -> None:
    paths = list(CORPORA[uses].audio)
    assert [name for name, one in READERS.items() if one.recognise("x", paths)] == [uses]


@pytest.mark.parametrize("uses", CORPORA)
def test_a_second_plan_reads_no_text_again(tmp_path: Path, uses: str) -> None:
    """A plan believes the catalogue while the files that say texts are as they were."""
    stage = reader(uses, CORPORA[uses].write(tmp_path), sr=16000)
    tree = SourceTree(stage.root)
    first = stage.discover(tree, {}).utterances
    again = stage.discover(tree, {one.path: one for one in first})
    assert again.utterances == first
    assert again.labels == {}


def test_every_corpus_has_facts_and_a_tree_here() -> None:
    published = {name for name, one in READERS.items() if issubclass(one, CorpusReader)}
    assert published == CORPORA.keys() - {"librispeech"}
    for name in published:
        facts = READERS[name].facts
        assert facts is not None
        assert facts.url
        assert facts.licence
        assert all(one.url.startswith("http") for one in facts.downloads)
        assert all(len(one.sha256) in (0, 64) for one in facts.downloads)


@pytest.mark.parametrize(
    ("corpus", "uses", "fields", "name", "text"),
    [
        (LIBRITTS, "libritts", {"texts": "original"}, "84_121123_000007_000001", "Mr. Maximilian."),
        (LIBRITTS, "libritts", {"texts": "original"}, "84_121123_000008_000000", "Mr. V."),
        (AISHELL3, "aishell3", {"texts": "pinyin"}, "SSB00050001", "guang3 zhou1 nv3"),
        (KSS, "kss", {"texts": "original"}, "1_0000", "그는 1개"),
        (KSS, "kss", {"texts": "english"}, "1_0000", "He has one."),
    ],
)
def test_another_text_may_be_chosen(
    tmp_path: Path, corpus: Published, uses: str, fields: dict[str, str], name: str, text: str
) -> None:
    stage = reader(uses, corpus.write(tmp_path), sr=16000, **fields)
    assert read(stage)[0][name].text == text
    # A catalogue that has the other text follows, though no file has changed.
    tree = SourceTree(str(tmp_path))
    first = reader(uses, tmp_path, sr=16000).discover(tree, {}).utterances
    again = stage.discover(tree, {one.path: one for one in first})
    assert again.labels[name].text == text
    # A text decides nothing that is stored.
    assert stage.identity() == reader(uses, tmp_path, sr=16000).identity()


@pytest.mark.parametrize(
    ("microphone", "ids"),
    [
        ("mic1", ["p225_001", "p280_001", "p315_001", "s5_001"]),
        ("mic2", ["p225_001", "s5_001"]),
        ("both", ["p225_001_mic1", "p225_001_mic2", "p280_001_mic1", "p315_001_mic1", "s5_001_mic1", "s5_001_mic2"]),
    ],
)
def test_a_microphone_of_vctk_is_chosen(tmp_path: Path, microphone: str, ids: list[str]) -> None:
    utterances, notes, _ = read(reader("vctk", VCTK.write(tmp_path), sr=16000, microphone=microphone))
    assert sorted(utterances) == ids
    assert all(one.text == ("" if one.speaker_id == "p315" else one.text) for one in utterances.values())
    assert any("2 utterances have no mic2, of speakers p280, p315" in note for note in notes) == (microphone == "mic2")
    assert any("of the other microphone" in note for note in notes) == (microphone != "both")


def test_the_first_version_of_vctk_is_read(tmp_path: Path) -> None:
    utterances, notes, _ = read(reader("vctk", VCTK_080.write(tmp_path), sr=16000))
    assert said(utterances) == VCTK_080.expected
    assert any("1 of 2 utterances have texts; first without: 'VCTK-Corpus/wav48/p315" in note for note in notes)


def test_alignments_of_timit_are_counted(tmp_path: Path) -> None:
    _, notes, _ = read(reader("timit", TIMIT.write(tmp_path)))
    assert "1 of 3 utterances have alignments beside them (.PHN)" in notes


def test_copies_of_timit_have_names_in_lower_case(tmp_path: Path) -> None:
    low = {name.lower(): sr for name, sr in TIMIT.audio.items()}
    files = {name.lower(): content for name, content in TIMIT.files.items()}
    utterances, _, _ = read(reader("timit", Published(low, files, {}, kind="NIST").write(tmp_path)))
    assert said(utterances) == TIMIT.expected


def test_languages_of_mls_are_part_of_the_subset(tmp_path: Path) -> None:
    MLS.write(tmp_path)
    french = {name.replace("german", "french").replace("10087", "10088"): sr for name, sr in MLS.audio.items()}
    french = {name: sr for name, sr in french.items() if "train" in name}
    Published(french, {}, {}).write(tmp_path)
    utterances, _, _ = read(reader("mls", tmp_path))
    assert {one.subset for one in utterances.values()} == {"mls_german/train", "mls_german/dev", "mls_french/train"}


def test_tables_of_common_voice_choose_clips(tmp_path: Path) -> None:
    root = COMMON_VOICE.write(tmp_path)
    _, notes, _ = read(reader("common_voice", root, sr=16000))
    assert any(note.startswith("1 clips are in none of train, dev, test, validated") for note in notes)
    utterances, _, _ = read(reader("common_voice", root, sr=16000, splits=("other",)))
    assert list(utterances) == ["common_voice_de_4"]
    with pytest.raises(ParameterError, match="splits must hold only train"):
        reader("common_voice", root, splits=("training",))


def test_lines_without_a_recording_are_counted(tmp_path: Path) -> None:
    """A corpus that is there in part is read, and each plan says what is missing."""
    LJSPEECH.write(tmp_path)
    (tmp_path / "LJSpeech-1.1/wavs/LJ001-0007.wav").unlink()
    _, notes, _ = read(reader("ljspeech", tmp_path, sr=22050))
    line = "metadata.csv: 1 of 2 lines name recordings that are not there; first: 'LJ001-0007'"
    assert any(note.endswith(line) for note in notes)


def test_files_of_other_names_are_counted(tmp_path: Path) -> None:
    LJSPEECH.write(tmp_path)
    Published({"LJSpeech-1.1/wavs/extra.wav": 22050, "LJSpeech-1.1/wavs/a.mp3": 22050}, {}, {}).write(tmp_path)
    _, notes, _ = read(reader("ljspeech", tmp_path, sr=22050))
    assert any("1 passed over, not named as in LJSpeech: 'LJSpeech-1.1/wavs/extra.wav'" in note for note in notes)
    assert any("1 file is audio by its name but not of LJSpeech: 1 .mp3" in note for note in notes)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_corpus_is_read_in_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setenv("MELMILL_CACHE", str(tmp_path / "cache"))
    root = LIBRITTS.write(tmp_path / "there")
    archive = tmp_path / f"dev.{suffix}"
    with tarfile.open(archive, "w:gz" if suffix.endswith("gz") else "w") as tar:
        tar.add(root, ".")
    packed, _, made = read(reader("libritts", archive, sr=24000))
    plain, _, unpacked = read(reader("libritts", root, sr=24000))
    assert said(packed) == LIBRITTS.expected
    for name in plain:
        assert made[name].array is not None
        assert made[name].array.tobytes() == unpacked[name].array.tobytes()  # type: ignore[union-attr]
