"""Layouts of a folder of WAV files and lists of them, as the code of vocoders and of TTS reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from melmill.flows.exchange.sets.layout import (
    Content,
    Item,
    Made,
    SetInfo,
    SetLayout,
    json_line,
    lines_of,
    refuse_same,
    refuse_texts,
)
from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.formats.npy import encode_npy


class _Wavs(SetLayout):
    """A folder of WAV files, and a folder of arrays for each node of features."""

    takes_features: ClassVar[bool] = True

    def files(self, split: str, number: int, n_chunks: int, contents: Sequence[Content], info: SetInfo) -> Made:
        """Return a WAV file for each utterance, and ``NODE/ID.npy`` for each of its features."""
        del split, number, n_chunks
        made = Made()
        for content in contents:
            made.files[_wav(content.item)] = made.audio(content, info, "wav")
            for node, array in content.features.items():
                made.files[f"{node}/{content.item.id}.npy"] = encode_npy(array)
        return made

    def check(self, info: SetInfo) -> None:
        """Refuse bars in texts."""
        refuse_texts(info, "|\n\r", self.name)


def _wav(item: Item) -> str:
    return f"wavs/{item.id}.wav"


class LJSpeechLayout(_Wavs):
    """The layout of LJ Speech."""

    name: ClassVar[str] = "ljspeech"
    says: ClassVar[str] = (
        "`wavs/ID.wav`, and `metadata.csv` with id, text and text again; a list `SPLIT.csv` of each split"
    )
    read_by: ClassVar[str] = "torchaudio.datasets.LJSPEECH, TTS recipes for LJ Speech, melmill's `audio_folder`"

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return ``metadata.csv``, and a list of each split."""
        made = {"metadata.csv": lines_of(map(_lj_row, info.items))}
        if len(info.splits) > 1:
            made |= {f"{split}.csv": lines_of(map(_lj_row, info.of(split))) for split in info.splits}
        return made


def _lj_row(item: Item) -> str:
    return f"{item.id}|{item.text}|{item.text}"


class HifiGanLayout(_Wavs):
    """The lists of HiFi-GAN's code, and mels to fine-tune with."""

    name: ClassVar[str] = "hifigan"
    says: ClassVar[str] = (
        "`wavs/ID.wav`, lists `training.txt` and `validation.txt` (`ID|text`), and mels `ft_dataset/ID.npy`"
    )
    read_by: ClassVar[str] = (
        "HiFi-GAN's `train.py --input_wavs_dir wavs --input_training_file training.txt --fine_tuning True`"
    )
    takes_mel: ClassVar[bool] = True

    def check(self, info: SetInfo) -> None:
        """Refuse mels that HiFi-GAN's code would pair with other samples."""
        super().check(info)
        if info.mel is not None and not info.mel.get("center"):
            raise PipelineError(
                "--to hifigan takes mels whose frame k belongs to the samples from k * hop_length on (center: same or "
                f"true), got center: {info.mel.get('center')!r}: extract them with preset: hifigan"
            )

    def files(self, split: str, number: int, n_chunks: int, contents: Sequence[Content], info: SetInfo) -> Made:
        """Return a WAV file for each utterance, and its mel ``(n_mels, n_samples // hop_length)``."""
        made = super().files(split, number, n_chunks, contents, info)
        for content in contents:
            if content.M is not None:
                # The frame on the end of centred mels has no samples of its own.
                n_frames = content.y.size // info.mel["hop_length"] if info.mel else None
                M = content.M[:, :n_frames].astype(np.float32)
                made.files[f"ft_dataset/{content.item.id}.npy"] = encode_npy(M)
        return made

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return a list of each split, under the names that HiFi-GAN's code has."""
        names = {"train": "training", "dev": "validation", "valid": "validation", "val": "validation"}
        made: dict[str, bytes] = {}
        for split in info.splits:
            name = f"{names.get(split, split)}.txt"
            made[name] = made.get(name, b"") + lines_of(f"{one.id}|{one.text}" for one in info.of(split))
        return made


class VitsLayout(_Wavs):
    """The lists of VITS."""

    name: ClassVar[str] = "vits"
    says: ClassVar[str] = (
        "`wavs/ID.wav`, and `filelists/SPLIT.txt`: path, number of the speaker if there are several, text"
    )
    read_by: ClassVar[str] = "VITS' `TextAudioLoader` and `TextAudioSpeakerLoader`"

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return a list of each split, and the numbers of speakers."""
        several = len(info.speakers) > 1
        made = {
            f"filelists/{split}.txt": lines_of(
                f"{_wav(one)}|{info.speakers.get(one.speaker, 0)}|{one.text}" if several else f"{_wav(one)}|{one.text}"
                for one in info.of(split)
            )
            for split in info.splits
        }
        if several:
            made["filelists/speakers.json"] = json_line(info.speakers).encode()
        return made


class StyleTtsLayout(_Wavs):
    """The lists of StyleTTS and StyleTTS 2."""

    name: ClassVar[str] = "styletts"
    says: ClassVar[str] = "`wavs/ID.wav`, and `Data/SPLIT_list.txt`: name of the file, text, number of the speaker"
    read_by: ClassVar[str] = "StyleTTS 2's `FilePathDataset` with `root_path: wavs`"

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return a list of each split, and the numbers of speakers."""
        names = {"dev": "val", "valid": "val"}
        made: dict[str, bytes] = {}
        for split in info.splits:
            rows = lines_of(f"{one.id}.wav|{one.text}|{info.speakers.get(one.speaker, 0)}" for one in info.of(split))
            name = f"Data/{names.get(split, split)}_list.txt"
            made[name] = made.get(name, b"") + rows
        made["Data/speakers.json"] = json_line(info.speakers).encode()
        return made


