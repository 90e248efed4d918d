"""Who keeps the master key: a file of this machine, a transit engine, or WorkOS Vault."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from atoll.settings.section import Section

# A path of the operator's: of their home folder, or of where the server was started.
_Path = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class TransitSettings(Section):
    """The transit engine of OpenBao or HashiCorp Vault."""

    url: str | None = None
    """Address, such as https://vault.example.org:8200. Plain HTTP on loopback alone."""
    mount: str = Field(default="transit", min_length=1, max_length=255)
    """Where the engine is mounted."""
    key: str = Field(default="atoll", min_length=1, max_length=255)
    """Name of the transit key; it must exist. One made with derived=true is best."""
    namespace: str | None = None
    """Namespace that the engine is in."""
    token: SecretStr | None = None
    """Token to ask with."""
    token_file: _Path | None = None
    """File of the token instead, read again when it changes: an agent may keep it fresh."""
    role_id: str | None = None
    """AppRole to log in with instead of a token."""
    secret_id: SecretStr | None = None
    """Secret id of the AppRole."""
    secret_id_file: _Path | None = None
    """File of the secret id instead."""
    approle_mount: str = Field(default="approle", min_length=1, max_length=255)
    """Where AppRole logins are mounted."""
    ca_file: _Path | None = None
    """Certificates of the authorities that the engine's own may come from. Empty: the system's."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=120)
    """Longest wait for an answer, retries included."""


class WorkosSettings(Section):
    """WorkOS Vault."""

    url: str = "https://api.workos.com"
    """Address of the API."""
    api_key: SecretStr | None = None
    """API key (sk_...) of the environment whose keys are used."""
    context: dict[str, str] = Field(default={"service": "atoll"}, min_length=1)
    """By what WorkOS chooses its key, such as your organization_id. Environment: name=value, by commas."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=120)
    """Longest wait for an answer, retries included."""

    @field_validator("context", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",")]
        return {name: text for name, _, text in pairs}


class VaultSettings(Section):
    kind: Literal["local", "transit", "workos"] = "local"
    """Who keeps the master key: `local` is a file on this machine. After a change: `atoll vault rewrap`."""
    key_file: _Path | None = None
    """The master key's file, mode 0600. Empty: `master.key` in the data folder. Without it no workspace can be read."""
    transit: TransitSettings = TransitSettings()
    workos: WorkosSettings = WorkosSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        own = self.transit
        if self.kind == "transit" and own.url is None:
            raise ValueError("kind transit needs transit.url")
        if self.kind == "transit" and not (own.token or own.token_file or own.role_id):
            raise ValueError("kind transit needs transit.token, transit.token_file or transit.role_id")
        if self.kind == "workos" and self.workos.api_key is None:
            raise ValueError("kind workos needs workos.api_key")
        return self
