"""Child: what the node's clone does to become a sandbox: join its cgroups, build its root, drop everything, serve.

Every step runs once, in order, and any error ends the child: the node then cleans up what it had made.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys as python

from atoll.runtimes.local import rootfs
from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.birth import GO, PREPARED, READY, REFUSED, receive, receive_assignment
from atoll.runtimes.local.cgroups import Counters
from atoll.runtimes.local.gates import API_URL, LISTED, LOOPBACK
from atoll.runtimes.local.host_template import GID, HOME, UID, USER
from atoll.sidekick import main as sidekick
from atoll.sidekick.files import make_directories
from atoll.sidekick.gates import API, close_descriptors
from atoll.sidekick.identity import Identity
from atoll.sidekick.protocol import Refused
from atoll.sidekick.spawn import spawn_on_pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET_NAME = "sidekick"
HOST_NAME = "atoll"
LISTEN_BACKLOG = 4096
OPEN_FILES = 16_384


def become(spec: dict[str, Any], host: dict[str, Any], control: socket.socket) -> None:
    """Runs in the clone and never returns; `control` is the child's end of a Birth."""
    try:
        _become(spec, host, control)
    except Refused as refused:
        control.send(REFUSED + f"{refused.code} {refused.message}".encode())
    except BaseException as error:
        try:
            control.send(f"{type(error).__name__}: {error}".encode())
        except OSError:
            pass
    finally:
        os._exit(1)


def _become(spec: dict[str, Any], host: dict[str, Any], control: socket.socket) -> None:
    rooted: bool = host["rooted"]
    leave_for_good(spec, control, rooted)
    counters = Counters(spec["counters"])
    oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC) if rooted else -1
    listener = listen(spec["folder"])
    if rooted:
        sys.unshare(sys.CLONE_NEWCGROUP)
        bound_system_v(spec["shm_bytes"])
    writable = rootfs.build(spec, host)
    sys.set_host_name(HOST_NAME)
    resolvers = _connect(spec, host, control)
    if resolvers:
        with open("/etc/resolv.conf", "w") as file:
            file.writelines(f"nameserver {address}\n" for address in resolvers)
    gates: dict[str, socket.socket] = host["open_gates"](spec["network"])
    bound_files_and_cores()
    _drop(spec, host, rooted)
    keep = {0, 1, 2, writable, listener.fileno(), control.fileno(), *counters.fds.values()}
    keep |= {gate.fileno() for gate in gates.values()}
    if oom_score >= 0:
        keep.add(oom_score)
    sys.close_descriptors(keep)
    import_no_more()
    sys.install_filter(host["filter"])

    who = Identity(UID, GID, separate=rooted, oom_score=oom_score)
    if spec["spare"]:
        _warm_up(who, host)
    control.send(PREPARED)
    config = receive_assignment(control)

    def ready() -> None:
        control.send(READY)
        control.close()

    gc.enable()
    if config["home"] is not None:
        _make_home(config["home"])
    sidekick.serve(
        listener,
        who,
        {**config, "env": _environment(config, host)},
        usage=counters.usage,
        oom_count=counters.oom_kills,
        ready=ready,
        gates=close_descriptors(gates, config["gates"]),
    )


def _connect(spec: dict[str, Any], host: dict[str, Any], control: socket.socket) -> list[str]:
    """Bring up the network; the name servers that its programs ask."""
    if spec["network"] == "outgoing":
        receive(control, len(GO))  # our end of the veth pair is there
        host["configure_inside"](spec["slot"])
        return spec["resolvers"]
    if spec["network"] == LISTED:
        host["confine"]()
        return [LOOPBACK]
    host["loopback_up"]()
    return []


def leave_for_good(spec: dict[str, Any], control: socket.socket, rooted: bool) -> None:
    """Into a session and the groups of its own, and deaf to its tenant's signals."""
    # signals that a client of the server typed at its terminal are not for sandboxes
    os.setsid()
    # a tenant may send any while a program is started: pid 1 of a namespace gets none that it has no handler for
    for number in (signal.SIGINT, signal.SIGTERM):  # Python's handler, and the node's
        signal.signal(number, signal.SIG_DFL)
    if not rooted:
        receive(control, len(GO))  # the node has written our id maps
    for path in spec["cgroup_joins"]:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)


def listen(folder: str) -> socket.socket:
    # by a relative name: socket paths are short, data folders need not be
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    os.chdir(folder)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(SOCKET_NAME)  # the folder is the server's alone
    listener.listen(LISTEN_BACKLOG)
    os.fchdir(here)
    os.close(here)
    return listener


def bound_system_v(shm_bytes: int) -> None:
    """System V's segments, queues and semaphores outlive the programs that made them."""
    for name, value in (("shmall", shm_bytes // resource.getpagesize()), ("msgmni", 64), ("sem", "250 32000 100 128")):
        fd = os.open(f"/proc/sys/kernel/{name}", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, str(value).encode())
        os.close(fd)


def import_no_more() -> None:
    """From here on a module would be read from the sandbox's root, where files are the tenant's."""
    python.meta_path[:] = [finder for finder in python.meta_path if "Path" not in getattr(finder, "__name__", "Path")]


def bound_files_and_cores() -> None:
    # 1, not 0: where the host's core_pattern is a program, only that keeps the kernel from running it, as root, for us
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _drop(spec: dict[str, Any], host: dict[str, Any], rooted: bool) -> None:
    """Into the sandbox's own user namespace, and down to what starting programs as the tenant needs."""
    signal.set_wakeup_fd(-1)
    sys.no_new_privs()
    if rooted:
        sys.setns(spec["userns"], sys.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setgroups([])
        os.setresuid(0, 0, 0)
        sys.keep_capabilities((sys.CAP_SETUID, sys.CAP_SETGID, sys.CAP_KILL))
        Identity(UID, GID, separate=True).touch_files_as_tenant()
    else:
        sys.keep_capabilities(())
        sys.not_dumpable()


def _warm_up(who: Identity, host: dict[str, Any]) -> None:
    """Run a program once, so that the first real one finds this root's directories and our own pages at hand."""
    spawned = spawn_on_pipes(who, ["sh", "-c", "true"], {"PATH": host["path"]}, "/", stdin=False)
    os.waitpid(spawned.pid, 0)
    for fd in spawned.outputs:
        os.close(fd)


def _make_home(path: str) -> None:
    """In the workspace, as its user; a full or damaged workspace can still be looked at."""
    try:
        make_directories(path)
    except Refused:
        pass


def _environment(config: dict[str, Any], host: dict[str, Any]) -> dict[str, str]:
    home: str | None = config["home"]
    own = [] if home is None else [f"{home}/.local/bin"]
    installed = {} if home is None else {"PYTHONUSERBASE": f"{home}/.local", "NPM_CONFIG_PREFIX": f"{home}/.local"}
    return {
        "PATH": ":".join([*own, host["path"], *config["path"]]),
        "HOME": home or HOME,
        **installed,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        # /usr is the host's and read-only here: what pip installs goes below HOME, and harms no system package
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "TERM": "xterm-256color",
        "ATOLL_SANDBOX_ID": config["id"],
        **({"ATOLL_URL": API_URL} if API in config["gates"] else {}),
        **config["env"],
    }
