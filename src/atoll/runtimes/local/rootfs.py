"""The root of a sandbox, built by the child that becomes its sidekick: overlay, programs, /dev, /proc, then pivot.

The writable layer, a tmpfs or an ext4 image, is bounded in bytes and inodes; the template lies read-only below it.
"""

from __future__ import annotations

import os

from atoll.runtimes.local import devices
from atoll.runtimes.local import syscalls as sys
from atoll.runtimes.local.disks import attach_loop
from atoll.runtimes.local.host_template import (
    GID,
    SECRETS_BYTES,
    SECRETS_FILES,
    SECRETS_FOLDER,
    SHARED_FOLDERS,
    UID,
    WRITABLE_FOLDERS,
)
from atoll.runtimes.local.tree_mounts import open_folder
from atoll.sidekick.identity import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SAFE = sys.MS_NOSUID | sys.MS_NODEV
_READ_ONLY = sys.ATTR_RDONLY | sys.ATTR_NOSUID | sys.ATTR_NODEV
TERMINALS = 128

# What /proc tells about the machine rather than about the sandbox. All of /proc is read-only besides, and what only
# the host's root may open (kpagecount, slabinfo, vmallocinfo) a tenant cannot: its root is nobody out there.
MASKED_FILES = (
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
)
MASKED_FOLDERS = ("/proc/acpi", "/proc/asound", "/proc/scsi")


def build(spec: dict[str, Any], host: dict[str, Any]) -> int:
    """Build the root and make it this process's. `host` is what the node found out once (see Node.host).

    Returns an O_PATH descriptor of the writable layer, by which `bake` finds it.
    """
    rooted: bool = host["rooted"]
    base: int = spec["uid_base"] if rooted else os.getuid() - UID
    sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
    os.chdir(host["mount_point"])
    _mount_writable(spec, host)
    for name in ("u", "w", "r"):
        os.mkdir(name, 0o755)
    _make_writable(base, rooted)
    writable = os.open("u", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _mount_overlay(spec, host, rooted)
    os.chdir("r")
    for source in host["binds"]:
        sys.bind(source, "." + source, _READ_ONLY)
    _mount_secrets(base)
    _mount_dev(spec, host, base, rooted)
    sys.mount("proc", "proc", "proc", _SAFE | sys.MS_NOEXEC | (sys.MS_RDONLY if rooted else 0))
    _mask_proc(host, rooted)
    _bind_trees(spec)
    sys.pivot_root_here()
    return writable


def _mount_writable(spec: dict[str, Any], host: dict[str, Any]) -> None:
    """Mount the writable layer here and stand in it: memory, or the image that the node made."""
    if spec["image"] is None:
        limits = f"size={spec['disk_bytes']},nr_inodes={spec['inodes']},mode=755"
        sys.mount("tmpfs", ".", "tmpfs", _SAFE, limits)
    else:
        device, loop = attach_loop(spec["image"])
        sys.mount(device, ".", "ext4", _SAFE, "")
        os.close(loop)
    os.chdir(host["mount_point"])


def find_masks() -> list[str]:
    """Which of the masked names exist on this kernel."""
    return [name for name in MASKED_FILES + MASKED_FOLDERS if os.path.exists(name)]


def _make_writable(base: int, rooted: bool) -> None:
    owner = Identity(base + UID, base + GID, separate=rooted)
    if rooted:
        os.chown("u", owner.uid, owner.gid)
    owner.touch_files_as_tenant()
    for name in WRITABLE_FOLDERS:
        os.mkdir(f"u/{name}", 0o755)
    old = os.umask(0)
    for name in SHARED_FOLDERS:
        os.mkdir(f"u/{name}", 0o1777)
    os.umask(old)
    Identity(0, 0, separate=rooted).touch_files_as_tenant()


def _mount_overlay(spec: dict[str, Any], host: dict[str, Any], rooted: bool) -> None:
    lowers = [*reversed(_layer_folders(spec, rooted)), host["layer"]]
    options = f"lowerdir={':'.join(lowers)},upperdir=u,workdir=w"
    if not rooted:
        options += ",userxattr"
    sys.mount("overlay", "r", "overlay", _SAFE, options)


def _bind_trees(spec: dict[str, Any]) -> None:
    """Working trees, where only this process may mount them (rootless): else the node does, from outside."""
    if not spec["trees"]:
        return
    attributes = sys.ATTR_NOSUID | sys.ATTR_NODEV
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for one in sorted(spec["trees"], key=lambda one: one["path"].count("/")):
        tree = sys.clone_tree(one["source"], attributes | (sys.ATTR_RDONLY if one["read_only"] else 0))
        folder = open_folder(one["path"], here)
        sys.attach_tree_at(tree, folder)
        os.close(folder)
        os.close(tree)
    os.close(here)


def _layer_folders(spec: dict[str, Any], rooted: bool) -> list[str]:
    """Baked layers, seen with this sandbox's owners: lowest first, as paths below the current directory."""
    folders: list[str] = []
    for number, layer in enumerate(spec["layers"]):
        if not rooted:
            folders.append(layer)
            continue
        name = f"l{number}"
        os.mkdir(name)
        # on disk a layer's owners are the plain ids that its sandbox saw: map them to this sandbox's range
        sys.attach_tree(sys.clone_tree(layer, _READ_ONLY, userns=spec["userns"]), name)
        folders.append(name)
    return folders


def _mount_dev(spec: dict[str, Any], host: dict[str, Any], base: int, rooted: bool) -> None:
    if rooted:
        sys.bind(host["dev"], "dev", devices.ATTRIBUTES)
    else:
        sys.mount("tmpfs", "dev", "tmpfs", sys.MS_NOSUID | sys.MS_NOEXEC, "size=64k,nr_inodes=64,mode=755")
        devices.fill("dev", with_nodes=False)
    group = f",gid={base + 5}" if rooted else ""
    # the kernel has a few thousand terminals for all: nobody may take them away from others
    options = f"newinstance,ptmxmode=0666,mode=620,max={TERMINALS}{group}"
    sys.mount("devpts", "dev/pts", "devpts", sys.MS_NOSUID | sys.MS_NOEXEC, options)
    sys.mount("tmpfs", "dev/shm", "tmpfs", _SAFE, f"size={spec['shm_bytes']},nr_inodes=4096,mode=1777")


def _mount_secrets(base: int) -> None:
    """Where secrets lie as files: in memory, outside of the writable layer, which may be baked and lie on a disk."""
    limits = f"size={SECRETS_BYTES},nr_inodes={SECRETS_FILES}"
    owner = f"mode=700,uid={base + UID},gid={base + GID}"
    sys.mount("tmpfs", SECRETS_FOLDER, "tmpfs", _SAFE | sys.MS_NOEXEC, f"{limits},{owner}")


def _mask_proc(host: dict[str, Any], rooted: bool) -> None:
    attributes = _READ_ONLY | sys.ATTR_NOEXEC
    for path in host["masks"]:
        # a file, not /dev/null: that opens for writing even where it is mounted read-only
        sys.bind(host["empty"] if path in MASKED_FOLDERS else host["blank"], "." + path, attributes)
    if not rooted:
        sys.bind("./proc/sys", "./proc/sys", attributes)
