"""Keeper child: what the node's clone does to become a tree's keeper: a root with nothing but the tree, few rights."""

from __future__ import annotations

import gc
import os
import signal
import socket

from atoll.runtimes.local import child
from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.birth import PREPARED, READY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TREE = "/tree"
HOST_NAME = "atoll-keeper"
_SAFE = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
# to be every owner's at once, within the ids of its own user namespace
_CAPABILITIES = (sys.CAP_CHOWN, sys.CAP_DAC_OVERRIDE, sys.CAP_DAC_READ_SEARCH, sys.CAP_FOWNER, sys.CAP_FSETID)


def become(spec: dict[str, Any], host: dict[str, Any], control: socket.socket) -> None:
    """Runs in the clone and never returns; `control` is the child's end of a Birth."""
    try:
        _become(spec, host, control)
    except BaseException as error:
        try:
            control.send(f"{type(error).__name__}: {error}".encode())
        except OSError:
            pass
    finally:
        os._exit(0)


def _become(spec: dict[str, Any], host: dict[str, Any], control: socket.socket) -> None:
    rooted: bool = host["rooted"]
    child.leave_for_good(spec, control, rooted)
    # not the node's: what only keepers need would stay in its memory and be in every sandbox's
    from atoll.sidekick.keeper import serve_keeper

    listener = child.listen(spec["folder"])
    if rooted:
        sys.unshare(sys.CLONE_NEWCGROUP)
    _build_root(spec, host)
    sys.set_host_name(HOST_NAME)
    child.bound_files_and_cores()
    _drop(spec, rooted)
    sys.close_descriptors({0, 1, 2, listener.fileno(), control.fileno()})
    child.import_no_more()
    sys.install_filter(host["filter"])
    control.send(PREPARED)

    def ready() -> None:
        control.send(READY)
        control.close()

    gc.enable()
    serve_keeper(listener, TREE, idle_s=spec["idle_s"], ready=ready)


def _build_root(spec: dict[str, Any], host: dict[str, Any]) -> None:
    sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
    tree: int = (
        spec["tree"] if "tree" in spec else sys.clone_tree(spec["mount_point"], sys.ATTR_NOSUID | sys.ATTR_NODEV)
    )
    os.chdir(host["mount_point"])
    sys.mount("tmpfs", ".", "tmpfs", _SAFE, "size=4k,nr_inodes=4,mode=755")
    os.chdir(host["mount_point"])
    os.mkdir(TREE.strip("/"), 0o755)
    sys.attach_tree(tree, TREE.strip("/"))
    sys.mount("none", ".", "", _SAFE | sys.MS_REMOUNT | sys.MS_BIND | sys.MS_RDONLY)
    sys.pivot_root_here()


def _drop(spec: dict[str, Any], rooted: bool) -> None:
    signal.set_wakeup_fd(-1)
    sys.no_new_privs()
    if rooted:
        sys.setns(spec["userns"], sys.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setgroups([])
        os.setresuid(0, 0, 0)
    else:
        sys.not_dumpable()
    sys.keep_capabilities(_CAPABILITIES)
