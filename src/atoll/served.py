"""What an application serves: the operations of every surface, with the dialect in which each speaks of errors.

The composition root makes routes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import atoll
from atoll.domain.principal import Principal
from atoll.limits import model_providers
from atoll.services.account_keys import AccountKeys
from atoll.services.accounts import Accounts
from atoll.services.billing import Billing
from atoll.services.billing_admin import BillingAdmin
from atoll.services.daemon.port_urls import PortUrls
from atoll.services.daemon.tools import Tools
from atoll.services.home_sandboxes import HomeSandboxes
from atoll.services.jobs.jobs import Jobs
from atoll.services.key_admin import KeyAdmin
from atoll.services.lasting_sandboxes import LastingSandboxes
from atoll.services.models.dialects import Kind
from atoll.services.objects.listing import Listing
from atoll.services.objects.objects import Objects
from atoll.services.quota_overrides import QuotaOverrides
from atoll.services.sandbox_names import SandboxNames
from atoll.services.signup import Signup
from atoll.services.tasks.history import TaskHistory
from atoll.services.terminals import Terminals
from atoll.services.workspaces.names import WorkspaceNames
from atoll.services.workspaces.parts import Parts
from atoll.settings.listen import Address
from atoll.surfaces.agents_sdk.errors import AgentsDialect
from atoll.surfaces.agents_sdk.routes import operations as agents_sdk_operations
from atoll.surfaces.computesdk.auth import operations as auth_operations
from atoll.surfaces.computesdk.capabilities import operations as capability_operations
from atoll.surfaces.computesdk.computes import operations as computes_operations
from atoll.surfaces.computesdk.errors import ComputeDialect
from atoll.surfaces.computesdk.events import operations as event_operations
from atoll.surfaces.computesdk.gateway_errors import GatewayDialect
from atoll.surfaces.computesdk.groups import operations as group_operations
from atoll.surfaces.computesdk.quotas import operations as quota_operations
from atoll.surfaces.computesdk.routes import operations as compute_operations
from atoll.surfaces.computesdk.secrets import operations as secret_operations
from atoll.surfaces.computesdk.terminal import operations as compute_terminal
from atoll.surfaces.computesdk.user_keys import operations as user_key_operations
from atoll.surfaces.computesdk.users import operations as user_operations
from atoll.surfaces.computesdk.webhooks import operations as webhook_operations
from atoll.surfaces.execbox.account_routes import account_operations, signup_operations
from atoll.surfaces.execbox.routes import operations as execbox_operations
from atoll.surfaces.listeners import SERVICES, TESTBASE, Listener, Ops
from atoll.surfaces.objects.door import ObjectDoor
from atoll.surfaces.objects.handlers import ObjectHandlers
from atoll.surfaces.objects.routes import operations as access_key_operations
from atoll.surfaces.operation import Operation
from atoll.surfaces.ops.health import Health, Probe
from atoll.surfaces.ops.machine import configured, disk, memory, mount_of_buckets
from atoll.surfaces.ops.pages import Pages
from atoll.surfaces.ops.routes import operations as ops_operations
from atoll.surfaces.routing import Dialect, PathRoute, routes
from atoll.surfaces.sidekick.errors import SidekickDialect
from atoll.surfaces.sidekick.furnishing import Furnishing
from atoll.surfaces.sidekick.routes import operations as sidekick_operations
from atoll.surfaces.sidekick.tools import tool_operations
from atoll.surfaces.terminal_platform.errors import TerminalDialect
from atoll.surfaces.terminal_platform.marketplace import marketplace_operations
from atoll.surfaces.terminal_platform.previews import operations as preview_operations
from atoll.surfaces.terminal_platform.routes import operations as terminal_operations
from atoll.surfaces.terminal_platform.sandbox_routes import SandboxApi, sandbox_operations
from atoll.surfaces.testbase.billing_routes import billing_admin_operations, billing_operations
from atoll.surfaces.testbase.errors import AdminDialect, TestbaseDialect
from atoll.surfaces.testbase.file_routes import file_operations
from atoll.surfaces.testbase.routes import admin_operations
from atoll.surfaces.testbase.task_routes import task_operations
from atoll.surfaces.testbase.workspaces import workspace_operations as testbase_workspaces
from atoll.surfaces.workspaces.routes import operations as workspace_operations

if TYPE_CHECKING:
    from atoll.app import Application

NOBODY = "sess_000000000000"  # whether the runtime answers is found out by asking for a sandbox that cannot be


def ops_of(app: Application) -> Ops:
    """What operators and machines ask for, at every port."""
    probes: dict[str, Probe] = {
        "records": lambda: app.records.ping(),
        "runtime": lambda: app.runtime.find(NOBODY),
        "blobs": lambda: app.blobs.ping(),
        "isolation": app.isolation.check,
    }
    told: dict[str, Callable[[], dict[str, Any]]] = {}
    if app.second_store is not None:
        told["second_store"] = app.second_store.describe
    openai = Kind.OPENAI in {one.kind for one in model_providers(app.settings).all}  # some need no key
    told |= {
        "openaiApiKey": lambda: configured(openai),
        "memory": memory,
        "disk": lambda: disk(app.settings.data),
        "gcsfuseMount": lambda: mount_of_buckets(app.settings.objects.enabled),
    }
    history = TaskHistory(app.records)
    health = Health(probes, app.metrics, atoll.__version__, told, history)
    metrics = app.metrics if app.settings.api.metrics else None
    return Ops(health, metrics, history, app.settings.api.docs, atoll.__version__)


def listeners_of(app: Application) -> list[tuple[Address, Listener]]:
    """Services with a port of their own, behind the door of the one that serves everything."""
    paths = [route for route in app.routes if isinstance(route, PathRoute)]
    found: list[tuple[Address, Listener]] = []
    for address in app.settings.listen.addresses(app.settings.server.host):
        service = next(one for one in SERVICES if f"listen.{one.name}" == address.setting)
        own: list[PathRoute] = []
        if service is TESTBASE:
            operations = app.once.around(testbase_workspaces(app.workspaces, app.settings))
            own = routes(operations, app.door, TestbaseDialect())
        listener = Listener(service, paths, app.ops, lambda some: routes(some, app.door, app.dialect), own)
        found.append((address, listener))
    return found


def served_by(app: Application) -> list[tuple[Dialect, list[Operation]]]:
    """What is served, by how it speaks of errors."""
    ops = app.ops
    key_admin = KeyAdmin(app.keys, app.records, app.admin_key)
    administrators = AdminDialect(configured=app.admin_key.configured)
    billing = Billing(app.records, app.ledger)
    billing_admin = BillingAdmin(app.records, app.ledger, billing, configured=app.admin_key.configured)
    pages = Pages(app.openapi) if ops.docs else None
    lasting = LastingSandboxes(app.sandboxes, SandboxNames(app.records))
    return [
        (app.dialect, execbox_operations(app.sandboxes, app.settings)),
        (app.dialect, workspace_operations(app.workspaces, app.settings)),
        (AgentsDialect(), agents_sdk_operations(app.sandboxes, lasting, app.settings)),
        (TerminalDialect(), terminal_operations(app.workspaces, app.settings)),
        (TerminalDialect(), sandbox_operations(sandbox_api(app), app.settings)),
        (TerminalDialect(), preview_operations(app.showing.previews, app.settings)),
        (TerminalDialect(), marketplace_operations(app.marketplace, app.settings)),
        (ComputeDialect(), _compute(app)),
        (SidekickDialect(), _sidekick(app)),
        (GatewayDialect(), app.computes.gateway()),
        (administrators, admin_operations(key_admin, app.settings)),
        (administrators, billing_admin_operations(billing_admin, billing, app.settings)),
        (TestbaseDialect(), billing_operations(billing)),
        (TestbaseDialect(), file_operations(app.workspaces, app.settings)),
        (TestbaseDialect(), task_operations(app.tasks, ops.history, WorkspaceNames(app.records), app.settings)),
        (app.dialect, _accounts(app)),
        (app.dialect, ops_operations(ops.health, ops.metrics, pages, ops.history)),
    ]


def sandbox_api(app: Application) -> SandboxApi:
    """The Terminal Platform's Sandbox API."""
    homes = _homes(app)
    terminals, jobs = Terminals(app.sandboxes), Jobs(app.sandboxes)

    async def show(principal: Principal, sandbox_id: str, port: int, base: str) -> str:
        previews = app.showing.previews
        return previews.url(await previews.shown(principal, sandbox_id, port), base)

    return SandboxApi(homes, app.sandboxes, terminals, jobs, app.sandbox_tokens, show)


