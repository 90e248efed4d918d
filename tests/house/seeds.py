"""The endpoints that the seeds' documents name, written down from them by hand, with the seed's number.

test_endpoints.py holds docs/endpoints.md and the running application to this list.
"""

from __future__ import annotations

WS = "WS"  # a WebSocket: a GET that is upgraded
ALL = "ALL"  # any method

# (seed, method, path), parameters as the document spells them.
SEEDS: tuple[tuple[str, str, str], ...] = (
    # 000, Testbase Cloud Infrastructure: "API Endpoints", "Admin API", "Billing System"
    ("000", "POST", "/execute"),
    ("000", "GET", "/health"),
    ("000", "GET", "/metrics"),
    ("000", "POST", "/cache/clear"),
    ("000", "POST", "/admin/keys"),
    ("000", "GET", "/admin/keys"),
    ("000", "GET", "/admin/keys/{id}"),
    ("000", "POST", "/admin/keys/{id}/revoke"),
    ("000", "GET", "/billing/account"),
    ("000", "GET", "/billing/stats"),
    ("000", "GET", "/billing/usage"),
    ("000", "GET", "/billing/transactions"),
    ("000", "GET", "/billing/workspaces"),
    ("000", "POST", "/billing/admin/{apiKeyId}/credits"),
    ("000", "POST", "/billing/admin/{apiKeyId}/limits"),
    # 001, Testbase Cloud Platform: "REST API reference", "API key management", "Billing system"
    ("001", "POST", "/execute"),
    ("001", "GET", "/health"),
    ("001", "GET", "/billing/account"),
    ("001", "POST", "/admin/keys"),
    # 002, Cloud Terminal Platform: "API Endpoints", "Monitoring", "API Documentation"
    ("002", "POST", "/sandboxes"),
    ("002", "POST", "/sandboxes/{id}/exec"),
    ("002", "POST", "/sandboxes/{id}/files"),
    ("002", "GET", "/sandboxes/{id}/files"),
    ("002", "GET", "/sandboxes/{id}/files/{path}"),
    ("002", "POST", "/sandboxes/{id}/preview"),
    ("002", "POST", "/sandboxes/{id}/keepalive"),
    ("002", "POST", "/sandboxes/{id}/mount"),
    ("002", "POST", "/sandboxes/{id}/background"),
    ("002", "DELETE", "/sandboxes/{id}/background/{job_id}"),
    ("002", WS, "/sandboxes/{id}/terminal"),
    ("002", "GET", "/health"),
    ("002", "GET", "/health/ready"),
    ("002", "GET", "/metrics"),
    ("002", "POST", "/snapshot/create"),
    ("002", "POST", "/snapshot/restore"),
    ("002", "GET", "/snapshot/list"),
    ("002", "DELETE", "/snapshot/{snapshot_id}"),
    ("002", "POST", "/workspaces"),
    ("002", "GET", "/workspaces"),
    ("002", "GET", "/workspaces/{id}"),
    ("002", "DELETE", "/workspaces/{id}"),
    ("002", "POST", "/workspaces/{id}/exec"),
    ("002", "POST", "/workspaces/{id}/share"),
    ("002", "GET", "/workspaces/{id}/collaborators"),
    ("002", "DELETE", "/workspaces/{id}/share/{agent_id}"),
    ("002", "POST", "/marketplace/publish"),
    ("002", "GET", "/marketplace/search"),
    ("002", "GET", "/marketplace/{worker_id}"),
    ("002", "POST", "/preview/register"),
    ("002", "GET", "/preview/list"),
    ("002", ALL, "/preview/{sandbox_id}/{port}/{path}"),
    ("002", "GET", "/docs"),
    ("002", "GET", "/redoc"),
    # 003, execbox-cloud: "API Endpoints"
    ("003", "POST", "/v1/sessions"),
    ("003", "GET", "/v1/sessions/{id}"),
    ("003", "GET", "/v1/sessions"),
    ("003", "POST", "/v1/sessions/{id}/stop"),
    ("003", "DELETE", "/v1/sessions/{id}"),
    ("003", WS, "/v1/sessions/{id}/attach"),
    ("003", WS, "/v1/sessions/{id}/exec"),
    ("003", "POST", "/v1/sessions/{id}/files"),
    ("003", "GET", "/v1/sessions/{id}/files"),
    ("003", "GET", "/v1/sessions/{id}/url"),
    ("003", "GET", "/health"),
    # 004, ComputeSDK: "API Overview", "Production Considerations"; wire.md 5.7 has the rest of the four resources
    ("004", "POST", "/auth/login"),
    ("004", "POST", "/auth/api-keys"),
    ("004", "POST", "/api/computes"),
    ("004", "GET", "/api/computes"),
    ("004", WS, "/compute/{instance-id}/terminal"),
    ("004", "POST", "/api/filesystems"),
    ("004", "GET", "/api/filesystems"),
    ("004", "POST", "/api/groups"),
    ("004", "GET", "/api/groups"),
    ("004", "GET", "/metrics"),
)
