"""Installing agents' programs: whole or not at all, what was expected or not at all, by the real pip and npm."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.agents.base import Package
from atoll.domain import crash
from atoll.domain.errors import AtollError, Corrupt, DeadlineExceeded, InvalidInput, TooLarge, Unavailable
from atoll.services.agents import fetching, installed
from atoll.services.agents.fetching import told_of
from atoll.services.agents.installed import Installed, Progress, Wanted
from atoll.services.agents.installs import AgentInstalls, InstallLimits

from .packages import FILES, NAME, PROGRAM, VERSION, Registry, integrity, serving, tarball, wheel

PACKAGE = Package("pip", NAME, VERSION, folder="agent", program="bin/program")
PLACE = "opt/atoll/agents/tested"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(folder)), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    return folder


def store(tmp_path: Path, wanted: Wanted | None = None, **limits: float) -> AgentInstalls:
    wanted = wanted or Wanted(PACKAGE, ())
    return AgentInstalls(tmp_path / "agents", {"tested": wanted}, InstallLimits(**limits))  # type: ignore[arg-type]


def left(tmp_path: Path) -> list[str]:
    """What is in the store but its lock."""
    folder = tmp_path / "agents"
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "install.lock") if folder.is_dir() else []


async def refused(installs: AgentInstalls) -> AtollError:
    with pytest.raises(AtollError) as failed:
        await installs.install("tested")
    await installs.close()
    return failed.value


async def test_a_program_is_installed_as_a_layer_that_everybody_reads_and_nobody_writes(
    tmp_path: Path, index: Path
) -> None:
    archive = wheel(index)
    old = os.umask(0o077)
    try:
        installs = store(tmp_path, Wanted(PACKAGE, ("0" * 64, hashlib.sha256(archive.read_bytes()).hexdigest())))
        steps: list[Progress] = []
        made = await installs.install("tested", steps.append)
    finally:
        os.umask(old)
    assert installs.installed("tested") == made and installs.all() == [made]
    assert installs.layer("tested") == str(tmp_path / "agents" / f"tested-{VERSION}" / "layer")
    there = {str(path.relative_to(made.folder)): path.stat().st_mode & 0o7777 for path in made.folder.rglob("*")}
    assert there == {
        "opt": 0o755,
        "opt/atoll": 0o755,
        "opt/atoll/agents": 0o755,
        PLACE: 0o755,
        f"{PLACE}/bin": 0o755,
        f"{PLACE}/bin/program": 0o555,
        f"{PLACE}/notes.txt": 0o444,
    }
    assert (made.folder / PLACE / "bin/program").read_bytes() == PROGRAM
    assert made.bytes == len(PROGRAM) + 5 and made.version == VERSION and made.source == "pip"
    order = [step.step for step in steps]
    assert list(dict.fromkeys(order)) == ["fetching", "checking", "unpacking", "done"]
    shutil.rmtree(index)
    assert await installs.install("tested") == made  # it is there: nobody is asked


async def test_an_older_pip_is_not_asked_for_what_it_does_not_know(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for old, progress in (("23.0.1", "off"), ("24.1", "raw"), ("25.1", "raw")):
        monkeypatch.setattr(fetching, "version", lambda _, old=old: old)
        argv, _ = fetching.commands(PACKAGE, tmp_path)
        assert argv[argv.index("--progress-bar") + 1] == progress
    monkeypatch.setattr(fetching, "version", lambda _: "23.0.1")
    wheel(index)
    assert (await store(tmp_path).install("tested")).files == 2


async def test_another_package_than_was_expected_is_refused(tmp_path: Path, index: Path) -> None:
    wheel(index)
    assert isinstance(await refused(store(tmp_path, Wanted(PACKAGE, ("0" * 64,)))), Corrupt)
    assert left(tmp_path) == []


HOSTILE = {
    "out of it": ({"agent/../../../evil": b"x"}, {}, Corrupt),
    "absolute": ({"/agent/evil": b"x"}, {}, Corrupt),
    "no program": ({"agent/notes.txt": b"x"}, {}, Corrupt),
    "a link as program": ({"agent/notes.txt": b"x"}, {"agent/bin/program": "/bin/sh"}, Corrupt),
    "too large": ({"agent/bin/program": bytes(2**21)}, {}, TooLarge),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_package_leaves_nothing(tmp_path: Path, index: Path, case: str) -> None:
    files, links, error = HOSTILE[case]
    wheel(index, files, links)
    assert isinstance(await refused(store(tmp_path, install_bytes=2**20)), error)
    assert left(tmp_path) == []
    assert not any("evil" in names for _, _, names in os.walk(tmp_path))


async def test_links_of_a_package_are_left_out(tmp_path: Path, index: Path) -> None:
    wheel(index, FILES, {"agent/passwd": "/etc/passwd", "agent/up": "../.."})
    made = await store(tmp_path).install("tested")
    assert not any(path.is_symlink() for path in made.folder.rglob("*"))
    assert made.files == 2


async def test_without_a_registry_the_error_says_what_to_do(tmp_path: Path) -> None:
    error = await refused(store(tmp_path))
    assert isinstance(error, Unavailable)
    for words in (NAME, VERSION, "agents.tested.folder", "docs/agents.md"):
        assert words in error.message
    assert left(tmp_path) == []


async def test_what_is_not_installed_says_how_it_is(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="atoll agent install tested"):
        store(tmp_path).layer("tested")
    with pytest.raises(InvalidInput, match="there are: tested"):
        await store(tmp_path).install("other")


async def test_many_who_ask_at_once_get_one_installation(tmp_path: Path, index: Path) -> None:
    wheel(index)
    one, other = store(tmp_path), store(tmp_path)
    steps: list[str] = []
    found = await asyncio.gather(
        *(one.install("tested", lambda step: steps.append(step.step)) for _ in range(5)),
        other.install("tested", lambda step: steps.append(step.step)),
    )
    assert len(set(found)) == 1
    assert steps.count("unpacking") in (1, 5)  # one installation: of the five together, or of the other
    assert left(tmp_path) == [f"tested-{VERSION}"]


@pytest.fixture
async def hanging(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Registry]:
    async with serving(Registry(hangs=True)) as registry:
        monkeypatch.setenv("PIP_NO_INDEX", "0")
        monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple")
        yield registry


async def asked(registry: Registry) -> None:
    await asyncio.wait_for(registry.first.wait(), 20)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


async def test_a_registry_that_hangs_ends_with_the_time_limit_and_nothing_of_pip_stays(
    tmp_path: Path, hanging: Registry
) -> None:
    before = children()
    error = await refused(store(tmp_path, install_s=2.0))
    assert isinstance(error, DeadlineExceeded)
    assert children() <= before
    assert left(tmp_path) == []


async def test_one_who_gives_up_ends_it_for_nobody_else_and_close_ends_it_for_all(
    tmp_path: Path, hanging: Registry
) -> None:
    before, installs = children(), store(tmp_path)
    one, other = (asyncio.create_task(installs.install("tested")) for _ in range(2))
    await asked(hanging)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert not other.done()
    await installs.close()
    assert isinstance((await asyncio.gather(other, return_exceptions=True))[0], asyncio.CancelledError)
    assert children() <= before
    assert left(tmp_path) == []


INSTALL = """
import asyncio, sys
from pathlib import Path
from tests.services.agents.test_installs import store
asyncio.run(store(Path(sys.argv[1])).install("tested"))
"""


@pytest.mark.parametrize("point", sorted(point for point in crash.POINTS if point.startswith("agents.")))
async def test_c01_killed_anywhere_it_is_whole_or_not_there_and_the_next_installs_it(
    tmp_path: Path, index: Path, point: str
) -> None:
    wheel(index)
    root = Path(__file__).parents[3]
    environ = {**os.environ, "ATOLL_CRASH_AT": point, "PYTHONPATH": str(root)}
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", INSTALL, str(tmp_path), env=environ)
    assert await asyncio.wait_for(killed.wait(), 50) == -signal.SIGKILL
    installs = store(tmp_path)
    whole = point == "agents.install.renamed"
    assert (installs.installed("tested") is not None) == whole
    await installs.start()
    assert left(tmp_path) == ([f"tested-{VERSION}"] if whole else [])
    made = await installs.install("tested")
    assert (made.folder / PLACE / "bin/program").read_bytes() == PROGRAM
    assert left(tmp_path) == [f"tested-{VERSION}"]


async def test_a_start_leaves_an_installation_alone_that_is_at_work(tmp_path: Path, hanging: Registry) -> None:
    installs = store(tmp_path)
    running = asyncio.create_task(installs.install("tested"))
    await asked(hanging)
    await store(tmp_path).start()
    assert left(tmp_path) == [f"tested-{VERSION}.partial"]
    await installs.close()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_that_lost_a_file_is_not_taken_and_is_installed_again(tmp_path: Path, index: Path) -> None:
    wheel(index)
    installs = store(tmp_path)
    made = await installs.install("tested")
    program = made.folder / PLACE / "bin/program"
    program.chmod(0o755)
    program.write_bytes(PROGRAM[:5])
    assert installs.installed("tested") is None and installs.all() == []
    again = await installs.install("tested")
    assert program.read_bytes() == PROGRAM and again.bytes == made.bytes


async def test_its_files_are_looked_at_once_in_a_while_and_not_when_it_is_gone_or_anew(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index)
    installs = store(tmp_path)
    made = await installs.install("tested")
    looks = 0
    measure = installed.measure

    def counted(folder: Path) -> tuple[int, int]:
        nonlocal looks
        looks += 1
        return measure(folder)

    monkeypatch.setattr(installed, "measure", counted)
    assert [installs.layer("tested") for _ in range(3)] == [str(made.folder)] * 3
    assert looks == 1
    await installs.remove("tested")
    with pytest.raises(Unavailable):
        installs.layer("tested")
    await installs.install("tested")
    assert installs.layer("tested") == str(made.folder)


async def test_every_version_is_removed_and_nothing_else(tmp_path: Path, index: Path) -> None:
    wheel(index)
    installs = store(tmp_path)
    made = await installs.install("tested")
    shutil.copytree(made.folder.parent, tmp_path / "agents" / "other-1")
    assert await installs.remove("tested") == [made]
    assert left(tmp_path) == ["other-1"] and installs.installed("tested") is None
    assert await installs.remove("tested") == []


@pytest.mark.parametrize("place", ["bin/program", "program"])
async def test_a_program_that_is_on_this_machine_is_copied_and_copied_again_when_it_changes(
    tmp_path: Path, place: str
) -> None:
    own = tmp_path / "own"
    (own / place).parent.mkdir(parents=True)
    (own / place).write_bytes(PROGRAM)
    (own / place).chmod(0o755)
    (own / "gone").symlink_to("/nowhere")
    installs = store(tmp_path, Wanted(PACKAGE, (), own))
    made = await installs.install("tested")
    assert (made.folder / PLACE / "bin/program").read_bytes() == PROGRAM
    assert made.source == str(own) and made.version.startswith("local-")
    (own / "new").write_text("another version")
    assert installs.installed("tested") is None
    assert (await installs.install("tested")).version != made.version


async def test_a_folder_without_the_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    error = await refused(store(tmp_path, Wanted(PACKAGE, (), tmp_path / "own")))
    assert isinstance(error, InvalidInput) and "bin/program" in error.message
    error = await refused(store(tmp_path, Wanted(PACKAGE, (), tmp_path / "nowhere")))
    assert isinstance(error, Unavailable)


@pytest.fixture
def npm() -> Iterator[Package]:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    yield replace(PACKAGE, source="npm", folder="package")


PACKED = {
    "package/bin/program": PROGRAM,
    "package/package.json": b'{"name": "%b", "version": "%b"}' % (NAME.encode(), VERSION.encode()),
}


async def test_npm_fetches_and_runs_nothing_of_the_package(
    tmp_path: Path, npm: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    scripts = f'"scripts": {{"prepack": "touch {ran}", "postinstall": "touch {ran}"}}'.encode()
    packed = tarball({**PACKED, "package/package.json": PACKED["package/package.json"][:-1] + b", " + scripts + b"}"})
    async with serving(Registry(packed)) as registry:
        monkeypatch.setenv("npm_config_registry", registry.url)
        monkeypatch.setenv("OPENAI_API_KEY", "c4n4ry")
        made: Installed = await store(tmp_path, Wanted(npm, (integrity(packed),))).install("tested")
    assert (made.folder / PLACE / "bin/program").read_bytes() == PROGRAM
    assert not ran.exists() and "c4n4ry" not in "".join(registry.heads)


def test_keys_and_this_server_s_settings_are_not_told_to_pip_and_npm() -> None:
    told = {"PATH": "/bin", "https_proxy": "p", "PIP_INDEX_URL": "i", "npm_config_registry": "r", "HOME": "/h"}
    secret = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "ATOLL_VAULT__TRANSIT__TOKEN": "t", "DATABASE_URL": "d"}
    assert told_of({**told, **secret}) == told
