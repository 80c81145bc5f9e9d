"""`melmill mel make` and `melmill invert` on files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import melmill
from melmill.flows.cli import main
from melmill.flows.exchange.single import targets
from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.contract import Kind
from melmill.stages.formats.format import FORMATS, Encoded, ExchangeFormat
from tests.flows.conftest import Project, voice


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a folder with two recordings and their mels."""
    made = Project(tmp_path_factory.mktemp("single"))
    for name, f0 in (("a", 110.0), ("b", 190.0)):
        soundfile.write(made.folder / f"{name}.wav", voice(1.0, f0, seed=1), 16000, subtype="PCM_16")
    done = made.called("mel", "make", "a.wav", "b.wav", "-o", "mels", "--preset", "hifigan", "-v")
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert "mels/a.npy: 1.00 s of audio in " in done.stderr
    return made


def test_a_mel_is_the_one_that_a_pipeline_makes(work: Project) -> None:
    (work.folder / "corpus").mkdir()
    (work.folder / "corpus" / "a.wav").write_bytes((work.folder / "a.wav").read_bytes())
    work.pipeline.write_text(
        f"name: x\nstore: {work.store}\nstages:\n  y: {{uses: audio_folder, root: corpus, sr: 22050}}\n"
        "  mel: {uses: extract, from: y, preset: hifigan}\n"
    )
    work.run("--executor", "serial")
    stored = melmill.open(str(work.store))["mel"]["a"]
    np.testing.assert_array_equal(np.load(work.folder / "mels" / "a.npy"), stored)


def test_inverting_says_nothing_and_does_what_python_does(work: Project) -> None:
    done = work.called(
        "invert", "mels/a.npy", "-o", "out/a.wav", "--preset", "hifigan", "--prior", "none", "--n-iter", "3"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    y, sr = soundfile.read(work.folder / "out" / "a.wav", dtype="int16")
    expected = melmill.invert(np.load(work.folder / "mels" / "a.npy"), preset="hifigan", prior="none", n_iter=3)
    assert sr == 22050
    np.testing.assert_array_equal(y, np.rint(expected.astype(np.float64) * 32768))


def test_options_reach_the_method(work: Project) -> None:
    M = np.load(work.folder / "mels" / "b.npy")
    length = M.shape[1] * 256 + 17
    options = ["--method", "griffin_lim", "--n-iter", "3", "--length", str(length), "--bits", "24", "-v"]
    done = work.called("invert", "mels/b.npy", "-o", "b.flac", "--spec", "n_mels=80", "--preset", "hifigan", *options)
    assert done.returncode == 0, done.stderr
    assert "b.flac: 1.0" in done.stderr
    y, _ = soundfile.read(work.folder / "b.flac", dtype="float64")
    expected = melmill.invert(M, preset="hifigan", method="griffin_lim", n_iter=3, length=length)
    np.testing.assert_allclose(y, expected, atol=2.0**-23)
    assert soundfile.info(work.folder / "b.flac").subtype == "PCM_24"


def test_several_files_go_on_past_a_bad_one(work: Project) -> None:
    (work.folder / "mels" / "bad.npy").write_bytes(b"?")
    names = [f"mels/{name}.npy" for name in ("a", "bad", "nowhere", "b")]
    done = work.called("invert", *names, "-o", "several", "--preset", "hifigan", "--method", "pghi", "--format", "flac")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: mels/bad.npy: not a .npy file: it starts with b'?', expected b'\\x93NUMPY'",
        "error: mels/nowhere.npy: no such file",
    ]
    assert sorted(path.name for path in (work.folder / "several").iterdir()) == ["a.flac", "b.flac"]


Invert = Callable[..., tuple[int, str]]


