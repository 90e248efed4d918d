"""Bytes out of sandboxes: Atoll's own API for those that have a capability, and the names that others may reach."""
