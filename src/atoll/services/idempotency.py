"""Idempotency: a request that carries a client's key has one effect, however often it is sent; surfaces ask here.

A key is written down before the effect and its answer after it, so that neither a crash nor another server makes a
second effect. Answers are sealed under the client's key, of which only a hash is kept.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from datetime import timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from atoll.domain import crash
from atoll.domain.errors import Conflict, Corrupt, InvalidInput
from atoll.domain.idempotency import KEY_CHARS_MAX, IdempotentRequest, is_key, key_hash
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now

NONCE_BYTES = 12
AGAIN_S = 1
ELSEWHERE = timedelta(seconds=60)  # how long one is taken to be under way on another server, which may have ended
TOO_LARGE = b""  # what is kept of an answer that was


class KeyReused(InvalidInput):
    """This Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


class UnderWay(Conflict):
    """The first request with this Idempotency-Key is still under way."""

    code = "idempotency_in_progress"
    retryable = True
    retry_after_s = AGAIN_S


class Undecided(Conflict):
    """The first request with this Idempotency-Key was cut short: look whether it had its effect, then use another."""

    code = "idempotency_undecided"


class Idempotency:
    """Every server has a name of its own in each of its lives, by which it knows what it is at work on itself."""

    def __init__(
        self,
        records: Records,
        *,
        kept_s: float = 24 * 3600.0,
        answer_bytes_max: int = 2**20,
        owner_bytes_max: int = 2**26,
        shared: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        """`shared`: other servers may have the same records."""
        self._shared = shared
        self._records = records
        self._kept = timedelta(seconds=kept_s)
        self._answer_bytes_max = answer_bytes_max
        self._owner_bytes_max = owner_bytes_max
        self._clock = clock
        self.server = secrets.token_hex(8)
        self._under_way: set[tuple[str, str]] = set()

    async def begin(self, principal: Principal, text: str, fingerprint: str) -> tuple[IdempotentRequest, bytes | None]:
        """The request, with the answer that it had when it was made before.

        InvalidInput for a text that is no key, KeyReused, UnderWay, Undecided.
        """
        if not is_key(text):
            rule = f"Idempotency-Key must be 1 to {KEY_CHARS_MAX} printable characters without blanks"
            raise InvalidInput(rule, field="Idempotency-Key")
        now = self._clock()
        request = IdempotentRequest(
            principal.credential,
            key_hash(principal.credential, text),
            fingerprint,
            self.server,
            now,
            owner=principal.id,
        )
        mine = (request.principal, request.key)
        if mine in self._under_way:
            raise UnderWay
        self._under_way.add(mine)
        try:
            known = await self._records.begin_request(request, forgotten=now - self._kept)
        except BaseException:
            self._under_way.discard(mine)
            raise
        if known is None:
            crash.point("idempotency.begun")
            return request, None
        self._under_way.discard(mine)
        if known.fingerprint != fingerprint:
            raise KeyReused
        if known.answer is None:
            raise Undecided if known.server == self.server else self._elsewhere(known)
        if known.answer == TOO_LARGE:
            raise Undecided("the request with this Idempotency-Key succeeded; its answer was not kept: too large")
        return known, _open(text, known)

    def _elsewhere(self, known: IdempotentRequest) -> Conflict:
        """One that another server, or an earlier life of this one, began."""
        if self._shared and self._clock() - known.created_at < ELSEWHERE:
            return UnderWay("the first request with this Idempotency-Key may be under way on another server")
        return Undecided(
            "the first request with this Idempotency-Key is under way on another server, or was cut short when its "
            f"server ended (it began at {known.created_at:%H:%M:%S} UTC): look whether it had its effect"
        )

    async def finish(self, request: IdempotentRequest, text: str, answer: bytes) -> None:
        """Keep the answer."""
        crash.point("idempotency.done")
        sealed = _seal(text, request, answer) if len(answer) <= self._answer_bytes_max else TOO_LARGE
        try:
            await self._records.answer_request(replace(request, answer=sealed), bytes_max=self._owner_bytes_max)
            crash.point("idempotency.answered")
        finally:
            self._under_way.discard((request.principal, request.key))

    async def forget(self, request: IdempotentRequest) -> None:
        """It had no effect: the key may be used again."""
        try:
            await self._records.forget_request(request)
        finally:
            self._under_way.discard((request.principal, request.key))

    def leave(self, request: IdempotentRequest) -> None:
        """Nobody knows whether it had an effect."""
        self._under_way.discard((request.principal, request.key))


def _seal(text: str, request: IdempotentRequest, answer: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(text, request).encrypt(nonce, answer, request.fingerprint.encode())


def _open(text: str, request: IdempotentRequest) -> bytes:
    sealed = request.answer or b""
    try:
        return _cipher(text, request).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], request.fingerprint.encode())
    except InvalidTag:
        raise Corrupt("the answer to this Idempotency-Key is not what was stored") from None


def _cipher(text: str, request: IdempotentRequest) -> AESGCM:
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"atoll idempotent answer " + request.principal.encode())
    return AESGCM(derived.derive(text.encode()))
