"""Containers that say the size of their samples: WAV, RF64, W64, AIFF, AU, CAF and SPHERE.

libsndfile takes what a file holds where its header says more, so a file that was cut looks whole.
It also refuses some sizes that mean "unknown". Both are mended here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from melmill.stages.formats.containers.content import Content, Piece, is_placeholder, truncated
from melmill.stages.formats.containers.wav import Chunk, Order, PlainHeader, chunks, coding_of, plain
from melmill.stages.numeric.errors import Unusable

# AIFF written to a pipe by sox: this many bytes, rounded to whole samples, and the 8 of the chunk's
# own fields.
_SOX_AIFF = range(0x7F000000 - 0x1000, 0x7F000000 + 0x1000)
_W64_RIFF, _W64_WAVE = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", b"wave"
# MPEG layers I and II, and III.
_MPEG_CODINGS = (0x50, 0x55)
# A-law and mu-law, a byte per sample.
_LAW_CODINGS = (6, 7)
# Bytes per sample of the encodings of AU by number, where all samples take the same.
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
# What AIFC calls samples that are not compressed.
_AIFC_PLAIN = (b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")


class Samples(NamedTuple):
    """Say where the samples of a file lie.

    Parameters
    ----------
    start : int
        Offset of the first, bytes.
    claimed : int or None
        Size that the header says, bytes. None: its writer did not know.
    frame_bytes : int
        Bytes of one sample of all channels; 0 for coded samples.
    fields : tuple of (int, bytes)
        Offsets and right values of the fields that libsndfile reads the size from.
    coded : bytes
        The samples, where they are an MPEG stream of their own.
    """

    start: int
    claimed: int | None
    frame_bytes: int = 0
    fields: tuple[tuple[int, bytes], ...] = ()
    coded: bytes = b""


def samples_of(data: bytes) -> Samples | None:
    """Return where a file's samples lie; None for other containers and damaged headers.

    Raises
    ------
    Unusable
        It is a SPHERE file that is compressed.
    """
    for magic, find in _CONTAINERS.items():
        if data.startswith(magic):
            return find(data)
    return None


def content_of(data: bytes, samples: Samples) -> Content:
    """Return the audio of a file whose samples were found, with doubt where some are missing."""
    held = max(0, len(data) - samples.start)
    if samples.claimed is None:
        return Content((Piece(_patched(data, samples.fields) if samples.fields else data),))
    frame = samples.frame_bytes
    if samples.claimed > held and (frame == 0 or samples.claimed // frame > held // frame):
        lengths = (samples.claimed // frame, held // frame) if frame else (samples.claimed, held)
        return Content((Piece(data),), truncated(*lengths, "samples" if frame else "bytes of samples"))
    return Content((Piece(data),))


def _riff(data: bytes) -> Samples | None:
    """Find the samples of RIFF, RIFX, RF64 and BW64 WAVE files."""
    order: Order = "big" if data.startswith(b"RIFX") else "little"
    is_rf64 = data[:4] in (b"RF64", b"BW64")
    named: dict[bytes, Chunk] = {}
    for chunk in chunks(data, order):
        named[chunk.name] = chunk
        if chunk.name == b"data" and chunk.size:
            break  # behind an empty one another may follow, which libsndfile reads
    found = named.get(b"data")
    if data[8:12] != b"WAVE" or found is None:
        return None
    ds64 = named[b"ds64"].start if is_rf64 and b"ds64" in named else 0
    described = _body(data, named.get(b"fmt "))
    start, size, unknown = found.start, found.size, is_placeholder(found.size)
    if is_rf64 and not ds64 and size == 0xFFFFFFFF:
        raise Unusable("RF64 header is damaged: it lacks its ds64 chunk, which says the size of the samples")
    if ds64 and unknown:
        size = int.from_bytes(data[ds64 + 8 : ds64 + 16], "little")
        unknown = is_placeholder(size, wide=True)
    if size == 0 and _are_chunks(data, start, order):
        unknown = False  # it is whole and holds nothing, with more chunks behind
    header = plain(described, size, start, order)
    coding = coding_of(described, order)
    frame = header.frame_bytes if header else int.from_bytes(described[12:14], order) * (coding in _LAW_CODINGS)
    held = max(0, len(data) - start)
    fields: tuple[tuple[int, bytes], ...]
    if ds64:
        sizes = _sized(len(data) - 8, 8) + _sized(held, 8) + _sized(held // max(1, frame), 8)
        fields = ((0, b"RF64"), (ds64, sizes), (start - 4, b"\xff" * 4))
    else:
        fields = ((4, _sized(len(data) - 8, 4, order)), (start - 4, _sized(held, 4, order)))
    coded = data[start : len(data) if unknown else start + size] if coding in _MPEG_CODINGS else b""
    return Samples(start, None if unknown else size, frame, fields, coded)


def _body(data: bytes, chunk: Chunk | None) -> bytes:
    return data[chunk.start : chunk.start + chunk.size] if chunk else b""


def _are_chunks(data: bytes, at: int, order: Order) -> bool:
    """Tell whether only chunks lie between an offset and the end of a file."""
    while at + 8 <= len(data) and data[at : at + 4].isalnum():
        size = int.from_bytes(data[at + 4 : at + 8], order)
        at += 8 + size + size % 2
    return at in (len(data), len(data) + 1)


def _w64(data: bytes) -> Samples | None:
    """Find the samples of a Sony Wave64 file; sizes include the 24 bytes of a chunk's header."""
    if data[24:28] != _W64_WAVE:
        return None
    at, described = 40, b""
    while at + 24 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 16 : at + 24], "little")
        if name == b"fmt ":
            described = data[at + 24 : at + size]
        if name == b"data":
            header = plain(described, 0, 0)
            unknown = is_placeholder(size, wide=True) or (size == 24 and at + 24 < len(data))
            fields = ((16, _sized(len(data), 8)), (at + 16, _sized(len(data) - at, 8)))
            return Samples(at + 24, None if unknown else max(0, size - 24), header.frame_bytes if header else 0, fields)
        if size < 24:
            return None
        at += size + -size % 8
    return None


