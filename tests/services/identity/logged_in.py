"""One or two servers on one set of records, with users who have logged in, on clocks that a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jwt

from atoll.domain.principal import Principal
from atoll.domain.user import User
from atoll.records.base import Records
from atoll.services.identity.capabilities import Capabilities
from atoll.services.identity.logins import LoginLimits, Logins, TokenPair
from atoll.services.identity.own_keys import OwnKeys
from atoll.services.identity.signing_keys import EDDSA, SigningKeys
from atoll.services.identity.standing import Standing
from atoll.services.identity.throttling import LoginThrottle, TryLimits
from atoll.services.identity.tokens import Tokens
from atoll.services.identity.users import OPERATOR, Users
from atoll.services.keys import Keys
from atoll.services.rates.local_counters import LocalCounters
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from tests.services.identity.clocks import Time, cheap_passwords

PASSWORD = "correct horse battery"
HOME = "192.0.2.1"


class Server:
    """What one process has."""

    def __init__(
        self,
        records: Records,
        vault: MemoryVault,
        time: Time,
        *,
        algorithm: str = EDDSA,
        limits: LoginLimits | None = None,
        tries: TryLimits | None = None,
        issuer: str = "atoll",
        welcomed: list[Principal] | None = None,
    ) -> None:
        clocks: dict[str, Any] = {"clock": time.clock, "monotonic": time.monotonic}
        passwords = cheap_passwords()

        async def welcome(principal: Principal) -> None:
            if welcomed is not None:
                welcomed.append(principal)

        self.standing = Standing(records, cache_s=2, **clocks)
        self.users = Users(records, passwords, self.standing, welcome=welcome, clock=time.clock)
        self.signing_keys = SigningKeys(records, vault, algorithm=algorithm, outlived_s=900, **clocks)
        self.tokens = Tokens(self.signing_keys, self.standing, issuer=issuer, audience="atoll", clock=time.clock)
        self.throttle = LoginThrottle(tries, LocalCounters(clock=time.monotonic))
        self.logins = Logins(
            records, self.users, passwords, self.tokens, self.standing, self.throttle, limits, time.clock
        )
        self.keys = Keys(records, **clocks)
        self.capabilities = Capabilities(records, self.keys, WorkspaceAccess(records), clock=time.clock)
        self.own_keys = OwnKeys(self.capabilities)

    async def user(self, username: str = "ann", **more: Any) -> User:
        return await self.users.create(OPERATOR, username, PASSWORD, **more)

    async def login(self, username: str = "ann", password: str = PASSWORD) -> TokenPair:
        return await self.logins.login(username, password, address=HOME)


@dataclass
class Pair:
    """Two of them."""

    time: Time = field(default_factory=Time)
    records: MemoryRecords = field(default_factory=MemoryRecords)
    vault: MemoryVault = field(default_factory=MemoryVault)
    welcomed: list[Principal] = field(default_factory=list[Principal])

    def __post_init__(self) -> None:
        self.here, self.there = self.server(), self.server()

    def server(self, **more: Any) -> Server:
        return Server(self.records, self.vault, self.time, welcomed=self.welcomed, **more)

    async def actions(self, target: str | None = None) -> list[str]:
        return [event.action for event in await self.records.list_events(target=target)]


async def forged(server: Server, genuine: str, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """A token that our own key signed, with other claims than we would write; `...` takes one away."""
    key, private = await server.signing_keys.signer()
    claims = jwt.decode(genuine, options={"verify_signature": False})
    claims = {name: value for name, value in (claims | changed).items() if value is not ...}
    from tests.services.identity.forging import sign

    return sign(claims, private, key.algorithm, **({"kid": key.id, "typ": "at+jwt"} | (header or {})))
