"""Errands: what the node must not wait for or must not do itself (mount, format, enter a sandbox): a child does it.

The child shares the node's mount namespace, runs one function, tells its result and ends; it dies with the node.
"""

from __future__ import annotations

import json
import os
import signal

from atoll.runtimes.local import syscalls
from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

ERRAND_S = 120.0
ANSWER_BYTES = 65_536


def send_on_errand(
    loop: Loop,
    work: Callable[[], Any],
    then: Callable[[Any, Refused | None], None],
    *,
    keep: Iterable[int] = (),
    within_s: float = ERRAND_S,
) -> None:
    """Run `work` in a child that has the descriptors `keep` and no other; `then(its JSON result, None)`, or
    `then(None, why)`: a Refused as it was raised, anything else as `unavailable`. OSError when there can be no child.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    node = os.getpid()
    try:
        child = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        raise
    if child == 0:
        _do(work, node, theirs, {0, 1, 2, theirs, *keep})
    os.close(theirs)

    def told(_events: int) -> None:
        timer.cancel()
        loop.forget(ours)
        said = os.read(ours, ANSWER_BYTES)
        os.close(ours)
        answer = json.loads(said) if said else {"code": "unavailable", "message": "it was killed or took too long"}
        if "result" in answer:
            then(answer["result"], None)
        else:
            then(None, Refused(answer["code"], answer["message"]))

    timer = loop.after(within_s, lambda: os.kill(child, signal.SIGKILL))
    loop.watch(ours, READ, told)


def _do(work: Callable[[], Any], node: int, answers: int, keep: set[int]) -> None:
    """The child: never returns."""
    try:
        syscalls.die_with_parent()
        if os.getppid() != node:
            os._exit(1)
        # the node's: its lock and socket, should it die now, and its way to hear of children
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        syscalls.close_descriptors(keep)
        try:
            answer = {"result": work()}
        except Refused as refused:
            answer = {"code": refused.code, "message": refused.message}
        except BaseException as error:
            answer = {"code": "unavailable", "message": f"{type(error).__name__}: {error}"[:4000]}
        os.write(answers, json.dumps(answer).encode())
    finally:
        os._exit(0)
