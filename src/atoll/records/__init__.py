"""Plug point: where facts live. `base` is the contract; `sql` keeps them in SQLite or PostgreSQL."""
