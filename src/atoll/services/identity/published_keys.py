"""Published keys: a provider's own, found by OIDC discovery, kept fresh in the background, used on when it is down.

The authenticator of external tokens asks for the keys of a token; one it does not know makes it look again, at times.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.services.identity.providers import Provider
from atoll.services.identity.verification_keys import VerificationKey, from_key_set
from atoll.services.outbound import Outbound

_log = structlog.get_logger("atoll.identity")
DISCOVERY = "/.well-known/openid-configuration"
DOCUMENT_BYTES = 256 * 1024
LOOK_AGAIN_S = 10.0  # between two looks that tokens with unknown keys ask for
RETRY_S = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)  # after each failure in a row


class PublishedKeys:
    """`refresh_s`: how old they get while the provider answers; `stale_s`: while it does not."""

    def __init__(
        self,
        provider: Provider,
        outbound: Outbound,
        *,
        refresh_s: float = 300.0,
        stale_s: float = 86_400.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._outbound = outbound
        self._refresh_s = refresh_s
        self._stale_s = stale_s
        self._monotonic = monotonic
        self._keys: list[VerificationKey] = []
        self._loaded_at: float | None = None
        self._looked_at: float | None = None
        self._failures = 0  # in a row
        self._look: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, without waiting: a provider that is down keeps no server from starting."""
        self._loop = asyncio.create_task(self._keep_fresh(), name=f"keys of {self._provider.name}")

    async def close(self) -> None:
        """Stop looking; a second call does nothing."""
        tasks = [task for task in (self._loop, self._look) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = self._look = None

    @property
    def answering(self) -> bool:
        """Whether the last look found keys; True before the first has ended."""
        return not self._failures

    async def find(self, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        """The keys that may have made a signature; none when the provider has no such key.

        Unavailable when that cannot be told: the provider has not answered yet, or not for too long.
        """
        if self._loaded_at is None or self._monotonic() - self._loaded_at > self._stale_s:
            await self._look_again()
        found = self._fitting(key_id, algorithm)
        if not found and self._loaded_at is not None:
            await self._look_again()
            found = self._fitting(key_id, algorithm)
        if self._loaded_at is None or self._monotonic() - self._loaded_at > self._stale_s:
            raise Unavailable(f"the identity provider {self._provider.name} does not answer: its tokens wait for it")
        if not found and self._failures:
            raise Unavailable(f"the identity provider {self._provider.name} does not answer: the key may be a new one")
        return found

    def _fitting(self, key_id: str | None, algorithm: str) -> list[VerificationKey]:
        keys = [key for key in self._keys if algorithm in key.algorithms]
        # Without an id there must be no choice.
        return [key for key in keys if key.id == key_id] if key_id is not None else keys if len(keys) == 1 else []

    async def _look_again(self) -> None:
        """One look for all who wait, and not before it is time for one."""
        now = self._monotonic()
        if self._look is None:
            wait_s = self._retry_s() if self._failures else LOOK_AGAIN_S
            if self._looked_at is not None and now - self._looked_at < wait_s:
                return
            self._begin_look()
        if self._look is not None:
            await asyncio.shield(self._look)

    def _begin_look(self) -> asyncio.Task[None]:
        self._looked_at = self._monotonic()
        self._look = asyncio.create_task(self._load(), name=f"keys of {self._provider.name}, once")
        self._look.add_done_callback(self._looked)
        return self._look

    def _looked(self, task: asyncio.Task[None]) -> None:
        if self._look is task:
            self._look = None

    def _retry_s(self) -> float:
        return RETRY_S[min(self._failures, len(RETRY_S)) - 1]

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.shield(self._look or self._begin_look())
            await asyncio.sleep(min(self._retry_s(), self._refresh_s) if self._failures else self._refresh_s)

    async def _load(self) -> None:
        """Never fails: what goes wrong is counted, and logged once."""
        try:
            keys = await self._fetch()
        except (AtollError, ValueError) as error:
            self._failures += 1
            if self._failures == 1:
                why = error.message if isinstance(error, AtollError) else str(error)
                _log.warning("identity_provider.failed", provider=self._provider.name, why=why)
            return
        except Exception:  # whatever a provider sends, the next look may find better
            self._failures += 1
            _log.exception("identity_provider.failed", provider=self._provider.name)
            return
        if self._failures or self._loaded_at is None:
            _log.info("identity_provider.found", provider=self._provider.name, keys=len(keys))
        self._failures, self._keys, self._loaded_at = 0, keys, self._monotonic()

    async def _fetch(self) -> list[VerificationKey]:
        url, own = self._provider.jwks_url, True
        if url is None:
            url = await self._discover()
            # The operator named the issuer, and nobody vouches for where else it sends us.
            own = _origin(url) == _origin(self._provider.issuer)
        keys = from_key_set(await self._get(url, own=own), self._provider.algorithms)
        if not keys:
            raise ValueError(f"its key set has no key for {', '.join(self._provider.algorithms)}")
        return keys

    async def _discover(self) -> str:
        """Where its keys are (OpenID Connect Discovery 1.0, section 4)."""
        try:
            read = json.loads(await self._get(self._provider.issuer.rstrip("/") + DISCOVERY, own=True))
        except (ValueError, RecursionError):
            raise ValueError("its configuration is no JSON") from None
        document = cast(dict[str, Any], read) if isinstance(read, dict) else {}
        if document.get("issuer") != self._provider.issuer:
            raise ValueError("its configuration names another issuer: the setting must say exactly what it says")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError("its configuration has no jwks_uri")
        return url

    async def _get(self, url: str, *, own: bool) -> bytes:
        answer = await self._outbound.request(
            "GET", url, headers={"Accept": "application/json"}, own=own, answer_bytes=DOCUMENT_BYTES
        )
        if answer.status != 200:
            raise ValueError(f"it answers {answer.status}")
        return answer.body


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
