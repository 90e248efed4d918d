"""A server with workspaces in memory, as docs/workspaces-api.md has them: for tests of clients only."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import zstandard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from atoll.domain.chunk_ids import HOLE, ID_BYTES
from atoll.domain.errors import AtollError, InvalidInput
from atoll.domain.tree import Entry, EntryKind, check_entries, chunk_id, decode_entry, encode_entry, raw, text
from atoll.domain.tree_changes import changes, with_renames
from atoll.domain.tree_merge import merge
from tests.sdk.local_process import Refused
from tests.sdk.stand_in import KEY

HEAD = struct.Struct("!32sII")
KINDS = {"f": "file", "d": "directory", "l": "symlink", "h": "hardlink", "p": "fifo"}
ROOT = Entry(b"", EntryKind.DIRECTORY, 0o755)
STATUS = {"bad_request": 400, "not_found": 404, "conflict": 409}


@dataclass
class Revision:
    id: str
    number: int
    tree: dict[bytes, Entry]
    reason: str = "sync"
    message: str | None = None
    parent: str | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class Workspace:
    id: str
    name: str
    revisions: list[Revision]
    chunks: dict[bytes, bytes]
    fields: dict[str, Any] = field(default_factory=dict)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    shares: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Revision:
        return self.revisions[-1]

    def add(self, tree: dict[bytes, Entry], reason: str, message: str | None = None) -> Revision:
        made = Revision(f"rev_{uuid.uuid4().hex[:24]}", self.head.number + 1, tree, reason, message, self.head.id)
        self.revisions.append(made)
        return made

    def find(self, ref: str) -> Revision:
        if ref.startswith("HEAD"):
            back = int(ref[5:] or 1) if ref != "HEAD" else 0
            if back >= len(self.revisions):
                raise Refused(404, "NOT_FOUND", f"no revision {ref}")
            return self.revisions[-1 - back]
        ref = next((s["revision"] for s in self.snapshots if ref in (s["id"], s["name"])), ref)
        for revision in self.revisions:
            if ref in (revision.id, str(revision.number)):
                return revision
        raise Refused(404, "NOT_FOUND", f"no revision {ref}")

    # what a sandbox would do

    def write(self, path: str, data: bytes, mode: int = 0o644, mtime_ns: int = 1_600_000_000_123_456_789) -> Revision:
        ids = b""
        for at in range(0, len(data), 2**20):
            piece = data[at : at + 2**20]
            self.chunks[chunk_id(piece)] = piece
            ids += chunk_id(piece)
        return self.put(Entry(path.encode(), EntryKind.FILE, mode, mtime_ns, size=len(data), chunks=ids))

    def put(self, *entries: Entry) -> Revision:
        tree = dict(self.head.tree)
        for entry in entries:
            parent = entry.path.rpartition(b"/")[0]
            while parent and parent not in tree:
                tree[parent] = Entry(parent, EntryKind.DIRECTORY, 0o755, 1_600_000_000_000_000_000)
                parent = parent.rpartition(b"/")[0]
            tree[entry.path] = entry
        return self.add({path: tree[path] for path in sorted(tree)}, "process")

    def remove(self, path: str) -> Revision:
        gone = path.encode()
        kept = {p: e for p, e in self.head.tree.items() if p != gone and not p.startswith(gone + b"/")}
        return self.add(kept, "process")

    def contents(self, path: str, tree: dict[bytes, Entry] | None = None) -> bytes:
        tree = self.head.tree if tree is None else tree
        entry = tree[raw(path)]
        if entry.kind is EntryKind.HARDLINK:
            entry = tree[entry.target]
        return b"".join(bytes(length) if id == HOLE else self.chunks[id] for id, _, length in entry.pieces())


class FakeWorkspaces:
    """The routes. `seen` lists requests; `before` is called with each of them and may raise Refused."""

    def __init__(self) -> None:
        self.all: dict[str, Workspace] = {}
        self.seen: list[str] = []
        self.before: Any = lambda what: None
        self.fetched = 0
        self.stored = 0
        self.lose_commit = False  # the answer of the next one
        self.cut_after: int | None = None  # chunks of an upload or a download, once
        base = "/v1/workspaces"
        one = base + "/{ws}"
        self.app = Starlette(
            routes=[
                self._route(base, self.create, "POST"),
                self._route(base, self.list, "GET"),
                self._route(one, self.get, "GET"),
                self._route(one, self.patch, "PATCH"),
                self._route(one, self.delete, "DELETE"),
                self._route(one + "/revisions", self.log, "GET"),
                self._route(one + "/revisions", self.commit_now, "POST"),
                self._route(one + "/revisions/{rev}", self.revision, "GET"),
                self._route(one + "/files", self.files, "GET"),
                self._route(one + "/file", self.file, "GET"),
                self._route(one + "/diff", self.diff, "GET"),
                self._route(one + "/restore", self.restore, "POST"),
                self._route(one + "/undo", self.undo, "POST"),
                self._route(one + "/fork", self.fork, "POST"),
                self._route(one + "/merge", self.merge, "POST"),
                self._route(one + "/snapshots", self.snapshot, "POST"),
                self._route(one + "/snapshots", self.snapshots, "GET"),
                self._route(one + "/snapshots/{snap}", self.delete_snapshot, "DELETE"),
                self._route(one + "/export", self.export, "GET"),
                self._route(one + "/import", self.import_, "POST"),
                self._route(one + "/verify", self.verify, "POST"),
                self._route(one + "/collaborators", self.collaborators, "GET"),
                self._route(one + "/collaborators/{who}", self.share, "PUT"),
                self._route(one + "/collaborators/{who}", self.revoke, "DELETE"),
                self._route(one + "/sync/head", self.sync_head, "GET"),
                self._route(one + "/sync/entries", self.sync_entries, "GET"),
                self._route(one + "/sync/missing", self.sync_missing, "POST"),
                self._route(one + "/sync/chunks", self.sync_chunks, "POST"),
                self._route(one + "/sync/fetch", self.sync_fetch, "POST"),
                self._route(one + "/sync/commit", self.sync_commit, "POST"),
                self._route(base + "/{owner}/{ws}", self.get, "GET"),
            ]
        )

    def _route(self, path: str, handler: Any, method: str) -> Route:
        what = f"{method} {path.removeprefix('/v1/workspaces').removeprefix('/{ws}') or '/'}"

        async def endpoint(request: Request) -> Response:
            self.seen.append(what)
            try:
                if request.headers.get("authorization") != f"Bearer {KEY}":
                    raise Refused(401, "UNAUTHORIZED", "a valid API key is required")
                self.before(what)
                answer = await handler(request)
            except Refused as refused:
                return refused.response()
            except AtollError as error:
                status = STATUS[error.code]
                field = getattr(error, "field", None)
                return JSONResponse({"error": error.message, "code": error.code, "field": field}, status)
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return Route(path, endpoint, methods=[method])

    def named(self, name: str) -> Workspace:
        for found in self.all.values():
            if name in (found.id, f"{found.fields.get('ownerName')}/{found.name}") or (
                name == found.name and "ownerName" not in found.fields
            ):
                return found
        raise Refused(404, "NOT_FOUND", f"workspace not found: {name!r}")

    def of(self, request: Request) -> Workspace:
        owner = request.path_params.get("owner")
        return self.named((f"{owner}/" if owner else "") + request.path_params["ws"])

    def show(self, ws: Workspace) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        answer = {"id": ws.id, "name": ws.name, "description": None, "tags": [], "owner": "key_1", "mounted": []}
        answer |= {"permission": "owner", "createdAt": now, "updatedAt": now, "quotaBytes": 1, "quotaInodes": 2}
        return answer | {"head": self.show_revision(ws, ws.head), "automatic": True} | ws.fields

    @staticmethod
    def show_revision(ws: Workspace, revision: Revision) -> dict[str, Any]:
        return {
            "id": revision.id, "workspace": ws.id, "number": revision.number, "tree": "00" * 32,
            "parent": revision.parent, "reason": revision.reason, "message": revision.message, "actor": "key_1",
            "createdAt": revision.created.isoformat(), "entries": len(revision.tree) + 1,
            "bytes": sum(entry.size for entry in revision.tree.values()), "storedBytes": 0, "state": "ready",
        }  # fmt: skip

    async def create(self, request: Request) -> Response:
        body = await request.json()
        name = body.pop("name")
        if any(ws.name == name and "ownerName" not in ws.fields for ws in self.all.values()):
            raise Refused(409, "CONFLICT", f"there is a workspace {name} already")
        if body.get("quotaBytes", 1) > 2**40:
            raise InvalidInput("quotaBytes must be at most 1 TiB", field="quotaBytes")
        return JSONResponse(self.show(self.make(name, body)), 201)

    def make(self, name: str, fields: dict[str, Any] | None = None) -> Workspace:
        first = Revision(f"rev_{uuid.uuid4().hex[:24]}", 1, {}, "created")
        made = Workspace(f"ws_{uuid.uuid4().hex}", name, [first], {}, fields or {})
        self.all[made.id] = made
        return made

    async def list(self, request: Request) -> Any:
        tag, name = request.query_params.get("tag"), request.query_params.get("name")
        found = [ws for ws in self.all.values() if name in (None, ws.name)]
        found = [ws for ws in found if tag is None or tag in ws.fields.get("tags", [])]
        if "shared" not in request.query_params:
            found = [ws for ws in found if "ownerName" not in ws.fields]
        return {"workspaces": [self.show(ws) for ws in reversed(found)]}

    async def get(self, request: Request) -> Any:
        return self.show(self.of(request))

    async def patch(self, request: Request) -> Any:
        ws = self.of(request)
        body = await request.json()
        ws.name = body.pop("name", ws.name)
        ws.fields |= body
        return self.show(ws)

    async def delete(self, request: Request) -> Any:
        del self.all[self.of(request).id]
        return {"deleted": True}

    async def log(self, request: Request) -> Any:
        ws = self.of(request)
        before = int(request.query_params.get("before", 10**9))
        found = [r for r in reversed(ws.revisions) if r.number < before]
        return {"revisions": [self.show_revision(ws, r) for r in found[: int(request.query_params["limit"])]]}

    async def commit_now(self, request: Request) -> Any:
        return JSONResponse(self.show_revision(self.of(request), self.of(request).head), 201)

    async def revision(self, request: Request) -> Any:
        ws = self.of(request)
        return self.show_revision(ws, ws.find(request.path_params["rev"]))

    async def files(self, request: Request) -> Any:
        ws, query = self.of(request), request.query_params
        revision = ws.find(query["revision"])
        prefix = f"{query['path'].strip('/')}/".lstrip("/")
        shown = [
            {"path": text(e.path), "kind": KINDS[e.kind.value], "size": e.size, "mode": e.mode,
             "modifiedAt": datetime.fromtimestamp(e.mtime_ns / 1e9, UTC).isoformat(), "target": text(e.target) or None}
            for e in revision.tree.values()
            if text(e.path).startswith(prefix) and text(e.path)[len(prefix) :].count("/") < int(query["depth"])
        ]  # fmt: skip
        shown = [entry for entry in shown if entry["path"] > query.get("after", "")]
        limit = int(query["limit"])
        more = {"next": shown[limit - 1]["path"]} if len(shown) > limit else {}
        return {"revision": self.show_revision(ws, revision), "entries": shown[:limit]} | more

    async def file(self, request: Request) -> Any:
        ws = self.of(request)
        tree = ws.find(request.query_params["revision"]).tree
        path = request.query_params["path"]
        if raw(path) not in tree:
            raise Refused(404, "NOT_FOUND", f"{path}: no such file in this revision")
        return Response(ws.contents(path, tree), media_type="application/octet-stream")

    async def diff(self, request: Request) -> Any:
        ws, query = self.of(request), request.query_params
        a, b = ws.find(query["from"]), ws.find(query["to"])
        found = []
        for change in with_renames(changes(a.tree.values(), b.tree.values())):
            shown: dict[str, Any] = {"path": text(change.path), "change": change.kind.value, "kind": "file"}
            if change.renamed_from is not None:
                shown["from"] = text(change.renamed_from)
            for side, entry in (("before", change.before), ("after", change.after)):
                if entry is not None:
                    shown[side] = {"size": entry.size, "mode": entry.mode}
            if query.get("text") == "true":
                shown["text"] = f"--- a/{shown['path']}\n+++ b/{shown['path']}\n"
            found.append(shown)
        ends = {"from": self.show_revision(ws, a), "to": self.show_revision(ws, b)}
        return ends | {"changes": found, "truncated": False}

    async def restore(self, request: Request) -> Any:
        ws, body = self.of(request), await request.json()
        tree = ws.find(body["revision"]).tree
        if "path" in body:
            path = raw(body["path"])
            if path not in tree:
                raise Refused(404, "NOT_FOUND", f"{body['path']}: no such path in this revision")
            tree = {p: (ws.head.tree | {path: tree[path]})[p] for p in sorted(ws.head.tree.keys() | {path})}
        before, changed = ws.head, tree != ws.head.tree
        made = ws.add(tree, "restore") if changed else before
        shown = {"revision": self.show_revision(ws, made), "before": self.show_revision(ws, before)}
        return {**shown, "changed": changed, "restored": {"entries": len(tree) if changed else 0, "bytes": 1}}

    async def undo(self, request: Request) -> Any:
        ws = self.of(request)
        return {"revision": self.show_revision(ws, ws.add(ws.find("HEAD~1").tree, "undo"))}

    async def fork(self, request: Request) -> Any:
        ws, body = self.of(request), await request.json()
        made = self.make(body["name"], {"forkedFrom": ws.find(body.get("revision", "HEAD")).id})
        made.chunks = ws.chunks
        made.add(ws.find(body.get("revision", "HEAD")).tree, "fork")
        return JSONResponse(self.show(made), 201)

    async def merge(self, request: Request) -> Any:
        ws, body = self.of(request), await request.json()
        other = self.named(body["source"])
        base = ws.find(other.fields["forkedFrom"]).tree
        sides = [[ROOT, *tree.values()] for tree in (base, ws.head.tree, other.head.tree)]
        merged = merge(sides[0], sides[1], sides[2], str(other.head.number))
        made = ws.add({e.path: e for e in merged.entries if e.path}, "merge")
        conflicts = [{"path": text(c.path), "kept": text(c.kept), "reason": c.reason} for c in merged.conflicts]
        return {"revision": self.show_revision(ws, made), "conflicts": conflicts, "changes": 1}

    async def snapshot(self, request: Request) -> Any:
        ws, body = self.of(request), await request.json()
        made = {"id": f"snap_2026_01_01_000000_{len(ws.snapshots)}", "name": body.get("name"), "workspace": ws.id}
        made |= {"revision": ws.head.id, "createdAt": datetime.now(UTC).isoformat(), "entries": 1, "bytes": 1}
        made |= {"keep": body.get("keep", False), "ownKey": body.get("ownKey", False)}
        ws.snapshots.append(made)
        return JSONResponse(made, 201)

    async def snapshots(self, request: Request) -> Any:
        return {"snapshots": self.of(request).snapshots[::-1]}

    async def delete_snapshot(self, request: Request) -> Any:
        ws, snap = self.of(request), request.path_params["snap"]
        kept = [s for s in ws.snapshots if snap not in (s["id"], s["name"])]
        if len(kept) == len(ws.snapshots):
            raise Refused(404, "NOT_FOUND", "snapshot not found")
        ws.snapshots = kept
        return {"deleted": True}

    async def export(self, request: Request) -> Any:
        self.of(request).find(request.query_params["revision"])
        return Response(b"an archive", media_type="application/zstd")

    async def import_(self, request: Request) -> Any:
        ws = self.of(request)
        made = ws.write("imported", await request.body())
        made.reason, made.message = "import", request.query_params.get("message")
        return JSONResponse(self.show_revision(ws, made), 201)

    async def verify(self, request: Request) -> Any:
        ws = self.of(request)
        lost = [
            {"revision": r.id, "path": text(e.path), "message": "a chunk is not what was stored"}
            for r in ws.revisions
            for e in r.tree.values()
            if any(chunk_id(ws.chunks.get(chunk, b"?")) != chunk for chunk in e.chunk_ids())
        ]
        count = len(ws.chunks)
        return {"revisions": len(ws.revisions), "snapshots": 0, "chunks": count, "bytes": 1, "corrupt": lost}

    async def collaborators(self, request: Request) -> Any:
        return {"collaborators": self.of(request).shares}

    async def share(self, request: Request) -> Any:
        ws, permission = self.of(request), (await request.json())["permission"]
        if permission not in ("read", "write", "admin"):
            raise InvalidInput("permission must be read, write or admin", field="permission")
        ws.shares[request.path_params["who"]] = permission
        return {"collaborators": ws.shares}

    async def revoke(self, request: Request) -> Any:
        self.of(request).shares.pop(request.path_params["who"], None)
        return {"revoked": True}

    # sync

    async def sync_head(self, request: Request) -> Any:
        ws = self.of(request)
        return {"revision": self.show_revision(ws, ws.head)}

    async def sync_entries(self, request: Request) -> Any:
        ws, query = self.of(request), request.query_params
        tree = ws.find(query["revision"]).tree
        lines = [encode_entry(entry) for entry in (ROOT, *tree.values())]
        if "since" in query:
            old = ws.find(query["since"]).tree
            found = changes(old.values(), tree.values(), directory_times=True)
            lines = [encode_entry(c.after) if c.after else json.dumps([text(c.path)]).encode() for c in found]
        return Response(zstandard.compress(b"\n".join(lines)), media_type="application/vnd.atoll.entries+zstd")

    async def sync_missing(self, request: Request) -> Any:
        ws, body = self.of(request), await request.body()
        assert len(body) <= 65_536 * ID_BYTES
        ids = [body[at : at + ID_BYTES] for at in range(0, len(body), ID_BYTES)]
        return Response(b"".join(chunk for chunk in ids if chunk not in ws.chunks))

    async def sync_chunks(self, request: Request) -> Any:
        ws = self.of(request)
        rest = bytearray()
        count = 0
        async for piece in request.stream():
            rest += piece
            while len(rest) >= HEAD.size:
                chunk, size, stored = HEAD.unpack_from(rest)
                if len(rest) < HEAD.size + stored:
                    break
                data = zstandard.decompress(bytes(rest[HEAD.size : HEAD.size + stored]))
                assert len(data) == size
                assert chunk_id(data) == chunk
                del rest[: HEAD.size + stored]
                if self.cut_after is not None:
                    if self.cut_after == 0:
                        self.cut_after = None
                        await asyncio.sleep(0)
                        raise Refused(503, "UNAVAILABLE", "cut off")
                    self.cut_after -= 1
                ws.chunks[chunk] = data
                count += 1
        assert not rest
        self.stored += count
        return {"stored": count, "bytes": 1}

    async def sync_fetch(self, request: Request) -> Any:
        ws, body = self.of(request), await request.body()
        ids = [body[at : at + ID_BYTES] for at in range(0, len(body), ID_BYTES)]

        async def frames() -> AsyncIterator[bytes]:
            for chunk in ids:
                if self.cut_after is not None:
                    self.cut_after -= 1
                    if self.cut_after < 0:
                        self.cut_after = None
                        raise ConnectionAbortedError
                data = ws.chunks.get(chunk)
                stored = b"" if data is None else zstandard.compress(data)
                self.fetched += 1
                yield HEAD.pack(chunk, len(data or b""), len(stored)) + stored

        return StreamingResponse(frames())

    async def sync_commit(self, request: Request) -> Any:
        ws, query = self.of(request), request.query_params
        body = zstandard.decompress(await request.body())
        if ws.head.id != ws.find(query["base"]).id:
            raise Refused(409, "CONFLICT", "the workspace's head is not that revision any more")
        tree = dict(ws.head.tree)
        for line in body.split(b"\n"):
            if len(fields := json.loads(line)) == 1:
                del tree[raw(fields[0])]
            else:
                entry = decode_entry(line)
                assert (entry.uid, entry.gid) == (1000, 1000)
                tree[entry.path] = entry
                for chunk in entry.chunk_ids():
                    if chunk not in ws.chunks:
                        raise InvalidInput(f"{text(entry.path)}: a chunk of it has not been sent", field="path")
        tree = {path: tree[path] for path in sorted(tree)}
        list(check_entries([ROOT, *tree.values()]))
        made = ws.add(tree, "sync", query.get("message"))
        if self.lose_commit:
            self.lose_commit = False
            raise Refused(503, "UNAVAILABLE", "it was done, but nobody hears of it")
        return JSONResponse(self.show_revision(ws, made), 201)
