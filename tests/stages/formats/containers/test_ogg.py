"""Ogg files that were cut, damaged or joined."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.stages.formats.audio import decode
from melmill.stages.formats.containers.ogg import Page, checksum, page_at
from melmill.stages.numeric.errors import Unusable
from tests.stages.formats.containers.made import by_libsndfile, noisy_tone

KINDS = ("VORBIS", "OPUS")


def ogg(subtype: str, n_samples: int = 96000, sr: int = 16000, n_channels: int = 1) -> bytes:
    return by_libsndfile(noisy_tone(n_samples, n_channels), "OGG", subtype, sr)


def pages(data: bytes) -> list[Page]:
    found, at = [], 0
    while (page := page_at(data, at)) is not None:
        found.append(page)
        at += page.size
    assert at == len(data)
    return found


def with_flags(data: bytes, page: Page, flags: int) -> bytes:
    """Change the flags of a page, and its checksum with them."""
    whole = bytearray(data)
    whole[page.start + 5] = flags
    whole[page.start + 22 : page.start + 26] = bytes(4)
    whole[page.start + 22 : page.start + 26] = checksum(bytes(whole[page.start : page.start + page.size]))
    return bytes(whole)


@pytest.mark.parametrize("subtype", KINDS)
def test_a_whole_file_keeps_its_samples(subtype: str) -> None:
    data = ogg(subtype)
    y, header = decode(data)
    assert len(y) == header.n_samples == 96000
    assert np.array_equal(decode(data + b"TAG" + bytes(125))[0], y)


@pytest.mark.parametrize("subtype", KINDS)
@pytest.mark.parametrize("cut", [1, 500, 3000])
def test_a_cut_is_told_with_both_lengths(subtype: str, cut: int) -> None:
    data = ogg(subtype)
    with pytest.raises(
        Unusable,
        match=r"^file is truncated: at byte .* no whole Ogg page begins; its pages say [\d,]+ samples, [\d,]+ decoded",
    ):
        decode(data[:-cut])


@pytest.mark.parametrize("subtype", KINDS)
def test_a_stream_without_a_last_page_is_taken_as_it_is(subtype: str) -> None:
    data = ogg(subtype)
    last = pages(data)[-1]
    whole, _ = decode(data)
    assert np.array_equal(decode(with_flags(data, last, 0))[0], whole)
    # An interrupted recorder leaves whole pages.
    y, header = decode(data[: last.start])
    assert 0 < len(y) == header.n_samples < 96000
    assert np.array_equal(y, whole[: len(y)])


@pytest.mark.parametrize("subtype", KINDS)
def test_a_missing_page_is_told_with_both_lengths(subtype: str) -> None:
    data = ogg(subtype)
    page = pages(data)[4]
    with pytest.raises(Unusable, match=r"pages are missing before byte .*; its pages say 96,000 samples, [\d,]+ decod"):
        decode(data[: page.start] + data[page.start + page.size :])


@pytest.mark.parametrize("subtype", KINDS)
def test_a_damaged_page_is_told_with_both_lengths(subtype: str) -> None:
    data = ogg(subtype)
    page = pages(data)[4]
    at = page.start + page.size - 9
    with pytest.raises(Unusable, match=rf"page at byte {page.start:,} differs from its checksum; .* 96,000 samples"):
        decode(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])


@pytest.mark.parametrize("subtype", KINDS)
def test_chained_streams_are_all_read(subtype: str) -> None:
    parts = [ogg(subtype, n) for n in (96000, 30000, 48000)]
    y, header = decode(b"".join(parts))
    assert header.n_samples == 174000
    assert np.array_equal(y, np.concatenate([decode(part)[0] for part in parts]))


def test_a_chain_of_two_kinds_is_not_mixed() -> None:
    with pytest.raises(
        Unusable, match="96,000 samples of 16,000 Hz with 1 channels, 30,000 samples of 24,000 Hz with 2 channels"
    ):
        decode(ogg("VORBIS") + ogg("VORBIS", 30000, 24000, 2))


def test_a_chain_that_was_cut_is_told() -> None:
    data = ogg("VORBIS") + ogg("VORBIS", 90000)
    with pytest.raises(Unusable, match=r"^file is truncated"):
        decode(data[:-700])


def test_the_checksum_is_that_of_libogg() -> None:
    data = ogg("OPUS")
    for page in pages(data):
        body = data[page.start : page.start + page.size]
        assert checksum(body[:22] + bytes(4) + body[26:]) == body[22:26]


@pytest.mark.parametrize("subtype", KINDS)
@pytest.mark.parametrize(
    "behind", [by_libsndfile(noisy_tone(300), "WAV", "PCM_16"), b"\0\0more", b"ID3 \0\0\0\0\0\x08" + bytes(8)]
)
def test_other_bytes_behind_the_pages_are_told_with_both_lengths(subtype: str, behind: bytes) -> None:
    data = ogg(subtype)
    with pytest.raises(
        Unusable,
        match=rf"^file is damaged or joined: {len(behind):,} bytes behind its last Ogg page are no Ogg page; "
        "its pages say 96,000 samples, 96,000 decoded$",
    ):
        decode(data + behind)


@pytest.mark.parametrize("subtype", KINDS)
def test_zeros_and_tags_behind_the_pages_are_no_audio(subtype: str) -> None:
    data = ogg(subtype)
    for behind in (bytes(4096), b"TAG" + b"x" * 125, b"TAG" + b"x" * 125 + bytes(9)):
        assert np.array_equal(decode(data + behind)[0], decode(data)[0])


@pytest.mark.parametrize("subtype", KINDS)
def test_pages_of_no_running_stream_are_told(subtype: str) -> None:
    data = ogg(subtype)
    first, *_, last = (data[page.start : page.start + page.size] for page in pages(data))
    with pytest.raises(Unusable, match=rf"^file is damaged: the Ogg page at byte {len(data):,} is of no stream that"):
        decode(data + last)  # its last page twice
    with pytest.raises(Unusable, match=r"^file is damaged: the Ogg page at byte 0 is of no stream that runs there"):
        decode(last + data)
    with pytest.raises(Unusable, match=rf"^file is damaged: an Ogg stream begins once more at byte {len(first)}"):
        decode(first + data)
