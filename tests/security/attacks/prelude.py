"""Goes in front of every attack and runs with it inside the sandbox: notes what succeeded and what was refused.

An attack never changes anything that it could reach: the control launcher runs the same programs on the bare host.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
GIVEN: dict[str, Any] = json.loads(sys.argv[1])
exposed: dict[str, str] = {}
refused: dict[str, str] = {}


def attempt(name: str, call: Callable[[], Any]) -> None:
    """Exposed when the call succeeds: it raises nothing and does not return a negative number or None."""
    ctypes.set_errno(0)
    try:
        result = call()
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        refused[name] = errno.errorcode.get(number, str(error)) if number else str(error)
        return
    if result is None or (isinstance(result, int) and result < 0):
        refused[name] = errno.errorcode.get(ctypes.get_errno(), "nothing")
        return
    if isinstance(result, int) and not isinstance(result, bool) and name.startswith("open"):
        os.close(result)
    exposed[name] = repr(result)[:200]


def content(path: str) -> bytes | None:
    """The first bytes of a file; None when it has none."""
    with open(path, "rb") as file:
        return file.read(4096) or None


def in_child(call: Callable[[], Any]) -> int:
    """Run something that would change this process in a child of its own; negative when it fails, with its errno."""
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        try:
            result = call()
            number = ctypes.get_errno() or errno.EIO if isinstance(result, int) and result < 0 else 0
        except OSError as error:
            number = error.errno or errno.EIO
        except BaseException:
            number = errno.EIO
        os._exit(number)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        return 0
    ctypes.set_errno(os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EINTR)
    return -1


def tell() -> None:
    print(json.dumps({"exposed": exposed, "refused": refused}))
