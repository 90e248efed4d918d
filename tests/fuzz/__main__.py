"""`python -m tests.fuzz [TARGET...] --seconds N`: the targets for longer, guided by coverage where there is atheris.

An input that is a finding lies in build/fuzz afterwards, and the exit code is 1. A seed repeats a run of mutations.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

FOUND = Path("build/fuzz")
MEMORY = Path("/dev/shm")  # what is tried is many small files
AT_ONCE = 500  # inputs between two looks at the clock
SLOW_S = 20  # an input that takes longer is a finding
MEMORY_MB = 2_048  # and one that needs more


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("targets", nargs="*", metavar="TARGET")
    options.add_argument("--seconds", type=int, default=60, help="for each target")
    options.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options.add_argument("--guided", action="store_true", help="in this process, with atheris, one target")
    given = options.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    if given.guided:
        _guided(given.targets[0], given.seconds, given.seed)
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed here (it has wheels for Linux on x86-64): mutations without guidance")
    from tests.fuzz.targets import TARGETS

    failed = [name for name in given.targets or TARGETS if not _try(name, given.seconds, given.seed, guided)]
    print(f"findings in {', '.join(failed)}: see {FOUND}" if failed else "no findings")
    return 1 if failed else 0


def _try(name: str, seconds: int, seed: int, guided: bool) -> bool:
    print(f"== {name}: {seconds} s, seed {seed}", flush=True)
    if guided:
        words = [sys.executable, "-m", "tests.fuzz", name, "--guided", "--seconds", str(seconds), "--seed", str(seed)]
        # The fuzzer ends without a word to Python: who started it removes what is left.
        with tempfile.TemporaryDirectory(prefix="atoll-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
            return subprocess.run(words, check=False, env={**os.environ, "TMPDIR": folder}).returncode == 0
    from tests.fuzz import targets
    from tests.fuzz.mutations import mutated

    corpus, until = targets.TARGETS[name].corpus(), time.monotonic() + seconds
    found = 0
    for number in count():
        for data, fault in targets.findings(name, mutated(corpus, AT_ONCE, seed + number)):
            found += 1
            file = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
            file.write_bytes(data)
            print(f"{file}: {type(fault).__name__}: {fault}")
        if found or time.monotonic() > until:
            break
    targets.close()
    return not found


def _guided(name: str, seconds: int, seed: int) -> None:
    """Does not return: the fuzzer ends the process."""
    import atheris  # pyright: ignore[reportMissingImports]

    with atheris.instrument_imports(include=["atoll", "tests.fuzz", "tarfile"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    folder = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, data in enumerate(target.corpus()):
        (folder / str(number)).write_bytes(data)
    words = (
        f"-max_total_time={seconds} -seed={seed or 1} -max_len=65536 -timeout={SLOW_S} -rss_limit_mb={MEMORY_MB} "
        f"-verbosity=0 -print_final_stats=1 -artifact_prefix={FOUND}/{name}-"
    )
    atheris.Setup([sys.argv[0], *words.split(), str(folder)], target.try_)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
