"""What tenants do in a soak: one function a deed, over every surface; each says what it leaves in the tenant's memory.

`DEEDS` is the table that workers choose from by weight.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from soak.tenant import Box, Broken, Tenant

BOXES_MAX = 5
WORKSPACES_MAX = 4
PREVIEW_TRIES = 15
FLOOD_BYTES = 20 * 2**20
Deed = Callable[[Tenant], bool]  # whether it did what it came for


def _make(tenant: Tenant, method: str, path: str, body: dict[str, Any], *names: str) -> Box | None:
    if len(tenant.boxes) >= BOXES_MAX:
        delete(tenant)
    made = tenant.json(method, path, json=body)
    if made is None:
        return None
    for name in names:
        made = made[name]
    box = tenant.boxes[made] = Box(made)
    return box


def create(tenant: Tenant) -> bool:
    body = {"image": "host", "network": "none", "env": {"SOAK": tenant.name}}
    return _make(tenant, "POST", "/v1/sessions", body, "id") is not None


def create_with_workspace(tenant: Tenant) -> bool:
    name = _workspace(tenant)
    if name is None:
        return False
    body = {"image": "host", "network": "none", "workspace": name}
    return _make(tenant, "POST", "/v1/sessions", body, "id") is not None


def create_terminal_platform(tenant: Tenant) -> bool:
    made = tenant.json("POST", "/sandboxes", json={})
    if made is None:
        return False
    found = tenant.json("POST", f"/sandboxes/{made['sandbox_id']}/exec", json={"command": "echo", "args": ["hi"]})
    gone = tenant.call("DELETE", f"/sandboxes/{made['sandbox_id']}")
    return found is not None and found.get("stdout") == "hi\n" and gone.status_code == 200


def create_compute(tenant: Tenant) -> bool:
    made = tenant.json("POST", "/api/computes", json={"name": f"c{secrets.token_hex(4)}"})
    if made is None:
        return False
    return tenant.call("DELETE", f"/api/computes/{made['id']}").status_code < 300


def create_gateway(tenant: Tenant) -> bool:
    made = tenant.json("POST", "/v1/sandboxes", json={"metadata": {"by": tenant.name}})
    if made is None:
        return False
    sandbox = made["data"]["sandboxId"]
    ran = tenant.json("POST", f"/sb/{sandbox}/run/command", json={"command": "echo $((6*7))"})
    gone = tenant.call("DELETE", f"/v1/sandboxes/{sandbox}")
    return ran is not None and ran["data"]["stdout"].strip() == "42" and gone.status_code == 200


def delete(tenant: Tenant) -> bool:
    box = tenant.box()
    if box is None:
        return True
    tenant.forget(box)
    return tenant.call("DELETE", f"/v1/sessions/{box.id}").status_code in (200, 404, 409)


def run(tenant: Tenant) -> bool:
    box = tenant.box()
    if box is None:
        return create(tenant)
    said = tenant.json("POST", f"/v1/sessions/{box.id}/exec", json={"command": ["sh", "-c", "seq 1000 | wc -l"]})
    return said is not None and said["stdout"].strip() == "1000"


def flood(tenant: Tenant) -> bool:
    """More output than is kept."""
    box = tenant.box()
    if box is None:
        return create(tenant)
    command = ["head", "-c", str(FLOOD_BYTES), "/dev/zero"]
    said = tenant.json("POST", f"/v1/sessions/{box.id}/exec", json={"command": command, "timeoutMs": 20_000})
    return said is not None


def fill(tenant: Tenant) -> bool:
    """The whole writable layer, and free again."""
    box = tenant.box()
    if box is None:
        return create(tenant)
    line = "head -c 4G /dev/zero > /tmp/fill 2>/dev/null; test $? -ne 0; code=$?; rm -f /tmp/fill; exit $code"
    body = {"command": ["sh", "-c", line], "timeoutMs": 30_000}
    answer = tenant.call("POST", f"/v1/sessions/{box.id}/exec", json=body)
    if answer.status_code == 200 and answer.json()["exitCode"] == 137:  # the layer counts as memory
        box.doubtful = True
    return answer.status_code == 200


def write(tenant: Tenant) -> bool:
    box = tenant.box()
    if box is None:
        return create(tenant)
    path = f"/tmp/f{tenant.rng.randrange(8)}"
    content = tenant.rng.randbytes(tenant.rng.randrange(200_000))
    box.files.pop(path, None)
    answer = tenant.call("POST", f"/v1/sessions/{box.id}/files?path={path}", content=content)
    if answer.status_code == 201:
        box.files[path] = content
    return answer.status_code in (201, 404, 507)


def read(tenant: Tenant) -> bool:
    box = tenant.box()
    if box is None or not box.files:
        return write(tenant)
    path = tenant.rng.choice(list(box.files))
    answer = tenant.call("GET", f"/v1/sessions/{box.id}/files?path={path}")
    if answer.status_code == 200 and answer.content != box.files[path]:
        tenant.findings.add(f"{tenant.name}: {path} of {box.id} is not what was written")
    return answer.status_code in (200, 404, 409)


def daemon(tenant: Tenant) -> bool:
    """ComputeSDK's daemon of any sandbox: a file by the one way, read by the other."""
    box = tenant.box()
    if box is None:
        return create(tenant)
    text = secrets.token_hex(8)
    wrote = tenant.call("POST", f"/sb/{box.id}/files", json={"path": "/tmp/d", "content": text})
    said = tenant.json("POST", f"/v1/sessions/{box.id}/exec", json={"command": ["cat", "/tmp/d"]})
    return wrote.status_code == 201 and said is not None and said["stdout"] == text