@pytest.fixture
def invert(work: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invert:
    """Return `melmill invert` in this process: arguments to exit code and standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(work.folder)
        monkeypatch.setattr("sys.argv", ["melmill", "invert", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err

    return run


def test_what_passes_full_scale_is_told(work: Project, invert: Invert) -> None:
    np.save(work.folder / "loud.npy", np.load(work.folder / "mels" / "a.npy") + np.float32(np.log(8.0)))
    code, said = invert("loud.npy", "-o", "loud.wav", "--preset", "hifigan", "--method", "pghi")
    assert code == 0
    assert re.fullmatch(r"warning: loud\.wav: [0-9,]+ samples clipped at full scale\n", said)
    y, _ = soundfile.read(work.folder / "loud.wav", dtype="int16")
    assert {y.min(), y.max()} == {-32768, 32767}
    # A wave that wrapped round would jump by nearly its whole range.
    assert np.abs(np.diff(y.astype(int))).max() < 60000


def test_a_mel_the_other_way_round_is_understood(work: Project, invert: Invert) -> None:
    M = np.load(work.folder / "mels" / "a.npy")
    np.save(work.folder / "turned.npy", M.T[np.newaxis])
    np.save(work.folder / "square.npy", M[:, :80].T)
    for name, option in (("turned", []), ("square", ["--layout", "frames_first"])):
        arguments = [f"{name}.npy", "-o", f"{name}.wav", "--preset", "hifigan", "--method", "pghi", *option]
        assert invert(*arguments) == (0, "")
    (whole, _), (part, _) = (soundfile.read(work.folder / f"{name}.wav") for name in ("turned", "square"))
    assert (len(whole), len(part)) == (M.shape[1] * 256, 80 * 256)
    code, said = invert("square.npy", "-o", "q.wav", "--preset", "hifigan")
    assert code == 1
    assert "say layout: bands_first or frames_first" in said


FLOATS = ExchangeFormat(
    name="floats",
    suffix="f32",
    kinds=frozenset({Kind.WAVEFORM}),
    encode=lambda y, sr, bits: Encoded(y.astype("<f4").tobytes(), 0),
    says="Samples as floats.",
)


def test_a_format_of_another_package_is_written(work: Project, invert: Invert, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(name="floats", value="floats", load=lambda: FLOATS)
    monkeypatch.setitem(vars(FORMATS), "_installed", {"floats": entry})
    monkeypatch.setattr(FORMATS, "_loaded", {})
    options = ["--preset", "hifigan", "--method", "pghi"]
    assert invert("mels/a.npy", "-o", "floats", "--format", "floats", *options) == (0, "")
    assert invert("mels/a.npy", "-o", "by_suffix.f32", *options) == (0, "")
    expected = melmill.invert(np.load(work.folder / "mels" / "a.npy"), preset="hifigan", method="pghi")
    for file in ("floats/a.f32", "by_suffix.f32"):
        np.testing.assert_array_equal(np.fromfile(work.folder / file, "<f4"), expected)
    code, said = invert("mels/a.npy", "-o", "floats", "--format", "floats", "--bits", "16", *options)
    assert code == 2
    assert "format 'floats' has no choice of bits: leave --bits out" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mels/a.npy", "-o", "a.wav"], "say how the mels are made, by --preset NAME"),
        (["mels/a.npy", "-o", "a.wav", "--preset", "hifigna"], "did you mean 'hifigan'?"),
        (["mels/a.npy", "-o", "a.wav", "--spec", "nmels=3"], "a mel spec has no field 'nmels'; did you mean 'n_mels'?"),
        (
            ["mels/a.npy", "-o", "a.wav", "--spec", "n_mels"],
            "--spec takes FIELD=VALUE, such as n_mels=100, got 'n_mels'",
        ),
        (["mels/a.npy", "-o", "a.wav", "--spec", "n_mels=x"], "n_mels must be a whole number, got 'x'"),
        (["mels/a.npy", "-o", "a.mp3", "--preset", "hifigan"], "expected a file *.wav or *.flac, or a folder"),
        (["mels/a.npy", "b.npy", "-o", "a.wav", "--preset", "hifigan"], "the results of 2 files can't go to 'a.wav'"),
        (["mels/a.npy", "b.npy", "-o", "x", "--preset", "hifigan", "--length", "9"], "--length takes one FILE, got 2"),
        (["mels/a.npy", "-o", "a.wav", "--preset", "hifigan", "--method", "amdm"], "did you mean 'admm'?"),
        (["mels/a.npy", "-o", "a.wav", "--preset", "hifigan", "--bits", "8"], "--bits of wav must be 16 or 24, got 8"),
        (["mels/a.npy", "-o", "x", "--preset", "hifigan", "--format", "flacc"], "did you mean 'flac'?"),
        (
            ["mels/a.npy", "-o", "x", "--preset", "hifigan", "--format", "npy"],
            "`melmill invert` makes waveforms, which format 'npy' can't hold: use --format flac or wav",
        ),
        (["-o", "a.wav", "--preset", "hifigan"], "Missing argument 'FILE...'"),
    ],
)
def test_bad_usage_is_refused(invert: Invert, arguments: list[str], message: str) -> None:
    code, said = invert(*arguments)
    assert code == 2
    assert message in said


@pytest.mark.parametrize(
    ("files", "out", "expected"),
    [
        (["a.npy"], "x/b.flac", {"a.npy": "x/b.flac"}),
        (["m/a.npy"], "x", {"m/a.npy": "x/a.wav"}),
        (["m/a.npy"], "x.wav/", {"m/a.npy": "x.wav/a.wav"}),
        (["s3://m/a.b.npy", "c"], "s3://x", {"s3://m/a.b.npy": "s3://x/a.b.wav", "c": "s3://x/c.wav"}),
        (["a.npy", "a.npy"], "x", {"a.npy": "x/a.wav"}),
    ],
)
def test_files_go_where_they_are_told(files: list[str], out: str, expected: dict[str, str]) -> None:
    assert targets(files, out, ["wav", "flac"]) == expected


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"'x/a\.npy' and 'y/a\.npy' would both be written to 'o/a\.wav'"):
        targets(["x/a.npy", "y/a.npy"], "o", ["wav"])


def test_a_channel_is_chosen_and_clipped_samples_are_counted(work: Project) -> None:
    y, z = (soundfile.read(work.folder / f"{name}.wav")[0] for name in "ab")
    y[100:103] = 1.2
    soundfile.write(work.folder / "both.wav", np.stack([y, z], axis=1), 16000, subtype="FLOAT")
    make = ("mel", "make", "both.wav", "-o", "both.npy", "--preset", "hifigan", "--channel")
    for channel in ("right", "1"):
        done = work.called(*make, channel)
        assert (done.returncode, done.stderr) == (0, "")
        np.testing.assert_array_equal(np.load(work.folder / "both.npy"), np.load(work.folder / "mels" / "b.npy"))
    assert "warning: both.npy: 3 samples clipped at full scale" in work.called(*make, "left").stderr
    done = work.called(*make, "2")
    assert (done.returncode, "both.wav: there is no channel 2: the file has 2" in done.stderr) == (1, True)
    done = work.called(*make, "lefft")
    assert (done.returncode, "got 'lefft'; did you mean 'left'?" in done.stderr) == (2, True)


def test_a_mel_in_another_log_is_refused_with_what_it_looks_like(work: Project) -> None:
    np.save(work.folder / "db.npy", 8.686 * np.load(work.folder / "mels" / "a.npy"))
    done = work.called("invert", "db.npy", "-o", "db.wav", "--preset", "hifigan")
    assert done.returncode == 1
    assert "error: db.npy: no mel of its spec: " in done.stderr
    assert "they look like log: db" in done.stderr
    assert not (work.folder / "db.wav").exists()


def test_a_mel_of_another_kind_is_made_with_its_error(work: Project) -> None:
    kinds = ("--from", "hifigan", "--to", "vits")
    done = work.called("mel", "transcode", "mels/a.npy", "vits.npy", *kinds, "--audio", "a.wav", "--json")
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["mels"]
    y, sr = soundfile.read(work.folder / "a.wav", dtype="int16")
    expected = melmill.transcode(np.load(work.folder / "mels" / "a.npy"), "hifigan", "vits", y=y, sr=sr)
    np.testing.assert_array_equal(np.load(work.folder / "vits.npy"), expected.M)
    assert (told["measured"], told["via"]) == ("recording", "magnitude")
    assert told["error_db"] == pytest.approx(expected.error_db)
    assert told["unseen"] == list(expected.unseen)


def test_mels_are_transcoded_past_a_bad_one(work: Project) -> None:
    np.save(work.folder / "bad.npy", np.zeros((7, 5)))
    done = work.called("mel", "transcode", "bad.npy", "mels/b.npy", "log10", "--from", "hifigan", "--to", "melgan")
    assert done.returncode == 1
    assert "error: bad.npy: " in done.stderr
    assert re.search(r"log10/b.npy: 80 bands, \d+ frames, by \w+, error", done.stdout)
    done = work.called(
        "mel", "transcode", "mels/a.npy", "mels/b.npy", "x", "--from", "hifigan", "--to", "vits", "--length", "9"
    )
    assert done.returncode == 2
    assert "take one IN, got 2" in done.stderr


def test_mels_are_identified_with_the_recording_of_one(work: Project) -> None:
    np.save(work.folder / "zeros.npy", np.zeros((80, 99)))
    done = work.called("mel", "identify", "mels/a.npy", "zeros.npy", "a.wav", "--audio", "a.wav", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["mels/a.npy"]["verdict"] == "fits"
    assert "hifigan" in told["mels/a.npy"]["equals"]
    assert told["zeros.npy"]["looks_like"].startswith("all values are 0")
    assert "error: a.wav: is a WAV file: give it as the recording, with --audio" in done.stderr
    alone = work.called("mel", "identify", "mels/a.npy", "--top", "2")
    assert alone.stdout.startswith("mels/a.npy: ")
    assert alone.stdout.count("confidence ") == 2
