"""Mutations: valid inputs with bits flipped, ends cut off, parts moved and doubled, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

INPUT_BYTES_MAX = 1 << 16
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)
_TEXTS = (
    b"1e999",
    b"-1",
    b"null",
    b"[",
    b"{}",
    b'"\\ud800"',
    b"../",
    b"\0",
    b"/",
    b"%s",
    b"9" * 5000,
    b"\xff\xfe",
    b"\n",
)


def mutated(corpus: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """First the corpus, then so many inputs made of it."""
    yield from corpus
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
            _mutate(data, corpus, chance)
        yield bytes(data[:INPUT_BYTES_MAX])


def _mutate(data: bytearray, corpus: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 2, 4, 8, 64, 512, 4096)))
    match chance.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end]
        case 4:
            other = chance.choice(corpus)
            begin = chance.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + chance.choice((1, 16, 512, 4096))]
        case 5:
            size = chance.choice((1, 2, 4, 8))
            data[at : at + size] = (chance.choice(_INTERESTING) % 256**size).to_bytes(size, "big")
        case 6:
            data[at : at + chance.choice((0, 1, 8))] = chance.choice(_TEXTS)
        case _:
            data[at:end] = chance.randbytes(end - at)
