"""The node: a small single-threaded process that forks sandboxes, keeps their deadlines and buries them.

The server starts it (`python -c`, isolated), speaks to it over DATA/run/node.sock in lines of JSON, and finds it again
after a restart. It holds no secret and opens no network; when it dies, sidekicks live on and the next node adopts them.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import signal
import socket
import sys as python

from atoll.runtimes.local import child, devices, host_template, rootfs, seccomp, syscalls
from atoll.runtimes.local.bake import bake
from atoll.runtimes.local.birth import Birth
from atoll.runtimes.local.box import ENDED_NAME, STATE_NAME, Box, boot_now, start_ticks, write_small
from atoll.runtimes.local.cgroups import Cgroups, Counters
from atoll.runtimes.local.disks import IMAGE_NAME, Disks
from atoll.runtimes.local.idle import ask_idle
from atoll.runtimes.local.network import Network, loopback_up
from atoll.runtimes.local.network_resolvers import resolvers
from atoll.runtimes.local.node_wire import Client
from atoll.runtimes.local.slots import Slots, uid_base
from atoll.runtimes.local.spares import SHAPE, Spares
from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.runtimes.local.node_wire import Operation, Reply

PROTOCOL = 1
REMOVE_RETRY_S = 0.005
REMOVE_RETRIES = 2000
IDLE_RECHECK_S = 5.0
SLOTS_AHEAD = 64
MAX_CLIENTS = 16


class Node:
    """All sandboxes of one data folder on this machine."""

    def __init__(self, data: str, settings: dict[str, Any]) -> None:
        self.data = data
        self.run_folder = f"{data}/run"
        self.boxes_folder = f"{data}/run/sandboxes"
        self.settings = settings
        self.rooted = os.geteuid() == 0
        self.boxes: dict[str, Box] = {}
        self.by_pid: dict[int, Box] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.clients: list[Client] = []
        self.stopping = False
        self.count = 0
        name = settings["name"]
        self.cgroups = Cgroups(name) if self.rooted else None
        self.born_into_cgroup = True  # until the kernel says that it cannot
        self.slots = Slots(self.boxes_folder) if self.rooted else None
        self.rootless_slots = 0
        self.disks = Disks(f"{data}/disks")
        self.resolvers = settings["resolvers"] or resolvers()
        self.network = Network(name, settings["interface_prefix"], resolvers=self.resolvers)
        self.network_started = False
        self.host = self._learn_host()
        self.loop = Loop()
        self.spares = Spares(self.loop, settings["spares"], self._make_spare, self._discard)
        self.loop.on_child = self._on_child
        self._operations: dict[str, Operation] = {
            "hello": self.hello,
            "make": self.make,
            "list": self.list,
            "destroy": self.destroy,
            "deadline": self.deadline,
            "stats": self.stats,
            "freeze": self.freeze,
            "forget": self.forget,
            "bake": self.bake,
            "shutdown": self.shutdown,
        }

    def _learn_host(self) -> dict[str, Any]:
        """What every sandbox needs of this host, found out once."""
        mount_point, dev = f"{self.run_folder}/mnt", f"{self.run_folder}/dev"
        for folder in (self.boxes_folder, mount_point, dev):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        template = host_template.learn(f"{self.data}/templates/host")
        if self.rooted:
            # mounts of ours stay out of the host's table
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.mount(
                "tmpfs", dev, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, "size=64k,nr_inodes=64,mode=755"
            )
            devices.fill(dev, with_nodes=True)
        return {
            "rooted": self.rooted,
            "mount_point": mount_point,
            "layer": template.layer,
            "empty": f"{template.layer}/sys",
            "binds": template.binds,
            "path": template.path,
            "dev": dev,
            "masks": rootfs.find_masks(),
            "filter": seccomp.program(syscalls.MACHINE),
            "loopback_up": loopback_up,
            "configure_inside": self.network.configure_inside,
        }

    # life of the node

    def run(self, listener: socket.socket) -> None:
        if self.cgroups is not None:
            self.cgroups.prepare()
        self._adopt()
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), READ, lambda _events: self._accept(listener))
        self.loop.after(0.0, self._prepare_slots)
        syscalls.become_subreaper()
        signal.signal(signal.SIGTERM, self._terminate)
        gc.collect()
        gc.freeze()
        self.spares.refill_soon()
        self.loop.run()

    def _terminate(self, _signal: int, _frame: object) -> None:
        self.loop.running = False

    def _make_spare(self, shape: dict[str, Any]) -> Box:
        return self._prepare(shape, f"{self.boxes_folder}/.spare-{os.getpid()}-{self.count}", spare=True)

    def _discard(self, box: Box) -> None:
        self._kill(box)

    def _prepare_slots(self) -> None:
        """User namespaces are made ahead, one at a time, while nothing else is to be done."""
        if self.slots is not None and self.slots.prepare(SLOTS_AHEAD):
            self.loop.after(0.002, self._prepare_slots)

    def _adopt(self) -> None:
        """Find the sandboxes of an earlier node again; what has no living sidekick is buried and told."""
        taken: set[int] = set()
        for name in os.listdir(self.boxes_folder):
            folder = f"{self.boxes_folder}/{name}"
            if os.path.exists(f"{folder}/{ENDED_NAME}"):
                with open(f"{folder}/{ENDED_NAME}") as file:
                    self.ended[name] = json.load(file)
                continue
            box = Box.load(folder)
            if box is None:
                _remove_folder(folder)  # a spare, or one that was never named: its cgroup is cleared below
                continue
            self.boxes[name] = box
            taken.add(box.slot)
            if box.alive and box.ready:
                box.pidfd = os.pidfd_open(box.pid)
                self.loop.watch(box.pidfd, READ, lambda _events, box=box: self._sidekick_ended(box))
                box.counters = Counters(self.cgroups.counters(box.key)) if self.cgroups is not None else None
                self.by_pid[box.pid] = box
                self._arm(box)
            else:
                box.reason = box.reason or "lost"
                self._kill(box)
                self._bury(box)
        if self.slots is not None:
            self.slots.reserve(taken)
        if self.cgroups is not None:
            for name in self.cgroups.list() - {box.key for box in self.boxes.values()}:
                self.cgroups.kill(name)
                for pid in self.cgroups.members(name):
                    _kill(pid)
                self.loop.after(0.05, lambda name=name: self._remove_group(name, REMOVE_RETRIES, lambda: None))
        if self.rooted:
            self._remove_stray_links(taken)

    def _remove_stray_links(self, taken: set[int]) -> None:
        for slot in self.network.list_links():
            if slot not in taken:
                self.network.detach(slot)
        if any(box.network != "none" for box in self.boxes.values()):
            self._start_network()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if len(self.clients) >= MAX_CLIENTS:
            sock.close()
            return
        self.clients.append(Client(self.loop, sock, self._operations, self.clients.remove))

    def tell_all(self, message: dict[str, Any]) -> None:
        for client in list(self.clients):
            client.send(message)

    # requests

    def make(self, request: dict[str, Any], reply: Reply) -> None:
        """From a spare one when there is one of that shape, else from the beginning."""
        name: str = request["id"]
        if name in self.boxes or name in self.ended:
            raise Refused("conflict", f"sandbox {name} exists already")
        if self.stopping:
            raise Refused("unavailable", "the node is stopping")
        folder = f"{self.boxes_folder}/{name}"
        box = self.spares.take(request)
        try:
            if box is None:
                box = self._prepare(request, folder)
            else:
                os.rename(box.folder, folder)
            self._assign(box, request, folder, reply)
        except BaseException as error:
            if box is not None:
                self._kill(box)
                self._bury(box, quietly=True)
            if isinstance(error, OSError):
                raise Refused("unavailable", f"the sandbox could not be made: {error}") from None
            raise
        finally:
            self.spares.refill_soon()

    def _assign(self, box: Box, request: dict[str, Any], folder: str, reply: Reply) -> None:
        """Give a prepared sandbox its name, limits and main process; answer when its sidekick serves."""
        box.id, box.folder, box.limits, box.started = request["id"], folder, request["limits"], boot_now()
        self.boxes[box.id] = box
        if self.cgroups is not None:
            self.cgroups.limit(box.key, request["cpu_millis"], request["memory_bytes"], request["pids"])

        def ready(error: str | None) -> None:
            if error is None:
                box.ready = True
                box.save()
                self._arm(box)
                reply({"pid": box.pid, "boot_id": self.settings["boot_id"]})
                return
            answer = {"error": {"code": "unavailable", "message": error}}
            box.when_gone.append(lambda _usage: reply(answer))
            if box.gone:
                reply(answer)
            else:
                self._kill(box)

        assert box.birth is not None
        config = {name: request[name] for name in ("env", "work_dir", "main")}
        box.birth.assign({**config, "id": box.id, "ring_bytes": self.settings["ring_bytes"]}, ready)

    def _prepare(self, request: dict[str, Any], folder: str, *, spare: bool = False) -> Box:
        """Clone a child that builds itself a root of this shape and then waits for `_assign`."""
        if request["network"] != "none":
            self._start_network()
        slot = self._take_slot()
        self.count += 1
        box = Box(f"{slot}-{os.getpid()}-{self.count}", folder, slot, request["network"])
        try:
            os.mkdir(folder, 0o700)
            image = self._make_image(folder, request)
            joins: list[str] = []
            counters: dict[str, str] = {}
            if self.cgroups is not None:
                joins = self.cgroups.make(box.key)
                counters = self.cgroups.counters(box.key)
                box.counters = Counters(counters)
            spec = {
                **{name: request[name] for name in SHAPE},
                **self._identity(slot),
                "folder": folder,
                "slot": slot,
                "spare": spare,
                "image": image,
                "cgroup_joins": joins,
                "counters": counters,
                "resolvers": self.resolvers,
            }
            self._clone(box, spec)
        except BaseException:
            self._kill(box)
            self._bury(box, quietly=True)
            raise
        return box

    def _make_image(self, folder: str, request: dict[str, Any]) -> str | None:
        """The disk of a sandbox that wants more than memory should hold; None where a tmpfs does."""
        if not self.rooted or request["disk_bytes"] <= self.settings["memory_disk_bytes"]:
            return None
        path = f"{folder}/{IMAGE_NAME}"
        self.disks.make(path, request["disk_bytes"], request["inodes"])
        return path

    def _identity(self, slot: int) -> dict[str, int]:
        if self.slots is None:
            return {}
        return {"uid_base": uid_base(slot), "userns": self.slots.userns(slot)}

    def _clone(self, box: Box, spec: dict[str, Any]) -> None:
        flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET
        flags |= syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
        if not self.rooted:
            flags |= syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWCGROUP
        ours, theirs = socket.socketpair()
        pid = self._clone_into(box, spec, flags)
        if pid == 0:
            child.become(spec, self.host, theirs)
        theirs.close()
        box.pid, box.ticks = pid, start_ticks(pid)
        self.by_pid[pid] = box
        box.birth = Birth(self.loop, ours)
        if not self.rooted:
            _map_to_self(pid)
            box.birth.go()
        elif box.network != "none":
            self.network.attach(box.slot, pid)
            box.birth.go()

    def _clone_into(self, box: Box, spec: dict[str, Any], flags: int) -> int:
        """Clone, straight into the v2 cgroup where the kernel can (5.7); elsewhere the child moves itself."""
        place = self.cgroups.birthplace(box.key) if self.cgroups is not None else None
        if place is None:
            return syscalls.clone(flags)
        if self.born_into_cgroup:
            group = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return syscalls.clone(flags, group)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EINVAL):
                    raise
                self.born_into_cgroup = False
            finally:
                os.close(group)
        spec["cgroup_joins"].append(f"{place}/cgroup.procs")
        return syscalls.clone(flags)

    def _take_slot(self) -> int:
        if self.slots is None:
            self.rootless_slots += 1
            return self.rootless_slots
        try:
            return self.slots.take()
        except OSError as error:
            raise Refused("unavailable", str(error)) from None

    def _start_network(self) -> None:
        if not self.rooted:
            raise Refused("not_supported", "network outgoing needs root: without it a sandbox has its loopback only")
        if not self.network_started:
            try:
                self.network.start()
            except OSError as error:
                raise Refused("not_supported", f"network outgoing is not possible on this host: {error}") from None
            self.network_started = True

    def list(self, _request: dict[str, Any], reply: Reply) -> None:
        reply({"sandboxes": {box.id: {"pid": box.pid} for box in self.boxes.values() if box.ready and not box.gone}})

    def destroy(self, request: dict[str, Any], reply: Reply) -> None:
        box = self.boxes.get(request["id"])
        if box is None:
            self.forget(request, lambda _answer: None)
            reply({"usage": None})
            return
        box.when_gone.append(lambda usage: reply({"usage": usage}))
        self._kill(box)

    def deadline(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        box.limits = request["limits"]
        box.save()
        self._arm(box)
        reply({})

    def stats(self, request: dict[str, Any], reply: Reply) -> None:
        reply({"usage": _usage(self._get(request))})

    def freeze(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        if self.cgroups is None:
            raise Refused("not_supported", "pause needs cgroups, which need root")
        self.cgroups.freeze(box.key, frozen=request["frozen"])
        box.frozen = request["frozen"]
        box.save()
        reply({})

    def forget(self, request: dict[str, Any], reply: Reply) -> None:
        """The server has recorded this end."""
        if self.ended.pop(request["id"], None) is not None:
            _remove_folder(f"{self.boxes_folder}/{request['id']}")
        reply({})

    def hello(self, _request: dict[str, Any], reply: Reply) -> None:
        reply(
            {
                "protocol": PROTOCOL,
                "pid": os.getpid(),
                "rooted": self.rooted,
                "limits": sorted(self.cgroups.limits) if self.cgroups is not None else [],
                "ended": list(self.ended.values()),
                "settings": self.settings,
            }
        )

    def bake(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        if self.slots is None:
            raise Refused("not_supported", "baking a template layer needs root")
        bake(self.loop, box.pid, self.slots.userns(box.slot), request["destination"], reply)

    def shutdown(self, request: dict[str, Any], reply: Reply) -> None:
        """End the node; with `destroy`, every sandbox and whatever it left on the machine first."""
        self.stopping = True
        self.spares.stop()
        if not request.get("destroy"):
            reply({})
            self.loop.running = False
            return

        def leave(_usage: dict[str, Any] | None = None) -> None:
            if self.boxes or self.spares.all():
                return
            if self.network_started or self.rooted:
                self.network.stop()
            if self.cgroups is not None:
                self.cgroups.clear()
            reply({})
            self.loop.running = False

        for box in [*self.boxes.values(), *self.spares.all()]:
            box.when_gone.append(leave)
            self._kill(box)
        leave()

    def _get(self, request: dict[str, Any]) -> Box:
        box = self.boxes.get(request["id"])
        if box is None or not box.ready or box.gone:
            raise Refused("not_found", f"sandbox {request['id']} does not exist")
        return box

    # ends

    def _arm(self, box: Box) -> None:
        """Set the timer for the first thing that may be due: a hard limit, or a look at idleness."""
        if box.timer is not None:
            box.timer.cancel()
        deadline = box.next_deadline()
        idle = box.limits.get("idle_s")
        waits = [] if deadline is None else [deadline[0] - boot_now()]
        if idle is not None:
            waits.append(min(max(idle / 4, 0.05), IDLE_RECHECK_S))
        if waits:
            box.timer = self.loop.after(max(0.0, min(waits)), lambda: self._due(box))

    def _due(self, box: Box) -> None:
        if box.gone:
            return
        deadline = box.next_deadline()
        if deadline is not None and boot_now() >= deadline[0]:
            self._end(box, deadline[1])
            return
        idle = box.limits.get("idle_s")
        if idle is not None and not box.frozen:
            ask_idle(self.loop, box.folder, lambda idle_s: self._idle_told(box, idle_s))
        self._arm(box)

    def _idle_told(self, box: Box, idle_s: float) -> None:
        limit = box.limits.get("idle_s")
        if limit is not None and idle_s >= limit:
            self._end(box, "idle")

    def _end(self, box: Box, reason: str) -> None:
        box.reason = box.reason or reason
        self._kill(box)

    def _kill(self, box: Box) -> None:
        if self.cgroups is not None:
            self.cgroups.kill(box.key)
        if box.alive:
            _kill(box.pid)
            if box.frozen and self.cgroups is not None:
                self.cgroups.freeze(box.key, frozen=False)

    def _on_child(self, pid: int, _status: int) -> None:
        box = self.by_pid.get(pid)
        if box is not None:
            self._sidekick_ended(box)

    def _sidekick_ended(self, box: Box) -> None:
        if not box.reason and not box.when_gone:
            box.reason = "lost"
        self._bury(box)

    def _bury(self, box: Box, *, quietly: bool = False) -> None:
        """Free all that the sandbox had; then tell who waits for it, or everybody when it ended by itself."""
        if box.gone:
            return
        box.gone = True
        self.by_pid.pop(box.pid, None)
        if box.timer is not None:
            box.timer.cancel()
        if box.birth is not None:
            box.birth.close("the sandbox ended while it was made")
        if box.pidfd >= 0:
            self.loop.forget(box.pidfd)
            os.close(box.pidfd)
        usage = _usage(box)
        if box.counters is not None:
            box.counters.close()
        if box.network != "none":
            self.network.detach(box.slot)
        if self.cgroups is not None:
            self.cgroups.kill(box.key)  # what may have joined on its way out
        self._remove_group(box.key, REMOVE_RETRIES, lambda: self._buried(box, usage, quietly))

    def _remove_group(self, name: str, retries: int, then: Callable[[], None]) -> None:
        if self.cgroups is None or self.cgroups.remove(name) or retries == 0:
            then()
        else:
            self.loop.after(REMOVE_RETRY_S, lambda: self._remove_group(name, retries - 1, then))

    def _buried(self, box: Box, usage: dict[str, Any], quietly: bool) -> None:
        self.boxes.pop(box.id, None)
        self.spares.forget(box)
        if self.slots is not None:
            self.slots.give_back(box.slot)
        if box.reason and not box.when_gone and not quietly and box.ready:
            ended = {"id": box.id, "reason": box.reason, "usage": usage}
            write_small(f"{box.folder}/{ENDED_NAME}", ended)
            _remove(f"{box.folder}/{STATE_NAME}")
            _remove(f"{box.folder}/{child.SOCKET_NAME}")
            _remove(f"{box.folder}/{IMAGE_NAME}")
            self.ended[box.id] = ended
            self.tell_all({"event": "ended", **ended})
        else:
            _remove_folder(box.folder)
        for call in box.when_gone:
            call(usage)


def _usage(box: Box) -> dict[str, Any]:
    counted: dict[str, Any] = {} if box.counters is None else box.counters.usage()
    return {"duration_s": boot_now() - box.started, **counted}


def _map_to_self(pid: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{host_template.UID} {uid} 1"),
        ("gid_map", f"{host_template.GID} {gid} 1"),
    ):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _remove_folder(folder: str) -> None:
    for name in (STATE_NAME, ENDED_NAME, IMAGE_NAME, child.SOCKET_NAME):
        _remove(f"{folder}/{name}")
    try:
        os.rmdir(folder)
    except OSError:
        pass


def main(data: str, settings: dict[str, Any]) -> None:
    """Run the node of a data folder until it is told to stop; says `ready` on stdout once it serves.

    Goes on in a child: whoever started it is not its parent and need not wait for its end.
    """
    if os.fork():
        os._exit(0)
    os.umask(0o022)
    os.makedirs(f"{data}/run", mode=0o700, exist_ok=True)
    lock = os.open(f"{data}/run/node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        python.exit("a node of this data folder is running already")
    syscalls.blank_command_line()
    node = Node(data, settings)
    os.chdir(f"{data}/run")
    _remove("node.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind("node.sock")
    os.chmod("node.sock", 0o600)
    listener.listen(16)
    os.chdir("/")
    os.write(1, b"ready\n")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    node.run(listener)
