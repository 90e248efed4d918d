"""Assigning: what makes a prepared sandbox somebody's: its name, limits, workspaces and main process.

The node calls it for each sandbox that is asked for, whether it was made ahead or just now.
"""

from __future__ import annotations

from atoll.runtimes.local.box import boot_now
from atoll.runtimes.local.mounting import home_in
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.runtimes.local.birth import Birth
    from atoll.runtimes.local.box import Box
    from atoll.runtimes.local.burial import Burials
    from atoll.runtimes.local.cgroups import Cgroups
    from atoll.runtimes.local.deadlines import Deadlines
    from atoll.runtimes.local.mounting import Mounting
    from atoll.runtimes.local.node_wire import Reply


class Assigning:
    """Gives sandboxes what a request asks for."""

    def __init__(
        self,
        settings: dict[str, Any],
        cgroups: Cgroups | None,
        mounting: Mounting,
        deadlines: Deadlines,
        burials: Burials,
    ) -> None:
        self.settings = settings
        self.cgroups = cgroups
        self.mounting = mounting
        self.deadlines = deadlines
        self.burials = burials

    def assign(self, box: Box, request: dict[str, Any], folder: str, reply: Reply) -> None:
        """The box has its id, its folder and its limits at once. Answers when its sidekick serves; when that fails,
        once nothing of it is left."""
        box.id, box.folder, box.limits, box.started = request["id"], folder, request["limits"], boot_now()
        if self.cgroups is not None:
            self.cgroups.limit(box.key, request["cpu_millis"], request["memory_bytes"], request["pids"])
        assert box.birth is not None
        assignment = _Assignment(self, box, box.birth, request, reply)
        box.birth.expect(assignment.settle)
        try:
            self.mounting.give(box, request["workspaces"], assignment.mounted)
        except Refused as refused:
            assignment.mounted(refused)


class _Assignment:
    """One of them under way: its workspaces are mounted, then its sidekick is told who it is, then it serves."""

    def __init__(self, of: Assigning, box: Box, birth: Birth, request: dict[str, Any], reply: Reply) -> None:
        self.of = of
        self.box = box
        self.birth = birth
        self.request = request
        self.reply = reply
        self.settled = False

    def mounted(self, refused: Refused | None) -> None:
        if refused is not None:
            self.settle(refused)
            return
        config = {name: self.request[name] for name in ("env", "path", "given", "gates", "work_dir", "main")}
        ring_bytes, home = self.of.settings["ring_bytes"], home_in(self.request["workspaces"])
        config |= {"id": self.box.id, "ring_bytes": ring_bytes, "home": home}
        try:
            self.birth.assign(config)
        except OSError as error:
            self.settle(f"the sandbox could not be made: {error}")

    def settle(self, problem: Refused | str | None) -> None:
        """It serves (None), or it does not; what comes first counts."""
        if self.settled:
            return
        self.settled = True
        box = self.box
        if problem is None:
            box.ready = True
            try:
                box.save()
            except OSError as error:  # the next node would not know it
                box.ready, problem = False, f"the sandbox could not be recorded: {error}"
        if problem is None:
            self.of.deadlines.arm(box, box.limits.get("idle_s") or 0.0)
            self.reply({"pid": box.pid, "boot_id": self.of.settings["boot_id"]})
            return
        refused = problem if isinstance(problem, Refused) else Refused("unavailable", problem)
        answer = {"error": {"code": refused.code, "message": refused.message}}
        box.when_gone.append(lambda _usage: self.reply(answer))
        if box.gone:
            self.reply(answer)
        else:
            self.of.burials.kill(box)
