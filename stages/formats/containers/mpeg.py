"""MPEG audio (MP3): the frames of a file, counted.

A file of variable bit rate tells its length only in a first frame by Xing or Fraunhofer, which
many lack. libsndfile then estimates it from the size of the file, and reads no further.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from melmill.stages.formats.containers.content import Content, Piece, truncated
from melmill.stages.numeric.errors import Unusable

# Bit rates in kbit/s by version (1 or 2) and layer: ISO 11172-3, section 2.4.2.3, and ISO 13818-3,
# section 2.4.2.3. Index 0 is the free format.
_KBITS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
# The version's two bits: 3 is MPEG-1, 2 is MPEG-2 with half the rates, 0 is MPEG-2.5 with a
# quarter.
_DIVIDED = {3: 1, 2: 2, 0: 4}
_HEADER_BYTES = 4
_FREE_FORMAT = 0
# Bytes before the first frame that are searched for it.
_SEARCHED_BYTES = 1 << 16


class Frame(NamedTuple):
    """Hold what the header of a frame says: layer, rate (Hz), and bytes with the header.

    `version` is the header's: 3 for MPEG-1, 2 for MPEG-2, 0 for MPEG-2.5.
    """

    version: int
    layer: int
    sr: int
    n_channels: int
    size: int

    @property
    def stream(self) -> tuple[int, int, int, int]:
        """What all frames of a stream share."""
        return self.version, self.layer, self.sr, self.n_channels

    @property
    def n_samples(self) -> int:
        """Samples per channel."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 3 else 1152


def frame_at(data: bytes, at: int) -> Frame | None:
    """Return the frame whose header lies at an offset, None if there is none.

    A free-format frame has the size 0.

    References
    ----------
    ISO/IEC 11172-3:1993, section 2.4.2.3.

    >>> frame_at(bytes([0xFF, 0xFB, 0x90, 0x64]), 0)
    Frame(version=3, layer=3, sr=44100, n_channels=2, size=417)
    """
    return _parsed(data[at : at + _HEADER_BYTES]) if data[at : at + 1] == b"\xff" else None


