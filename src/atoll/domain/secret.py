"""Secret: a value that its owner gives to processes and nobody can read back; what is stored of it is sealed.

Services make and give them; records keep them; runtimes get what is given as `Given`, which no record has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

SECRET_ID = re.compile(r"^sec_[0-9a-f]{24}$")
SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
FILES_FOLDER = "/run/secrets"  # in every sandbox: in memory, in no workspace, no layer and no snapshot


@dataclass(frozen=True, slots=True)
class Secret:
    """The record of one: `sealed` is its value under a data key of its own, which `key` is, wrapped by the vault."""

    id: str
    owner: str  # a principal or a group
    name: str
    vault: str = field(repr=False)  # the name of the vault that wrapped the key
    key: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    created_at: datetime
    rotated_at: datetime | None = None
    revision: int = 1  # of the value: the sealed one belongs to this and to no other
    hosts: tuple[str, ...] = ()  # that a brokered one may be sent to
    description: str = ""
    version: int = 1


class GivenAs(StrEnum):
    """How a process gets a secret."""

    ENV = "env"  # a variable of its environment
    FILE = "file"  # a file in FILES_FOLDER, which its user alone may read
    BROKER = "broker"  # a variable with a placeholder: the egress gateway puts the value into requests to its hosts


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One secret as a sandbox or a process asks for it. `secret` is what the principal calls it, or its id once
    resolved; `target` is the variable's name, or the file's path."""

    secret: str
    given_as: GivenAs = GivenAs.ENV
    target: str = ""  # empty: the secret's own name, or a file of that name in FILES_FOLDER


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """What secrets are to a process: values, on their way to it. They are never recorded and never shown."""

    env: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])  # by path

    def __repr__(self) -> str:
        return f"Given({len(self.env)} variables, {len(self.files)} files)"
