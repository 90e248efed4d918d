"""SandboxToken: a credential for one sandbox, made by somebody who may use it; it never opens more than they may now.

`services/sandbox_tokens.py` makes and recognises them; the records keep a hash, and the text is shown once.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from atoll.domain.key import KeyKind, Scope

TOKEN_ID = re.compile(r"^stk_[0-9a-f]{24}$")
TOKEN_PREFIX = "sbt_"  # of the texts; ids begin otherwise
TERMINAL_PREFIX = TOKEN_PREFIX + "t_"


class TokenKind(StrEnum):
    """What a token is for; the second letter of its text says it too, so that doors need not look it up."""

    ACCESS = "access"  # a client's own: makes session tokens, magic links and child sandboxes
    SESSION = "session"  # given away: makes nothing
    MAGIC = "magic"  # a link that somebody follows once to get a session token; opens nothing else
    TERMINAL = "terminal"  # stands in the address of a WebSocket: opens connections for a minute, which then go on


_TEXTS = {TokenKind.ACCESS: "a_", TokenKind.SESSION: "s_", TokenKind.MAGIC: "m_", TokenKind.TERMINAL: "t_"}


@dataclass(frozen=True, slots=True)
class SandboxToken:
    """The record of one; `hash` is the SHA-256 hex of its text. It ends with its maker's credential and its sandbox."""

    id: str
    hash: str
    sandbox: str
    kind: TokenKind
    owner: str  # of the sandbox
    maker: str  # the principal that made it
    credential: str  # with which: a key, a sandbox, or the principal itself
    credential_hash: str  # of the key's text then: a rotated key takes what was made with the old text along
    login: str  # the login in which it was made; empty: none
    account_kind: KeyKind  # of the maker, like the next
    plan: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime
    description: str = ""
    parent: str = ""  # the id of the token that made it, with which it ends; empty: none did


def new_token_text(kind: TokenKind) -> str:
    """256 random bits behind what says the kind."""
    return TOKEN_PREFIX + _TEXTS[kind] + secrets.token_hex(32)
