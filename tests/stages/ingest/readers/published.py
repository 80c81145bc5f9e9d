"""Tiny trees in the layouts of published corpora, and what a reader must find in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from melmill.stages.contract import Outcome
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.registry import stage_class
from melmill.storage.files.sources import SourceTree
from melmill.storage.utterance import Utterance

Expected = dict[str, tuple[str, str, str, str]]
"""By utterance id: subset, speaker, sex and text."""


@dataclass(frozen=True)
class Published:
    """A corpus as it is published: files of audio with their rates, other files, what is expected."""

    audio: dict[str, int]
    files: dict[str, str]
    expected: Expected
    kind: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        for number, (name, sr) in enumerate(self.audio.items()):
            write_audio(root / name, sr, seed=number, kind=self.kind)
        for name, content in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content, encoding="utf-8")
        return root


def noise(n_samples: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int16]]:
    return (np.random.default_rng(seed).standard_normal(n_samples) * 3000).astype(np.int16)


def write_audio(path: Path, sr: int, seed: int = 0, kind: str = "", n_samples: int = 4000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = kind or {"mp3": "MP3", "flac": "FLAC", "opus": "OGG"}.get(path.suffix[1:].lower(), "WAV")
    subtype = {"MP3": "MPEG_LAYER_III", "OGG": "OPUS"}.get(kind, "PCM_16")
    soundfile.write(path, noise(n_samples, seed), sr, format=kind, subtype=subtype)


LIBRISPEECH = Published(
    {"dev-clean/84/121123/84-121123-0000.flac": 16000},
    {
        "dev-clean/84/121123/84-121123.trans.txt": "84-121123-0000 GO DO YOU HEAR\n",
        "SPEAKERS.TXT": ";ID |SEX| SUBSET |MINUTES| NAME\n84 | F | dev-clean | 8.00 | Christie Nowak\n",
    },
    {"84-121123-0000": ("dev-clean", "84", "F", "GO DO YOU HEAR")},
)
LIBRITTS = Published(
    {
        "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav": 24000,
        "LibriTTS/dev-clean/84/121123/84_121123_000008_000000.wav": 24000,
        "LibriTTS/test-clean/61/70968/61_70968_000003_000000.wav": 24000,
    },
    {
        "LibriTTS/speakers.tsv": "READER\tGENDER\tSUBSET\tNAME\n84\tF\tdev-clean\tC N\n61\tM\ttest-clean\tP\n",
        "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.normalized.txt": "Mister Maximilian.\n",
        "LibriTTS/dev-clean/84/121123/84_121123_000007_000001.original.txt": "Mr. Maximilian.\n",
        "LibriTTS/dev-clean/84/121123/84_121123.trans.tsv": "84_121123_000008_000000\tMr. V.\tMister V.\n",
        "LibriTTS/dev-clean/84/121123/84_121123.book.tsv": "84_121123_000007_000001\tMr. M.\t0\tTrue\t1\t2\t30.1\n",
    },
    {
        "84_121123_000007_000001": ("dev-clean", "84", "F", "Mister Maximilian."),
        "84_121123_000008_000000": ("dev-clean", "84", "F", "Mister V."),
        "61_70968_000003_000000": ("test-clean", "61", "M", ""),
    },
)
LJSPEECH = Published(
    {"LJSpeech-1.1/wavs/LJ001-0001.wav": 22050, "LJSpeech-1.1/wavs/LJ001-0007.wav": 22050},
    {
        "LJSpeech-1.1/metadata.csv": 'LJ001-0001|Printing, "in 1455|Printing, "in fourteen fifty-five\n'
        "LJ001-0007|the text alone|\n",
        "LJSpeech-1.1/README": "LJ Speech",
    },
    {
        "LJ001-0001": ("", "LJ", "F", 'Printing, "in fourteen fifty-five'),
        "LJ001-0007": ("", "LJ", "F", "the text alone"),
    },
)
_INFO = "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\np225  23  F    English    Southern  England\ns5  30  M  English\n"
VCTK = Published(
    {
        "wav48_silence_trimmed/p225/p225_001_mic1.flac": 48000,
        "wav48_silence_trimmed/p225/p225_001_mic2.flac": 48000,
        "wav48_silence_trimmed/p280/p280_001_mic1.flac": 48000,
        "wav48_silence_trimmed/p315/p315_001_mic1.flac": 48000,
        "wav48_silence_trimmed/s5/s5_001_mic1.flac": 48000,
        "wav48_silence_trimmed/s5/s5_001_mic2.flac": 48000,
    },
    {
        "txt/p225/p225_001.txt": "Please call Stella.\n",
        "txt/p280/p280_001.txt": "Please call Stella.\n",
        "txt/s5/s5_001.txt": "Please call.\n",
        "speaker-info.txt": _INFO,
    },
    {
        "p225_001": ("", "p225", "F", "Please call Stella."),
        "p280_001": ("", "p280", "", "Please call Stella."),
        "p315_001": ("", "p315", "", ""),
        "s5_001": ("", "s5", "M", "Please call."),
    },
)
VCTK_080 = Published(
    {"VCTK-Corpus/wav48/p225/p225_001.wav": 48000, "VCTK-Corpus/wav48/p315/p315_001.wav": 48000},
    {
        "VCTK-Corpus/txt/p225/p225_001.txt": "Please call Stella.\n",
        "VCTK-Corpus/speaker-info.txt": "ID  AGE  GENDER  ACCENTS\n225  23  F    English    Southern  England\n",
    },
    {"p225_001": ("", "p225", "F", "Please call Stella."), "p315_001": ("", "p315", "", "")},
)
TIMIT = Published(
    {
        "TIMIT/TRAIN/DR1/FCJF0/SA1.WAV": 16000,
        "TIMIT/TRAIN/DR1/FCJF0/SI1027.WAV": 16000,
        "TIMIT/TEST/DR2/MABW0/SA1.WAV": 16000,
    },
    {
        "TIMIT/TRAIN/DR1/FCJF0/SA1.TXT": "0 46797 She had your dark suit in greasy wash water all year.\n",
        "TIMIT/TRAIN/DR1/FCJF0/SA1.PHN": "0 3050 h#\n3050 4559 sh\n",
        "TIMIT/TEST/DR2/MABW0/SA1.TXT": "0 46797 She had your dark suit.\n",
        "TIMIT/DOC/SPKRINFO.TXT": ";ID  Sex DR Use\nCJF0  F  1  TRN  06/03/86  03/28/61  5'05\"  WHT  BS\n",
    },
    {
        "FCJF0-SA1": ("TRAIN", "FCJF0", "F", "She had your dark suit in greasy wash water all year."),
        "FCJF0-SI1027": ("TRAIN", "FCJF0", "F", ""),
        "MABW0-SA1": ("TEST", "MABW0", "M", "She had your dark suit."),
    },
    kind="NIST",
)
_CV = "client_id\tpath\tsentence_id\tsentence\tup_votes\tgender\tlocale\n"
COMMON_VOICE = Published(
    {f"cv-corpus-17.0/de/clips/common_voice_de_{n}.mp3": 32000 for n in (1, 2, 3, 4)},
    {
        "cv-corpus-17.0/de/train.tsv": f'{_CV}{"a" * 128}\tcommon_voice_de_1.mp3\tx\tEr sagte "nein\t2\tmale\tde\n',
        "cv-corpus-17.0/de/test.tsv": f"{_CV}{'b' * 128}\tcommon_voice_de_2.mp3\tx\tJa.\t2\t\tde\n",
        "cv-corpus-17.0/de/validated.tsv": f'{_CV}{"a" * 128}\tcommon_voice_de_1.mp3\tx\tEr sagte "nein\t2\tmale\tde\n'
        f"{'b' * 128}\tcommon_voice_de_2.mp3\tx\tJa.\t2\t\tde\n"
        f"{'c' * 128}\tcommon_voice_de_3.mp3\tx\tDoch.\t2\tfemale_feminine\tde\n",
        "cv-corpus-17.0/de/other.tsv": f"{_CV}{'c' * 128}\tcommon_voice_de_4.mp3\tx\tNie.\t0\t\tde\n",
        "cv-corpus-17.0/de/clip_durations.tsv": "clip\tduration[ms]\ncommon_voice_de_1.mp3\t125\n",
    },
    {
        "common_voice_de_1": ("train", "a" * 16, "M", 'Er sagte "nein'),
        "common_voice_de_2": ("test", "b" * 16, "", "Ja."),
        "common_voice_de_3": ("validated", "c" * 16, "F", "Doch."),
    },
)
MLS = Published(
    {
        "mls_german/train/audio/10087/9507/10087_9507_000000.flac": 16000,
        "mls_german/dev/audio/252/2570/252_2570_000001.flac": 16000,
    },
    {
        "mls_german/train/transcripts.txt": "10087_9507_000000\tdas buch\n",
        "mls_german/dev/transcripts.txt": "252_2570_000001\tdie welt\n",
        "mls_german/metainfo.txt": " SPEAKER | GENDER | PARTITION | MINUTES | BOOK ID | TITLE | CHAPTER\n"
        " 10087 | F | train | 1.0 | 9507 | Buch | x\n 252 | M | dev | 1.0 | 2570 | Welt | x\n",
    },
    {
        "10087_9507_000000": ("train", "10087", "F", "das buch"),
        "252_2570_000001": ("dev", "252", "M", "die welt"),
    },
)
AISHELL3 = Published(
    {"train/wav/SSB0005/SSB00050001.wav": 44100, "test/wav/SSB0009/SSB00090001.wav": 44100},
    {
        "train/content.txt": "SSB00050001.wav\t广 guang3 州 zhou1 女 nv3\n",
        "test/content.txt": "SSB00090001.wav\t大 da4 学 xue2\n",
        "spk-info.txt": "# AGE GROUP\n#\nSSB0005\tB\tfemale\tnorth\nSSB0009\tB\tmale\tsouth\n",
        "train/label_train-set.txt": "# x\nSSB00050001|guang3 % zhou1|广%州\n",
    },
    {
        "SSB00050001": ("train", "SSB0005", "F", "广州女"),
        "SSB00090001": ("test", "SSB0009", "M", "大学"),
    },
)
JSUT = Published(
    {
        "jsut_ver1.1/basic5000/wav/BASIC5000_0001.wav": 48000,
        "jsut_ver1.1/voiceactress100/wav/VOICEACTRESS100_001.wav": 48000,
    },
    {
        "jsut_ver1.1/basic5000/transcript_utf8.txt": "BASIC5000_0001:水をマレーシアから買わなくては:ならない。\n",
        "jsut_ver1.1/voiceactress100/transcript_utf8.txt": "VOICEACTRESS100_001:また東寺のように。\n",
    },
    {
        "BASIC5000_0001": ("basic5000", "JSUT", "F", "水をマレーシアから買わなくては:ならない。"),
        "VOICEACTRESS100_001": ("voiceactress100", "JSUT", "F", "また東寺のように。"),
    },
)
KSS = Published(
    {"kss/1/1_0000.wav": 44100, "kss/2/2_0001.wav": 44100},
    {
        "kss/transcript.v.1.4.txt": "1/1_0000.wav|그는 1개|그는 한 개|그는 한 개|3.5|He has one.\n"
        "2/2_0001.wav|네|네|네|1.0|Yes.\n",
        "kss/transcript.v.1.3.txt": "1/1_0000.wav|old|old|old|3.5|old\n",
    },
    {"1_0000": ("", "KSS", "F", "그는 한 개"), "2_0001": ("", "KSS", "F", "네")},
)
CMU_ARCTIC = Published(
    {"cmu_us_bdl_arctic/wav/arctic_a0001.wav": 16000, "cmu_us_slt_arctic/wav/arctic_a0001.wav": 16000},
    {
        "cmu_us_bdl_arctic/etc/txt.done.data": '( arctic_a0001 "Author of the danger trail, etc." )\n',
        "cmu_us_slt_arctic/etc/txt.done.data": '( arctic_a0001 "Author of the \\"danger\\" trail" )\n',
    },
    {
        "bdl-arctic_a0001": ("", "bdl", "M", "Author of the danger trail, etc."),
        "slt-arctic_a0001": ("", "slt", "F", 'Author of the "danger" trail'),
    },
)
DCASE = Published(
    {"dev/DogBark/001.wav": 22050, "dev/Rain/001.wav": 22050, "eval/DogBark/001.wav": 22050},
    {"DevMeta.csv": "file_name,class\nDogBark/001.wav,DogBark\n"},
    {
        "dev-DogBark-001": ("dev", "", "", "DogBark"),
        "dev-Rain-001": ("dev", "", "", "Rain"),
        "eval-DogBark-001": ("eval", "", "", "DogBark"),
    },
)

CORPORA: dict[str, Published] = {
    "librispeech": LIBRISPEECH,
    "libritts": LIBRITTS,
    "ljspeech": LJSPEECH,
    "vctk": VCTK,
    "timit": TIMIT,
    "common_voice": COMMON_VOICE,
    "mls": MLS,
    "aishell3": AISHELL3,
    "jsut": JSUT,
    "kss": KSS,
    "cmu_arctic": CMU_ARCTIC,
    "dcase_foley": DCASE,
}


def reader(uses: str, root: Path | str, **fields: Any) -> AudioReader:
    made: Any = stage_class(uses)
    return made(root=str(root), **fields)  # type: ignore[no-any-return]


def read(stage: AudioReader) -> tuple[dict[str, Utterance], list[str], dict[str, Outcome]]:
    """Return the utterances that a reader finds, its notes, and what ingest makes of each."""
    tree = SourceTree(stage.root)
    discovered = stage.discover(tree, {})
    utterances = {one.utterance_id: one for one in discovered.utterances}
    outcomes = {name: stage.ingest(one, tree.read(one.path)) for name, one in utterances.items()}
    for name, outcome in outcomes.items():
        assert outcome.array is not None
        assert outcome.array.shape == (utterances[name].n_samples,)
    return utterances, list(discovered.notes), outcomes


def said(utterances: dict[str, Utterance]) -> Expected:
    return {name: (one.subset, one.speaker_id, one.sex, one.text) for name, one in utterances.items()}
