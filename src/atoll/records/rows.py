"""Objects to rows and back: what each column holds; `sql.py` calls it for every statement.

JSON columns keep only what differs from the default, so that a field added later reads well from old rows.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from atoll.domain.event import Event
from atoll.domain.key import ApiKey, KeyKind, Scope
from atoll.domain.rate import Rate
from atoll.domain.sandbox import (
    BakedFile,
    Grant,
    NetworkMode,
    Port,
    Resources,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Usage,
)
from atoll.domain.secret import GivenAs, SecretUse
from atoll.domain.workspace import WorkspaceMount
from atoll.records.base import KeyUse

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

Row = Mapping[Any, Any]  # as SQLAlchemy types its own

_RESOURCES, _USAGE, _SPEC = Resources(), Usage(), SandboxSpec()
_RESOURCE_FIELDS = tuple(Resources.__dataclass_fields__)
_USAGE_FIELDS = tuple(Usage.__dataclass_fields__)
_SPEC_PLAIN = ("image", "work_dir", "tty", "cols", "rows", "env", "sealed_env", "agent", "task", "maker")
_KEY_CODED = frozenset({"kind", "scopes", "resources", "metadata", "rate_per_s", "rate_burst"})
_SPEC_TUPLES = ("command", "setup", "layers", "allow")


def sandbox_row(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "id": sandbox.id,
        "owner": sandbox.owner,
        "name": sandbox.name,
        "runtime": sandbox.runtime,
        "state": sandbox.state.value,
        "live": sandbox.live,
        "removed": sandbox.removed,
        "version": sandbox.version,
        "created_at": sandbox.created_at,
        "started_at": sandbox.started_at,
        "ended_at": sandbox.ended_at,
        "exit_code": sandbox.exit_code,
        "exit_signal": sandbox.exit_signal,
        "reason": sandbox.reason,
        "spec": spec_text(sandbox.spec),
        "handle": None if sandbox.handle is None else _encode(sandbox.handle),
        "usage": _encode(_differing(sandbox.usage, _USAGE, _USAGE_FIELDS)),
        "credential": sandbox.credential,
        "memory_bytes": sandbox.spec.resources.memory_bytes,
        "namespace": sandbox.namespace,
        "metadata": _encode(dict(sandbox.metadata)),
    }


def sandbox_of(row: Row) -> Sandbox:
    return Sandbox(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        runtime=row["runtime"],
        state=SandboxState(row["state"]),
        removed=row["removed"],
        version=row["version"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        exit_code=row["exit_code"],
        exit_signal=row["exit_signal"],
        reason=row["reason"],
        spec=spec_of(row["spec"]),
        handle=None if row["handle"] is None else json.loads(row["handle"]),
        usage=Usage(**json.loads(row["usage"])),
        credential=row["credential"],
        namespace=row["namespace"],
        metadata=json.loads(row["metadata"]),
    )


def spec_text(spec: SandboxSpec) -> str:
    value: dict[str, Any] = _differing(spec, _SPEC, _SPEC_PLAIN + _SPEC_TUPLES)
    if spec.resources != _RESOURCES:
        value["resources"] = _differing(spec.resources, _RESOURCES, _RESOURCE_FIELDS)
    if spec.network is not _SPEC.network:
        value["network"] = spec.network.value
    if spec.capability is not None:
        value["capability"] = _grant_value(spec.capability)
    if spec.ports:
        value["ports"] = [(port.container, port.protocol, port.host_port) for port in spec.ports]
    if spec.files:
        value["files"] = [(file.path, base64.b64encode(file.content).decode()) for file in spec.files]
    if spec.workspaces:
        value["workspaces"] = [
            (mount.workspace, mount.path, mount.read_only, mount.tree_id) for mount in spec.workspaces
        ]
    if spec.secrets:
        value["secrets"] = [(use.secret, use.given_as.value, use.target) for use in spec.secrets]
    return _encode(value)


def spec_of(text: str) -> SandboxSpec:
    value: dict[str, Any] = json.loads(text)
    for name in _SPEC_TUPLES:
        if name in value:
            value[name] = tuple(value[name])
    if "resources" in value:
        value["resources"] = Resources(**value["resources"])
    if "network" in value:
        value["network"] = NetworkMode(value["network"])
    if "capability" in value:
        value["capability"] = _grant_of(value["capability"])
    value["ports"] = tuple(Port(*port) for port in value.get("ports", ()))
    value["files"] = tuple(BakedFile(path, base64.b64decode(content)) for path, content in value.get("files", ()))
    value["workspaces"] = tuple(WorkspaceMount(*mount) for mount in value.get("workspaces", ()))
    value["secrets"] = tuple(SecretUse(one, GivenAs(how), target) for one, how, target in value.get("secrets", ()))
    return SandboxSpec(**value)


def _grant_value(grant: Grant) -> dict[str, Any]:
    resources = None if grant.resources is None else sorted(grant.resources)
    return {
        "scopes": sorted(grant.scopes),
        "resources": resources,
        "kind": grant.kind.value,
        "plan": grant.plan,
        "credential": grant.credential,
        "lasts_s": grant.lasts_s,
        "budget_micro_usd": grant.budget_micro_usd,
    }


def _grant_of(value: dict[str, Any]) -> Grant:
    resources = value["resources"]
    return Grant(
        scopes=frozenset(map(Scope, value["scopes"])),
        resources=None if resources is None else frozenset(resources),
        kind=KeyKind(value["kind"]),
        plan=value["plan"],
        credential=value["credential"],
        lasts_s=value.get("lasts_s"),
        budget_micro_usd=value.get("budget_micro_usd"),
    )


def key_row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "hash": key.hash,
        "prefix": key.prefix,
        "name": key.name,
        "kind": key.kind.value,
        "scopes": " ".join(sorted(key.scopes)),
        "version": key.version,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "owner": key.owner,
        "parent": key.parent,
        "resources": None if key.resources is None else " ".join(sorted(key.resources)),
        "budget_micro_usd": key.budget_micro_usd,
        "plan": key.plan,
        "description": key.description,
        "metadata": _encode(dict(key.metadata)),
        "rate_per_s": None if key.rate is None else key.rate.per_s,
        "rate_burst": None if key.rate is None else key.rate.burst,
    }


def key_of(row: Row) -> ApiKey:
    plain = {name: value for name, value in row.items() if name not in _KEY_CODED}
    return ApiKey(
        kind=KeyKind(row["kind"]),
        scopes=frozenset(Scope(word) for word in row["scopes"].split()),
        resources=None if row["resources"] is None else frozenset(row["resources"].split()),
        metadata=json.loads(row["metadata"]),
        rate=None if row["rate_per_s"] is None else Rate(row["rate_per_s"], row["rate_burst"]),
        **plain,
    )


def key_use_row(use: KeyUse) -> dict[str, Any]:
    return {
        "key_id": use.key_id,
        "endpoint": _clean(use.endpoint),
        "method": _clean(use.method),
        "status_code": use.status_code,
        "at": use.at,
        "ip_address": use.ip_address,
        "user_agent": None if use.user_agent is None else _clean(use.user_agent),
    }


def event_row(event: Event) -> dict[str, Any]:
    return {
        "at": event.at,
        "action": event.action,
        "target": event.target,
        "tenant": event.tenant,
        "actor": event.actor,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": _encode(event.detail),
        "credential": event.credential,
        "address": event.address,
    }


def event_of(row: Row) -> Event:
    plain = {name: value for name, value in row.items() if name != "detail"}
    return Event(detail=json.loads(row["detail"]), **plain)


def _clean(text: str) -> str:
    """The client's own words, without what a database refuses."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _differing(value: object, default: object, names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        mine = getattr(value, name)
        if mine != getattr(default, name):
            found[name] = mine
    return found
