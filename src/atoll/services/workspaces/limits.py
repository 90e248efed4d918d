"""Limits of the workspaces service, as one frozen value; atoll.limits fills it from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.domain.workspace import Quota, Reason

DAY_S = 24 * 3600.0
QUOTA, QUOTA_MAX = Quota(), Quota(100 * 2**30, 10_000_000)
AUTOMATIC = frozenset({Reason.PROCESS, Reason.STOP, Reason.SUSPEND, Reason.DAILY})


@dataclass(frozen=True, slots=True)
class WorkspaceLimits:
    """Bounds on what may be asked for, on what is kept, and on how long a part may take."""

    # what may be asked for
    quota: Quota = QUOTA  # of a workspace that does not say
    quota_max: Quota = QUOTA_MAX
    workspaces_per_key: int = 1_000  # of a standard key; owner and internal keys have no quota
    name_chars_max: int = 128
    text_chars_max: int = 4_096  # of a description or a message
    tags_max: int = 64
    import_bytes: int = 64 * 2**30
    import_entries: int = 2_000_000
    import_s: float = 3_600.0
    imports_per_key: int = 4  # at a time: each has a working tree of its own

    # revisions and snapshots
    automatic: frozenset[Reason] = AUTOMATIC  # reasons for which revisions are taken unasked
    touched_delay_s: float = 1.0  # from the end of a process to its revision: a burst of processes makes one
    daily_every_s: float = DAY_S
    revisions_kept: int = 200  # newest automatic ones of a workspace, and one of each day before
    snapshots_kept: int = 5  # newest ones of a workspace without a name, besides those to keep
    old_trees_max: int = 8  # of a workspace: trees that programs still use which were at work before a restore
    take_tries: int = 4  # of one revision against others that come between, or a tree that will not hold still

    # answers
    listed_max: int = 10_000
    diff_changes_max: int = 10_000
    diff_text_bytes_max: int = 2**18  # of each side of one file
    diff_texts_bytes_max: int = 8 * 2**20  # of all in one answer

    # memory
    stamps_cached_max: int = 200_000  # paths whose stamps stay in memory, over all trees

    # how long a part may take
    call_s: float = 30.0  # a short call to a runtime
    tree_s: float = 3_600.0  # reading or writing a whole tree
    close_s: float = 10.0  # for work under way when the server ends

    # reconciling and collecting
    settle_s: float = 5.0  # before the first pass: sandboxes that have ended are destroyed first
    reconcile_every_s: float = 60.0
    orphan_grace_s: float = 300.0  # of trees that no record knows
    collect_every_s: float = 3_600.0
    deleted_kept_s: float = DAY_S  # records of a deleted workspace