def _homes(app: Application) -> HomeSandboxes:
    return HomeSandboxes(app.sandboxes, app.workspaces, SandboxNames(app.records))


def tools_of(app: Application) -> Tools:
    """What the sidekick API keeps in sandboxes; new ones of ComputeSDK's gateway come with some of it."""
    own = app.settings.server
    base = own.public_url or f"http://{own.host}:{own.port}"
    urls = PortUrls(app.showing.previews, base)
    tools = Tools(app.records, app.sandboxes, app.hubs, urls, app.settings.folder.overlays)
    furnishing = Furnishing(tools)
    app.computes.furnish, app.computes.furniture = furnishing.furnish, furnishing.furniture
    return tools


def object_door(app: Application, parts: Parts) -> ObjectDoor:
    """What clients of object stores speak to, at a port of its own."""
    own = app.settings.objects
    objects = Objects(parts, app.workspaces, app.settings.folder.uploads, object_bytes=own.object_bytes)
    handlers = ObjectHandlers(objects, Listing(parts, objects), bucket=own.bucket, object_bytes=own.object_bytes)
    return ObjectDoor(app.door, app.access_keys, handlers.table(), bucket=own.bucket, skew_s=own.clock_skew_s)


def _compute(app: Application) -> list[Operation]:
    """All that stands below /auth and /api."""
    settings = app.settings
    return [
        *compute_operations(app.workspaces, settings),
        *computes_operations(app.sandboxes, app.audit.events, settings),
        *event_operations(app.audit.events),
        *webhook_operations(app.webhooks, settings),
        *auth_operations(app.auth, settings),
        *user_key_operations(app.auth, settings),
        *user_operations(app.auth, settings),
        *quota_operations(app.quotas, QuotaOverrides(app.records, app.quotas), settings),
        *group_operations(app.groups, settings),
        *capability_operations(app.capabilities, settings),
        *secret_operations(app.secrets, settings),
        *access_key_operations(app.access_keys),
        *compute_terminal(_homes(app), Terminals(app.sandboxes)),
    ]


def _sidekick(app: Application) -> list[Operation]:
    """All that stands below /sb/{id}."""
    settings = app.settings
    terminals = Terminals(app.sandboxes, per_sandbox=settings.sandboxes.terminals)
    return [
        *sidekick_operations(app.sandboxes, terminals, app.hubs, settings),
        *app.computes.daemons(),
        *tool_operations(app.tools, settings),
    ]


def _accounts(app: Application) -> list[Operation]:
    """Of accounts, and for strangers where the settings say so."""
    accounts = Accounts(app.records, app.quotas)
    keys = AccountKeys(app.records, app.keys, app.capabilities, app.quotas)
    found = account_operations(accounts, keys, app.settings)
    own = app.settings.accounts
    if not own.waitlist:
        return found
    signup = Signup(app.records, keys_max=own.waitlist_max, requests_max=own.requests_max)
    return [*found, *signup_operations(signup, app.settings)]
