"""Overlays: copies of template folders inside a sandbox, for its sidekick API.

The sandbox copies, as the sandbox. What it made is listed in a file of this server's data folder, so that deleting an
overlay takes away that and nothing else; a copy that broke off is made whole when the server starts again. How long the
lists of one sandbox are together is bounded.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.domain.fixture import Fixture, FixtureKind, fixture_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxState
from atoll.services.daemon.fixtures import Fixtures, owner_of
from atoll.services.file_watching import check_ignored
from atoll.services.locks import Locks
from atoll.services.paths import absolute, check_path

PER_SANDBOX = 32
KIND = FixtureKind.OVERLAY
# folders that programs fill and nobody edits: `smart` links them to the template's
LINKED = ("node_modules", ".venv", "venv", "vendor", "bower_components")
AT_ONCE = 500
AGAIN_S = 1.0
TRIES = 30
COPIES_MAX = 4  # of one sandbox at once: its sidekick takes no more
LISTED_BYTES_MAX = 64 * 2**20  # of all lists of one sandbox
LONG = "the overlays of this sandbox hold more than can be listed: remove some, or copy less"


@dataclass(frozen=True, slots=True)
class OverlaySpec:
    """`target` is relative to the sandbox's work directory, unless it is absolute."""

    source: str
    target: str
    ignore: Sequence[str] = ()
    strategy: str = "smart"  # or copy