def _aiff(data: bytes) -> Samples | None:
    """Find the samples of AIFF and AIFC. libsndfile takes all that it finds of them by itself."""
    if data[8:12] not in (b"AIFF", b"AIFC"):
        return None
    n_frames = frame = 0
    for chunk in chunks(data, "big"):
        body = data[chunk.start : chunk.start + chunk.size]
        if chunk.name == b"COMM" and len(body) >= 18:
            n_channels, bits = int.from_bytes(body[:2], "big"), int.from_bytes(body[6:8], "big")
            n_frames = int.from_bytes(body[2:6], "big")
            coded = data[8:12] == b"AIFC" and body[18:22] not in _AIFC_PLAIN
            frame = 0 if coded else n_channels * -(-bits // 8)
        if chunk.name == b"SSND":
            start = chunk.start + 8 + int.from_bytes(data[chunk.start : chunk.start + 4], "big")
            claimed = chunk.start + chunk.size - start
            unknown = is_placeholder(chunk.size) or chunk.size in _SOX_AIFF or claimed <= 0
            if frame and not unknown and not is_placeholder(n_frames) and n_frames * frame not in _SOX_AIFF:
                claimed = max(claimed // frame, n_frames) * frame
            return Samples(start, None if unknown else claimed, frame)
    return None


def _au(data: bytes) -> Samples | None:
    """Find the samples of AU, whose size may be unknown by its definition."""
    order: Order = "big" if data.startswith(b".snd") else "little"
    start, size, coding, _, n_channels = (_field(data, 4 + 4 * i, order) for i in range(5))
    held = _sized(max(0, len(data) - start), 4, order)
    return Samples(start, None if is_placeholder(size) else size, _AU_BYTES.get(coding, 0) * n_channels, ((8, held),))


def _caf(data: bytes) -> Samples | None:
    """Find the samples of CAF: -1 stands for all up to the end of the file."""
    at, frame = 8, 0
    while at + 12 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 12], "big")
        if name == b"desc":
            packet, per_packet = _field(data, at + 12 + 16, "big"), _field(data, at + 12 + 20, "big")
            frame = packet if per_packet == 1 else 0
        if name == b"data":
            # Four bytes that count edits lie before the samples.
            unknown = is_placeholder(size, wide=True) or (size == 4 and at + 16 < len(data))
            fields = ((at + 4, _sized(len(data) - at - 12, 8, "big")),)
            return Samples(at + 16, None if unknown else size - 4, frame, fields)
        at += 12 + size
    return None


def sphere_header(head: bytes) -> PlainHeader | None:
    """Return the header of a NIST SPHERE file, which is text; None if the first bytes hold none.

    Its `n_samples` is 0 where the header does not say it.

    Raises
    ------
    Unusable
        Its samples are compressed.
    """
    first = re.match(rb"NIST_1A\n\s*(\d{1,8})\n", head)
    if first is None or b"end_head" not in head:
        return None
    said = dict(re.findall(rb"^(\w+) -\w+ (.*?)\s*$", head[: int(first[1])], flags=re.MULTILINE))
    coding = said.get(b"sample_coding", b"pcm").decode("ascii", "replace")
    if "," in coding or "shorten" in coding:
        raise Unusable(
            f"SPHERE file is compressed, its sample_coding is {coding!r}: decompress it, say by sph2pipe -f wav"
        )
    try:
        sr, n_samples, n_bytes, n_channels = (
            max(0, int(said.get(name, default)))
            for name, default in (
                (b"sample_rate", b"0"),
                (b"sample_count", b"0"),
                (b"sample_n_bytes", b"0"),
                (b"channel_count", b"1"),
            )
        )
    except ValueError:
        return None
    subtype = coding.upper() if coding in ("ulaw", "alaw") else f"PCM_{8 * n_bytes}"
    return PlainHeader(sr, n_samples, n_channels, subtype, n_bytes * n_channels, int(first[1]))


def _sphere(data: bytes) -> Samples | None:
    header = sphere_header(data)
    if header is None:
        return None
    return Samples(header.offset, header.n_samples * header.frame_bytes or None, header.frame_bytes)


_CONTAINERS: dict[bytes, Callable[[bytes], Samples | None]] = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _riff,
    b"BW64": _riff,
    _W64_RIFF: _w64,
    b"FORM": _aiff,
    b".snd": _au,
    b"dns.": _au,
    b"caff": _caf,
    b"NIST_1A": _sphere,
}


def _field(data: bytes, at: int, order: Order) -> int:
    return int.from_bytes(data[at : at + 4], order)


def _sized(size: int, n_bytes: int, order: Order = "little") -> bytes:
    return min(size, (1 << 8 * n_bytes) - 1).to_bytes(n_bytes, order)


def _patched(data: bytes, fields: tuple[tuple[int, bytes], ...]) -> bytes:
    """Return the bytes with some fields replaced, each given by its offset."""
    patched = bytearray(data)
    for at, value in fields:
        patched[at : at + len(value)] = value
    return bytes(patched)
