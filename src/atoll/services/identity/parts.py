"""The parts that know users: put together here from what they need of each other; the composition root calls it."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.records.base import Records
from atoll.services.identity.capabilities import Capabilities
from atoll.services.identity.logins import LoginLimits, Logins
from atoll.services.identity.own_keys import OwnKeys
from atoll.services.identity.own_tokens import SKEW_S
from atoll.services.identity.passwords import Passwords
from atoll.services.identity.signing_keys import EDDSA, SigningKeys
from atoll.services.identity.standing import Standing
from atoll.services.identity.throttling import LoginThrottle, TryLimits
from atoll.services.identity.tokens import Tokens
from atoll.services.identity.users import Users, Welcome
from atoll.services.rates.counters import Counters
from atoll.vaults.base import Vault


@dataclass(frozen=True, slots=True)
class AuthLimits:
    """What the settings say of users."""

    access_ttl_s: float = 900.0
    algorithm: str = EDDSA
    key_s: float = 30 * 86_400.0
    issuer: str = "atoll"
    audience: str = "atoll"
    password_chars: int = 12
    cache_s: float = 2.0
    logins: LoginLimits = field(default_factory=LoginLimits)
    tries: TryLimits = field(default_factory=TryLimits)
    others_s: float = 0.0  # the longest that anything else lasts that the same keys sign


@dataclass(frozen=True, slots=True)
class UserParts:
    standing: Standing
    users: Users
    signing_keys: SigningKeys
    tokens: Tokens
    logins: Logins
    own_keys: OwnKeys


def make_user_parts(
    records: Records,
    vault: Vault,
    capabilities: Capabilities,
    limits: AuthLimits | None = None,
    welcome: Welcome | None = None,
    tries: Counters | None = None,
) -> UserParts:
    """`welcome` gives a user their default workspace at the first login; `tries` count logins that fail."""
    limits = limits or AuthLimits()
    standing = Standing(records, cache_s=limits.cache_s)
    passwords = Passwords(chars_min=limits.password_chars)
    users = Users(records, passwords, standing, welcome=welcome)
    signing_keys = SigningKeys(
        records,
        vault,
        algorithm=limits.algorithm,
        rotate_s=limits.key_s,
        outlived_s=max(limits.access_ttl_s, limits.others_s) + SKEW_S,
        cache_s=limits.cache_s,
    )
    tokens = Tokens(
        signing_keys,
        standing,
        issuer=limits.issuer,
        audience=limits.audience,
        access_ttl_s=limits.access_ttl_s,
    )
    throttle = LoginThrottle(limits.tries, tries)
    logins = Logins(records, users, passwords, tokens, standing, throttle, limits.logins)
    return UserParts(standing, users, signing_keys, tokens, logins, OwnKeys(capabilities))
