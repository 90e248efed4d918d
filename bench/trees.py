"""File trees to measure with: the same program makes them here and inside a sandbox.

Half of each file is noise and half is text, so that compression has about as much to do as in a real project.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = """
import os, random, sys
folder, files, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
only = set(map(int, sys.argv[4].split(","))) if len(sys.argv) > 4 else range(files)
for number in only:
    path = os.path.join(folder, "d%02d" % (number % 50), "f%05d.txt" % number)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    noise = random.Random("%d %s" % (number, sys.argv[4:])).randbytes(size // 2)
    line = b"line %d of a file like many others, with words that come again\\n" % number
    with open(path, "wb") as file:
        file.write(noise + line * ((size - len(noise)) // len(line)))
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many files, and how many bytes they have in all."""

    files: int
    bytes: int

    @property
    def arguments(self) -> list[str]:
        return [str(self.files), str(self.bytes // self.files)]

    def __str__(self) -> str:
        return f"{self.files:,} files, {self.bytes // 10**6} MB"


SEED_SIZES = (Shape(10, 10**6), Shape(100, 10 * 10**6), Shape(500, 50 * 10**6))
LARGE = Shape(10_000, 200 * 10**6)
SMALL = Shape(200, 4 * 10**6)  # for a quick look whether it all works


def make(folder: Path, shape: Shape, only: str = "") -> None:
    """Fill the folder; with `only` ("3,7,12") write just these files, with other contents."""
    words = [sys.executable, "-c", PROGRAM, str(folder), *shape.arguments, *([only] if only else [])]
    subprocess.run(words, check=True, timeout=300)


def command(folder: str, shape: Shape, only: str = "") -> list[str]:
    """The same as a command for inside a sandbox."""
    return ["python3", "-c", PROGRAM, folder, *shape.arguments, *([only] if only else [])]
