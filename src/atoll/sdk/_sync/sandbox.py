# Made by scripts/unasync.py from ../_async/sandbox.py: change that file, not this one.
"""Sandbox: make a sandbox, run commands in it, end it. This is the SDK's front door."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.domain.process import MAIN, ProcessInfo
from atoll.sdk._io import Background, call
from atoll.sdk._sync.api import Api, connect
from atoll.sdk._sync.files import Files
from atoll.sdk._sync.process import Process, start_process
from atoll.sdk._sync.retry import Retry
from atoll.sdk._sync.watching import Watch, watch
from atoll.sdk.errors import CommandFailed
from atoll.sdk.requests import Command, allowed_body, argv_of, create_body, environment, run_body, target_of
from atoll.sdk.secret_values import SecretUse
from atoll.sdk.values import (
    Mount,
    Named,
    Result,
    SandboxInfo,
    TemplateInfo,
    process_of,
    result_of,
    sandbox_of,
    template_of,
)

CREATE_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 1_800.0  # when `setup` may have to be baked first
OUTPUT_BYTES_MAX = 8 * 2**20  # of each stream that `run` collects
RUN_SLACK_S = 30.0  # beyond a command's own timeout, for the server to say so
SHELL = ("sh", "-c", "command -v bash >/dev/null && exec bash || exec sh")


class Sandbox:
    """One isolated computer. `with Sandbox.create() as sandbox` kills it at the end."""

    def __init__(self, api: Api, info: SandboxInfo) -> None:
        self.id = info.id
        self.name = info.name
        self.created = info  # what the server said when it was made or found
        self.files = Files(api, info.id)
        self._api = api
        self._base = f"/v1/sessions/{info.id}"
        self._exec_target = f"{self._base}/exec"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @classmethod
    def create(
        cls,
        image: str = "host",
        *,
        command: Command | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        disk_mb: int | None = None,
        pids: int | None = None,
        inodes: int | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        max_age: float | None = None,
        network: str | Sequence[str] | None = None,
        ports: Sequence[int] | None = None,
        setup: Sequence[str] | None = None,
        files: Mapping[str, str | bytes] | None = None,
        tty: tuple[int, int] | None = None,
        workspace: Named | str | None = None,
        workspaces: Sequence[Mount | Named | str] | None = None,
        secrets: Sequence[SecretUse | str] | None = None,
        group: str | None = None,
        capability: Sequence[str] | Mapping[str, Any] | None = None,
        url: str | None = None,
        api_key: str | None = None,
    ) -> Sandbox:
        """A new sandbox, running.

        `command` is its main process (a string is for the shell); without one it lives until it is ended. `timeout`,
        `idle_timeout` and `max_age` are seconds; `network` is none, outgoing or exposed, or a list of the names that
        may be reached (`["pypi.org", "*.example.org"]`); without it, none, and exposed with `ports`; `files` and
        `setup` lines are baked into its template; `tty` gives the main process a terminal of (columns, rows).
        `workspace`, or its name, is mounted at /workspace, with HOME in it; `workspaces` takes `Mount`s for several.
        Commands start in `cwd`; without it in the first workspace, else in /.
        `secrets` are for the main process; without one, for each command.
        `group` is the id of a group that it belongs to, instead of to who makes it. `capability` lets its programs use
        this API without a key: scopes that you have (`["read"]`), or a dict of `scopes`, `resources`,
        `expires_in` (seconds) and `budget_micro_usd`.
        Errors: InvalidInput, QuotaExceeded, Unauthenticated, Unsupported, Unavailable, ConnectionFailed.
        """
        api = connect(url, api_key)
        body = create_body(
            image=image,
            command=command,
            name=name,
            env=env,
            cwd=cwd,
            cpus=cpus,
            memory_mb=memory_mb,
            disk_mb=disk_mb,
            pids=pids,
            inodes=inodes,
            timeout=timeout,
            idle_timeout=idle_timeout,
            max_age=max_age,
            network=network,
            ports=ports,
            setup=setup,
            files=files,
            tty=tty,
            workspace=workspace,
            workspaces=workspaces,
            secrets=secrets,
            group=group,
            capability=capability,
        )
        timeout_s = BUILD_TIMEOUT_S if setup else CREATE_TIMEOUT_S
        return cls(api, sandbox_of(api.call("POST", "/v1/sessions", body, timeout_s=timeout_s, once=True)))

    @classmethod
    def connect(cls, sandbox_id: str, *, url: str | None = None, api_key: str | None = None) -> Sandbox:
        """A sandbox that exists; NotFound."""
        api = connect(url, api_key)
        return cls(api, sandbox_of(api.call("GET", target_of("/v1/sessions", sandbox_id))))

    @classmethod
    def list(
        cls, *, state: str | None = None, url: str | None = None, api_key: str | None = None
    ) -> Sequence[SandboxInfo]:
        """The sandboxes of this key, those that have ended included unless `state` says otherwise."""
        answer = connect(url, api_key).call("GET", target_of("/v1/sessions", status=state))
        return [sandbox_of(session) for session in answer["sessions"]]

    @classmethod
    def templates(cls, *, url: str | None = None, api_key: str | None = None) -> Sequence[TemplateInfo]:
        """What `image` can name on this server."""
        answer = connect(url, api_key).call("GET", "/v1/templates")
        return [template_of(template) for template in answer["templates"]]

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
        except NotFound:
            pass  # it ended, and its record is pruned or was removed

    def info(self) -> SandboxInfo:
        """What the server says about it now."""
        return sandbox_of(self._api.call("GET", self._base))

    def run(
        self,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: str | bytes | None = None,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        max_output_bytes: int | None = None,
        check: bool = False,
        secrets: Sequence[SecretUse | str] | None = None,
    ) -> Result:
        """Run a command to its end: a string is for the shell, a sequence is run as it is.

        `timeout` (seconds) kills it; its result then has `timed_out`. `on_stdout` and `on_stderr` get the text as it
        comes. At most `max_output_bytes` (8 MiB) of each stream are kept. `check` raises CommandFailed unless it
        exits with 0.
        """
        if on_stdout is None and on_stderr is None:
            body = run_body(
                command,
                cwd=cwd,
                env=env,
                timeout=timeout,
                stdin=stdin,
                max_output_bytes=max_output_bytes,
                secrets=secrets,
            )
            silence_s = None if timeout is None else timeout + RUN_SLACK_S
            result = result_of(self._api.call("POST", self._exec_target, body, timeout_s=silence_s))
        else:
            process = self.exec(command, cwd=cwd, env=env, timeout=timeout, stdin=stdin is not None, secrets=secrets)
            result = _collect(process, stdin, on_stdout, on_stderr, max_output_bytes or OUTPUT_BYTES_MAX)
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    def allow(self, names: Sequence[str]) -> None:
        """Another list of names and addresses for one that was made with a list: from now on it reaches these.

        Connections to others are cut. InvalidInput, Conflict for one that was made without a list.
        """
        self._api.call("PUT", f"{self._base}/network", allowed_body(names))

    def exec(
        self,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: bool = True,
        tty: tuple[int, int] | None = None,
        secrets: Sequence[SecretUse | str] | None = None,
    ) -> Process:
        """Start a command and return its stream; `stdin=False` gives it /dev/null."""
        return start_process(
            self._api,
            self.id,
            argv_of(command),
            cwd=cwd,
            env=environment(env),
            timeout=timeout,
            stdin=stdin,
            tty=tty,
            secrets=secrets,
        )

    def terminal(
        self,
        cols: int = 80,
        rows: int = 24,
        *,
        command: Command | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[SecretUse | str] | None = None,
    ) -> Process:
        """A shell, or `command`, in a terminal of its own."""
        return self.exec(SHELL if command is None else command, cwd=cwd, env=env, tty=(cols, rows), secrets=secrets)

    def attach(self, process_id: str = MAIN, *, offset: int = 0) -> Process:
        """The stream of a process that runs or ran, from byte `offset` of its output; the main one by default."""
        return Process.attach(self._api, self.id, process_id, offset)

    def processes(self) -> Sequence[ProcessInfo]:
        """Every process that was started through Atoll, ended ones included as long as they are remembered."""
        answer = self._api.call("GET", f"{self._base}/processes")
        return [process_of(process) for process in answer["processes"]]

    def logs(self) -> str:
        """The main process's output so far, as text."""
        pieces: list[bytes] = []
        for piece in self.read_logs():
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")

    def read_logs(self, *, offset: int = 0) -> Iterator[bytes]:
        """The main process's output so far, from byte `offset`, as far as it is kept."""
        target = target_of(f"{self._base}/logs", offset=offset or None)
        with self._api.stream(target, timeout_s=CREATE_TIMEOUT_S) as body:
            yield from body

    def follow_logs(self, *, offset: int = 0) -> Iterator[bytes]:
        """The main process's output from byte `offset`, until the process ends; goes on after a lost connection."""
        retry = Retry()
        while True:
            target = target_of(f"{self._base}/logs", follow=True, offset=offset)
            try:
                with self._api.stream(target, timeout_s=None) as body:
                    offset = max(offset, int(body.headers.get("atoll-offset") or offset))
                    for piece in body:
                        offset += len(piece)
                        retry.reset()
                        yield piece
                return
            except AtollError as error:
                retry.after(error)

    def watch(self, path: str = ".", *, ignored: Sequence[str] = ()) -> Watch:
        """Follow what changes below a directory, or of a file: iterate what this returns, and close it. The watch is in
        place when it returns. `ignored` are names or paths as in .gitignore. NotFound, InvalidInput, TooLarge for more
        than one watch holds."""
        return watch(self._api, self._base, path, ignored)

    def url(self, port: int) -> str:
        """Where that port of the sandbox is reached from here. NotFound unless it was declared in `ports`."""
        answer = self._api.call("GET", target_of(f"{self._base}/url", port=port))
        return str(answer["url"])

    def keepalive(self) -> None:
        """Start its idle time anew."""
        self._api.call("POST", f"{self._base}/keepalive")

    def pause(self) -> None:
        """Freeze it, memory kept. Unsupported where the runtime cannot."""
        self._api.call("POST", f"{self._base}/pause")

    def preview(self, port: int, *, public: bool | None = None, expires_in: float | None = None) -> str:
        """An address at which the port is reached from outside. Registers the port, privately unless `public`; one that
        is registered already keeps all that is not said here. Unless it is public, the address has a token in it, which
        opens this preview alone, for `expires_in` seconds (default: as the server has it)."""
        wanted = {"sandbox_id": self.id, "port": port}
        said = {} if public is None else {"public": public}
        shown = self._api.call("POST", "/preview/register", {**wanted, **said})
        if shown["public"]:
            return str(shown["preview_url"])
        lasts = {} if expires_in is None else {"expires_in": expires_in}
        return str((self._api.call("POST", "/preview/token", {**wanted, **lasts}))["url"])

    def suspend(self) -> None:
        """Stop it and keep what it takes to make it again, which its next use does. Conflict without a workspace."""
        self._api.call("POST", f"{self._base}/suspend", timeout_s=None)

    def resume(self) -> None:
        """Let a frozen or suspended one go on."""
        self._api.call("POST", f"{self._base}/resume")

    def stop(self) -> None:
        """TERM to everything in it, a grace time, then the end. Conflict when it has ended."""
        self._api.call("POST", f"{self._base}/stop", timeout_s=None)

    def kill(self, *, remove: bool = False) -> None:
        """End it at once; no error when it has ended. `remove` forgets its record too."""
        target = f"{self._base}?remove=true" if remove else self._base
        try:
            self._api.call("DELETE", target)
        except Conflict:
            if remove:  # it ended just now, by itself: the record is still there
                self._api.call("DELETE", target)


