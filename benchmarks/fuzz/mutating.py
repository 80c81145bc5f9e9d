"""Mutations of bytes and of text that know nothing of a format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

# Larger inputs cost time and find no more.
MAX_BYTES = 1 << 18
# Sizes, counts and offsets at the limits of their types.
_NUMBERS = (
    0, 1, 2, 7, 8, 16, 255, 256, 1000, 4096, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE,
    0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF,
)  # fmt: skip
_HEAD_BYTES = 128

Mutation = Callable[[bytearray, Random], None]


def mutated(data: bytes, rng: Random, most: int = 3) -> bytes:
    """Return bytes after one to `most` mutations, half of them in the first bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        rng.choice(MUTATIONS)(changed, rng)
    return bytes(changed[:MAX_BYTES])


def _at(data: bytearray, rng: Random) -> int:
    length = len(data) if rng.random() < 0.5 else min(_HEAD_BYTES, len(data))
    return rng.randrange(length) if length else 0


def _flip(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if data:
            data[_at(data, rng)] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: Random) -> None:
    if data:
        data[_at(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _set_number(data: bytearray, rng: Random) -> None:
    size = rng.choice((2, 3, 4, 4, 4, 8))
    number = rng.choice((*_NUMBERS, len(data), rng.getrandbits(8 * size))) & ((1 << 8 * size) - 1)
    at = _at(data, rng)
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))


def _truncate(data: bytearray, rng: Random) -> None:
    del data[_at(data, rng) :]


def _remove(data: bytearray, rng: Random) -> None:
    at = _at(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 16, rng.randint(1, max(1, len(data) // 2))))]


def _insert(data: bytearray, rng: Random) -> None:
    n = rng.choice((1, 2, 4, 16, 512))
    at = _at(data, rng)
    data[at:at] = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n)))


def _duplicate(data: bytearray, rng: Random) -> None:
    begin = _at(data, rng)
    part = data[begin : begin + rng.choice((1, 4, 16, 64, 1024))]
    at = rng.choice((begin, _at(data, rng)))
    data[at:at] = part


def _exchange(data: bytearray, rng: Random) -> None:
    n, one, other = rng.choice((1, 4, 8, 64)), _at(data, rng), _at(data, rng)
    data[one : one + n], data[other : other + n] = data[other : other + n], data[one : one + n]


MUTATIONS: Sequence[Mutation] = (
    _flip, _flip, _set_byte, _set_number, _set_number, _truncate, _remove, _insert, _duplicate, _exchange,
)  # fmt: skip


def mutated_text(text: str, rng: Random, words: Sequence[str], most: int = 3) -> str:
    """Return text after one to `most` mutations: characters, `words` and lines are changed.

    Parameters
    ----------
    words : sequence of str
        What the format gives a meaning to, and what is often mistaken.
    """
    for _ in range(rng.randint(1, most)):
        at = rng.randint(0, len(text))
        match rng.randrange(7):
            case 0:
                text = text[:at] + rng.choice(words) + text[at:]
            case 1:
                text = text[:at] + rng.choice(words) + text[at + rng.choice((1, 1, 2, 8)) :]
            case 2:
                text = text[:at] + text[at + rng.choice((1, 1, 4, 40)) :]
            case 3:
                text = (
                    text[:at]
                    + chr(rng.choice((rng.randrange(32), rng.randrange(256), rng.randrange(0xD800))))
                    + text[at:]
                )
            case 4:
                lines = text.split("\n")
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
                text = "\n".join(lines)
            case 5:
                lines = text.split("\n")
                rng.shuffle(lines) if rng.random() < 0.2 else lines.pop(rng.randrange(len(lines)))
                text = "\n".join(lines)
            case _:
                text = text[:at] + text[max(0, at - rng.choice((1, 8, 64))) :]
    return text[:MAX_BYTES]