@lru_cache(maxsize=1024)
def _parsed(header: bytes) -> Frame | None:
    if len(header) < _HEADER_BYTES or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, pace, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate == 15 or pace == 3:
        return None
    sr = _RATES[pace] // _DIVIDED[version]
    bits = 1000 * _KBITS[1 if version == 3 else 2, layer][rate]
    if bits == _FREE_FORMAT:
        size = 0
    elif layer == 1:
        size = 4 * (12 * bits // sr + padding)
    else:
        size = (72 if layer == 3 and version != 3 else 144) * bits // sr + padding
    return Frame(version, layer, sr, 1 if header[3] >> 6 == 3 else 2, size)


@dataclass(kw_only=True)
class _Stream:
    """Collect the frames of one stream.

    Parameters
    ----------
    first : Frame
    runs : list of [int, int]
        Offsets of the beginnings and ends of frames that follow one another.
    tag : _Tag or None
        What the first frame says of the others, where it holds no music.
    n_frames : int
        Frames of music.
    """

    first: Frame
    runs: list[list[int]] = field(default_factory=list)
    tag: _Tag | None = None
    n_frames: int = 0

    def add(self, at: int, frame: Frame) -> None:
        """Append a frame of music."""
        self.n_frames += 1
        self._extend(at, frame.size)

    @property
    def is_whole(self) -> bool:
        """Whether the first frame says that just these frames, with just these bytes, are all."""
        n_bytes = sum(end - start for start, end in self.runs)
        return self.tag is not None and self.claimed == self.n_frames and self.tag.n_bytes in (0, n_bytes)

    def begin(self, at: int, frame: Frame, tag: _Tag) -> None:
        """Take the frame that describes the stream."""
        self.tag = tag
        self._extend(at, frame.size)

    def _extend(self, at: int, size: int) -> None:
        if self.runs and self.runs[-1][1] == at:
            self.runs[-1][1] = at + size
        else:
            self.runs.append([at, at + size])

    @property
    def claimed(self) -> int | None:
        """Frames of music that the first frame claims."""
        if self.tag is None or self.tag.n_frames is None:
            return None
        # Some writers count the first frame too. Then all bytes are there.
        n_bytes = sum(end - start for start, end in self.runs)
        counts_itself = self.tag.n_frames == self.n_frames + 1 and 0 < self.tag.n_bytes <= n_bytes
        return self.tag.n_frames - counts_itself


class _Tag(NamedTuple):
    """Hold what a Xing, Info or VBRI frame says: frames and bytes of the stream.

    `place` is the offset of its number of frames, 0 where libsndfile does not read it.
    """

    n_frames: int | None
    n_bytes: int
    place: int


def content_of(data: bytes) -> Content | None:
    """Return the audio of an MPEG file; None if it holds no frames.

    A stream that begins inside the file, with a Xing frame of its own, is a piece of its own, as if
    the files had been joined by ``cat``.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    Unusable
        It has the free format, whose frames have no size.
    """
    start = _first(data)
    if start is None:
        return None
    streams: list[_Stream] = []
    doubt, n_lost = "", 0
    begun = _tags_end(data)
    if start > begun and frame_at(data, begun) is not None:
        doubt, n_lost = f"file is damaged: the frame at byte {begun:,} is not followed by another", 1
    is_tagged = any(name in data for name in (b"Xing", b"Info", b"VBRI"))
    for at, frame in _frames(data, start):
        if frame is None or at + frame.size > len(data):
            what = f"file is damaged: at byte {at:,} of {len(data):,} no frame begins"
            doubt = doubt or (what if frame is None else "file is truncated: it ends inside a frame")
            n_lost += 1
            continue
        tag = _tag(data, at, frame) if is_tagged else None
        if not streams or tag is not None or frame.stream != streams[-1].first.stream:
            streams.append(_Stream(first=frame))
        if tag is None:
            streams[-1].add(at, frame)
        else:
            streams[-1].begin(at, frame, tag)
    streams = [stream for stream in streams if stream.n_frames]
    if not streams:
        return None
    n_held = sum(stream.n_frames * stream.first.n_samples for stream in streams)
    n_short = sum(
        max(0, stream.claimed - stream.n_frames) * stream.first.n_samples
        for stream in streams
        if stream.claimed is not None
    )
    if n_short:
        doubt = truncated(n_held + n_short, n_held)
    elif doubt and not all(stream.is_whole for stream in streams):
        n_begun = n_held + n_lost * streams[-1].first.n_samples
        doubt = f"{doubt}; {n_begun:,} samples begin, {n_held:,} are whole"
    else:
        doubt = ""
    return Content(tuple(_piece(data, stream) for stream in streams), doubt)


def _first(data: bytes) -> int | None:
    """Return the offset of the first frame: another frame, a tag or the end must follow it."""
    start = _tags_end(data)
    for at in range(start, min(len(data), start + _SEARCHED_BYTES)):
        if data[at] != 0xFF:
            continue
        frame = frame_at(data, at)
        if frame is None:
            continue
        if frame.size == _FREE_FORMAT:
            if at == start:
                raise Unusable("MP3 of the free format, whose frames have no size: encode it again")
            continue
        if _follows(data, at + frame.size, frame):
            return at
    return None


def _tags_end(data: bytes) -> int:
    """Return where the ID3v2 tags in front of a file end, bytes."""
    end = 0
    while size := id3_bytes(data, end):
        end += size
    return end


def _follows(data: bytes, at: int, frame: Frame) -> bool:
    """Tell whether at an offset a stream may go on or end."""
    following = frame_at(data, at)
    if following is not None:
        return following.stream == frame.stream
    return at == len(data) or tag_bytes(data, at) > 0


def _frames(data: bytes, start: int) -> Iterator[tuple[int, Frame | None]]:
    """Yield every frame with its offset, and None where bytes between frames are no frame."""
    at, last = start, None
    while at < len(data):
        frame = frame_at(data, at)
        if frame and frame.size and (last is None or frame.stream == last.stream or _goes_on(data, at, frame)):
            yield at, frame
            at, last = at + frame.size, frame
            continue
        skipped = tag_bytes(data, at)
        if skipped:
            at += skipped
            continue
        found = _next(data, at, last)
        if found is None:
            # Padding and unknown tags at the end are no audio. The beginning of a frame is.
            if data[at] == 0xFF and len(data) - at < _HEADER_BYTES:
                yield at, None
            return
        yield at, None
        at = found


def _goes_on(data: bytes, at: int, frame: Frame) -> bool:
    return at + frame.size <= len(data) and _follows(data, at + frame.size, frame)


def _next(data: bytes, at: int, last: Frame | None) -> int | None:
    """Return the offset of the next frame behind bytes that are none, None if there is none."""
    while (at := data.find(b"\xff", at + 1)) >= 0:
        frame = frame_at(data, at)
        if frame and frame.size and last and frame.stream == last.stream and _goes_on(data, at, frame):
            return at
    return None


def tag_bytes(data: bytes, at: int) -> int:
    """Return the size of the tag that lies at an offset, bytes; 0 if there is none."""
    return id3_bytes(data, at) or _trailing_bytes(data, at)


def id3_bytes(data: bytes, at: int = 0) -> int:
    r"""Return the size of an ID3v2 tag at an offset, bytes; 0 if there is none.

    >>> id3_bytes(b"ID3\x04\0\0\0\0\x01\x02")
    140

    There is no version 32.

    >>> id3_bytes(b"ID3\x20\0\0\0\0\x01\x02")
    0
    """
    head = data[at : at + 10]
    if len(head) < 10 or head[:3] != b"ID3" or head[3] not in (2, 3, 4) or head[5] & 15 or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 16 else 0)