def _collect(
    process: Process,
    stdin: str | bytes | None,
    on_stdout: Callable[[str], Any] | None,
    on_stderr: Callable[[str], Any] | None,
    limit: int,
) -> Result:
    """Follow a process to its end, calling back and keeping up to `limit` bytes of each stream."""
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    callbacks = {"stdout": on_stdout, "stderr": on_stderr}
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in kept}
    truncated = False
    feeding = None if stdin is None else Background(_feed, process, stdin)
    try:
        for stream, data in process:
            room = limit - len(kept[stream])
            kept[stream] += data[:room]
            truncated = truncated or len(data) > room
            callback = callbacks[stream]
            text = decoders[stream].decode(data)
            if callback is not None and text:
                call(callback, text)
        for stream, callback in callbacks.items():
            text = decoders[stream].decode(b"", True)
            if callback is not None and text:
                call(callback, text)
        end = process.how_ended()
    finally:
        process.close()
        if feeding is not None:
            feeding.cancel()
    return Result(
        exit_code=end.code,
        stdout_bytes=bytes(kept["stdout"]),
        stderr_bytes=bytes(kept["stderr"]),
        signal=end.signal,
        timed_out=end.timed_out,
        oom_killed=end.oom_killed,
        truncated=truncated,
        duration_s=end.duration_s,
        process_id=process.id,
    )


def _feed(process: Process, stdin: str | bytes) -> None:
    process.write(stdin)
    process.close_stdin()
