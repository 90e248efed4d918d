"""The settings: one frozen tree from defaults, a TOML file and the environment; an unknown name is an error.

The composition root calls `load` once and hands out branches; `python -m atoll.settings` prints their page.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from atoll.domain.data_folder import DataFolder, default_data_folder
from atoll.domain.errors import InvalidInput
from atoll.domain.sandbox import Resources

KIB, MIB, GIB = 2**10, 2**20, 2**30
DAY_S = 86_400.0

# Names below ATOLL_ that are not the server's: the client's, and the ones that tests use.
NOT_OURS = frozenset({"ATOLL_URL", "ATOLL_API_KEY", "ATOLL_CONFIG", "ATOLL_CRASH_AT"})
NOT_OURS_PREFIX = "ATOLL_TEST_"

# Short forms of often-used settings.
SHORT = {
    "ATOLL_DATA": "data",
    "ATOLL_HOST": "server.host",
    "ATOLL_PORT": "server.port",
    "ATOLL_DATABASE_URL": "database.url",
}

# Names that the seed systems used. A later one in this table wins; any ATOLL_ name wins over them all.
ALIASES = {
    "PORT": "server.port",
    "DB_PATH": "database.url",
    "DATABASE_URL": "database.url",
    "ADMIN_API_KEY": "admin.api_key",
}
# Seeds' names whose settings do not exist yet: known, and without effect.
ALIASES_WITHOUT_EFFECT = (
    *("TESTBASE_API_KEYS", "OPENAI_API_KEY", "S3_*", "MINIO_*"),
    *("JWT_PUBLIC_KEY", "JWT_AUDIENCE", "JWT_ISSUER", "FLY_API_TOKEN", "FLY_APP_NAME"),
)


class SettingsError(InvalidInput):
    """The settings are not valid."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


# A time that may be unbounded; TOML and the environment say so with 0.
Bound = Annotated[float | None, Field(ge=0), AfterValidator(lambda value: value or None)]


class Server(_Section):
    host: str = "127.0.0.1"
    """Address to listen on. On one that is not loopback no key is minted: one must exist before the start."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    body_bytes: int = Field(default=10 * MIB, ge=1 * KIB, le=1 * GIB)
    """Largest JSON body of a request. Uploads are streamed and bounded by the sandbox's disk instead."""
    frame_bytes: int = Field(default=1 * MIB, ge=4 * KIB, le=64 * MIB)
    """Largest WebSocket message; a larger one closes the connection with 1009."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For is believed. Environment: separated by commas."""
    drain_s: float = Field(default=10.0, ge=0, le=600)
    """Seconds that open requests get to finish after SIGTERM."""

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part, strict=False)
        return value


class Database(_Section):
    url: str | None = None
    """sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME. Empty: atoll.db in the data folder."""
    pool_connections: int = Field(default=8, ge=1, le=200)
    """Connections to PostgreSQL. SQLite has one writer and these readers, at most 4."""
    timeout_s: float = Field(default=5.0, ge=0.1, le=120)
    """Longest wait for a lock, a connection or an answer, retries included; then the API answers 503."""

    @field_validator("url")
    @classmethod
    def _normal(cls, value: str | None) -> str | None:
        return database_url(value) if value else None


class ResourceDefaults(_Section):
    """What a sandbox gets when its request does not say."""

    cpu_millis: int = Field(default=Resources().cpu_millis, ge=10, le=1_000_000)
    """Thousandths of a CPU."""
    memory_bytes: int = Field(default=Resources().memory_bytes, ge=16 * MIB, le=4096 * GIB)
    """Memory, the default writable layer included."""
    pids: int = Field(default=Resources().pids, ge=8, le=4_194_304)
    """Processes and threads."""
    disk_bytes: int = Field(default=Resources().disk_bytes, ge=1 * MIB, le=65_536 * GIB)
    """Writable layer."""
    inodes: int = Field(default=Resources().inodes, ge=256, le=1_000_000_000)
    """Files and directories in the writable layer."""
    timeout_s: Bound = None
    """A sandbox ends this long after its start; 0: never."""
    idle_s: Bound = None
    """A sandbox ends after this long without a request and without a process; 0: never."""
    max_age_s: Bound = None
    """A sandbox ends at this age, whatever happens; 0: never."""

    def resources(self) -> Resources:
        return Resources(**self.model_dump())