def preview(tenant: Tenant) -> bool:
    """A port of a sandbox, through the router, by path."""
    box = tenant.box()
    if box is None:
        return create(tenant)
    line = "cd /tmp && exec timeout 20 python3 -m http.server 8000 >/dev/null 2>&1"
    tenant.call("POST", f"/sb/{box.id}/run/command", json={"command": line, "background": True})
    body = {"sandbox_id": box.id, "port": 8000, "backend_url": "http://127.0.0.1:8000"}
    made = tenant.json("POST", "/preview/register", json=body)
    answer = tenant.call("GET", f"/preview/{box.id}/8000/")
    for _ in range(PREVIEW_TRIES):
        if answer.status_code != 502:
            break
        time.sleep(0.2)
        answer = tenant.call("GET", f"/preview/{box.id}/8000/")
    gone = tenant.call("DELETE", f"/preview/register/{box.id}/8000")
    return made is not None and answer.status_code == 200 and gone.status_code == 200


def snapshot(tenant: Tenant) -> bool:
    name = _workspace(tenant)
    if name is None:
        return False
    return tenant.call("POST", f"/v1/workspaces/{name}/snapshots", json={}).status_code in (200, 201, 409)


def upload(tenant: Tenant) -> bool:
    """Testbase's files."""
    name = _workspace(tenant)
    if name is None:
        return False
    content = tenant.rng.randbytes(tenant.rng.randrange(50_000))
    files = {"file": ("u.bin", content)}
    up = tenant.call("POST", f"/workspace/{name}/upload", files=files, data={"path": "."})
    down = tenant.call("GET", f"/workspace/{name}/download/u.bin")
    if up.status_code == 200 and down.status_code == 200 and down.content != content:
        tenant.findings.add(f"{tenant.name}: u.bin of {name} is not what was uploaded")
    return up.status_code == 200 and down.status_code == 200


def execute(tenant: Tenant) -> bool:
    """A task by a command."""
    name = _workspace(tenant)
    if name is None:
        return False
    body = {"task": "t", "workspaceId": name, "agent": "command", "command": ["sh", "-c", "date > when; echo done"]}
    return tenant.json("POST", "/execute", json=body) is not None


