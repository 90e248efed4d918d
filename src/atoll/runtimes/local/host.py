"""Host: what every sandbox of this node needs of the machine, found out and set up once when the node starts."""

from __future__ import annotations

import os

from atoll.runtimes.local import devices, host_template, rootfs, seccomp, syscalls
from atoll.runtimes.local.gates import confine, open_gates
from atoll.runtimes.local.network import loopback_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.runtimes.local.network import Network

_DEV_OPTIONS = "size=64k,nr_inodes=64,mode=755"


def learn_host(data: str, network: Network, *, rooted: bool, in_use: bool) -> dict[str, Any]:
    """Facts for `child.become`; `in_use` says that sandboxes of an earlier node may be alive.

    As root the node leaves the host's mount namespace: its mounts are its own.
    """
    mount_point, shared = f"{data}/run/mnt", f"{data}/run/dev"
    for folder in (mount_point, shared):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    template = host_template.learn(f"{data}/templates", in_use=in_use)
    dev, empty, blank = f"{shared}/dev", f"{shared}/empty", f"{shared}/blank"
    if rooted:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("tmpfs", shared, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, _DEV_OPTIONS)
        os.mkdir(dev, 0o755)
        devices.fill(dev, with_nodes=True)
    os.makedirs(empty, mode=0o755, exist_ok=True)
    os.close(os.open(blank, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    return {
        "rooted": rooted,
        "mount_point": mount_point,
        # from where the root is built, so that its mount table does not tell where we keep our data
        "layer": os.path.relpath(template.layer, mount_point),
        "empty": empty,
        "blank": blank,
        "binds": template.binds,
        "path": template.path,
        "dev": dev,
        "masks": rootfs.find_masks(),
        "filter": seccomp.program(syscalls.MACHINE),
        "loopback_up": loopback_up,
        "confine": confine,
        "open_gates": open_gates,
        "configure_inside": network.configure_inside,
    }
