"""Limits: every bound and deadline that the services keep, as one frozen value; filled from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.domain.host_mount import MountRoot


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a sandbox may ask for, on what one server holds, and on how long a part may take."""

    # what one sandbox may ask for
    cpu_millis_min: int = 10
    cpu_millis_max: int = 8_000
    memory_bytes_min: int = 16 * 2**20
    memory_bytes_max: int = 8 * 2**30
    pids_min: int = 8
    pids_max: int = 32_768
    disk_bytes_min: int = 2**20
    disk_bytes_max: int = 64 * 2**30
    inodes_min: int = 256
    inodes_max: int = 4_000_000
    timeout_s_min: float = 0.1
    timeout_s_max: float | None = 24 * 3600.0  # None: no bound; likewise the next two
    idle_s_max: float | None = None
    idle_suspend_s: float | None = None  # idle time of those with a workspace that do not say
    suspend_idle: bool = True  # those with a workspace rest at the end of their idle time, rather than end
    max_age_s_max: float | None = None  # holds for those that ask for no age too
    argv_max: int = 4_096  # arguments of one command
    argv_bytes_max: int = 128 * 2**10
    env_max: int = 1_024  # variables
    env_bytes_max: int = 128 * 2**10
    ports_max: int = 32
    allow_max: int = 1_000  # names and addresses that one sandbox may reach
    setup_lines_max: int = 100
    setup_bytes_max: int = 256 * 2**10
    files_max: int = 1_000
    files_bytes_max: int = 16 * 2**20
    path_bytes_max: int = 4_096
    name_chars_max: int = 128

    # what one server holds
    sandboxes_per_key: int = 100  # live ones of a standard key; owner and internal keys have no quota
    sandboxes_max: int = 5_000  # live ones in all
    output_bytes_max: int = 8 * 2**20  # of each stream of one `run`
    stdin_bytes_max: int = 10 * 2**20  # of one `run`
    log_bytes_max: int = 4 * 2**20  # of a saved log
    terminals_per_sandbox: int = 32
    jobs_per_sandbox: int = 16  # background jobs
    mount_roots: tuple[MountRoot, ...] = ()  # folders of the host that sandboxes may mount
    mounts_never: tuple[str, ...] = ()  # ... and those of them that they may not, with all that is in them
    builds_max: int = 2  # at once
    builds_waiting_max: int = 64
    layers_max: int = 50  # baked template layers kept; the least recently used go first
    layers_bytes_max: int = 20 * 2**30  # that all of them allocate; likewise, but none in use goes
    tcp_streams_per_sandbox: int = 256  # through the listeners of its exposed ports
    tcp_streams_per_key: int = 512  # likewise, of all of its sandboxes
    tcp_streams_max: int = 2_048  # likewise, in all
    gate_streams_per_sandbox: int = 256  # out of it, to the API and to names that it may reach
    gate_streams_per_owner: int = 1_024  # likewise, of all of an owner's sandboxes
    gate_streams_max: int = 4_096  # likewise, in all

    # how long a part may take
    make_s: float = 30.0
    destroy_s: float = 15.0
    call_s: float = 30.0  # a short call to a sidekick or a runtime
    remove_s: float = 120.0  # a whole tree inside a sandbox
    half_closed_s: float = 60.0  # silence of one side of a port's connection after the other has ended
    attach_drain_s: float = 5.0  # for attached clients to read the end of a main process
    stop_grace_s: float = 10.0
    wake_port_s: float = 20.0  # after a sandbox was woken, for its main process to listen
    stop_grace_s_max: float = 300.0
    close_s: float = 5.0  # for operations under way when the server ends
    build_s: float = 900.0  # a whole template build
    setup_line_s: float = 600.0

    # reconciling
    reconcile_every_s: float = 10.0
    missing_grace_s: float = 0.5  # for the runtime's own word on a sandbox that is not there any more
    unanswered_apart_s: float = (
        5.0  # between the times that nobody was there to be asked, which make a sandbox a lost one
    )
    orphan_grace_s: float = 30.0
    usage_flush_max: int = 100  # records per pass
    ended_kept_s: float = 7 * 24 * 3600.0
    requests_kept_s: float = 24 * 3600.0  # that are to have one effect: their answers
    requests_max: int = 100_000  # of those, each owner's newest
    key_use_kept_s: float = 30 * 24 * 3600.0
