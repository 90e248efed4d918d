"""The program that the demo runs in its sandbox: draws the Mandelbrot set, as text and as a web page."""

import os
import platform
from pathlib import Path

SHADES = " .:-=+*#%@"
WIDTH, HEIGHT, ROUNDS = 72, 22, 200


def escape_rounds(point: complex) -> int:
    """Rounds of z = z*z + point before z escapes; ROUNDS when it stays."""
    z = 0j
    for number in range(ROUNDS):
        if abs(z) > 2:
            return number
        z = z * z + point
    return ROUNDS


def shade(column: int, row: int) -> str:
    rounds = escape_rounds(complex(column / WIDTH * 3.2 - 2.2, row / HEIGHT * 2.4 - 1.2))
    return SHADES[-1] if rounds == ROUNDS else SHADES[min(rounds, len(SHADES) - 2)]


lines = ["".join(shade(column, row) for column in range(WIDTH)) for row in range(HEIGHT)]
print("\n".join(lines))
where = f"Python {platform.python_version()} on {platform.node()}, process {os.getpid()}, user {os.getuid()}"
print(where)
site = Path("site")
site.mkdir(exist_ok=True)
(site / "mandelbrot.txt").write_text("\n".join(lines) + "\n")
page = f"<!doctype html><title>Mandelbrot</title><pre>{chr(10).join(lines)}</pre><p>Drawn by {where}</p>\n"
(site / "index.html").write_text(page)
