"""Where a server keeps what is its own: the data folder's default place and the names inside it.

The settings, the lock, the key service and the command line call it; importing it costs nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def default_data_folder() -> Path:
    """/var/lib/atoll for root, ~/.local/share/atoll (or under XDG_DATA_HOME) for anybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/atoll")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "atoll"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The paths inside one data folder; nothing here touches the disk."""

    root: Path

    @property
    def config(self) -> Path:
        """Optional settings, TOML."""
        return self.root / "atoll.toml"

    @property
    def database(self) -> Path:
        """The SQLite database, unless `database.url` names another."""
        return self.root / "atoll.db"

    @property
    def owner_key(self) -> Path:
        """The owner key's text alone, mode 0600, for the local command line."""
        return self.root / "owner.key"

    @property
    def lock(self) -> Path:
        """Held by the one server of this folder; its pid is inside."""
        return self.root / "server.lock"

    @property
    def half_restored(self) -> Path:
        """There while `atoll restore` is at work, and after one that was killed."""
        return self.root / "half-restored"

    @property
    def blobs(self) -> Path:
        """What workspaces consist of, unless `blobs.url` names another store."""
        return self.root / "blobs"

    @property
    def trees(self) -> Path:
        """The working trees, unless `workspaces.trees` names another folder."""
        return self.root / "trees"

    @property
    def server_name(self) -> Path:
        """By what the server of this folder claims tasks."""
        return self.root / "server.name"

    @property
    def agents(self) -> Path:
        """The programs of agents, unless `agents.store` names another folder."""
        return self.root / "agents"

    @property
    def master_key(self) -> Path:
        """The local vault's key, mode 0600, unless `vault.key_file` names another file."""
        return self.root / "master.key"

    @property
    def gateway_seed(self) -> Path:
        """What the authorities of sandboxes with brokered secrets are derived from, mode 0600."""
        return self.root / "gateway.seed"

    @property
    def audit_anchor(self) -> Path:
        """Which checkpoint over the events this server has signed last."""
        return self.root / "audit.json"

    @property
    def copied(self) -> Path:
        """What was copied to the second store of blobs, where there is one."""
        return self.root / "copied.jsonl"

    @property
    def dumps(self) -> Path:
        """Dumps of the records, while a backup is made."""
        return self.root / "dumps"

    @property
    def overlays(self) -> Path:
        """What overlays made in sandboxes, a file for each."""
        return self.root / "overlays"

    @property
    def uploads(self) -> Path:
        """What clients of the object-store door are sending, in files without a name."""
        return self.root / "uploads"

    @property
    def stamps(self) -> Path:
        """What is known of the working trees' files, so that only changed ones are read."""
        return self.root / "stamps"
