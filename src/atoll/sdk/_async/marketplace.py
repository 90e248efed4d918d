"""The marketplace: publish workers, find those of others, install, rate and run them; the CLI uses it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.sdk._async.api import AsyncApi, connect
from atoll.sdk.requests import target_of
from atoll.sdk.worker_values import WorkerInfo, WorkerRun, run_of, worker_of

BASE = "/marketplace"
MADE_S = 120.0  # for the sandbox of a run, and its end
RUN_S = 900.0  # that a run takes at most, where nothing else is asked for


class AsyncMarketplace:
    """As this credential sees it. Errors: NotFound, Forbidden, Conflict, InvalidInput."""

    def __init__(self, *, url: str | None = None, api_key: str | None = None) -> None:
        self._api: AsyncApi = connect(url, api_key)

    async def publish(
        self,
        name: str,
        description: str,
        *,
        command: str | Sequence[str] | None = None,
        template: str | None = None,
        endpoint_url: str | None = None,
        tags: Sequence[str] = (),
        price_usd: float | None = None,
        version: str | None = None,
        public: bool = True,
    ) -> WorkerInfo:
        """Offer a worker, or the next version of one's own of that name: a command in a template, which others run for
        `price_usd` a run, or an endpoint that they call themselves."""
        body: dict[str, Any] = {
            "name": name,
            "description": description,
            "command": command if command is None or isinstance(command, str) else list(command),
            "template": template,
            "endpoint_url": endpoint_url,
            "tags": list(tags),
            "pricing": {} if price_usd is None else {"per_run": price_usd},
            "version": version,
            "visibility": "public" if public else "private",
        }
        return worker_of(await self._api.call("POST", f"{BASE}/publish", body, once=True))

    async def search(
        self,
        text: str = "",
        *,
        tags: Sequence[str] = (),
        author: str | None = None,
        max_price_usd: float | None = None,
        limit: int = 100,
    ) -> Sequence[WorkerInfo]:
        """Those with that text in the name or the description and any of the tags, whose run costs no more than
        `max_price_usd`; the most installed first."""
        wanted = {"q": text or None, "tags": ",".join(tags) or None, "author": author, "limit": limit}
        if max_price_usd is not None:
            wanted["max_price"] = f"{max_price_usd:f}"
        answer = await self._api.call("GET", target_of(f"{BASE}/search", **wanted))
        return [worker_of(value) for value in answer["results"]]

    async def get(self, worker: str, *, version: str | None = None) -> WorkerInfo:
        """The current version, or that one."""
        return worker_of(await self._api.call("GET", target_of(BASE, worker, version=version)))

    async def versions(self, worker: str) -> Sequence[WorkerInfo]:
        """Newest first."""
        answer = await self._api.call("GET", target_of(BASE, worker, "versions"))
        return [worker_of(value) for value in answer["versions"]]

    async def install(self, worker: str) -> WorkerInfo:
        """Say that one uses it; counted once."""
        return worker_of(await self._api.call("POST", target_of(BASE, worker, "install")))

    async def rate(self, worker: str, stars: int) -> WorkerInfo:
        """1 to 5, of a worker that one has installed or run."""
        return worker_of(await self._api.call("POST", target_of(BASE, worker, "rate"), {"rating": stars}))

    async def run(
        self,
        worker: str | WorkerInfo,
        *,
        input: Any = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        workspace: str | None = None,
        network: str = "none",
        version: str | None = None,
        max_price_usd: float | None = None,
        key: str | None = None,
    ) -> WorkerRun:
        """Run it in a fresh sandbox of one's own, to its end. With a price it needs `max_price_usd` or `version`, or
        is given as it was looked at: it then costs no more than that says. InsufficientCredit; Conflict when it costs
        more, or has no command. A connection that breaks makes no second run; neither does asking again with
        the same `key`."""
        if isinstance(worker, WorkerInfo) and max_price_usd is None and version is None:
            max_price_usd = worker.pricing.get("per_run", 0)
        body: dict[str, Any] = {
            "input": input,
            "args": list(args),
            "env": dict(env or {}),
            "timeout": timeout_s,
            "workspace": workspace,
            "network": network,
            "version": version,
            "max_price": max_price_usd,
        }
        waits_s = (timeout_s or RUN_S) + MADE_S
        target = target_of(BASE, worker if isinstance(worker, str) else worker.id, "run")
        return run_of(await self._api.call("POST", target, body, once=key or True, timeout_s=waits_s))

    async def unpublish(self, worker: str) -> None:
        """Take back one of one's own, with all its versions and ratings."""
        await self._api.call("DELETE", target_of(BASE, worker))
