"""Apply: the steps that make a tree what its entries say, taken from a client; one sync makes all of it durable."""

from __future__ import annotations

import struct

from atoll.sidekick.keeper_applier import Applier, Meta
from atoll.sidekick.keeper_paths import Folders, checked, refused, sync
from atoll.sidekick.keeper_wire import (
    DATA,
    SKIP,
    STEP_DATA,
    STEP_REMOVE,
    STEP_SKIP,
    STEP_WRITE,
    WRITE,
    unpack_xattrs,
)
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.sidekick.keeper_link import Link


def apply(root: int, link: Link, request: dict[str, Any]) -> None:
    """Takes DATA with steps, END; DATA with the STAT of each written path in order, RESULT {told}."""
    with Folders(root) as folders:
        applier = Applier(folders)
        try:
            while (steps := link.read_data()) is not None:
                _carry_out(applier, memoryview(steps))
            applier.finish()
        except struct.error:
            raise Refused("bad_request", "steps: cut off, or not steps at all", "steps") from None
        finally:
            applier.drop_unfinished()
    if request.get("sync", True):
        try:
            sync(root)
        except OSError as error:
            raise refused(error, b"") from None
    link.send(applier.records)
    link.result({"told": applier.told})


def _carry_out(applier: Applier, steps: memoryview) -> None:
    at = 0
    end = len(steps)
    while at < end:
        step = steps[at]
        at += 1
        if step == STEP_DATA:
            size = DATA.unpack_from(steps, at)[0]
            at += DATA.size
            applier.data(steps[at : at + size])
            at += size
        elif step == STEP_WRITE:
            kind, mode, uid, gid, mtime_ns, size, paths, targets, attributes = WRITE.unpack_from(steps, at)
            at += WRITE.size
            rest = bytes(steps[at : at + paths + targets + attributes])
            at += len(rest)
            xattrs = unpack_xattrs(rest[paths + targets :]) if attributes else ()
            target = rest[paths : paths + targets]
            applier.write(checked(rest[:paths]), Meta(kind, mode, uid, gid, mtime_ns, size, target, xattrs))
        elif step == STEP_SKIP:
            applier.skip(SKIP.unpack_from(steps, at)[0])
            at += SKIP.size
        elif step == STEP_REMOVE:
            size = DATA.unpack_from(steps, at)[0]
            at += DATA.size
            applier.remove(checked(bytes(steps[at : at + size])))
            at += size
        else:
            raise Refused("bad_request", f"steps: there is no step {step}", "steps")
    if at > end:
        raise Refused("bad_request", "steps: cut off", "steps")
