"""A small execbox server for the client's tests: sandboxes are folders, processes are plain local ones.

It isolates nothing and keeps every byte of output. Run it in the test's process, on a thread, with `StandIn`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.sdk.local_process import LocalProcess, Refused

KEY = "sk_" + "0" * 64
FRAME = struct.Struct("!BI")


class Box:
    def __init__(self, root: Path, body: dict[str, Any]) -> None:
        self.id = "sess_" + os.urandom(6).hex()
        self.root = root / self.id
        self.root.mkdir()
        self.body = body
        self.status = "running"
        self.paused = False
        self.created = datetime.now(UTC)
        self.ended: datetime | None = None
        self.processes: dict[str, LocalProcess] = {}

    def answer(self) -> dict[str, Any]:
        main = self.processes.get("main")
        if main is not None and main.code is not None and self.status == "running":
            self.end("stopped")
        answer = {
            "id": self.id,
            "status": self.status,
            "image": self.body["image"],
            "createdAt": self.created.isoformat(),
            "name": self.body.get("name"),
            "command": self.body.get("command") or [],
            "tty": self.body.get("tty", False),
            "exitCode": main.code if main else None,
            "reason": None if self.status == "running" else "exited" if self.status == "stopped" else self.status,
            "endedAt": self.ended and self.ended.isoformat(),
            "network": {"mode": self.body.get("network", "outgoing"), "host": "127.0.0.1", "ports": {}},
            "resources": {"cpuMillis": 1000, "memoryMB": 512},
            "usage": {
                "durationMs": 1,
                "cpuMs": 1,
                "memoryPeakBytes": 2**20,
                "bytesIn": 1,
                "bytesOut": 2,
                "execCount": 3,
            },
        }
        answer["paused"] = self.paused or None
        return {key: value for key, value in answer.items() if value is not None}

    def end(self, status: str) -> None:
        if self.status != "running":
            raise Refused(409, "CONFLICT", f"session is already {self.status}")
        self.status, self.ended = status, datetime.now(UTC)
        for process in self.processes.values():
            process.send(signal.SIGKILL)

    def path(self, text: str) -> Path:
        found = (self.root / text.lstrip("/")).resolve()
        if not found.is_relative_to(self.root):
            raise Refused(404, "NOT_FOUND", "file not found")
        return found

    async def start(self, argv: list[str], **how: Any) -> LocalProcess:
        if self.status != "running":
            raise Refused(409, "CONFLICT", f"session not running: status={self.status}")
        name = how.pop("name", None) or f"p{len(self.processes) + 1}"
        process = self.processes[name] = LocalProcess(name, argv, how.pop("tty", False))
        cwd = self.path(how.pop("work_dir", None) or "/")
        env = {**(self.body.get("env") or {}), **how.pop("env", {})}
        await process.start(cwd, env, how.pop("stdin", True), how.pop("size", (80, 24)), how.pop("timeout_s", None))
        return process


class App:
    """The routes. `hold` makes the next answers 503; `seen` counts requests; output before `forgotten` is lost."""

    forgotten = 0

    def __init__(self, root: Path) -> None:
        from tests.sdk.fake_tasks import FakeTasks  # they need names of this module
        from tests.sdk.fake_workspaces import FakeWorkspaces

        self.root = root
        self.boxes: dict[str, Box] = {}
        self.seen: list[str] = []
        self.workspaces = FakeWorkspaces()
        self.tasks = FakeTasks(self.workspaces)
        session = "/v1/sessions/{id}"
        self.app = Starlette(
            routes=[
                self._route("/v1/sessions", self.create, "POST"),
                self._route("/v1/sessions", self.list, "GET"),
                self._route("/v1/templates", self.templates, "GET"),
                self._route(session, self.get, "GET"),
                self._route(session, self.delete, "DELETE"),
                self._route(session + "/stop", self.stop, "POST"),
                self._route(session + "/keepalive", self.touch, "POST"),
                self._route(session + "/pause", self.touch, "POST"),
                self._route(session + "/resume", self.touch, "POST"),
                self._route(session + "/exec", self.run, "POST"),
                self._route(session + "/logs", self.logs, "GET"),
                self._route(session + "/url", self.url, "GET"),
                self._route(session + "/processes", self.list_processes, "GET"),
                self._route(session + "/processes/{pid}/wait", self.wait, "GET"),
                self._route(session + "/processes/{pid}/signal", self.signal, "POST"),
                self._route(session + "/files", self.get_file, "GET"),
                self._route(session + "/files", self.put_file, "POST"),
                self._route(session + "/files", self.delete_file, "DELETE"),
                self._route(session + "/files/move", self.move_file, "POST"),
                WebSocketRoute(session + "/exec", self.socket),
                WebSocketRoute(session + "/attach", self.socket),
                *self.workspaces.app.routes,
                *self.tasks.app.routes,
            ]
        )

    def _route(self, path: str, handler: Any, method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            self.seen.append(f"{method} {path}")
            try:
                if request.headers.get("authorization") != f"Bearer {KEY}":
                    raise Refused(401, "UNAUTHORIZED", "a valid API key is required")
                answer = await handler(request)
            except Refused as refused:
                return refused.response()
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return Route(path, endpoint, methods=[method])

    def box(self, request: Any) -> Box:
        box = self.boxes.get(request.path_params["id"])
        if box is None:
            raise Refused(404, "NOT_FOUND", "session not found")
        return box

    async def create(self, request: Request) -> Response:
        body = await request.json()
        if body["image"] != "host":
            error = {"error": "no such image", "code": "BAD_REQUEST", "errors": [{"message": "?", "location": "image"}]}
            return JSONResponse(error, 400)
        box = Box(self.root, body)
        self.boxes[box.id] = box
        if body.get("command"):
            size = (body.get("cols", 80), body.get("rows", 24))
            await box.start(
                body["command"], name="main", tty=body.get("tty", False), size=size, work_dir=body.get("workDir")
            )
        return JSONResponse(box.answer(), 201)

    async def list(self, request: Request) -> Any:
        wanted = request.query_params.get("status")
        answers = [box.answer() for box in self.boxes.values()]
        return {"sessions": [answer for answer in answers if wanted in (None, answer["status"])]}

    async def templates(self, request: Request) -> Any:
        return {"templates": [{"name": "host", "kind": "builtin", "sizeBytes": 0}]}

    async def get(self, request: Request) -> Any:
        return self.box(request).answer()

    async def delete(self, request: Request) -> Any:
        box = self.box(request)
        if request.query_params.get("remove") == "true":
            if box.status == "running":
                box.end("killed")
            del self.boxes[box.id]
            return {"status": "killed", "removed": True}
        box.answer()
        box.end("killed")
        return {"status": "killed"}

    async def stop(self, request: Request) -> Any:
        box = self.box(request)
        box.answer()
        for process in box.processes.values():
            process.send(signal.SIGTERM)
        box.end("stopped")
        return {"status": "stopped"}

    async def touch(self, request: Request) -> Any:
        box = self.box(request)
        box.paused = request.url.path.endswith("pause")
        return {"id": box.id, "paused": box.paused}

    async def run(self, request: Request) -> Any:
        body = await request.json()
        timeout_s = body["timeoutMs"] / 1000 if "timeoutMs" in body else None
        process = await self.box(request).start(
            body["command"], work_dir=body.get("workDir"), env=body.get("env", {}), timeout_s=timeout_s
        )
        await process.write(base64.b64decode(body.get("stdin", "")))
        process.close_stdin()
        streams = {2: b"", 3: b""}
        async for stream, data in process.follow(0):
            streams[stream] += data
        limit = body.get("maxOutputBytes", 8 * 2**20)
        return process.ended() | {
            "stdout": base64.b64encode(streams[2][:limit]).decode(),
            "stderr": base64.b64encode(streams[3][:limit]).decode(),
            "truncated": max(map(len, streams.values())) > limit,
        }

    async def logs(self, request: Request) -> Response:
        main = self.box(request).processes["main"]
        offset = int(request.query_params.get("offset", 0))
        if request.query_params.get("follow") == "true":
            return StreamingResponse((data async for _, data in main.follow(offset)), media_type="text/plain")
        return Response(b"".join(data for _, data in main.output)[offset:])

    async def url(self, request: Request) -> Any:
        port = int(request.query_params["port"])
        if {"container": port} not in (self.box(request).body.get("ports") or []):
            raise Refused(404, "NOT_FOUND", "port not exposed")
        return {"containerPort": port, "hostPort": port, "url": f"http://127.0.0.1:{port}", "protocol": "tcp"}

    async def list_processes(self, request: Request) -> Any:
        now = datetime.now(UTC).isoformat()
        return {
            "processes": [
                {"id": p.name, "command": p.argv, "pid": 1, "tty": p.tty, "running": p.code is None, "startedAt": now}
                | ({"outputStart": 0, "outputEnd": p.size} | ({} if p.code is None else {"exitCode": p.code}))
                for p in self.box(request).processes.values()
            ]
        }

    def process(self, request: Any, name: str) -> LocalProcess:
        process = self.box(request).processes.get(name)
        if process is None:
            raise Refused(404, "NOT_FOUND", "process not found")
        return process

    async def wait(self, request: Request) -> Any:
        process = self.process(request, request.path_params["pid"])
        async for _ in process.follow(process.size):
            pass
        return process.ended()

    async def signal(self, request: Request) -> Any:
        number = (await request.json())["signal"]
        self.process(request, request.path_params["pid"]).kill(number)
        return {"processId": request.path_params["pid"], "signal": number}

    async def get_file(self, request: Request) -> Any:
        query = request.query_params
        path = self.box(request).path(query["path"])
        if not path.exists():
            raise Refused(404, "NOT_FOUND", f"{query['path']}: no such file")
        if query.get("stat") == "true":
            return self._entry(path) | {"path": query["path"]}
        if query.get("list") == "true":
            return {"path": query["path"], "entries": [self._entry(child) for child in sorted(path.iterdir())]}
        if path.is_dir():
            raise Refused(400, "BAD_REQUEST", f"{query['path']} is a directory")

        file = await asyncio.to_thread(open, path, "rb")

        async def pieces() -> AsyncIterator[bytes]:
            with file:
                while data := file.read(1 << 18):
                    yield data

        headers = {"content-length": str(path.stat().st_size)}
        return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)

    @staticmethod
    def _entry(path: Path) -> dict[str, Any]:
        status = path.lstat()
        kind = "symlink" if path.is_symlink() else "directory" if path.is_dir() else "file"
        when = datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
        entry = {"name": path.name, "size": status.st_size, "isDir": path.is_dir(), "mode": status.st_mode & 0o7777}
        return entry | {"kind": kind, "modifiedAt": when}

    async def put_file(self, request: Request) -> Response:
        query = request.query_params
        path = self.box(request).path(query["path"])
        if query.get("directory") == "true":
            path.mkdir(parents=True, exist_ok=True)
            return JSONResponse({"path": query["path"], "size": 0}, 201)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with await asyncio.to_thread(open, path, "wb") as file:
            async for data in request.stream():
                size += file.write(data)
        if "mode" in query:
            path.chmod(int(query["mode"], 8))
        return JSONResponse({"path": query["path"], "size": size}, 201)

    async def delete_file(self, request: Request) -> Any:
        path = self.box(request).path(request.query_params["path"])
        if not path.exists():
            raise Refused(404, "NOT_FOUND", "no such file")
        if path.is_dir():
            if any(path.iterdir()) and request.query_params.get("recursive") != "true":
                raise Refused(409, "CONFLICT", "the directory is not empty")
            shutil.rmtree(path)
        else:
            path.unlink()
        return {"path": request.query_params["path"], "removed": True}

    async def move_file(self, request: Request) -> Any:
        body = await request.json()
        self.box(request).path(body["from"]).rename(self.box(request).path(body["to"]))
        return body

    async def socket(self, socket: WebSocket) -> None:
        self.seen.append(f"WS {socket.url.path.rpartition('/')[2]}")
        query = socket.query_params
        try:
            if socket.headers.get("authorization") != f"Bearer {KEY}":
                raise Refused(401, "UNAUTHORIZED", "a valid API key is required")
            if socket.url.path.endswith("/exec"):
                offset = 0
                process = await self.box(socket).start(
                    shlex.split(query["cmd"]) if len(query.getlist("cmd")) == 1 else query.getlist("cmd"),
                    tty=query.get("tty") == "true",
                    size=(int(query.get("cols", 80)), int(query.get("rows", 24))),
                    work_dir=query.get("workdir"),
                    env=dict(pair.split("=", 1) for pair in query.getlist("env")),
                    stdin=query.get("stdin") != "false",
                    timeout_s=int(query["timeoutMs"]) / 1000 if "timeoutMs" in query else None,
                )
            else:
                offset = max(int(query.get("offset", 0)), self.forgotten)
                process = self.process(socket, query.get("process", "main"))
        except Refused as refused:
            await socket.send_denial_response(refused.response())
            return
        headers = [(b"atoll-process", process.name.encode()), (b"atoll-offset", str(offset).encode())]
        await socket.accept(headers=headers)
        reader = asyncio.create_task(self._client(socket, process))
        try:
            async for stream, data in process.follow(offset):
                await socket.send_bytes(FRAME.pack(stream, len(data)) + data)
            await socket.send_bytes(FRAME.pack(4, process.code or 0))
            await socket.close()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            reader.cancel()

    async def _client(self, socket: WebSocket, process: LocalProcess) -> None:
        try:
            while True:
                frame = await socket.receive_bytes()
                if frame[0] == 1:
                    await process.write(frame[5:])
                elif frame[0] == 6:
                    process.close_stdin()
                elif frame[0] == 7:
                    process.resize(*struct.unpack("!HH", frame[1:]))
                else:
                    message = f"invalid binary message: type {frame[0]}".encode()
                    await socket.send_bytes(FRAME.pack(5, len(message)) + message)
        except WebSocketDisconnect:
            pass


class _Server(uvicorn.Server):
    """One that ends at once, as a killed server does: it takes no connection any more and leaves none open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class StandIn:
    """The server on a thread of its own. `stop` and `start` again keep sandboxes and processes alive."""

    def __init__(self, root: Path) -> None:
        self.routes = App(root)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(self.routes.app, log_level="critical", lifespan="off", ws="websockets-sansio")
        config.timeout_graceful_shutdown = 0
        self._server = _Server(config)
        self._served = asyncio.run_coroutine_threadsafe(self._server._serve([self._socket]), self._loop)
        until = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < until
            time.sleep(0.005)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.ended.set)
        self._served.result(10)
        self._socket.close()

    def close(self) -> None:
        self.stop()
        asyncio.run_coroutine_threadsafe(self._end_processes(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end_processes(self) -> None:
        for box in self.routes.boxes.values():
            for process in box.processes.values():
                await process.end()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
