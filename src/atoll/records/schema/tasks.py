"""The tables of tasks, of what happened in them, and of the threads that they continue."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from atoll.records.schema.columns import Utc, metadata, some_rows

tasks = Table(
    "tasks",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("credential", String, nullable=False),
    Column("workspace", String, nullable=False),
    Column("thread", String, nullable=False),
    Column("state", String, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("end", String),
    Column("spec", Text, nullable=False),  # JSON
    Column("output", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("sandbox", String),
    Column("process", String),
    Column("read_offset", BigInteger, nullable=False),
    Column("tokens", Text, nullable=False),  # JSON
    Column("cost", BigInteger, nullable=False),
    Column("internal", Boolean, nullable=False),
    Column("detail", Text, nullable=False),  # JSON: who asked, in what is needed to do it in their name later
    Column("created_at", Utc, nullable=False),
    Column("started_at", Utc),
    Column("ended_at", Utc),
    Column("claimed_by", String, nullable=False),
    Column("claimed_until", Utc),
    Column("cancel_asked", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Index(None, "owner", "created_at"),
    Index(None, "thread", "created_at"),
    Index(None, "workspace", "created_at"),
    Index(None, "ended_at"),
    some_rows("ix_tasks_live", "owner", "created_at", where="live"),
)

task_events = Table(
    "task_events",
    metadata,
    Column("task", String, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("type", String, nullable=False),
    Column("at", Utc, nullable=False),
    Column("data", Text, nullable=False),  # JSON
)

threads = Table(
    "threads",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("workspace", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("agent_thread", String, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("last_at", Utc, nullable=False),
    Column("deleted_at", Utc),
    Column("version", Integer, nullable=False),
    Index(None, "owner", "last_at"),
)