class ResourceMaxima(_Section):
    """The most that a request may ask for; owner and internal keys included, for the host's own sake."""

    cpu_millis: int = Field(default=8_000, ge=10, le=1_000_000)
    """Thousandths of a CPU."""
    memory_bytes: int = Field(default=8 * GIB, ge=16 * MIB, le=4096 * GIB)
    """Memory."""
    pids: int = Field(default=32_768, ge=8, le=4_194_304)
    """Processes and threads."""
    disk_bytes: int = Field(default=64 * GIB, ge=1 * MIB, le=65_536 * GIB)
    """Writable layer."""
    inodes: int = Field(default=4_000_000, ge=256, le=1_000_000_000)
    """Files and directories in the writable layer."""
    timeout_s: Bound = DAY_S
    """Longest timeout; 0: no bound."""
    idle_s: Bound = None
    """Longest idle limit; 0: no bound."""
    max_age_s: Bound = None
    """Longest age; 0: no bound."""


class Limits(_Section):
    defaults: ResourceDefaults = ResourceDefaults()
    maxima: ResourceMaxima = ResourceMaxima()
    session_timeout_s: Bound = 3_600.0
    """An execbox session without `timeoutMs` ends this long after its start; 0: as `limits.defaults`."""
    max_sandboxes_per_key: int = Field(default=100, ge=0, le=1_000_000)
    """Live sandboxes of one standard key. Owner and internal keys have no such limit."""
    max_sandboxes: int = Field(default=5_000, ge=1, le=1_000_000)
    """Live sandboxes in all."""
    ws_per_key: int = Field(default=200, ge=1, le=100_000)
    """Open WebSockets of one key."""
    output_ring_bytes: int = Field(default=1 * MIB, ge=4 * KIB, le=256 * MIB)
    """Output of one process that is kept for those who attach later."""
    run_output_bytes: int = Field(default=8 * MIB, ge=4 * KIB, le=256 * MIB)
    """Output, of each stream, that an answer holds; the rest is dropped and `truncated` says so."""
    list_items: int = Field(default=1_000, ge=1, le=100_000)
    """Items in one answer of a list."""

    @model_validator(mode="after")
    def _defaults_within_maxima(self) -> Limits:
        for name in ResourceDefaults.model_fields:
            default, maximum = getattr(self.defaults, name), getattr(self.maxima, name)
            if default is not None and maximum is not None and default > maximum:
                raise ValueError(f"defaults.{name} ({default}) is above maxima.{name} ({maximum})")
        return self


class Rates(_Section):
    """Requests a second. Owner and internal keys from loopback are never limited."""

    enabled: bool = True
    """False turns every rate off."""
    key_per_s: float = Field(default=50.0, gt=0, le=1_000_000)
    """Requests a second of one key, in the long run."""
    key_burst: int = Field(default=200, ge=1, le=1_000_000)
    """Requests of one key at once."""
    address_per_s: float = Field(default=100.0, gt=0, le=1_000_000)
    """Requests a second from one address (an IPv6 /64), in the long run."""
    address_burst: int = Field(default=400, ge=1, le=1_000_000)
    """Requests from one address at once."""
    refused_per_s: float = Field(default=0.5, gt=0, le=1_000_000)
    """Requests a second from one address with a missing or wrong credential, in the long run."""
    refused_burst: int = Field(default=50, ge=1, le=1_000_000)
    """Such requests from one address at once."""
    addresses: int = Field(default=10_000, ge=100, le=10_000_000)
    """Addresses remembered at a time; the longest unseen is forgotten first."""


class KeySettings(_Section):
    use_retention_days: float = Field(default=30.0, gt=0, le=3_650)
    """Days that `api_key_usage` is kept."""
    cache_s: float = Field(default=2.0, ge=0, lt=5)
    """How long another process may still accept a key after it was revoked."""
    use_queue_items: int = Field(default=10_000, ge=1, le=1_000_000)
    """Uses of keys waiting to be written; more are dropped and counted."""


class SandboxSettings(_Section):
    ended_retention_days: float = Field(default=7.0, gt=0, le=3_650)
    """Days that the record of an ended sandbox is kept."""
    reconcile_s: float = Field(default=10.0, ge=0.1, le=3_600)
    """Seconds between comparisons of the records with what the runtime has."""
    orphan_grace_s: float = Field(default=30.0, ge=0, le=3_600)
    """Seconds that a sandbox without a record is left alone before it is destroyed."""
    spares: int = Field(default=16, ge=0, le=200)
    """Sandboxes of the default shape made ahead, and as many with a network once one was asked for; 3 MB each."""


