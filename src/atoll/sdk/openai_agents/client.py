"""AtollSandboxClient: makes sandboxes for the Agents SDK, finds them again, and ends them."""

from __future__ import annotations

import uuid

from agents.sandbox.errors import ConfigurationError, ErrorCode
from agents.sandbox.manifest import Manifest
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.domain.workspace import MOUNT_POINT
from atoll.sdk import AsyncSandbox, AsyncWorkspace
from atoll.sdk._async.api import AsyncApi, connect
from atoll.sdk.openai_agents.session import AtollSandboxSession
from atoll.sdk.openai_agents.state import AtollSandboxClientOptions, AtollSandboxSessionState


class AtollSandboxClient(BaseSandboxClient[AtollSandboxClientOptions | None]):
    """`url` and `api_key` default to ATOLL_URL and ATOLL_API_KEY, else to this machine's own server."""

    backend_id = "atoll"
    supports_default_options = True

    def __init__(
        self,
        *,
        url: str | None = None,
        api_key: str | None = None,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        super().__init__()
        self._url, self._api_key = url, api_key
        self._instrumentation = instrumentation if instrumentation is not None else Instrumentation()
        self._dependencies = dependencies

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: AtollSandboxClientOptions | None = None,
    ) -> SandboxSession:
        manifest = Manifest() if manifest is None else manifest
        self._validate_manifest_for_create(manifest)
        if manifest.root != MOUNT_POINT:
            raise _misconfigured(f"an Atoll sandbox has its workspace at {MOUNT_POINT}, not at {manifest.root}")
        options = options or AtollSandboxClientOptions()
        api = self._api()
        sandbox = await self._make(api, options)
        session_id = uuid.uuid4()
        state = AtollSandboxSessionState(
            session_id=session_id,
            manifest=manifest,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            url=api.config.url,
            sandbox_id=sandbox.id,
            exposed_ports=options.exposed_ports,
            options=options.model_dump(mode="json"),
        )
        return self._wrapped(AtollSandboxSession(state=state, sandbox=sandbox, api=api))

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """End the sandbox. A workspace that it has stays."""
        inner = session._inner  # pyright: ignore[reportPrivateUsage] - as the SDK's own clients do
        if not isinstance(inner, AtollSandboxSession):
            raise TypeError("AtollSandboxClient.delete expects an AtollSandboxSession")
        await inner.shutdown()
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """The same sandbox where it still is, also after a restart of the server; else one like it, with the same
        workspace."""
        if not isinstance(state, AtollSandboxSessionState):
            raise TypeError("AtollSandboxClient.resume expects an AtollSandboxSessionState")
        state.assert_path_grants_rebound()
        api, options = connect(self._url or state.url, self._api_key), state.asked()
        sandbox = await self._found(api, state.sandbox_id)
        found = sandbox is not None
        if sandbox is None:
            sandbox = await self._make(api, options)
            state.sandbox_id, state.url = sandbox.id, api.config.url
            state.workspace_root_ready = options.workspace is not None and state.workspace_root_ready
        session = AtollSandboxSession(state=state, sandbox=sandbox, api=api)
        session._set_start_state_preserved(found or options.workspace is not None, system=found)  # pyright: ignore[reportPrivateUsage]
        return self._wrapped(session)

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        return self._deserialize_session_state_payload(payload, AtollSandboxSessionState)

    def _api(self) -> AsyncApi:
        try:
            return connect(self._url, self._api_key)
        except AtollError as error:
            raise _misconfigured(error.message) from error

    def _wrapped(self, session: AtollSandboxSession) -> SandboxSession:
        return self._wrap_session(session, instrumentation=self._instrumentation)

    async def _make(self, api: AsyncApi, options: AtollSandboxClientOptions) -> AsyncSandbox:
        url, key = api.config.url, api.config.api_key
        ports = list(options.exposed_ports) or None
        try:
            if options.workspace is not None:
                await _workspace_made(options.workspace, url, key)
            return await AsyncSandbox.create(
                options.image,
                name=options.name,
                env=options.env,
                cwd=MOUNT_POINT,
                cpus=options.cpus,
                memory_mb=options.memory_mb,
                timeout=options.timeout_s,
                idle_timeout=options.idle_timeout_s,
                network=options.network,
                ports=ports,
                workspace=options.workspace,
                url=url,
                api_key=key,
            )
        except AtollError as error:
            raise _misconfigured(error.message) from error

    async def _found(self, api: AsyncApi, sandbox_id: str) -> AsyncSandbox | None:
        """The sandbox where it still lives. One that rests is woken by its next use."""
        try:
            sandbox = await AsyncSandbox.connect(sandbox_id, url=api.config.url, api_key=api.config.api_key)
        except NotFound:
            return None
        return sandbox if sandbox.created.live else None


async def _workspace_made(name: str, url: str, key: str) -> None:
    try:
        await AsyncWorkspace.get(name, url=url, api_key=key)
    except NotFound:
        try:
            await AsyncWorkspace.create(name, url=url, api_key=key)
        except Conflict:
            pass  # somebody was quicker


def _misconfigured(message: str) -> ConfigurationError:
    return ConfigurationError(
        message=message, error_code=ErrorCode.SANDBOX_CONFIG_INVALID, op="start", context={"backend": "atoll"}
    )
