"""Atoll's own dialect of workspaces, `/v1/workspaces`: docs/workspaces-api.md is its contract."""
