"""Which file of another system belongs to which recording."""

from __future__ import annotations

import unicodedata

import pytest

from melmill.stages.contract import Waveform
from melmill.stages.numeric.errors import ContractError, ParameterError, StageError
from melmill.stages.score.contract import PairingStage
from melmill.stages.score.pairing import Side, missing, parse_pairs, partners
from melmill.stages.score.stage import Score
from melmill.storage.utterance import Utterance


def utterance(path: str, name: str | None = None, n_samples: int = 16000, sr: int = 16000) -> Utterance:
    stem = path.rpartition(".")[0]
    return Utterance(
        utterance_id=stem.replace("/", "--") if name is None else name,
        subset="",
        speaker_id="",
        chapter_id="",
        text="",
        path=path,
        size_bytes=1,
        mtime_ns=0,
        source_sr=sr,
        source_n_samples=n_samples,
        sr=sr,
        n_samples=n_samples,
    )


def side(node: str, *paths: str) -> Side:
    return Side(node, [utterance(path) for path in paths])


def librispeech(*names: str) -> Side:
    """Return utterances whose ids are the names of their files, as LibriSpeech has them."""
    return Side("speech", [utterance(f"dev-clean/84/121123/{name}.flac", name) for name in names])


@pytest.mark.parametrize(
    ("references", "estimates", "found"),
    [
        # equal ids
        (["u0.wav", "u1.wav"], ["u1.flac", "u0.wav"], {"u0": "u0", "u1": "u1"}),
        # other folders, the same file names
        (["clean/u0.wav"], ["wavs/out/u0.flac"], {"clean--u0": "wavs--out--u0"}),
        # file names that repeat, told apart by the folder above
        (
            ["dev/s1/0001.wav", "dev/s2/0001.wav"],
            ["s2/0001.wav", "s1/0001.wav"],
            {"dev--s1--0001": "s1--0001", "dev--s2--0001": "s2--0001"},
        ),
        # a file more than there are recordings takes nobody else's place
        (["s1/0001.wav", "s2/0001.wav"], ["s1/0001.wav", "s3/0001.wav"], {"s1--0001": "s1--0001"}),
        # a dot in a name is no suffix
        (["take.1.wav"], ["x/take.1.wav", "x/take.2.wav"], {"take.1": "x--take.1"}),
    ],
)
def test_ids_and_then_the_ends_of_paths_tell(
    references: list[str], estimates: list[str], found: dict[str, str]
) -> None:
    assert partners(side("speech", *references), side("gen", *estimates), None)[0] == found


def test_an_export_of_librispeech_finds_its_utterances() -> None:
    exported = side("gen", "dev-clean/84/121123/84-121123-0000.flac", "84-121123-0001.flac")
    found, notes = partners(librispeech("84-121123-0000", "84-121123-0001"), exported, None)
    assert found == {
        "84-121123-0000": "dev-clean--84--121123--84-121123-0000",
        "84-121123-0001": "84-121123-0001",
    }
    assert notes == [
        "1 utterances of 'gen' and 'speech' are paired by file name, "
        "e.g. 'dev-clean--84--121123--84-121123-0000' with '84-121123-0000'"
    ]


def test_composed_and_decomposed_names_are_one() -> None:
    name = "Café"
    found, _ = partners(
        side("speech", f"a/{unicodedata.normalize('NFC', name)}.wav"),
        side("gen", f"b/{unicodedata.normalize('NFD', name)}.wav"),
        None,
    )
    assert len(found) == 1


def test_utterances_that_share_a_file_go_by_their_ids() -> None:
    archive = Side("speech", [utterance("all.tar", "u0"), utterance("all.tar", "u1")])
    assert partners(archive, side("gen", "wavs/u1.wav"), None)[0] == {"u1": "wavs--u1"}


