"""Crash points: named places inside multi-step operations where tests stop the world; services and stores call `point`.

`ATOLL_CRASH_AT=<name>` in the environment kills the process there, as `kill -9` would. `ATOLL_CRASH_AT=@<file>` reads
the name from a file, which need not be there yet: so a running server is armed. Tests in one process arm a point with
an exception instead. Unarmed a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

POINTS: frozenset[str] = frozenset(
    {
        "sandboxes.create.recorded",  # PENDING is stored, nothing made
        "sandboxes.create.made",  # the sandbox exists, the record does not know
        "sandboxes.create.running",  # RUNNING is stored, nobody was told
        "sandboxes.stop.recorded",  # STOPPING is stored, TERM not sent
        "sandboxes.stop.signalled",  # the main process has ended, the sandbox exists
        "sandboxes.stop.destroyed",  # the sandbox is gone, the record says STOPPING
        "sandboxes.end.recorded",  # the end is stored, the sandbox exists
        "sandboxes.end.destroyed",  # the sandbox is gone, its final usage is not stored
        "sandboxes.exit.saved",  # the main process ended and its log is saved, the record says RUNNING
        "sandboxes.suspend.recorded",  # SUSPENDING is stored, its processes run
        "sandboxes.suspend.destroyed",  # the sandbox is gone, the record says SUSPENDING
        "sandboxes.resume.recorded",  # RESUMING is stored, nothing made
        "tasks.submit.recorded",  # a task waits, nobody was told
        "tasks.run.recorded",  # RUNNING is stored, nothing is made
        "tasks.run.made",  # its sandbox runs, the task does not name it
        "tasks.run.started",  # its agent runs, the task does not name it
        "tasks.run.agent_ended",  # ENDING is stored, with how the agent ended
        "tasks.end.destroyed",  # ... its sandbox is gone, no revision of its work was asked for
        "tasks.end.saved",  # ... there is one, the task says ENDING
        "tasks.end.recorded",  # the end is stored, nobody was told
        "idempotency.begun",  # a client's key is remembered, nothing is done
        "idempotency.done",  # the request had its effect, its answer is not kept
        "idempotency.answered",  # ... its answer is kept, nobody was told
        "backup.blobs_copied",  # a backup's blobs are in its store, its records are not
        "backup.records_stored",  # ... they are, no manifest says so
        "backup.object_copied",  # a pack is in the second store, the journal of copies does not know
        "backup.object_deleted",  # it is gone from there, the journal has it
        "agents.install.fetched",  # the package is there, nothing of it unpacked
        "agents.install.unpacked",  # the program is whole, under its partial name
        "agents.install.renamed",  # ... in its place, nobody was told
        "ledger.hold.taken",  # an amount is set aside, nothing is used
        "ledger.settle.done",  # what was used is charged, nobody was told
        "marketplace.ran",  # a worker has run for its caller, nothing is charged
        "objects.put.marked",  # an upload is whole, its file is not in the working tree
        "objects.put.written",  # ... it is, nobody was told
        "templates.build.baked",  # the layer has its partial name
        "keys.mint.written",  # the owner key is in its file, the records do not know it
        "records.migrate.begun",  # the migrations' transaction is open, nothing is changed
        "records.migrate.stepped",  # one migration has run, nothing is committed
        "records.migrate.done",  # all have, nothing is committed
        "records.write.before_commit",  # a mutation and its event are written, not committed
        "records.write.after_commit",  # ... committed, nobody was told
        "workspaces.pack.stored",  # a pack's object is stored, no record names it
        "workspaces.collect.forgotten",  # chunks are out of the records, their pack's record is there
        "workspaces.collect.unlisted",  # a pack's record is gone, its object is there
        "workspaces.collect.rewritten",  # a pack is written anew, the records name the old ones
        "workspaces.collect.moved",  # ... the records name the new one, the old objects are there
        "workspaces.collect.shredded",  # a lineage's key is gone, its packs are there
        "workspaces.collect.emptied",  # ... its objects are gone, its records are there
        "workspaces.create.keyed",  # a lineage is recorded, nothing is in it
        "workspaces.create.stored",  # ... the empty tree is, no workspace has it
        "workspaces.create.recorded",  # the workspace is stored, nobody was told
        "workspaces.tree.made",  # an empty working tree exists, no record names it
        "workspaces.tree.filled",  # ... it has all its files
        "workspaces.open.recorded",  # ... its workspace's record names it, nobody has it mounted
        "workspaces.take.stored",  # a revision's bytes are stored, no record names it
        "workspaces.take.recorded",  # it is the head, the stamps of its tree are those of the one before
        "workspaces.commit.stored",  # a pushed tree is stored, no record names it
        "workspaces.commit.recorded",  # it is the head, the working tree is as before
        "workspaces.follow.applied",  # the working tree is as the head, its stamps are as before
        "workspaces.restore.hydrated",  # a new tree has what is restored, the present one is not looked at yet
        "workspaces.restore.kept",  # what the restore would lose is a revision
        "workspaces.restore.recorded",  # the restored tree is the workspace's, sandboxes have the old one
        "workspaces.restore.swapped",  # sandboxes have the new one, the old one exists
        "workspaces.restore.left",  # what was written late in the old one is the head, the restored tree follows it
        "workspaces.fork.stored",  # a fork's tree is in its lineage, no workspace has it
        "workspaces.fork.recorded",  # the fork is stored, nobody was told
        "workspaces.merge.stored",  # a merged tree is stored, no record names it
        "workspaces.snapshot.taken",  # the state is a revision, no snapshot names it
        "workspaces.snapshot.copied",  # ... its bytes are stored under the snapshot's own key
        "workspaces.snapshot.recorded",  # the snapshot is stored, the old ones are still there
        "workspaces.snapshot.shredded",  # a snapshot's own key is gone, its record is there
        "workspaces.prune.chosen",  # what is beyond what is kept is known, and still there
        "workspaces.import.unpacked",  # an archive is in a new tree, no record names it
        "workspaces.import.stored",  # ... its bytes are stored, the tree is gone, no revision has them
        "workspaces.delete.recorded",  # the workspace is deleted, its tree exists
        "workspaces.delete.emptied",  # ... its tree is gone, its snapshots and keys are there
        "workspaces.delete.forgotten",  # ... its snapshots are gone, its lineage's key is there
        "blobs.put.written",  # the bytes have a partial name, none of them is surely on the disk
        "blobs.put.synced",  # ... all of them are
        "blobs.put.renamed",  # the object is there, its folder's entry is not surely on the disk
        "templates.build.renamed",  # the layer is whole, its description is not written
    }
)


def _die(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_at: str | None = os.environ.get("ATOLL_CRASH_AT") or None
_action: Callable[[str], None] = _die


def point(name: str) -> None:
    """Die here, or raise what a test armed, when `name` is the armed point."""
    if _at is not None and name == (_named_in(_at[1:]) if _at.startswith("@") else _at):
        _action(name)


def _named_in(file: str) -> str:
    try:
        with open(file) as opened:
            return opened.read()
    except FileNotFoundError:
        return ""


@contextmanager
def armed(name: str, action: Callable[[str], None]) -> Generator[None]:
    """Call `action(name)` at that point while the context lasts; KeyError for a name not in POINTS."""
    global _at, _action
    if name not in POINTS:
        raise KeyError(name)
    before = (_at, _action)
    _at, _action = name, action
    try:
        yield
    finally:
        _at, _action = before
