"""Layouts that hold many utterances in a file: Parquet, WebDataset and Lhotse Shar."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from melmill.flows.exchange.sets.layout import Content, Item, Made, SetInfo, SetLayout, json_line, refuse_same, tar_of
from melmill.stages.formats.npy import encode_npy
from melmill.storage.files.cells import audio_table


class ParquetLayout(SetLayout):
    """Datasets of Hugging Face."""

    name: ClassVar[str] = "parquet"
    says: ClassVar[str] = (
        "`data/SPLIT-00000-of-00004.parquet` with a column `audio` of FLAC, and `README.md`; also `hf`"
    )
    read_by: ClassVar[str] = "`datasets.load_dataset(FOLDER)`, melmill's `parquet`"
    takes_mel: ClassVar[bool] = True
    in_shards: ClassVar[bool] = True

    def files(self, split: str, number: int, n_chunks: int, contents: Sequence[Content], info: SetInfo) -> Made:
        """Return a Parquet file."""
        made = Made()
        rows = []
        for content in contents:
            one = content.item
            row: dict[str, Any] = {
                "id": one.id,
                "audio": {"bytes": made.audio(content, info, "flac"), "path": f"{one.id}.flac"},
                "text": one.text,
                "speaker_id": one.speaker,
                "gender": one.sex,
                "subset": one.subset,
                "duration": one.n_samples / info.sr,
            }
            if content.M is not None:
                row["mel"] = content.M.astype(np.float32)
            rows.append(row)
        name = f"data/{split}-{number:05d}-of-{n_chunks:05d}.parquet"
        made.files[name] = audio_table(rows, info.sr, with_mel=info.mel is not None)
        return made

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return no lists: the names say it."""
        del info
        return {}

    def card_fields(self, info: SetInfo) -> Mapping[str, Any]:
        """Return where the files of each split are."""
        files = [{"split": split, "path": f"data/{split}-*"} for split in info.splits]
        return {"configs": [{"config_name": "default", "data_files": files}]}


class WebDatasetLayout(SetLayout):
    """Tars of WebDataset."""

    name: ClassVar[str] = "webdataset"
    says: ClassVar[str] = (
        "`SPLIT-000000.tar` of `KEY.flac`, `KEY.txt`, `KEY.json`, and `KEY.mel.npy` if there are mels; "
        "`KEY.NODE.npy` of each node of features"
    )
    read_by: ClassVar[str] = "`webdataset.WebDataset`, melmill's `webdataset`"
    takes_mel: ClassVar[bool] = True
    takes_features: ClassVar[bool] = True
    in_shards: ClassVar[bool] = True

    def check(self, info: SetInfo) -> None:
        """Refuse utterances that would have one key."""
        refuse_same(info, _key, self.name)

    def files(self, split: str, number: int, n_chunks: int, contents: Sequence[Content], info: SetInfo) -> Made:
        """Return a tar."""
        del n_chunks
        made = Made()
        members: list[tuple[str, bytes]] = []
        for content in contents:
            one, key = content.item, _key(content.item)
            said: dict[str, Any] = {
                "id": one.id,
                "text": one.text,
                "speaker": one.speaker,
                "gender": one.sex,
                "subset": one.subset,
            }
            said |= {"sampling_rate": info.sr, "num_samples": one.n_samples}
            members += [(f"{key}.flac", made.audio(content, info, "flac")), (f"{key}.json", json_line(said).encode())]
            if content.M is not None:
                members.append((f"{key}.mel.npy", encode_npy(content.M.astype(np.float32))))
            members += [(f"{key}.{_plain(node)}.npy", encode_npy(array)) for node, array in content.features.items()]
            members.append((f"{key}.txt", one.text.encode()))
        made.files[f"{split}-{number:06d}.tar"] = tar_of(members)
        return made

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return no lists: the names say it."""
        del info
        return {}


def _key(item: Item) -> str:
    """Return a key, which holds no dot: its suffix would begin there."""
    return item.id.replace(".", "_")


def _plain(node: str) -> str:
    """Return the name of a node without the dots that a fan-out may put into it."""
    return node.replace(".", "_")


class SharLayout(SetLayout):
    """Lhotse Shar."""

    name: ClassVar[str] = "shar"
    says: ClassVar[str] = "`SPLIT/cuts.000000.jsonl.gz` and `SPLIT/recording.000000.tar` of FLAC"
    read_by: ClassVar[str] = "`lhotse.CutSet.from_shar(in_dir=FOLDER/SPLIT)`, melmill's `shar`"
    in_shards: ClassVar[bool] = True

    def files(self, split: str, number: int, n_chunks: int, contents: Sequence[Content], info: SetInfo) -> Made:
        """Return a tar of recordings and the cuts of the same number."""
        del n_chunks
        made = Made()
        members: list[tuple[str, bytes]] = []
        cuts = []
        for content in contents:
            recording = _recording(content.item, info)
            members.append((f"{content.item.id}.flac", made.audio(content, info, "flac")))
            members.append((f"{content.item.id}.json", json_line(recording).encode()))
            cuts.append(json_line(_cut(content.item, recording, info)))
        made.files[f"{split}/recording.{number:06d}.tar"] = tar_of(members)
        made.files[f"{split}/cuts.{number:06d}.jsonl.gz"] = gzip.compress("".join(cuts).encode(), mtime=0)
        return made

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return no lists: the names say it."""
        del info
        return {}


def _recording(item: Item, info: SetInfo) -> dict[str, Any]:
    return {
        "id": item.id,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": info.sr,
        "num_samples": item.n_samples,
        "duration": item.n_samples / info.sr,
        "channel_ids": [0],
    }


def _cut(item: Item, recording: Mapping[str, Any], info: SetInfo) -> dict[str, Any]:
    duration = item.n_samples / info.sr
    said: dict[str, Any] = {"id": item.id, "recording_id": item.id, "start": 0.0, "duration": duration, "channel": 0}
    known = {"text": item.text, "speaker": item.speaker, "gender": item.sex}
    said |= {name: value for name, value in known.items() if value}
    cut = {"id": item.id, "start": 0.0, "duration": duration, "channel": 0, "supervisions": [said]}
    custom = {"subset": item.subset} if item.subset else {}
    return {**cut, "recording": dict(recording), **({"custom": custom} if custom else {}), "type": "MonoCut"}


LAYOUTS_OF_SHARDS = (PARQUET := ParquetLayout(), WEBDATASET := WebDatasetLayout(), SHAR := SharLayout())
