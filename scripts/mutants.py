"""Changes one thing at a time in the guards and asks their tests whether they notice: `make mutants` (Q06).

Small modules whose tests take a second or two; a mutant that survives is printed, to be argued in docs/mutation.md.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALONE = "--noconftest"  # tests that need no server start three times as fast without what others share
# What is changed, and the tests that are to notice.
GUARDS = {
    "atoll/domain/ledger_rules.py": [ALONE, "tests/domain/test_ledger_rules.py"],
    "atoll/domain/egress.py": [ALONE, "tests/domain/test_egress.py"],
    "atoll/services/paths.py": [ALONE, "tests/services/test_paths.py"],
    "atoll/services/host_mounts.py": ["tests/services/test_host_mounts.py"],
    "atoll/services/rates/local_counters.py": [ALONE, "tests/services/rates/test_local_counters.py"],
    "atoll/settings/listen.py": [ALONE, "tests/settings/test_listen.py"],
    "atoll/sidekick/keeper_paths.py": [ALONE, "tests/sidekick/test_keeper_paths.py"],
    "atoll/sidekick/paths.py": [ALONE, "tests/sidekick/test_paths.py"],
    "atoll/surfaces/credentials.py": [ALONE, "tests/surfaces/test_credentials.py", "tests/surfaces/test_ways.py"],
    "atoll/surfaces/ways.py": [ALONE, "tests/surfaces/test_credentials.py", "tests/surfaces/test_ways.py"],
    "atoll/surfaces/door.py": ["tests/surfaces/test_door.py", "tests/surfaces/test_doors.py"],
    "atoll/surfaces/previews/places.py": [ALONE, "tests/surfaces/previews/test_places.py"],
    "atoll/surfaces/sidekick/paths.py": [ALONE, "tests/surfaces/sidekick/test_paths.py"],
}
TEST_S = 120
_MOMENTS = count(1)  # no two mutants are of the same: else Python would take the one before, which it has compiled
_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the whole changed source) for each thing that can be."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(next(one for at, one in enumerate(ast.walk(changed)) if at == number))
            yield f"{getattr(node, 'lineno', 0)}: {what}", ast.unparse(ast.fix_missing_locations(changed))


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Compare):
        for at, other in enumerate(_OTHER.get(type(op)) for op in node.ops):
            if other is not None:
                yield f"{ast.unparse(node)} with {other.__name__}", partial(_with_operator, at=at, other=other)
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in _OTHER:
        other = _OTHER[type(node.op)]
        yield f"{ast.unparse(node)} with {other.__name__}", lambda one: setattr(one, "op", other())
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and _is_flag(node.right):
        yield f"{ast.unparse(node)} without {ast.unparse(node.right)}", lambda one: setattr(one, "right", one.left)
        if _is_flag(node.left):
            yield f"{ast.unparse(node)} without {ast.unparse(node.left)}", lambda one: setattr(one, "left", one.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"{ast.unparse(node)} without not", _without_not
    elif isinstance(node, ast.If | ast.IfExp):
        yield f"if {ast.unparse(node.test)}: never", lambda one: setattr(one, "test", ast.Constant(False))
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
        yield f"{ast.unparse(node)} turned", lambda one: setattr(one.value, "value", not one.value.value)


def _is_flag(node: ast.AST) -> bool:
    """A number, or a constant by its name; not a type, as unions have them."""
    return (isinstance(node, ast.Constant) and isinstance(node.value, int)) or ast.unparse(node).rpartition(".")[
        2
    ].isupper()


def _with_operator(node: ast.Compare, at: int, other: type[ast.cmpop]) -> None:
    node.ops[at] = other()


def _without_not(node: ast.UnaryOp) -> None:
    node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)


def survives(source: Path, name: str, text: str, tests: list[str]) -> bool:
    """Whether the tests pass with that text in place of the module."""
    (source / name).write_text(text)
    moment = next(_MOMENTS)
    os.utime(source / name, (moment, moment))
    env = {**os.environ, "PYTHONPATH": str(source)}
    words = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, timeout=TEST_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--each", type=int, default=1000, help="mutants of a module at most, drawn by the seed")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", default="", help="modules whose path has this in it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atoll-mutants-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for name, tests in GUARDS.items():
            if asked.only not in name:
                continue
            kept = (source / name).read_text()
            if not survives(source, name, kept, tests):
                print(f"{name}: its tests fail without a change", flush=True)
                return 1
            found = list(mutants(kept))
            random.Random(asked.seed).shuffle(found)
            found, left = found[: asked.each], 0
            for what, text in found:
                if survives(source, name, text, tests):
                    left += 1
                    print(f"survives {name}:{what}", flush=True)
            (source / name).write_text(kept)
            print(f"{name}: {len(found) - left} of {len(found)} mutants noticed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
