"""Tasks, their events and threads as rows, and back; `sql_tasks.py` calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from atoll.domain.key import KeyKind
from atoll.domain.price import TokenUse
from atoll.domain.task import McpServer, Task, TaskEnd, TaskEvent, TaskSpec, TaskState, Thread

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_SPEC = TaskSpec("", "")
_SPEC_PLAIN = ("prompt", "agent", "model", "thread", "instructions", "budget_micro_usd", "timeout_s", "network")
_SAME = (
    "id", "owner", "credential", "thread", "output", "error", "sandbox", "process", "read_offset", "cost", "internal",
    "created_at", "started_at", "ended_at", "claimed_by", "claimed_until", "cancel_asked", "version",
)  # fmt: skip


def task_row(task: Task) -> dict[str, Any]:
    row = {name: getattr(task, name) for name in _SAME}
    detail: dict[str, Any] = {"kind": task.kind.value}
    if task.lineage:
        detail["lineage"] = task.lineage
    if task.plan:
        detail["plan"] = task.plan
    if task.refused:
        detail["refused"] = dict(task.refused)
    return row | {
        "workspace": task.spec.workspace,
        "state": task.state.value,
        "live": not task.ended,
        "end": None if task.end is None else task.end.value,
        "spec": _spec_text(task.spec),
        "tokens": _encode({name: value for name, value in asdict(task.tokens).items() if value}),
        "detail": _encode(detail),
    }


def task_of(row: Mapping[Any, Any]) -> Task:
    detail = json.loads(row["detail"])
    return Task(
        **{name: row[name] for name in _SAME},
        spec=_spec_of(row["spec"], row["workspace"]),
        state=TaskState(row["state"]),
        end=None if row["end"] is None else TaskEnd(row["end"]),
        tokens=TokenUse(**json.loads(row["tokens"])),
        lineage=tuple(detail.get("lineage", ())),
        kind=KeyKind(detail["kind"]),
        plan=detail.get("plan", ""),
        refused=detail.get("refused", {}),
    )


def event_row(task_id: str, event: TaskEvent) -> dict[str, Any]:
    return {"task": task_id, "seq": event.seq, "type": event.type, "at": event.at, "data": _json_text(event.data)}


def event_of(row: Mapping[Any, Any]) -> TaskEvent:
    return TaskEvent(row["seq"], row["type"], row["at"], json.loads(row["data"]))


def thread_row(thread: Thread) -> dict[str, Any]:
    return {name: getattr(thread, name) for name in Thread.__dataclass_fields__}


def thread_of(row: Mapping[Any, Any]) -> Thread:
    return Thread(**{name: row[name] for name in Thread.__dataclass_fields__})


def _spec_text(spec: TaskSpec) -> str:
    value: dict[str, Any] = {
        name: getattr(spec, name) for name in _SPEC_PLAIN if getattr(spec, name) != getattr(_SPEC, name)
    }
    if spec.command:
        value["command"] = spec.command
    if spec.mcp_servers:
        value["mcp_servers"] = [asdict(one) for one in spec.mcp_servers]
    return _encode(value)


def _spec_of(text: str, workspace: str) -> TaskSpec:
    value: dict[str, Any] = json.loads(text)
    servers = value.pop("mcp_servers", ())
    return TaskSpec(
        prompt=value.pop("prompt", ""),
        workspace=workspace,
        command=tuple(value.pop("command", ())),
        mcp_servers=tuple(McpServer(one["name"], tuple(one["command"]), one["url"]) for one in servers),
        **value,
    )


def _json_text(data: Mapping[str, Any]) -> str:
    """What a program said, as every database holds it: NUL stands escaped in JSON, lone surrogates do not."""
    text = _encode(dict(data))
    return text if text.isascii() else text.encode(errors="replace").decode()
