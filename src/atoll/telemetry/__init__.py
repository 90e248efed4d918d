"""Logs and metrics of the server: what every room above may write to, and operators read."""