def _trailing_bytes(data: bytes, at: int) -> int:
    """Return the size of an ID3v1, APE or Lyrics3 tag at an offset, bytes; 0 if there is none."""
    if data[at : at + 4] == b"TAG+":
        return 227
    if data[at : at + 3] == b"TAG":
        return 128
    if data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
        size, flags = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (12, 20))
        # The size leaves out the tag's header, at which this is.
        return size + 32 if flags >> 29 & 1 else 32
    if data[at : at + 11] == b"LYRICSBEGIN":
        end = data.find(b"LYRICS200", at)
        return end + 9 - at if end >= 0 else 0
    return 0


def _tag(data: bytes, at: int, frame: Frame) -> _Tag | None:
    """Return what a frame says of its stream by Xing's or Fraunhofer's tag; None if it is music."""
    if frame.layer != 3:
        return None
    xing, vbri = at + _HEADER_BYTES + _side_bytes(frame), at + _HEADER_BYTES + 32
    if data[xing : xing + 4] in (b"Xing", b"Info"):
        flags, place = _number(data, xing + 4), xing + 8
        has_frames, has_bytes = flags & 1, flags & 2
        return _Tag(
            n_frames=_number(data, place) if has_frames else None,
            n_bytes=_number(data, place + 4 * has_frames) if has_bytes else 0,
            place=place if has_frames else 0,
        )
    if data[vbri : vbri + 4] == b"VBRI":
        return _Tag(n_frames=_number(data, vbri + 14), n_bytes=_number(data, vbri + 10), place=0)
    return None


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _side_bytes(frame: Frame) -> int:
    """Return the size of the side information of a frame of layer III."""
    mono = frame.n_channels == 1
    if frame.version == 3:
        return 17 if mono else 32
    return 9 if mono else 17


def _piece(data: bytes, stream: _Stream) -> Piece:
    """Return what makes libsndfile give all samples of a stream."""
    whole = b"".join(data[start:end] for start, end in stream.runs)
    if stream.tag is not None and stream.tag.place and stream.tag.n_frames:
        place = stream.tag.place - stream.runs[0][0]
        return Piece(whole[:place] + stream.n_frames.to_bytes(4, "big") + whole[place + 4 :])
    if stream.tag is not None:
        size = frame_at(whole, 0)
        whole = whole[size.size if size else 0 :]
    # libsndfile divides the size of the file by that of the first frame. With a silent frame of the
    # lowest bit rate in front, that is more than there is.
    n_samples = stream.first.n_samples
    silence = _silent(whole[:_HEADER_BYTES], stream.first)
    return Piece(whole, n_samples=stream.n_frames * n_samples, silence=silence, n_silent=n_samples)


def _silent(header: bytes, first: Frame) -> bytes:
    """Return a frame of silence of the lowest bit rate, without a checksum."""
    quiet = bytes([0xFF, header[1] | 1, 0x10 | header[2] & 0b1100, header[3]])
    frame = frame_at(quiet, 0) or first
    return quiet + bytes(frame.size - _HEADER_BYTES)
