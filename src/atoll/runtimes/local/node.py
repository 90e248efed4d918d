"""The node: a small single-threaded process that forks sandboxes, keeps their deadlines and buries them.

The server starts it (`python -c`, isolated), speaks to it over DATA/run/node.sock in lines of JSON, and finds it again
after a restart. It holds no secret and opens no network; when it dies, sidekicks live on and the next node adopts them.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import socket

from atoll.runtimes.local import syscalls
from atoll.runtimes.local.assigning import Assigning
from atoll.runtimes.local.bake import bake
from atoll.runtimes.local.box import ENDED_NAME, Box, boot_now, read_small, usage_of, write_small
from atoll.runtimes.local.burial import Burials, remove_folder
from atoll.runtimes.local.cgroups import Cgroups, Counters
from atoll.runtimes.local.deadlines import Deadlines
from atoll.runtimes.local.disks import Disks
from atoll.runtimes.local.host import learn_host
from atoll.runtimes.local.host_mounts import HostMounts
from atoll.runtimes.local.keepers import Keepers
from atoll.runtimes.local.making import Maker
from atoll.runtimes.local.mounting import Mounting, trees_of
from atoll.runtimes.local.network import Network
from atoll.runtimes.local.network_resolvers import resolvers
from atoll.runtimes.local.node_wire import BUSY, READY, Client
from atoll.runtimes.local.slots import Slots
from atoll.runtimes.local.spares import REFILL_AFTER_S, Spares
from atoll.runtimes.local.tree_folders import TreeFolders
from atoll.runtimes.local.tree_images import TreeImages
from atoll.runtimes.local.tree_operations import TreeOperations, answer
from atoll.runtimes.local.trees import Trees
from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.runtimes.local.node_wire import Operation, Reply

SLOTS_AHEAD = 64
SLOT_PAUSE_S = 0.002
REFILL_AFTER_MOUNTS_S = 0.015
MAX_CLIENTS = 16
MAX_FILES = 65_536


class Node:
    """All sandboxes of one data folder on this machine, and what a server may ask of them."""

    def __init__(self, data: str, settings: dict[str, Any]) -> None:
        self.boxes_folder = f"{data}/run/sandboxes"
        os.makedirs(self.boxes_folder, mode=0o700, exist_ok=True)
        self.settings = settings
        rooted = os.geteuid() == 0
        self.boxes: dict[str, Box] = {}
        self.by_pid: dict[int, Box] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.clients: list[Client] = []
        self.stopping = False
        name, servers = settings["name"], settings["resolvers"] or resolvers()
        self.cgroups = Cgroups(name) if rooted else None
        self.slots = Slots(self.boxes_folder) if rooted else None
        prefix, bytes_per_s = settings["interface_prefix"], settings["network_bytes_per_s"]
        self.network = Network(name, prefix, resolvers=servers, bytes_per_s=bytes_per_s)
        host = learn_host(data, self.network, rooted=rooted, in_use=bool(os.listdir(self.boxes_folder)))
        self.loop = Loop()
        self.loop.on_child = self._on_child
        self.burials = Burials(self.loop, self.cgroups, self.slots, self._buried, self._measure)
        self.deadlines = Deadlines(self.loop, self._end)
        self.maker = Maker(
            self.loop,
            {**settings, "resolvers": servers},
            host,
            self.cgroups,
            self.slots,
            self.network,
            Disks(f"{data}/disks"),
            self.burials,
        )
        self.spares = Spares(self.loop, settings["spares"], self._make_spare)
        trees_folder = settings["trees"]
        os.makedirs(trees_folder, mode=0o700, exist_ok=True)
        store = TreeImages(trees_folder, f"{data}/run/trees") if rooted else TreeFolders(trees_folder)
        self.trees = Trees(self.loop, trees_folder, store)
        self.mounting = Mounting(self.loop, self.trees, self.slots)
        self.assigning = Assigning(settings, self.cgroups, self.mounting, self.deadlines, self.burials)
        self.host_mounts = HostMounts(self.mounting, self.slots)
        self.keepers = Keepers(f"{data}/run/keepers", self.trees, self._make_keeper, self.burials.kill)
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
            "mount_host": self.mount_host,
            **TreeOperations(self.trees, self.keepers, self.mounting, self._get).table,
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
        box = self.maker.prepare(shape, f"{self.boxes_folder}/.spare-{os.getpid()}-{self.maker.count}", spare=True)
        self.by_pid[box.pid] = box
        return box

    def _make_keeper(self, folder: str, tree_id: str) -> Box:
        if self.stopping:
            raise Refused("unavailable", "the node is stopping")
        box = self.maker.prepare_keeper(folder, tree_id, self.trees.mount_point(tree_id))
        self.by_pid[box.pid] = box
        return box

    def _prepare_slots(self) -> None:
        """User namespaces are made ahead, one at a time, while nothing else is to be done."""
        if self.slots is not None and self.slots.prepare(SLOTS_AHEAD):
            self.loop.after(SLOT_PAUSE_S, self._prepare_slots)

    def _adopt(self) -> None:
        """Find the sandboxes of an earlier node again; what has no living sidekick is buried and told."""
        for name in os.listdir(self.boxes_folder):
            folder = f"{self.boxes_folder}/{name}"
            if os.path.exists(f"{folder}/{ENDED_NAME}"):
                lost: dict[str, Any] = {"id": name, "reason": "lost", "usage": {}}
                self.ended[name] = read_small(f"{folder}/{ENDED_NAME}") or lost
                continue
            box = Box.load(folder)
            if box is None:
                remove_folder(folder)  # a spare, or one that was never named: its cgroup is cleared below
            else:
                self.boxes[name] = box
        self.trees.clean()
        there = [*self.boxes.values(), *self.keepers.adopt()]
        for box in there:
            if box.alive:
                self.mounting.settle(box)
                self.host_mounts.settle(box)
            for tree_id in {box.tree, *trees_of(box)} - {""}:
                self.trees.adopt(tree_id, box.key)
        taken = {box.slot for box in there}
        if self.slots is not None:
            self.slots.reserve(taken)
            for slot in set(self.network.list_links()) - taken:
                self.network.detach(slot)
            if any(box.network == "outgoing" for box in self.boxes.values()):
                try:
                    self.maker.start_network()
                except Refused as refused:  # the sandboxes live on; the next one with a network is told
                    complain(refused.message)
        if self.cgroups is not None:
            for key in self.cgroups.list() - {box.key for box in there}:
                self.burials.clear_group(key)
        for box in there:
            self._adopt_box(box)

    def _adopt_box(self, box: Box) -> None:
        try:
            box.pidfd = os.pidfd_open(box.pid) if box.alive else -1
        except ProcessLookupError:
            pass
        if not box.alive:  # its number may be another's by now
            box.pid = 0
        if box.pid == 0 or not box.ready:
            box.reason = box.reason or "lost"
            self.burials.kill(box)
            self.burials.bury(box)
            return
        self.loop.watch(box.pidfd, READ, lambda _events: self._sidekick_ended(box))
        box.counters = Counters(self.cgroups.counters(box.key)) if self.cgroups is not None else None
        self.by_pid[box.pid] = box
        self.deadlines.arm(box, 0.0)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if len(self.clients) >= MAX_CLIENTS:
            sock.close()
            return
        self.clients.append(Client(self.loop, sock, self._operations, self.clients.remove))

    # requests

    def make(self, request: dict[str, Any], reply: Reply) -> None:
        """From a spare one when there is one of that shape, else from the beginning."""
        name: str = request["id"]
        if name in self.boxes or name in self.ended:
            raise Refused("conflict", f"sandbox {name} exists already")
        if self.stopping:
            raise Refused("unavailable", "the node is stopping")
        folder = f"{self.boxes_folder}/{name}"
        # without root only the child itself can mount: a spare one is past that
        box = self.spares.take(request) if self.slots is not None or not request["workspaces"] else None
        try:
            if box is None:
                box = self.maker.prepare(request, folder)
                self.by_pid[box.pid] = box
            else:
                os.rename(box.folder, folder)
            self.boxes[name] = box
            self.assigning.assign(box, request, folder, reply)
        except OSError as error:
            if box is not None:
                self.burials.kill(box)
            raise Refused("unavailable", f"the sandbox could not be made: {error}") from None
        finally:  # to clone the next one takes what an errand for this one needs
            self.spares.refill_soon(REFILL_AFTER_MOUNTS_S if request["workspaces"] else REFILL_AFTER_S)

    def list(self, _request: dict[str, Any], reply: Reply) -> None:
        there = [box for box in self.boxes.values() if box.ready and not box.gone]
        reply({"sandboxes": {box.id: {"pid": box.pid, "frozen": box.frozen} for box in there}})

    def destroy(self, request: dict[str, Any], reply: Reply) -> None:
        box = self.boxes.get(request["id"])
        if box is None:
            self.forget(request, lambda _answer: None)
            reply({"usage": None})
            return
        box.when_gone.append(lambda usage: reply({"usage": usage}))
        self.burials.kill(box)

    def deadline(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        box.limits = request["limits"]
        box.save()
        self.deadlines.arm(box, 0.0)
        reply({})

    def stats(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        self._measure(box)
        reply({"usage": usage_of(box)})

    def _measure(self, box: Box) -> None:
        """What it has sent, if it has a network that is still there."""
        if box.network != "outgoing" or not box.pid:
            return
        try:
            box.sent_bytes = self.network.sent_bytes(box.slot)
        except OSError:
            pass  # its link went with its namespace: what was seen last stands

    def freeze(self, request: dict[str, Any], reply: Reply) -> None:
        box = self._get(request)
        if self.cgroups is None:
            raise Refused("not_supported", "pause needs cgroups, which need root")
        self.cgroups.freeze(box.key, frozen=request["frozen"])
        box.frozen, box.awake_since = request["frozen"], boot_now()
        box.save()
        self.deadlines.arm(box, box.limits.get("idle_s") or 0.0)
        reply({})

    def forget(self, request: dict[str, Any], reply: Reply) -> None:
        """The server has recorded this end."""
        if self.ended.pop(request["id"], None) is not None:
            remove_folder(f"{self.boxes_folder}/{request['id']}")
        reply({})

    def hello(self, _request: dict[str, Any], reply: Reply) -> None:
        reply(
            {
                "pid": os.getpid(),
                "rooted": self.cgroups is not None,
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

    def mount_host(self, request: dict[str, Any], reply: Reply) -> None:
        self.host_mounts.mount(self._get(request), request, answer(reply))

    def shutdown(self, request: dict[str, Any], reply: Reply) -> None:
        """End the node; with `destroy`, every sandbox and whatever it left on the machine first.

        The next node tells the server of their ends, if that has not recorded them.
        """
        self.stopping = True
        self.spares.stop()
        if not request.get("destroy"):
            reply({})
            self.loop.running = False
            return

        def leave(_usage: dict[str, Any] | None = None) -> None:
            if not (self.boxes or self.spares.all() or self.keepers.all()):
                self.trees.unmount_all(gone)

        def gone() -> None:
            if self.cgroups is not None:
                self.network.stop()
                self.cgroups.clear()
            if self.slots is not None:
                self.slots.release()
            reply({})
            self.loop.running = False

        for box in self.boxes.values():
            box.reason = box.reason or "killed"
        for box in [*self.boxes.values(), *self.spares.all(), *self.keepers.all()]:
            box.when_gone.append(leave)
            self.burials.kill(box)
        leave()

    def _get(self, request: dict[str, Any]) -> Box:
        box = self.boxes.get(request["id"])
        if box is None or not box.ready or box.gone:
            raise Refused("not_found", f"sandbox {request['id']} does not exist")
        return box

    # ends

    def _end(self, box: Box, reason: str) -> None:
        box.reason = box.reason or reason
        self.burials.kill(box)

    def _on_child(self, pid: int, _status: int) -> None:
        box = self.by_pid.get(pid)
        if box is not None:
            self._sidekick_ended(box)

    def _sidekick_ended(self, box: Box) -> None:
        self.by_pid.pop(box.pid, None)
        if not box.reason and not box.when_gone:
            box.reason = "lost"
        self.burials.bury(box)

    def _buried(self, box: Box, usage: dict[str, Any]) -> None:
        """Nothing is left of it: tell who waits for that, or everybody when it ended by itself."""
        if not box.tree:
            self.boxes.pop(box.id, None)
        self.spares.forget(box)
        self.trees.let_go(box.key)
        if box.tree:
            remove_folder(box.folder)
            self.keepers.forget(box)
        elif box.ready and box.reason and (self.stopping or not box.when_gone):
            ended = {"id": box.id, "reason": box.reason, "usage": usage}
            try:
                write_small(f"{box.folder}/{ENDED_NAME}", ended)
            except OSError as error:  # a full disk: it is told now, if not after a restart
                complain(f"the end of {box.id} could not be kept: {error}")
            remove_folder(box.folder, keep=ENDED_NAME)
            self.ended[box.id] = ended
            for client in list(self.clients):
                client.send({"event": "ended", **ended})
        else:
            remove_folder(box.folder)
        for call in box.when_gone:
            call(usage)


def _raise_file_limit() -> None:
    """Each sandbox costs a handful of descriptors, and a shell that calls `atoll down` may have had few to give."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def complain(text: str) -> None:
    """Into the log, if that takes it."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass


def main(data: str, settings: dict[str, Any]) -> None:
    """Run the node of a data folder until it is told to stop; says `ready` on stdout once it serves.

    Goes on in a child: whoever started it is not its parent and need not wait for its end.
    """
    if os.fork():
        os._exit(0)
    syscalls.close_descriptors({0, 1, 2})  # uvloop lets its children inherit some, the server's caller's among them
    os.umask(0o022)
    os.makedirs(f"{data}/run", mode=0o700, exist_ok=True)
    lock = os.open(f"{data}/run/node.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(1, BUSY)
        os._exit(1)
    syscalls.blank_command_line()
    _raise_file_limit()
    node = Node(data, settings)
    os.chdir(f"{data}/run")
    if os.path.lexists("node.sock"):
        os.unlink("node.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind("node.sock")
    os.chmod("node.sock", 0o600)
    listener.listen(16)
    os.chdir("/")
    os.write(1, READY)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    node.run(listener)
