"""AtollSandboxSession: what the Agents SDK asks of a sandbox, over Atoll's own client."""

# ruff: noqa: ASYNC109 (a timeout in seconds is part of the SDK's calls)
from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortUnavailableError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceStartError,
    WorkspaceWriteTypeError,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.mount_lifecycle import with_ephemeral_mounts_removed
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.runtime_helpers import RESOLVE_WORKSPACE_PATH_HELPER, RuntimeHelperScript
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from agents.sandbox.workspace_paths import coerce_posix_path, posix_path_as_path, sandbox_path_str

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.sdk import AsyncSandbox, AsyncWorkspace
from atoll.sdk._async.api import AsyncApi
from atoll.sdk.openai_agents import snapshots
from atoll.sdk.openai_agents.ports import address_of
from atoll.sdk.openai_agents.state import AtollSandboxSessionState
from atoll.sdk.openai_agents.terminals import Terminals

EXEC_TIMEOUT_S = 600.0  # of a command that says none
OUTPUT_BYTES_MAX = 8 * 2**20
TERMINAL = (80, 24)


class AtollSandboxSession(BaseSandboxSession):
    """One sandbox. The client makes it: `AtollSandboxClient.create`, `resume`."""

    state: AtollSandboxSessionState

    def __init__(self, *, state: AtollSandboxSessionState, sandbox: AsyncSandbox, api: AsyncApi) -> None:
        self.state = state  # pyright: ignore[reportIncompatibleVariableOverride] - as the SDK's own do
        self._sandbox = sandbox
        self._api = api
        self._terminals = Terminals()

    @property
    def sandbox(self) -> AsyncSandbox:
        """The sandbox itself, for what this SDK has no word for."""
        return self._sandbox

    # lifecycle

    async def running(self) -> bool:
        try:
            info = await self._sandbox.info()
        except AtollError:
            return False
        return info.state == "running" and not info.paused  # one that rests wakes with its next use

    async def _prepare_backend_workspace(self) -> None:
        root = self._workspace_root_path()
        try:
            await self._sandbox.files.mkdir(root.as_posix())
        except AtollError as error:
            raise WorkspaceStartError(path=root, cause=error, retryable=error.retryable) from error

    async def _shutdown_backend(self) -> None:
        try:
            await self._sandbox.kill()
        except (NotFound, Conflict):
            pass  # it is gone already

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    def _current_runtime_helper_cache_key(self) -> object | None:
        return self.state.sandbox_id

    # commands

    async def _exec_internal(self, *command: str | Path, timeout: float | None = None) -> ExecResult:
        argv = [str(word) for word in command]
        timeout_s = EXEC_TIMEOUT_S if timeout is None else timeout
        try:
            ran = await self._sandbox.run(
                argv,
                cwd=self._working_folder(),
                env=await self._environment(),
                timeout=timeout_s,
                max_output_bytes=OUTPUT_BYTES_MAX,
            )
        except AtollError as error:
            raise ExecTransportError(
                command=argv, cause=error, message=error.message, retryable=error.retryable
            ) from error
        if ran.timed_out:
            raise ExecTimeoutError(command=argv, timeout_s=timeout_s)
        return ExecResult(stdout=ran.stdout_bytes, stderr=ran.stderr_bytes, exit_code=ran.exit_code)

    def supports_pty(self) -> bool:
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        argv = self._prepare_exec_command(*command, shell=shell, user=user)
        try:
            process = await self._sandbox.exec(
                argv,
                cwd=self._working_folder(),
                env=await self._environment(),
                timeout=timeout,
                stdin=tty,
                tty=TERMINAL if tty else None,
            )
        except AtollError as error:
            raise ExecTransportError(
                command=argv, cause=error, message=error.message, retryable=error.retryable
            ) from error
        return await self._terminals.add(
            process, tty=tty, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
        )

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        return await self._terminals.write(
            session_id, chars, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
        )

    async def pty_terminate_all(self) -> None:
        await self._terminals.end_all()

    def _working_folder(self) -> str | None:
        """Until the workspace is there, commands start where the sandbox says: some of them make it."""
        return self._workspace_root_path().as_posix() if self.state.workspace_root_ready else None

    async def _environment(self) -> dict[str, str]:
        return dict(await self.state.manifest.environment.resolve())

    # files

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        return await self._validate_remote_path_access(path, for_write=for_write)

    async def read(self, path: Path | str, *, user: str | User | None = None) -> io.IOBase:
        if user is not None:
            await self._check_read_with_exec(path, user=user)
        checked = await self._validate_path_access(path)
        try:
            return io.BytesIO(await self._sandbox.files.read_bytes(sandbox_path_str(checked)))
        except NotFound as error:
            raise WorkspaceReadNotFoundError(path=checked, cause=error) from error
        except AtollError as error:
            raise WorkspaceArchiveReadError(
                path=checked, context={"message": error.message}, cause=error, retryable=error.retryable
            ) from error

    async def write(self, path: Path | str, data: io.IOBase, *, user: str | User | None = None) -> None:
        if user is not None:
            await self._check_write_with_exec(path, user=user)
        payload: object = data.read()
        if isinstance(payload, str):
            payload = payload.encode()
        if not isinstance(payload, bytes | bytearray):
            wrong = posix_path_as_path(coerce_posix_path(path))
            raise WorkspaceWriteTypeError(path=wrong, actual_type=type(payload).__name__)
        checked = await self._validate_path_access(path, for_write=True)
        try:
            await self._sandbox.files.write(sandbox_path_str(checked), bytes(payload))
        except AtollError as error:
            raise WorkspaceArchiveWriteError(
                path=checked, cause=error, retryable=error.retryable, message=error.message
            ) from error

    # snapshots

    async def persist_workspace(self) -> io.IOBase:
        root = self._workspace_root_path()
        return await with_ephemeral_mounts_removed(
            self,
            self._persist,
            error_path=root,
            error_cls=WorkspaceArchiveReadError,
            operation_error_context_key="snapshot_error_before_remount_corruption",
        )

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        root = self._workspace_root_path()
        await with_ephemeral_mounts_removed(
            self,
            lambda: self._hydrate(data),
            error_path=root,
            error_cls=WorkspaceArchiveWriteError,
            operation_error_context_key="hydrate_error_before_remount_corruption",
        )

    async def _persist(self) -> io.IOBase:
        skip, workspace = self._persist_workspace_skip_relpaths(), self.state.asked().workspace
        try:
            if workspace is not None and not skip:
                return io.BytesIO(await snapshots.keep(await self._workspace(workspace)))
            return io.BytesIO(await snapshots.pack(self._api, self.state.sandbox_id, skip))
        except AtollError as error:
            root = self._workspace_root_path()
            raise WorkspaceArchiveReadError(
                path=root, context={"message": error.message}, cause=error, retryable=error.retryable
            ) from error

    async def _hydrate(self, data: io.IOBase) -> None:
        root, own = self._workspace_root_path(), self.state.asked().workspace
        payload: Any = data.read()
        try:
            kept = snapshots.named(payload)
            if kept is not None:
                workspace = await self._workspace(kept.workspace)
                if own is not None and (await self._workspace(own)).id == workspace.id:
                    await workspace.restore(kept.snapshot)
                    return
                payload = await snapshots.archive_of(workspace, kept.snapshot)
            await snapshots.unpack(self._api, self.state.sandbox_id, payload)
        except AtollError as error:
            raise WorkspaceArchiveWriteError(
                path=root, cause=error, retryable=error.retryable, message=error.message
            ) from error

    async def _workspace(self, name: str) -> AsyncWorkspace:
        config = self._api.config
        return await AsyncWorkspace.get(name, url=config.url, api_key=config.api_key)

    # ports

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        try:
            return await address_of(self._api, self._sandbox, port)
        except AtollError as error:
            raise ExposedPortUnavailableError(
                port=port,
                exposed_ports=self.state.exposed_ports,
                reason="backend_unavailable",
                context={"backend": "atoll", "detail": error.message},
                cause=error,
                retryable=error.retryable,
            ) from error
