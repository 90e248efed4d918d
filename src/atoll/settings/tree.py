"""The whole tree of settings, and the names of its leaves."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, model_validator
from pydantic.fields import FieldInfo

from atoll.domain.data_folder import DataFolder, default_data_folder
from atoll.settings.accounts import AccountSettings
from atoll.settings.agents import AgentSettings
from atoll.settings.audit import AuditSettings, WebhookSettings
from atoll.settings.auth import AuthSettings
from atoll.settings.identity import IdentitySettings
from atoll.settings.ledger import LedgerSettings
from atoll.settings.listen import Address, ListenSettings, check_apart
from atoll.settings.marketplace import MarketplaceSettings
from atoll.settings.models import ModelSettings
from atoll.settings.objects import ObjectSettings
from atoll.settings.outbound import OutboundSettings
from atoll.settings.previews import PreviewSettings
from atoll.settings.prices import PriceSettings
from atoll.settings.quotas import QuotaSettings
from atoll.settings.rates import Rates
from atoll.settings.sandboxes import Images, Limits, NetworkSettings, SandboxSettings
from atoll.settings.section import Section
from atoll.settings.server import Admin, Api, Database, KeySettings, Logs, Server, database_url
from atoll.settings.traces import TraceSettings
from atoll.settings.vault import VaultSettings
from atoll.settings.workspaces import BlobSettings, WorkspaceSettings


class Settings(Section):
    data: Path = Field(default_factory=default_data_folder)
    """Data folder: database, keys, sockets of live sandboxes, template layers, working trees, blobs."""
    runtime: Literal["local", "fake"] = "local"
    """Where sandboxes run. `fake` isolates nothing and is for tests."""
    server: Server = Server()
    listen: ListenSettings = ListenSettings()
    database: Database = Database()
    limits: Limits = Limits()
    rates: Rates = Rates()
    keys: KeySettings = KeySettings()
    quotas: QuotaSettings = QuotaSettings()
    prices: PriceSettings = PriceSettings()
    ledger: LedgerSettings = LedgerSettings()
    sandboxes: SandboxSettings = SandboxSettings()
    network: NetworkSettings = NetworkSettings()
    outbound: OutboundSettings = OutboundSettings()
    identity: IdentitySettings = IdentitySettings()
    workspaces: WorkspaceSettings = WorkspaceSettings()
    blobs: BlobSettings = BlobSettings()
    objects: ObjectSettings = ObjectSettings()
    previews: PreviewSettings = PreviewSettings()
    vault: VaultSettings = VaultSettings()
    images: Images = Images()
    agents: AgentSettings = AgentSettings()
    models: ModelSettings = ModelSettings()
    marketplace: MarketplaceSettings = MarketplaceSettings()
    api: Api = Api()
    admin: Admin = Admin()
    accounts: AccountSettings = AccountSettings()
    auth: AuthSettings = AuthSettings()
    audit: AuditSettings = AuditSettings()
    webhooks: WebhookSettings = WebhookSettings()
    logs: Logs = Logs()
    traces: TraceSettings = TraceSettings()

    @model_validator(mode="after")
    def _copies_lie_elsewhere(self) -> Self:
        if self.blobs.copies_into(self.blobs_url):
            raise ValueError("blobs.copy_url is the store itself, `blobs` in the data folder: a copy lies in another")
        return self

    @model_validator(mode="after")
    def _listeners_stand_apart(self) -> Self:
        check_apart(self.addresses)
        return self

    @property
    def addresses(self) -> list[Address]:
        """Everywhere that this server listens, the port that serves everything first."""
        found = [Address("server.port", self.server.host, self.server.port), *self.listen.addresses(self.server.host)]
        doors = [Address("objects.port", self.objects.host, self.objects.port)] if self.objects.enabled else []
        return found + doors

    @property
    def folder(self) -> DataFolder:
        return DataFolder(self.data)

    @property
    def database_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database.url or database_url(f"sqlite:///{self.folder.database}")

    @property
    def blobs_url(self) -> str:
        """Where bytes live: the URL that `atoll.blobs.opening` opens."""
        return self.blobs.url or self.folder.blobs.absolute().as_uri()

    @property
    def agents_folder(self) -> Path:
        """Where programs of agents are installed."""
        return self.agents.store or self.folder.agents

    @property
    def trees_folder(self) -> Path:
        """Where working trees live."""
        return self.workspaces.trees or self.folder.trees

    @property
    def disks(self) -> list[Path]:
        """Folders on every file system of this machine that workspaces are kept on."""
        blobs = urlsplit(self.blobs_url)
        local = [Path(unquote(blobs.path))] if blobs.scheme == "file" else []
        return [self.data, self.trees_folder, *local]

    @property
    def own_paths(self) -> list[Path]:
        """Every file and folder that the settings name, and the data folder: nothing of them is for tenants."""
        named = [attrgetter(name)(self) for name, _ in leaves()]
        urls = [urlsplit(url) for url in (self.blobs_url, self.blobs.copy_url, self.database_url) if url]
        stores = [Path(unquote(url.path)) for url in urls if url.scheme == "file"]
        stores += [Path(unquote(url.path[1:])) for url in urls if url.scheme.startswith("sqlite") and url.path[1:]]
        own = [self.trees_folder, self.agents_folder, self.master_key_file, *stores]
        return list(dict.fromkeys(path.expanduser().absolute() for path in (*own, *named) if isinstance(path, Path)))

    @property
    def master_key_file(self) -> Path:
        """Where the local vault's key lives."""
        return self.vault.key_file or self.folder.master_key


def leaves(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting, as (dotted name, pydantic's FieldInfo)."""
    for name, field in model.model_fields.items():
        branch: Any = field.annotation
        if isinstance(branch, type) and issubclass(branch, Section):
            yield from leaves(branch, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def environment_name(dotted: str) -> str:
    """`server.port` -> `ATOLL_SERVER__PORT`."""
    return "ATOLL_" + dotted.replace(".", "__").upper()
