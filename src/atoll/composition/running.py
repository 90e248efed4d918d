"""What happens while an application runs: every part is started, in order, and closed in the opposite one.

`Application.running` is this; `serve` and the tests serve requests between its two ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from atoll.composition.keys import prepare_keys
from atoll.domain.errors import Conflict
from atoll.records.data_folder import DataFolderLock
from atoll.services.deadline import deadline
from atoll.services.rewrapping import check_vault
from atoll.settings import Settings
from atoll.telemetry import spans

if TYPE_CHECKING:
    from atoll.app import Application

TRACES_S = 3.0  # for the last spans to leave
START_S = 120.0  # for a part to get ready; migrations of a large database are the longest


@asynccontextmanager
async def running(app: Application) -> AsyncGenerator[None]:
    """Start every part in order; at the end, or when one cannot start, close those that did."""
    settings, lock = app.settings, DataFolderLock(app.settings.folder)
    async with AsyncExitStack() as stack:
        spans.enter(app.traces)
        stack.push_async_callback(_end_traces, app)
        await asyncio.to_thread(lock.acquire)
        stack.callback(lock.release)
        _refuse_half_restored(settings)
        await _started(stack, "opening the records", app.records.start, app.records.close)
        await _started(stack, "expiring holds", app.expiring.start, app.expiring.close)
        await _started(stack, "proving the ledger", app.proving.start, app.proving.close)
        stack.push_async_callback(app.outbound.close)
        await _started(stack, "looking for identity providers", app.external.start, app.external.close)
        await _started(stack, "preparing the keys", lambda: _prepare_keys(app), app.keys.close)
        await _started(stack, "starting the runtime", app.runtime.start, app.runtime.close)
        await _started(stack, "opening the blobs", app.blobs.start, app.blobs.close)
        await _started(stack, "opening the vault", app.vault.start, app.vault.close)
        await check_vault(app.records, app.vault)
        await _started(stack, "signing the events", app.audit.start, app.audit.close)
        if settings.webhooks.enabled:
            app.deliveries.start()
            stack.push_async_callback(app.deliveries.close)
        await app.workspaces.check_key()
        await _started(stack, "adopting the workspaces", app.workspaces.start, app.workspaces.close)
        stack.push_async_callback(app.model_calls.close)
        stack.push_async_callback(app.gateway.close)
        await _started(stack, "looking at the agents", app.installs.start, app.installs.close)
        stack.push_async_callback(app.charging.close)
        await _started(stack, "adopting the sandboxes", app.sandboxes.start, app.sandboxes.close)
        await _started(stack, "ending what lost its sandbox", app.computes.start, app.computes.close)
        stack.push_async_callback(app.marketplace.close)
        await app.charging.start()
        await _started(stack, "taking up the servers", app.tools.start, app.tools.close)
        await _started(stack, "opening previews", app.showing.start, app.showing.close)
        await _started(stack, "taking up the tasks", app.tasks.start, app.tasks.close)
        stack.push_async_callback(app.once.close)
        if app.second_store is not None and app.healer is not None:
            await _started(stack, "copying to the second store", app.second_store.start, app.second_store.close)
            stack.push_async_callback(app.healer.close)
        proof = asyncio.create_task(app.isolation.prove(), name="isolation")
        stack.push_async_callback(_ended, proof)
        yield


async def _started(
    stack: AsyncExitStack,
    what: str,
    start: Callable[[], Awaitable[object]],
    close: Callable[[], Awaitable[object]],
) -> None:
    """Start a part and remember to close it; also after a start that failed half-way."""
    stack.push_async_callback(close)
    async with deadline(START_S, what):
        await start()


async def _prepare_keys(app: Application) -> None:
    hosts = [address.host for address, _ in app.listeners]
    app.owner_key = await prepare_keys(app.settings, app.keys, app.admin_key, hosts)


def _refuse_half_restored(settings: Settings) -> None:
    """Conflict where a start would make an empty installation, with keys of its own, of what a restore has left."""
    mark = settings.folder.half_restored
    if mark.exists():
        raise Conflict(
            f"`atoll restore` into {settings.data} was cut short: run it again; or remove {mark} to start with what is "
            "there"
        )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _end_traces(app: Application) -> None:
    """What is left is sent, where the collector takes it at once."""
    spans.enter(None)
    if app.traces is not None:
        await app.traces.close(TRACES_S)