class Overlays:
    """Makes, lists and removes them. `data` is a folder of their own."""

    def __init__(self, fixtures: Fixtures, data: Path) -> None:
        self._fixtures = fixtures
        self._sandboxes = fixtures.sandboxes
        self._data = data
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by sandbox
        self._removals = Locks()  # by overlay: each holds its whole list
        self._removing: set[str] = set()  # which the sandbox that wakes for it does not go on copying

    async def add(self, principal: Principal, sandbox_id: str, spec: OverlaySpec) -> Fixture:
        """The copy has begun, and goes on by itself. Needs `read` and `write`. InvalidInput `source`, `target`,
        `ignore`, `strategy`; NotFound for a source that is not there; QuotaExceeded; Conflict unless it runs."""
        sandbox = await self._fixtures.sandbox(principal, sandbox_id, Scope.WRITE, Scope.READ)
        source = check_path(spec.source, field="source", bytes_max=4096)
        if not source.startswith("/"):
            raise InvalidInput("source must be an absolute path", field="source")
        target = absolute(check_path(spec.target, field="target", bytes_max=4096), sandbox.spec.work_dir)
        check_ignored(spec.ignore)
        if spec.strategy not in ("copy", "smart"):
            raise InvalidInput("strategy must be copy or smart", field="strategy")
        if (await self._sandboxes.files.stat(principal, sandbox_id, source)).kind not in ("directory", "symlink"):
            raise InvalidInput("source must be a directory", field="source")
        name = f"ovl_{secrets.token_hex(8)}"
        kept = {
            "source": source,
            "target": target,
            "asked_target": spec.target,
            "ignore": list(spec.ignore),
            "strategy": spec.strategy,
        }
        state: dict[str, Any] = {"copy_status": "pending", "files": 0, "folders": 0, "skipped": []}
        made = await self._fixtures.add(principal, sandbox, KIND, name, kept, state, quota=PER_SANDBOX)
        self._fixtures.attend(made, lambda: self._copy(made))
        return made

    async def list(self, principal: Principal, sandbox_id: str) -> list[Fixture]:
        """Oldest first. Needs `read`."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return await self._fixtures.list(sandbox_id, KIND)

    async def get(self, principal: Principal, sandbox_id: str, name: str) -> Fixture:
        """Needs `read`. NotFound."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.READ)
        return await self._fixtures.get(sandbox_id, KIND, name)

    async def status(self, sandbox_id: str, name: str) -> str | None:
        """pending, in_progress, complete or failed; None when there is no such overlay."""
        try:
            return (await self._fixtures.get(sandbox_id, KIND, name)).state["copy_status"]
        except NotFound:
            return None

    async def remove(self, principal: Principal, sandbox_id: str, name: str) -> None:
        """Take away what it made and nobody has changed since, and forget it. Needs `write`. NotFound."""
        await self._fixtures.sandbox(principal, sandbox_id, Scope.WRITE)
        async with self._removals.hold(fixture_id(sandbox_id, KIND, name)):
            found = await self._fixtures.get(sandbox_id, KIND, name)
            self._removing.add(found.id)
            try:
                await self._fixtures.leave(found.id)
                await self._take_away(principal, await self._fixtures.get(sandbox_id, KIND, name))
            finally:
                self._removing.discard(found.id)

    def adopt(self, fixture: Fixture) -> None:
        """Of a sandbox that runs, after a restart of the server: make whole what broke off."""
        if fixture.state["copy_status"] in ("pending", "in_progress") and fixture.id not in self._removing:
            self._fixtures.attend(fixture, lambda: self._copy(fixture))

    async def forget(self, sandbox_id: str) -> None:
        """Nothing is left of the sandbox."""
        await asyncio.to_thread(shutil.rmtree, self._data / sandbox_id, ignore_errors=True)

    async def _take_away(self, principal: Principal, fixture: Fixture) -> None:
        listed, target = self._listed(fixture), fixture.spec["target"]
        made = await asyncio.to_thread(_read, listed)
        if fixture.state["copy_status"] in ("in_progress", "failed"):  # the last that it made may not be listed
            made = {one.path: one for one in await self._found(principal, fixture)} | made
        entries = reversed(made.values())  # what is in a folder before the folder
        while some := list(islice(entries, AT_ONCE)):
            await self._sandboxes.copying.uncopy(principal, fixture.sandbox, target, some)
        await self._fixtures.delete(fixture, principal.id)
        await asyncio.to_thread(listed.unlink, missing_ok=True)

    async def _found(self, principal: Principal, fixture: Fixture) -> list[CopiedEntry]:
        """What its copy has made, as far as that can be seen."""
        spec = fixture.spec
        try:
            async with self._turn(fixture):
                return await self._sandboxes.copying.found(
                    principal,
                    fixture.sandbox,
                    spec["source"],
                    spec["target"],
                    ignored=spec["ignore"],
                    links=_links(spec),
                )
        except (NotFound, InvalidInput):  # there is nothing to copy, or nothing that was copied
            return []

    def _turn(self, fixture: Fixture) -> asyncio.Semaphore:
        return self._turns.setdefault(fixture.sandbox, asyncio.Semaphore(COPIES_MAX))

    async def _copy(self, fixture: Fixture) -> None:
        async with self._turn(fixture):
            await self._copy_now(fixture)

    async def _copy_now(self, fixture: Fixture) -> None:
        owner, spec = owner_of(fixture), fixture.spec
        again = fixture.state["copy_status"] == "in_progress"
        for _ in range(TRIES):
            if (await self._sandboxes.get(owner, fixture.sandbox)).state is not SandboxState.RUNNING:
                return
            fixture = await self._fixtures.change(fixture, {"copy_status": "in_progress", "copy_error": None})
            try:
                copying = self._sandboxes.copying.copy(
                    owner,
                    fixture.sandbox,
                    spec["source"],
                    spec["target"],
                    ignored=spec["ignore"],
                    links=_links(spec),
                    again=again,
                )
                async with aclosing(copying) as pieces:
                    async for told in pieces:
                        if isinstance(told, CopyEnd):
                            state: dict[str, Any] = {"files": told.files, "folders": told.folders}
                            state |= {"skipped": list(told.skipped), "copy_status": "complete"}
                            await self._fixtures.change(fixture, state)
                            return
                        again = True
                        if not await asyncio.to_thread(_append, self._listed(fixture), told):
                            await self._fixtures.change(fixture, {"copy_status": "failed", "copy_error": LONG})
                            return
            except OSError as error:
                state = {"copy_status": "failed", "copy_error": f"what it made cannot be listed: {error.strerror}"}
                await self._fixtures.change(fixture, state)
                return
            except Conflict:  # it goes to rest, or has gone: whoever wakes it goes on
                await asyncio.sleep(AGAIN_S)
                continue
            except AtollError as error:
                if not error.retryable:
                    state = {"copy_status": "failed", "copy_error": error.message[:1000]}
                    await self._fixtures.change(fixture, state)
                    return
            await asyncio.sleep(AGAIN_S)
        await self._fixtures.change(fixture, {"copy_status": "failed", "copy_error": "it kept breaking off"})

    def _listed(self, fixture: Fixture) -> Path:
        return self._data / fixture.sandbox / fixture.name


def _links(spec: dict[str, Any]) -> Sequence[str]:
    return LINKED if spec["strategy"] == "smart" else ()


def _append(path: Path, entries: Sequence[CopiedEntry]) -> bool:
    """Whether there was room for them in what the sandbox may list."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = "".join(json.dumps([e.kind, e.path, e.size, e.modified_ns]) + "\n" for e in entries)
    if _bytes_in(path.parent) + len(lines) > LISTED_BYTES_MAX:
        return False
    with path.open("a", encoding="ascii") as file:
        file.write(lines)
    return True


def _bytes_in(folder: Path) -> int:
    total = 0
    for one in folder.iterdir():
        with suppress(FileNotFoundError):  # another overlay was removed just now
            total += one.stat().st_size
    return total


def _read(path: Path) -> dict[str, CopiedEntry]:
    """Each by its path, in the order in which they were made; a last line that was cut short is none."""
    found: dict[str, CopiedEntry] = {}
    try:
        with path.open(encoding="ascii") as file:
            for line in file:
                try:
                    entry = CopiedEntry(*json.loads(line))
                except (ValueError, TypeError):
                    continue
                found[entry.path] = entry
    except FileNotFoundError:
        pass
    return found
