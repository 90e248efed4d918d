"""Overlays: copies of template folders inside a sandbox, for its sidekick API.

The sandbox copies, as the sandbox. What it made is listed in a file of this server's data folder, so that deleting an
overlay takes away that and nothing else; a copy that broke off is made whole when the server starts again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxState
from atoll.services.daemon.fixtures import Fixtures, owner_of
from atoll.services.file_watching import check_ignored
from atoll.services.paths import absolute, check_path

PER_SANDBOX = 32
KIND = FixtureKind.OVERLAY
# folders that programs fill and nobody edits: `smart` links them to the template's
LINKED = ("node_modules", ".venv", "venv", "vendor", "bower_components")
AT_ONCE = 500
AGAIN_S = 1.0
TRIES = 30
COPIES_MAX = 4  # of one sandbox at once: its sidekick takes no more
LISTED_BYTES_MAX = 64 * 2**20


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
        found = await self._fixtures.get(sandbox_id, KIND, name)
        await self._fixtures.leave(found.id)
        listed = self._listed(found)
        entries = await asyncio.to_thread(_read, listed)
        entries.reverse()  # what is in a folder before the folder
        for at in range(0, len(entries), AT_ONCE):
            target = found.spec["target"]
            await self._sandboxes.copying.uncopy(principal, sandbox_id, target, entries[at : at + AT_ONCE])
        await self._fixtures.delete(found, principal.id)
        await asyncio.to_thread(listed.unlink, missing_ok=True)

    def adopt(self, fixture: Fixture) -> None:
        """Of a sandbox that runs, after a restart of the server: make whole what broke off."""
        if fixture.state["copy_status"] in ("pending", "in_progress"):
            self._fixtures.attend(fixture, lambda: self._copy(fixture))

    async def forget(self, sandbox_id: str) -> None:
        """Nothing is left of the sandbox."""
        await asyncio.to_thread(shutil.rmtree, self._data / sandbox_id, ignore_errors=True)

    async def _copy(self, fixture: Fixture) -> None:
        async with self._turns.setdefault(fixture.sandbox, asyncio.Semaphore(COPIES_MAX)):
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
                    links=LINKED if spec["strategy"] == "smart" else (),
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
                        await asyncio.to_thread(_append, self._listed(fixture), told)
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


def _append(path: Path, entries: Sequence[CopiedEntry]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a", encoding="ascii") as file:
        if file.tell() < LISTED_BYTES_MAX:
            file.writelines(json.dumps([e.kind, e.path, e.size, e.modified_ns]) + "\n" for e in entries)


def _read(path: Path) -> list[CopiedEntry]:
    """Each once, in the order in which they were made; a last line that was cut short is none."""
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
    return list(found.values())