class NemoLayout(_Wavs):
    """Manifests of NVIDIA NeMo."""

    name: ClassVar[str] = "nemo"
    says: ClassVar[str] = "`wavs/ID.wav`, and `SPLIT_manifest.json`: an object a line, with a relative path"
    read_by: ClassVar[str] = "NeMo's `read_manifest` and its data sets, melmill's `nemo`"

    def check(self, info: SetInfo) -> None:
        """Take any text."""

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return the manifest of each split."""
        return {f"{split}_manifest.json": "".join(self._lines(split, info)).encode() for split in info.splits}

    def _lines(self, split: str, info: SetInfo) -> Iterator[str]:
        for one in info.of(split):
            row = {"audio_filepath": _wav(one), "duration": one.n_samples / info.sr, "text": one.text, "id": one.id}
            yield json_line({**row, **({"speaker": one.speaker} if one.speaker else {})})


class KaldiLayout(_Wavs):
    """Data folders of Kaldi."""

    name: ClassVar[str] = "kaldi"
    says: ClassVar[str] = "`wavs/ID.wav`, and `data/SPLIT/` with `wav.scp`, `text`, `utt2spk`, `spk2utt` and `utt2dur`"
    read_by: ClassVar[str] = "Kaldi, `kaldiio.load_scp`, Lhotse's `load_kaldi_data_dir`, melmill's `kaldi`"

    def check(self, info: SetInfo) -> None:
        """Refuse line ends in texts, and utterances that would have one id."""
        refuse_texts(info, "\n\r", self.name)
        refuse_same(info, _kaldi_id, self.name)

    def folder(self, split: str) -> str:
        """Return the data folder of a split."""
        return f"data/{split}"

    def lists(self, info: SetInfo) -> Mapping[str, bytes]:
        """Return the tables of each split, sorted by bytes as Kaldi wants them."""
        made: dict[str, bytes] = {}
        for split in info.splits:
            rows = sorted(
                ((_kaldi_id(one), _kaldi_speaker(one), one) for one in info.of(split)), key=lambda row: row[0].encode()
            )
            by_speaker: dict[str, list[str]] = {}
            for name, speaker, _ in rows:
                by_speaker.setdefault(speaker, []).append(name)
            tables = {
                "wav.scp": [f"{name} {info.url}/{_wav(one)}" for name, _, one in rows],
                "text": [f"{name} {one.text}" for name, _, one in rows if one.text],
                "utt2spk": [f"{name} {speaker}" for name, speaker, _ in rows],
                "spk2utt": [
                    f"{speaker} {' '.join(names)}"
                    for speaker, names in sorted(by_speaker.items(), key=lambda pair: pair[0].encode())
                ],
                "utt2dur": [f"{name} {one.n_samples / info.sr:.6f}" for name, _, one in rows],
                **self.more(rows, info),
            }
            made |= {f"{self.folder(split)}/{table}": lines_of(lines) for table, lines in tables.items()}
        return made

    def more(self, rows: Sequence[tuple[str, str, Item]], info: SetInfo) -> Mapping[str, list[str]]:
        """Return more tables of a split."""
        del rows, info
        return {}


def _kaldi_speaker(item: Item) -> str:
    return "_".join(item.speaker.split()) or item.id


def _kaldi_id(item: Item) -> str:
    """Return an id that begins with its speaker and a hyphen, which sorts before letters, digits and ``_``.

    Kaldi refuses tables whose order by ids is not that by speakers.
    """
    speaker = _kaldi_speaker(item)
    return item.id if item.id == speaker or item.id.startswith(f"{speaker}-") else f"{speaker}-{item.id}"


class EspnetLayout(KaldiLayout):
    """Data folders of ESPnet after its formatting of audio."""

    name: ClassVar[str] = "espnet"
    says: ClassVar[str] = (
        "`wavs/ID.wav`, and `dump/raw/SPLIT/` with Kaldi's tables, `utt2num_samples`, `feats_type`, ..."
    )
    read_by: ClassVar[str] = "ESPnet's recipes from the stage after `format_wav_scp` on, `kaldiio.load_scp`"

    def folder(self, split: str) -> str:
        """Return the data folder of a split."""
        return f"dump/raw/{split}"

    def more(self, rows: Sequence[tuple[str, str, Item]], info: SetInfo) -> Mapping[str, list[str]]:
        """Return what ESPnet writes beside Kaldi's tables."""
        del info
        return {
            "utt2num_samples": [f"{name} {one.n_samples}" for name, _, one in rows],
            "feats_type": ["raw"],
            "audio_format": ["wav"],
        }


LAYOUTS_OF_WAVS = (
    LJSPEECH := LJSpeechLayout(),
    HIFIGAN := HifiGanLayout(),
    VITS := VitsLayout(),
    STYLETTS := StyleTtsLayout(),
    NEMO := NemoLayout(),
    KALDI := KaldiLayout(),
    ESPNET := EspnetLayout(),
)
