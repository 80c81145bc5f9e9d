"""The libraries that training sets are made for read them back: the same samples, texts and frames."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melmill.flows.exchange.sets.export import SetRequest, export_set
from melmill.storage.store import Store

Make = Callable[..., Path]


def needed(name: str) -> Any:
    """Return a package, or skip with the reason."""
    return pytest.importorskip(name, reason=f"reads a training set back with {name}, which is not installed")


@pytest.fixture
def exported(store: Store, tmp_path: Path) -> Make:
    def make(to: str, *nodes: str) -> Path:
        export_set(store, SetRequest(nodes=nodes or ("speech",), to=to, split="dev=0.2"), str(tmp_path))
        return tmp_path

    return make


def texts(store: Store) -> dict[str, str]:
    table = store.utterances()
    return dict(zip(table["utterance_id"], table["text"], strict=True))


def pcm(y: Any) -> np.ndarray[Any, np.dtype[np.int16]]:
    samples: np.ndarray[Any, np.dtype[np.int16]] = np.rint(np.asarray(y) * 32768).astype(np.int16)
    return samples


def test_datasets_loads_parquet(store: Store, exported: Make) -> None:
    datasets = needed("datasets")
    loaded = datasets.load_dataset(str(exported("parquet", "speech", "mel")))
    said = texts(store)
    assert {name: len(split) for name, split in loaded.items()} == {"train": 12, "dev": 4}
    for split in loaded.values():
        assert isinstance(split.features["audio"], datasets.Audio)
        assert split.features["audio"].sampling_rate == 16000
        for row in split.cast_column("audio", datasets.Audio(decode=False)):
            y, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
            np.testing.assert_array_equal(y, np.asarray(store["speech"][row["id"]]))
            np.testing.assert_array_equal(np.array(row["mel"], np.float32), np.asarray(store["mel"][row["id"]]))
            assert row["text"] == said[row["id"]]


def test_lhotse_loads_shar(store: Store, exported: Make) -> None:
    lhotse = needed("lhotse")
    folder, said, n = exported("shar"), texts(store), 0
    for split in ("train", "dev"):
        for cut in lhotse.CutSet.from_shar(in_dir=folder / split):
            np.testing.assert_array_equal(pcm(cut.load_audio()[0]), np.asarray(store["speech"][cut.id]))
            assert (cut.supervisions[0].text or "") == said[cut.id]
            n += 1
    assert n == 16


def test_webdataset_loads_tars(store: Store, exported: Make) -> None:
    webdataset = needed("webdataset")
    folder, said, n = exported("webdataset", "speech", "mel"), texts(store), 0
    for sample in webdataset.WebDataset([str(path) for path in sorted(folder.glob("*.tar"))], shardshuffle=False):
        name = json.loads(sample["json"])["id"]
        y, _ = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        np.testing.assert_array_equal(y, np.asarray(store["speech"][name]))
        np.testing.assert_array_equal(np.load(io.BytesIO(sample["mel.npy"])), np.asarray(store["mel"][name]))
        assert sample["txt"].decode() == said[name]
        n += 1
    assert n == 16


@pytest.mark.parametrize(("to", "folder"), [("kaldi", "data/train"), ("espnet", "dump/raw/train")])
def test_kaldiio_loads_data_folders(store: Store, exported: Make, to: str, folder: str) -> None:
    kaldiio = needed("kaldiio")
    loaded = kaldiio.load_scp(str(exported(to) / folder / "wav.scp"))
    assert len(loaded) == 12
    for name in loaded:
        sr, y = loaded[name]
        assert sr == 16000
        np.testing.assert_array_equal(y, np.asarray(store["speech"][name]))


def test_lhotse_loads_data_folders_of_kaldi(store: Store, tmp_path: Path) -> None:
    lhotse = needed("lhotse")
    said = {name: text for name, text in texts(store).items() if text}
    # It can't load a folder in which an utterance has no text.
    listed = ("".join(f"{name}\ttrain\n" for name in said), "list.tsv")
    export_set(store, SetRequest(nodes=("speech",), to="kaldi", split_list=listed), str(tmp_path))
    recordings, supervisions, _ = lhotse.kaldi.load_kaldi_data_dir(tmp_path / "data/train", sampling_rate=16000)
    for one in recordings:
        np.testing.assert_array_equal(pcm(one.load_audio()[0]), np.asarray(store["speech"][one.id]))
    assert {one.id: one.text for one in supervisions} == said
