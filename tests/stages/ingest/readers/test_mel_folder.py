"""Discovery and ingestion of any folder of mels."""

from __future__ import annotations

import errno
import io
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import IngestStage, Kind, Outcome
from melmill.stages.errors import CorpusUnreadable
from melmill.stages.ingest.readers.mel_folder import MelFolder
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.storage.arrays import ArraySpec
from tests.stages.ingest.corpora import Tree, ids, outcome_of, rejected

N_MELS = 80
HIFIGAN = MelFolder(root="mels", preset="hifigan")


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def log_mel(n_frames: int = 200, n_mels: int = N_MELS) -> NDArray[np.float32]:
    return np.random.default_rng(n_frames).uniform(-11.5, 1.0, (n_mels, n_frames)).astype(np.float32)


def ingested(data: bytes, stage: MelFolder = HIFIGAN, catalogued: bytes | None = None) -> Outcome:
    """Catalogue a file and ingest it; `catalogued` is what lay there at the time of cataloguing."""
    (utterance,) = stage.discover(Tree({"a.npy": data if catalogued is None else catalogued}), {}).utterances
    product = stage.produces({})
    outcome = outcome_of(stage, utterance, data)
    if outcome.array is not None:
        stft = product.spec.stft
        layout = ArraySpec(
            dtype="float32", sr=product.sr, n_mels=product.spec.n_mels, n_fft=stft.n_fft,
            hop_length=stft.hop_length, pad=stft.pad,
        )  # fmt: skip
        layout.check(utterance, outcome.array, "test")
    return outcome


def test_it_is_an_ingest_stage_of_mels() -> None:
    assert isinstance(HIFIGAN, IngestStage)
    product = HIFIGAN.produces({})
    assert (product.kind, product.spec, product.dtype) == (Kind.MEL, HIFIGAN.spec, "float32")


def test_folders_texts_and_manifests_are_as_of_audio() -> None:
    files = {"s/p1/a.npy": npy(log_mel(9)), "s/p2/b.npy": npy(log_mel(8)), "s/p1/a.txt": b"Hello.", "s/c.wav": b""}
    a, b = HIFIGAN.discover(Tree(files), {}).utterances
    assert (a.utterance_id, a.subset, a.speaker_id, a.text) == ("s--p1--a", "s", "p1", "Hello.")
    assert (a.sr, a.source_sr, b.sr) == (22050, 22050, 22050)
    # A list that was made for the recordings does for their mels.
    chosen = MelFolder(root="mels", preset="hifigan", manifest="list.txt")
    listed = {**files, "list.txt": b"s/p2/b.wav|Bye.\n"}
    (only,) = chosen.discover(Tree(listed), {}).utterances
    assert (only.utterance_id, only.text) == ("s--p2--b", "Bye.")


@pytest.mark.parametrize("center", [True, False, "same"])
@pytest.mark.parametrize("n_frames", [1, 2, 63])
def test_lengths_are_the_shortest_that_have_the_frames(center: Any, n_frames: int) -> None:
    stage = MelFolder(root="mels", preset="hifigan", center=center)
    (utterance,) = stage.discover(Tree({"a.npy": npy(log_mel(n_frames))}), {}).utterances
    assert stage.spec.n_frames(utterance.n_samples) == n_frames
    assert utterance.n_samples == 1 or stage.spec.n_frames(utterance.n_samples - 1) == n_frames - 1
    y = np.zeros(max(utterance.n_samples, 1024), np.float32)
    assert mel_spectrogram(y, stage.spec).shape[0] == N_MELS
    assert ingested(npy(log_mel(n_frames)), stage).array is not None


@pytest.mark.parametrize(
    ("array", "fields"),
    [
        (log_mel(), {}),
        (log_mel()[np.newaxis], {}),
        (log_mel().T, {}),
        (log_mel().T[np.newaxis], {}),
        (log_mel().astype(">f8"), {}),
        (np.asfortranarray(log_mel()), {}),
        (log_mel(), {"layout": "bands_first"}),
        (log_mel().T, {"layout": "frames_first"}),
        (log_mel(80), {"layout": "bands_first"}),
        (log_mel(80).T, {"layout": "frames_first"}),
    ],
)
def test_any_way_round_gives_bands_by_frames(array: NDArray[Any], fields: dict[str, Any]) -> None:
    outcome = ingested(npy(array), MelFolder(root="mels", preset="hifigan", **fields))
    assert outcome.array is not None
    assert outcome.row is not None
    expected = log_mel(80 if array.shape == (80, 80) else 200)
    np.testing.assert_array_equal(outcome.array, expected)
    assert outcome.array.dtype == np.float32
    assert outcome.row["n_frames"] == expected.shape[1]
    assert (outcome.row["lowest"], outcome.row["highest"]) == (expected.min(), expected.max())


def holed(value: float) -> NDArray[np.float32]:
    M = log_mel()
    M[3, 7:9] = value
    return M


