"""Names of files: suffixes, stems, what is hidden, and how paths are compared."""

from __future__ import annotations

import re
import unicodedata

from melmill.stages.formats.containers import ffmpeg

AUDIO_SUFFIXES = ("flac", "wav", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "caf", "w64", "rf64")
"""Formats that libsndfile decodes and that corpora come in."""

RARE_SUFFIXES = ("sph", "mp2", "aifc", "snd", *ffmpeg.SUFFIXES)
"""More formats. Of a recording in one of them and in one of the above, the other is read."""

MEL_SUFFIXES = ("npy",)
"""Formats that mels are read from."""

AUDIO = frozenset({
    "flac", "wav", "wave", "ogg", "oga", "opus", "mp3", "mp2", "aiff", "aif", "aifc", "au", "snd", "caf", "w64", "rf64",
    "bwf", "sph", "nist", "wv1", "wv2", "shn", "m4a", "m4b", "m4r", "mp4", "m4v", "mov", "aac", "wma", "asf", "wmv",
    "webm", "weba", "mka", "mkv", "avi", "3gp", "3g2", "3ga", "amr", "awb", "wv", "ac3", "eac3", "dts", "ape", "tta",
    "tak", "mpc", "dsf", "dff", "ra", "rm", "spx", "voc", "vox", "gsm", "g722", "g729", "raw", "pcm", "adpcm", "flv",
    "mpg", "mpeg", "ts", "mts", "alac", "oma", "sd2", "iff", "8svx", "svx", "pvf", "paf", "avr", "htk", "ircam", "sf",
})  # fmt: skip
"""Suffixes of all audio, read or not, and of video, which has audio too."""

ARRAYS = frozenset({"npy", "npz", "pt", "pth", "h5", "hdf5", "mat", "pkl", "pickle", "safetensors", "ark", "zarr"})
"""Suffixes of arrays, such as mels."""

_STEMS_END_AT = frozenset({*AUDIO_SUFFIXES, *RARE_SUFFIXES, *MEL_SUFFIXES})
# Bins, indices and previews of desktops and of network storage, and what Macs add to archives.
_LEFT_BEHIND = frozenset({
    ".Trash", ".Trashes", ".AppleDouble", ".Spotlight-V100", ".fseventsd", ".TemporaryItems", "__MACOSX", "@eaDir",
    "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information",
})  # fmt: skip
_BIN_OF_A_USER = re.compile(r"\.Trash-\d+")


def suffix_of(path: str) -> str:
    r"""Return a path's suffix in lower case, without blanks at its end, or ``""``.

    >>> suffix_of("s/a.WAV"), suffix_of("a.wav \n"), suffix_of("a.b/c"), suffix_of(".wav")
    ('wav', 'wav', '', '')
    """
    return split_suffix(path)[1]


def stem_of(path: str) -> str:
    """Return a path without the suffix of a recording or a mel.

    >>> stem_of("a.b/c.WAV"), stem_of("c.wav "), stem_of("a.b")
    ('a.b/c', 'c', 'a.b')
    """
    stem, suffix = split_suffix(path)
    return stem if suffix in _STEMS_END_AT else path


def split_suffix(path: str) -> tuple[str, str]:
    """Return a path without its suffix, whatever that is, and the suffix as `suffix_of` gives it.

    >>> split_suffix("s/a.part.WAV"), split_suffix("README")
    (('s/a.part', 'wav'), ('README', ''))
    """
    stem, _, suffix = path.rpartition(".")
    # Names may end with blanks, even with a line end.
    suffix = suffix.rstrip().lower()
    return (stem, suffix) if stem and not stem.endswith("/") and "/" not in suffix else (path, "")


def compared(path: str) -> str:
    r"""Return a path as it is compared with others, whether it was listed or written in a table.

    File systems of Macs decompose the letters of names. Tables from Windows have backslashes.

    >>> compared(".\\wavs\\e\u0301.wav")
    'wavs/é.wav'
    """
    return unicodedata.normalize("NFC", path.replace("\\", "/").removeprefix("./"))


def is_hidden(path: str) -> bool:
    """Tell whether a name with a leading dot is in a path, or a folder that systems leave behind.

    >>> is_hidden("s/.a.wav"), is_hidden("@eaDir/a.wav"), is_hidden("s/a.b.wav")
    (True, True, False)
    """
    return path.startswith(".") or "/." in path or not _LEFT_BEHIND.isdisjoint(path.split("/")[:-1])


def is_left_behind(path: str) -> bool:
    """Tell whether a file is what systems leave behind: ``._a.wav``, or in ``.Trashes``.

    >>> is_left_behind("s/._a.wav"), is_left_behind(".Trash-1000/a.wav"), is_left_behind("s/.a.wav")
    (True, True, False)
    """
    *folders, name = path.split("/")
    return name.startswith("._") or any(
        folder in _LEFT_BEHIND or _BIN_OF_A_USER.fullmatch(folder) for folder in folders
    )