def share(tenant: Tenant) -> bool:
    """The Agent Workspace API."""
    made = tenant.json("POST", "/workspaces", json={"name": f"a{secrets.token_hex(4)}", "tags": ["soak"]})
    if made is None:
        return False
    listed = tenant.json("GET", "/workspaces") or []
    gone = tenant.call("DELETE", f"/workspaces/{made['workspace_id']}")
    return any(one["workspace_id"] == made["workspace_id"] for one in listed) and gone.status_code == 200


def secret(tenant: Tenant) -> bool:
    made = tenant.json("POST", "/api/secrets", json={"name": f"S{secrets.token_hex(4).upper()}", "value": CANARY})
    if made is None:
        return False
    return tenant.call("DELETE", f"/api/secrets/{made['id']}").status_code < 300


def key(tenant: Tenant) -> bool:
    """A narrower key that is used once and ended."""
    made = tenant.json("POST", "/api/keys", json={"name": "narrow", "scopes": ["read"]})
    if made is None:
        return False
    own = {"authorization": f"Bearer {made['key']}"}
    may = tenant.call("GET", "/v1/sessions", headers=own).status_code
    may_not = tenant.call("POST", "/v1/sessions", headers=own, json={"image": "host"}).status_code
    ended = tenant.call("DELETE", f"/api/keys/{made['id']}").status_code
    return (may, may_not) == (200, 403) and ended < 300


def look(tenant: Tenant) -> bool:
    """What only reads."""
    paths = ("/v1/workspaces", "/api/events", "/billing/account", "/snapshot/list", "/api/filesystems", "/preview/list")
    return all(tenant.call("GET", path).status_code in (200, 404) for path in paths)


def nonsense(tenant: Tenant) -> bool:
    """Requests that are wrong: they are refused, and nothing more."""
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/sessions", {"content": b"{"}),
        ("POST", "/v1/sessions", {"json": {"image": "no/such:image", "network": "none"}}),
        ("GET", "/v1/sessions/sess_000000000000", {}),
        ("POST", "/sb/sess_000000000000/run/command", {"json": {"command": "true"}}),
        ("GET", "/preview/sess_000000000000/80/", {}),
        ("POST", "/execute", {"json": {"task": ""}}),
        ("GET", "/v1/sessions", {"headers": {"authorization": "Bearer sk_" + "0" * 64}}),
    ]
    method, path, more = tenant.rng.choice(wrong)
    status = tenant.call(method, path, **more).status_code
    return 400 <= status < 500


def _workspace(tenant: Tenant) -> str | None:
    """The name of one of its workspaces, made when there are few."""
    if len(tenant.workspaces) < WORKSPACES_MAX:
        name = f"w{len(tenant.workspaces)}"
        if tenant.call("POST", "/v1/workspaces", json={"name": name}).status_code not in (200, 201, 409):
            return None
        tenant.workspaces.add(name)
    return tenant.rng.choice(sorted(tenant.workspaces))


CANARY = "canary-" + secrets.token_hex(16)
DEEDS: dict[str, tuple[Deed, int]] = {
    one.__name__: (one, weight)
    for one, weight in (
        (create, 6), (create_with_workspace, 3), (create_terminal_platform, 2), (create_compute, 2),
        (create_gateway, 2), (delete, 4), (run, 12), (flood, 1), (fill, 1), (write, 12), (read, 8), (daemon, 4),
        (preview, 2), (snapshot, 2), (upload, 3), (execute, 2), (share, 1), (secret, 2), (key, 2), (look, 3),
        (nonsense, 4),
    )
}  # fmt: skip


def one_deed(tenant: Tenant) -> None:
    """Choose one and do it; what nobody knows of any more is doubtful."""
    name = tenant.rng.choices(list(DEEDS), [weight for _, weight in DEEDS.values()])[0]
    tenant.asked[name] += 1
    try:
        tenant.worked[name] += DEEDS[name][0](tenant)
    except Broken:
        tenant.asked[name] -= 1  # it says nothing of the deed
        for box in tenant.boxes.values():
            box.files.clear()  # which of them it was is not worth knowing
        raise