@pytest.mark.parametrize(
    ("data", "fields", "reason"),
    [
        (b"", {}, "file is empty"),
        (b"RIFF", {}, "not a .npy file"),
        (npy(log_mel())[:-100], {}, "file is truncated"),
        (npy(np.array([{"mel": 1}], dtype=object)), {}, "pickled objects, which are never read"),
        (npy(holed(np.nan)), {}, "not finite: 2 of 16,000 values"),
        (npy(holed(np.inf)), {}, "not finite: 2 of 16,000 values"),
        (npy(holed(0).astype(np.float64) * 1e39), {}, "not finite: .* past float32"),
        (npy(log_mel(n_mels=100)), {}, r"shape \(100, 200\) is no mel of n_mels=80 bands, either way round"),
        (npy(log_mel()), {"layout": "frames_first"}, r"shape \(80, 200\) is no mel of n_mels=80 bands, frames first"),
        (npy(log_mel(80)), {}, "could be either way round: say layout: bands_first or frames_first"),
        (npy(log_mel(0)), {}, r"shape \(80, 0\) has no frames"),
        (npy(np.stack([log_mel()] * 2)), {}, r"shape \(2, 80, 200\) is no mel"),
        (npy(log_mel()[0]), {}, r"shape \(200,\) is no mel"),
        (npy(log_mel().astype(np.int16)), {}, "holds int16, expected a mel of float16, float32 or float64"),
        (npy(log_mel()), {"log": None, "floor": None}, "most values are negative .* but the spec has no log"),
        (npy(8.686 * log_mel()), {}, "values are far below its lowest, -11.51; .* they look like log: db"),
        (npy(log_mel() + 40), {}, "its loudest frame would be .* dB over full scale; .* its values are 28"),
        (npy(log_mel()), {"log": "log10"}, "values are far below its lowest, -5; .* they look like log: ln"),
        (npy((log_mel() + 12) / 14), {}, "all values are above .* they look normalised to 0 to 1"),
    ],
)
def test_a_bad_mel_is_rejected_with_its_reason(data: bytes, fields: dict[str, Any], reason: str) -> None:
    stage = MelFolder(root="mels", preset="hifigan", **fields)
    found = rejected(ingested(data, stage)).reason
    assert re.search(reason, found), found


def test_a_file_that_changed_since_is_rejected() -> None:
    assert "file changed" in rejected(ingested(npy(log_mel(100)), catalogued=npy(log_mel(200)))).reason
    turned = npy(log_mel(80, 100)), npy(log_mel(100, 80))
    stage = MelFolder(root="mels", preset="hifigan", layout="bands_first")
    assert len(turned[0]) == len(turned[1])
    assert "n_mels=80" in rejected(ingested(turned[0], stage, catalogued=turned[1])).reason


def test_what_was_catalogued_is_not_read_again() -> None:
    tree = Tree({"a.npy": npy(log_mel())})
    (first,) = HIFIGAN.discover(tree, {}).utterances
    n_read = tree.n_read
    assert HIFIGAN.discover(tree, {first.path: first}).utterances[0] is first
    assert tree.n_read == n_read


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"root": ""}, "root must be the folder of the corpus"),
        ({"layout": "mels_first"}, "layout must be 'bands_first' or 'frames_first', got 'mels_first'"),
        ({"preset": "hifigna"}, "did you mean 'hifigan'"),
        ({"n_mels": 0}, "n_mels must be between 1 and"),
        ({"folders": ("x",)}, "folders must hold only"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MelFolder(**{"root": "mels", "preset": "hifigan", **fields})


def test_a_folder_without_mels_is_explained() -> None:
    with pytest.raises(ParameterError, match=r"must hold mel files \(npy\), got 'mels' with none among 1 files"):
        HIFIGAN.discover(Tree({"a.wav": b""}), {})
    with pytest.raises(ParameterError, match=r"say files: '\*.npy'"):
        HIFIGAN.discover(Tree({"a b.npy": b"", "a  b.npy": b""}), {})


def test_what_it_means_decides_its_identity() -> None:
    identity = HIFIGAN.identity()
    assert identity == MelFolder(root="elsewhere", preset="hifigan").identity()
    changes: list[dict[str, Any]] = [
        {"n_mels": 100},
        {"layout": "bands_first"},
        {"manifest": "list.txt"},
        {"files": ("*",)},
    ]
    for fields in changes:
        assert MelFolder(**{"root": "mels", "preset": "hifigan", **fields}).identity() != identity
    assert ids(HIFIGAN.discover(Tree({"x/a.npy": b""}), {}).utterances) == ["x--a"]


def test_mels_that_all_look_wrong_are_noted_when_they_are_catalogued() -> None:
    wrong = {f"{i:02d}.npy": npy(8.686 * log_mel(200 + i)) for i in range(12)}
    tree = Tree(wrong)
    found = HIFIGAN.discover(tree, {})
    (note,) = found.notes
    assert note.startswith("the first 8 new mels are probably not of this spec and would be quarantined; of 00.npy: ")
    assert "they look like log: db" in note
    # Only what is new is looked at, and one that fits is enough.
    assert not HIFIGAN.discover(tree, {one.path: one for one in found.utterances}).notes
    assert not HIFIGAN.discover(Tree({**wrong, "03.npy": npy(log_mel())}), {}).notes
    assert HIFIGAN.discover(Tree({"a.npy": wrong["00.npy"]}), {}).notes[0].startswith("the only new mel is probably")


def test_other_arrays_and_audio_are_counted() -> None:
    files = {"a.npy": npy(log_mel()), "b.pt": b"", "c.NPZ": b"", "d.h5": b"", "a.wav": b"", ".e.pt": b""}
    assert HIFIGAN.discover(Tree(files), {}).notes == (
        "3 files hold arrays by their names but are not read: 1 .h5, 1 .npz, 1 .pt; save them as .npy, one array each",
        "1 file is audio by its name, no mels: 1 .wav; audio_folder reads it",
    )


@pytest.mark.parametrize("method", ["head", "read"])
def test_a_machine_that_can_not_read_a_mel_blames_no_file(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(tree: Tree, path: str, *_: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Tree, method, failing)
    with pytest.raises(CorpusUnreadable, match=r"^can't read 'a.npy' of .* here: Input/output error; check the disks"):
        HIFIGAN.discover(Tree({"a.npy": npy(log_mel())}), {})