@pytest.mark.parametrize(
    ("references", "estimates", "message"),
    [
        (["a/x.wav", "b/x.wav"], ["x.wav"], r"'a--x' and 'b--x' of 'speech' have the same file name, .* fit 'x'"),
        (["x.wav"], ["a/x.wav", "b/x.wav"], r"'a--x' and 'b--x' of 'gen' have the same file name, .* fit 'x'"),
        (
            ["clean/a.wav"],
            ["b_generated.wav"],
            r"no file of 'gen' has the id or the name of an utterance of 'speech': they read like 'b_generated' "
            r"\(b_generated\.wav\) and 'clean--a' \(clean/a\.wav\)\. Name a table of pairs",
        ),
    ],
)
def test_what_is_open_is_one_error(references: list[str], estimates: list[str], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        partners(side("speech", *references), side("gen", *estimates), None)


@pytest.mark.parametrize(
    "table",
    [
        "gen_0.wav,u0\ngen_1.wav,u1\n",
        "estimate,reference\ngen_0,u0.wav\ngen_1,u1.wav\n",
        "reference\testimate\r\nu0\twavs/gen_0.wav\r\nu1\twavs/gen_1\r\n",
        '\ufeffgen_0|u0\n\n"gen_1"|u1',
        "score;Reference;Estimate\n3;u0;wavs--gen_0\n4;clean/u1;./wavs/gen_1.wav\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_names_ids_paths_or_files(table: str, encoding: str) -> None:
    references, estimates = (
        side("speech", "clean/u0.wav", "clean/u1.wav"),
        side("gen", "wavs/gen_0.wav", "wavs/gen_1.wav"),
    )
    lines = parse_pairs((table.removeprefix("\ufeff") if encoding == "utf-16" else table).encode(encoding))
    found, notes = partners(references, estimates, lines)
    assert found == {"clean--u0": "wavs--gen_0", "clean--u1": "wavs--gen_1"}
    assert notes == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "must be a table of estimate and reference, a line for each pair, got none"),
        (b"estimate,reference\n\n", "must be a table of estimate and reference, a line for each pair, got none"),
        (b"a," + b"x" * 200_000, "must be a table, got this on line 1: field larger than field limit"),
        (b"a.wav\n", "must be a table of two columns, estimate and reference, .* got 1 columns on line 1"),
        (b"a,b\nc,d,e\n", r"got 3 columns on line 2: \['c', 'd', 'e'\]"),
        (b"Caf\xe9,u0\n", "must be a table in UTF-8, got other bytes at position 3"),
        (b"gen_0,u0\ngen_1,u0\n", "must name each reference once, got 'u0' on lines 1 and 2, with '.*gen_0' and"),
        (b"x,u0\ny,u1\n", r"got 2 lines that fit none: 'x' is not in 'gen' \(line 1\)"),
        (
            b"gen_0,same\n",
            r"must name one file each, got 'same' on line 1, which is 'a--same' and 'b--same' of 'speech'",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(table: bytes, message: str) -> None:
    references = side("speech", "u0.wav", "u1.wav", "a/same.wav", "b/same.wav")
    with pytest.raises(ParameterError, match=message) as caught:
        partners(references, side("gen", "wavs/gen_0.wav", "wavs/gen_1.wav"), parse_pairs(table))
    assert caught.value.field == "pairs"


def test_a_table_with_the_reference_first_is_taken_so_and_that_is_said() -> None:
    found, notes = partners(side("speech", "u0.wav"), side("gen", "gen_0.wav"), parse_pairs(b"u0,gen_0\n"))
    assert found == {"u0": "gen_0"}
    assert notes == ["pairs: the columns are taken as reference and estimate, as only so names fit"]


def test_lines_that_name_nothing_are_said() -> None:
    lines = parse_pairs(b"gen_0,u0\ngen_9,u1\n")
    found, notes = partners(side("speech", "u0.wav", "u1.wav"), side("gen", "gen_0.wav"), lines)
    assert found == {"u0": "gen_0"}
    assert notes == ["pairs: 1 of 2 lines are passed over: 'gen_9' is not in 'gen' (line 2)"]


def test_what_has_no_partner_is_listed() -> None:
    references, estimates = side("speech", *(f"u{i}.wav" for i in range(6))), side("gen", "u0.wav", "u9.wav")
    found, _ = partners(references, estimates, None)
    assert list(missing(references, estimates, found)) == [
        "5 of 6 utterances of 'speech' have no file in 'gen', and get the status missing_estimate: "
        "u1, u2, u3 and 2 more",
        "1 of 2 utterances of 'gen' have no recording in 'speech', and are not scored: u9",
    ]
    assert list(missing(references, references, {f"u{i}": f"u{i}" for i in range(6)})) == []


def notes_of(stage: Score, estimates: list[Utterance], sr: int = 16000) -> tuple[str, ...]:
    references = [utterance(f"u{i}.wav") for i in range(3)]
    products = {"from": Waveform(sr=sr, node="gen", corpus=True), "against": Waveform(sr=16000, node="speech")}
    return stage.pair(references, estimates, products, None).notes


def test_lengths_and_rates_that_differ_are_said() -> None:
    assert isinstance(Score(), PairingStage)
    hop = 256
    some = [utterance("u0.wav"), utterance("u1.wav", n_samples=16000 - hop), utterance("u2.wav", n_samples=16001 + hop)]
    assert notes_of(Score(), some) == (
        "1 of 3 pairs differ in length by a hop at most, and are cut to the shorter",
        "1 of 3 pairs differ in length by more than a hop, and get the status error: u2 (1.016 s for 1.000 s); "
        "lengths: cut compares what both have",
    )
    assert notes_of(Score(lengths="cut"), some)[-1] == (
        "1 of 3 pairs differ in length by more, and are cut too: u2 (1.016 s for 1.000 s)"
    )
    faster = [utterance(f"u{i}.wav", n_samples=22050, sr=22050) for i in range(3)]
    assert notes_of(Score(), faster, 22050) == (
        "'gen' has 22050 Hz and 'speech' 16000 Hz: spectral metrics resample to 16000 Hz, and others to a rate of "
        "their own",
    )
    assert notes_of(Score(), [utterance(f"u{i}.wav") for i in range(3)]) == ()


def test_the_identity_holds_what_a_table_says_and_not_how() -> None:
    stage = Score(pairs="map.csv")
    assert stage.identity() == Score().identity()  # where no other corpus is read, no table is
    one, same, other = (stage.with_pairs(table) for table in (b"a,b\nc,d\n", b"c|d\na|b", b"a,d\nc,b\n"))
    assert one.identity() == same.identity()
    assert one.identity() not in (other.identity(), Score().identity())
    assert Score(lengths="cut").identity() != Score().identity()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"lengths": "trim"}, "lengths must be one of same, cut, got 'trim'"), ({"pairs": ""}, "pairs must be the path")],
)
def test_a_wrong_field_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(StageError, match=message):
        Score(**fields)  # type: ignore[arg-type]