class NetworkSettings(_Section):
    resolvers: tuple[str, ...] = ()
    """IPv4 name servers of sandboxes that may go out. Empty: the host's own, else 1.1.1.1 and 8.8.8.8."""

    @field_validator("resolvers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("resolvers")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(IPv4Address(part)) for part in value)


class Images(_Section):
    aliases: Mapping[str, str] = {}
    """Names that stand for a template, such as "python:3.12" = "host". Environment: JSON."""
    layers_bytes: Annotated[int, Field(ge=0)] = 20 * 2**30
    """What baked layers may hold on the disk in all; beyond it the least recently used go, none that is in use."""

    @field_validator("aliases", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value


class Api(_Section):
    docs: bool = True
    """Serve /docs, /redoc and /openapi.json."""


class Admin(_Section):
    api_key: Annotated[SecretStr, Field(min_length=32)] | None = None
    """The only credential that opens /admin, where nothing is served yet; at least 32 characters. Empty: closed."""


class Logs(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    format: Literal["auto", "json", "text"] = "auto"
    """`auto` is text on a terminal, else JSON lines."""


class Settings(_Section):
    data: Path = Field(default_factory=default_data_folder)
    """Data folder: database, owner key, sockets of live sandboxes, template layers."""
    runtime: Literal["local", "fake"] = "local"
    """Where sandboxes run. `fake` isolates nothing and is for tests."""
    server: Server = Server()
    database: Database = Database()
    limits: Limits = Limits()
    rates: Rates = Rates()
    keys: KeySettings = KeySettings()
    sandboxes: SandboxSettings = SandboxSettings()
    network: NetworkSettings = NetworkSettings()
    images: Images = Images()
    api: Api = Api()
    admin: Admin = Admin()
    logs: Logs = Logs()

    @property
    def folder(self) -> DataFolder:
        return DataFolder(self.data)

    @property
    def database_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database.url or database_url(f"sqlite:///{self.folder.database}")


def database_url(text: str) -> str:
    """The URL as SQLAlchemy knows it, with the driver of ours; ValueError when it is neither kind."""
    parts = urlsplit(text)
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return "sqlite://" + text.partition("://")[2]
    if scheme in ("postgres", "postgresql"):
        return urlunsplit(parts._replace(scheme="postgresql+asyncpg"))
    raise ValueError("a database URL begins with sqlite:/// or postgresql://")


def load(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in force. SettingsError names each wrong key and the nearest right one.

    Weakest first: defaults, the TOML file (`config`, else DATA/atoll.toml where it exists), the seeds'
    environment names, ATOLL_* names, `overrides` (dotted names, as "server.port"; None means not given).
    """
    environ = os.environ if environ is None else environ
    flat = _from_aliases(environ) | _from_environment(environ)
    flat |= {name: value for name, value in (overrides or {}).items() if value is not None}
    if config is None and environ.get("ATOLL_CONFIG"):
        config = Path(environ["ATOLL_CONFIG"])
    tree = _read_toml(config) if config else {}
    data = Path(flat.get("data") or tree.get("data") or default_data_folder()).expanduser().absolute()
    if config is None and DataFolder(data).config.exists():
        tree = _read_toml(DataFolder(data).config)
        if "data" in tree:
            raise SettingsError("data cannot be set in the data folder's own atoll.toml", field="data")
    for name, value in flat.items():
        _put(tree, name, value)
    tree["data"] = data
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error))) from None


def leaves(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting, as (dotted name, pydantic's FieldInfo)."""
    for name, field in model.model_fields.items():
        branch: Any = field.annotation
        if isinstance(branch, type) and issubclass(branch, _Section):
            yield from leaves(branch, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def environment_name(dotted: str) -> str:
    """`server.port` -> `ATOLL_SERVER__PORT`."""
    return "ATOLL_" + dotted.replace(".", "__").upper()


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {environment_name(name): name for name, _ in leaves()} | SHORT
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for variable, value in environ.items():
        if not variable.startswith("ATOLL_") or variable in NOT_OURS or variable.startswith(NOT_OURS_PREFIX):
            continue
        if variable not in known:
            raise SettingsError(f"unknown setting {variable}{_nearest(variable, known)}", field=variable)
        name = known[variable]
        if name in found and found[name] != value:
            raise SettingsError(f"{variable} and {source[name]} set {name} to different values", field=name)
        found[name], source[name] = value, variable
    # An empty variable means "not set", so that a shell script can pass one through.
    return {name: value for name, value in found.items() if value != ""}


def _from_aliases(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, name in ALIASES.items():
        if value := environ.get(variable):
            found[name] = f"sqlite:///{value}" if variable == "DB_PATH" else value
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *branches, leaf = dotted.split(".")
    for name in branches:
        branch = tree.setdefault(name, {})
        if not isinstance(branch, dict):
            raise SettingsError(f"{name} is a section, not a value", field=name)
        tree = cast(dict[str, Any], branch)
    tree[leaf] = value


def _explain(error: ValidationError) -> Iterator[str]:
    names = [name for name, _ in leaves()]
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield f"unknown setting {where}{_nearest(where, names)}"
        else:
            yield f"{where}: {problem['msg']}" if where else problem["msg"]


def _nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    # By its last word too: `server.prot` is nearer to `server.port` than to anything of equal length.
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""


def render_markdown() -> str:
    """docs/settings.md: every setting with its default, its bounds and its meaning."""
    lines = [_PAGE_HEAD]
    section = None
    for name, field in leaves():
        here = name.rpartition(".")[0]
        if here != section:
            section = here
            lines += ["", f"## {here}" if here else "## Top level", "", *_section_words(here)]
            lines += ["| name | default | bounds | meaning |", "|---|---|---|---|"]
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {_show_default(name, field)} | {_show_bounds(name, field)} | {meaning} |")
    lines += ["", "## Short names", "", "| environment | setting |", "|---|---|"]
    lines += [f"| `{variable}` | `{name}` |" for variable, name in SHORT.items()]
    lines += ["", "## Names of other systems", "", _PAGE_ALIASES, ""]
    lines += ["| environment | setting |", "|---|---|"]
    lines += [f"| `{variable}` | `{name}` |" for variable, name in ALIASES.items()]
    lines += [f"| `{variable}` | none yet |" for variable in ALIASES_WITHOUT_EFFECT]
    return "\n".join([*lines, ""])


_PAGE_HEAD = """# Settings

Written by `python -m atoll.settings`; a test holds this page to the program.

A setting comes from, strongest first: the command line; the environment; the TOML file (`atoll.toml` in the
data folder, or the file that `--config` or `ATOLL_CONFIG` names); the default. In the environment a
setting's name is `ATOLL_` and its words in capitals, a double underscore for each dot: `server.port` is
`ATOLL_SERVER__PORT`. An empty variable counts as not set. An unknown name, in the file or below `ATOLL_`, is
an error that says the nearest right one. `ATOLL_URL` and `ATOLL_API_KEY` belong to the client; the server
ignores them.

```toml
[server]
port = 8080

[limits.defaults]
memory_bytes = 536870912
```"""

_PAGE_ALIASES = """Environment names that the systems before Atoll used are read too. They are stronger than
the file, and any `ATOLL_` name is stronger than they are; where two of them set the same, the later one in
this table wins."""


def _section_words(dotted: str) -> list[str]:
    model: Any = Settings
    for name in filter(None, dotted.split(".")):
        model = model.model_fields[name].annotation
    words = model.__dict__.get("__doc__")
    return [" ".join(words.split()), ""] if words else []


def _show_default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "`/var/lib/atoll` for root, else `~/.local/share/atoll`"
    if field.default is None or field.default in ((), {}):
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return _show_number(name, field.default) if isinstance(field.default, int | float) else f"`{field.default}`"


def _show_bounds(name: str, field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    signs = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
    found = [(type(bound).__name__, bound) for bound in field.metadata]
    return ", ".join(
        f"{signs[kind]} {_show_number(name, getattr(bound, kind.lower()))}" for kind, bound in found if kind in signs
    )


def _show_number(name: str, value: float) -> str:
    if name.endswith("_bytes") and value:
        unit, size = next((u, s) for u, s in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)) if value % s == 0)
        return f"{int(value) // size} {unit}"
    return str(int(value)) if value == int(value) else str(value)


if __name__ == "__main__":
    print(render_markdown(), end="")
