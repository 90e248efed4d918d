"""Making: clone the child that becomes a sandbox, with a cgroup, user ids, a link and a disk of its own."""

from __future__ import annotations

import errno
import os
import socket

from atoll.runtimes.local import child, host_template, keeper_child, syscalls, tree_mounts
from atoll.runtimes.local.birth import Birth
from atoll.runtimes.local.box import Box, start_ticks
from atoll.runtimes.local.cgroups import Cgroups, Counters
from atoll.runtimes.local.disks import IMAGE_NAME, Disks
from atoll.runtimes.local.slots import Slots, uid_base
from atoll.runtimes.local.spares import SHAPE
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.burial import Burials
    from atoll.runtimes.local.network import Network
    from atoll.sidekick.loop import Loop

NETWORK_LOOK_S = 5.0
KEEPER_CPU_MILLIS = 2000
KEEPER_MEMORY_BYTES = 512 * 2**20
KEEPER_PIDS = 48  # each of its operations runs in a child
_NAMESPACES = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
)


class Maker:
    """Prepares sandboxes; without `cgroups` and `slots` the rootless way."""

    def __init__(
        self,
        loop: Loop,
        settings: dict[str, Any],
        host: dict[str, Any],
        cgroups: Cgroups | None,
        slots: Slots | None,
        network: Network,
        disks: Disks,
        burials: Burials,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._host = host
        self._cgroups = cgroups
        self._slots = slots
        self._network = network
        self._disks = disks
        self._burials = burials
        self._born_into_cgroup = True  # until the kernel says that it cannot
        self._network_started = False
        self.count = 0

    def prepare(self, shape: dict[str, Any], folder: str, *, spare: bool = False) -> Box:
        """A child that builds itself a root of this shape and then waits for its assignment (see Birth).

        Refused or OSError when it cannot be; then nothing of it remains.
        """
        if shape["network"] == "outgoing":
            self.start_network()
        slot = self._take_slot()
        box = Box(f"{slot}-{os.getpid()}-{self.count}", folder, slot, shape["network"])
        try:
            os.mkdir(folder, 0o700)
            self._clone(box, self._spec(box, shape, spare), child.become)
        except BaseException:
            self._burials.kill(box)
            self._burials.bury(box)
            raise
        return box

    def prepare_keeper(self, folder: str, tree_id: str, mount_point: str) -> Box:
        """A child that becomes the keeper of a mounted tree; it needs no assignment. Refused or OSError."""
        slot = self._take_slot()
        box = Box(f"{slot}-{os.getpid()}-{self.count}", folder, slot, "none")
        box.tree = tree_id
        spec: dict[str, Any] = {"folder": folder, "idle_s": self._settings["keeper_idle_s"], "mount_point": mount_point}
        try:
            os.makedirs(folder, 0o700)
            self._give_group_and_ids(box, spec)
            if self._cgroups is not None:
                self._cgroups.limit(box.key, KEEPER_CPU_MILLIS, KEEPER_MEMORY_BYTES, KEEPER_PIDS)
                spec["tree"] = tree_mounts.clone(mount_point, spec["userns"], read_only=False)
            try:
                self._clone(box, spec, keeper_child.become)
            finally:
                if "tree" in spec:
                    os.close(spec["tree"])
        except BaseException:
            self._burials.kill(box)
            self._burials.bury(box)
            raise
        return box

    def start_network(self) -> None:
        """Once, when the first sandbox wants out. Refused where the host cannot."""
        if self._slots is None:
            raise Refused("not_supported", "network outgoing needs root: without it a sandbox has its loopback only")
        if not self._network_started:
            try:
                self._network.start()
            except OSError as error:
                raise Refused("not_supported", f"network outgoing is not possible on this host: {error}") from None
            self._network_started = True
            self._loop.after(NETWORK_LOOK_S, self._look_at_network)

    def _look_at_network(self) -> None:
        """Somebody may have flushed the packet filter, where the kernel lets others do so."""
        try:
            self._network.refresh()
        except OSError:
            pass  # it is tried again
        self._loop.after(NETWORK_LOOK_S, self._look_at_network)

    def _take_slot(self) -> int:
        self.count += 1
        if self._slots is None:
            return self.count
        try:
            return self._slots.take()
        except OSError as error:
            raise Refused("unavailable", str(error)) from None

    def _spec(self, box: Box, shape: dict[str, Any], spare: bool) -> dict[str, Any]:
        """What `child.become` needs to know; makes the cgroup and the disk."""
        spec: dict[str, Any] = {name: shape[name] for name in SHAPE}
        spec.update(folder=box.folder, slot=box.slot, spare=spare, resolvers=self._settings["resolvers"])
        spec.update(image=self._make_image(box.folder, shape))
        own: list[dict[str, Any]] = shape["workspaces"] if self._slots is None and not spare else []
        spec["trees"] = [{**one, "source": f"{self._settings['trees']}/{one['tree_id']}"} for one in own]
        self._give_group_and_ids(box, spec)
        return spec

    def _give_group_and_ids(self, box: Box, spec: dict[str, Any]) -> None:
        spec.update(cgroup_joins=[], counters={})
        if self._cgroups is not None:
            spec["cgroup_joins"] = self._cgroups.make(box.key)
            spec["counters"] = self._cgroups.counters(box.key)
            box.counters = Counters(spec["counters"])
        if self._slots is not None:
            spec.update(uid_base=uid_base(box.slot), userns=self._slots.userns(box.slot))

    def _make_image(self, folder: str, shape: dict[str, Any]) -> str | None:
        """The disk of a sandbox that wants more than its memory should hold; None where a tmpfs does."""
        if self._slots is None or shape["disk_in_memory"]:
            return None
        path = f"{folder}/{IMAGE_NAME}"
        self._disks.make(path, shape["disk_bytes"], shape["inodes"])
        return path

    def _clone(self, box: Box, spec: dict[str, Any], become: Callable[..., None]) -> None:
        flags = _NAMESPACES
        if self._slots is None:
            flags |= syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWCGROUP
        if box.network == "outgoing":
            self._network.prepare(box.slot)
        ours, theirs = socket.socketpair()
        pid = self._clone_into_group(box, spec, flags)
        if pid == 0:
            become(spec, self._host, theirs)
        theirs.close()
        box.pid, box.ticks = pid, start_ticks(pid)
        box.birth = Birth(self._loop, ours)
        if self._slots is None:
            _map_to_self(pid)
            box.birth.go()
        elif box.network == "outgoing":
            self._network.attach(box.slot, pid)
            box.birth.go()

    def _clone_into_group(self, box: Box, spec: dict[str, Any], flags: int) -> int:
        """Straight into the v2 cgroup where the kernel can (5.7); elsewhere the child moves itself."""
        place = self._cgroups.birthplace(box.key) if self._cgroups is not None else None
        if place is None:
            return syscalls.clone(flags)
        if self._born_into_cgroup:
            group = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return syscalls.clone(flags, group)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EINVAL):
                    raise
                self._born_into_cgroup = False
            finally:
                os.close(group)
        spec["cgroup_joins"].append(f"{place}/cgroup.procs")
        return syscalls.clone(flags)


def _map_to_self(pid: int) -> None:
    """Rootless: the tenant is the one who runs the server, and nobody else."""
    uid, gid = os.getuid(), os.getgid()
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{host_template.UID} {uid} 1"),
        ("gid_map", f"{host_template.GID} {gid} 1"),
    ):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)
