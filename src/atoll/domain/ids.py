"""Identifiers: a prefix that tells the kind and random hex that nobody can guess."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid

SANDBOX_ID = re.compile(r"^sess_[0-9a-f]{12}$")
_SANDBOX_SPELLINGS = re.compile(r"^(?:sess[_-]|cmp_)([0-9a-f]{12})$")
KEY_ID = re.compile(r"^key_[0-9a-f]{12}$")
GROUP_ID = re.compile(r"^grp_[0-9a-f]{24}$")


def new_sandbox_id() -> str:
    """`sess_` and 12 hex digits: execbox's session id and every other surface's sandbox id."""
    return "sess_" + secrets.token_hex(6)


def sandbox_id_of(spelling: str) -> str | None:
    """The `sess_` id of any spelling: `sess_<12 hex>`, `sess-<12 hex>` in host names, `cmp_<12 hex>` of ComputeSDK's
    computes; None when it is none of them."""
    found = _SANDBOX_SPELLINGS.match(spelling)
    return None if found is None else "sess_" + found[1]


def subdomain(sandbox_id: str) -> str:
    """A sandbox's id as a label of a host's name, where no underscore may stand."""
    return sandbox_id.replace("_", "-")


def compute_id(sandbox_id: str) -> str:
    """What ComputeSDK's on-premise API calls a sandbox."""
    return "cmp_" + sandbox_id.removeprefix("sess_")


def new_key_id() -> str:
    """`key_` and 12 hex digits."""
    return "key_" + secrets.token_hex(6)


def bootstrap_key_id(digest: str) -> str:
    """The id of a key whose text stands in the settings, from its hash: no other key has that id."""
    return "key_" + hashlib.sha256(f"bootstrap {digest}".encode()).hexdigest()[:12]


def new_workspace_id() -> str:
    """`ws_` and 32 hex digits: the same 128 bits are the Agent Workspace API's UUID and ComputeSDK's `fs_` id."""
    return "ws_" + uuid.uuid4().hex


def new_id(prefix: str) -> str:
    """`prefix_` and 24 hex digits: rev_, lin_, pack_, tree_."""
    return f"{prefix}_{secrets.token_hex(12)}"


def workspace_id_of(spelling: str) -> str | None:
    """The `ws_` id of any spelling: `ws_<32 hex>`, `fs_<32 hex>` or a UUID; None when it is none of them."""
    digits = spelling.removeprefix("ws_").removeprefix("fs_").replace("-", "").lower()
    return f"ws_{digits}" if re.fullmatch(r"[0-9a-f]{32}", digits) else None
