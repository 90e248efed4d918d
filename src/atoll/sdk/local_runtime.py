"""LocalRuntime: agents without a server that somebody runs: a private one, of this user, for as long as it is needed.

It has a data folder of its own, a free port on the loopback and no account. Programs that use it at the same time share
it; the last of them ends it.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from atoll.domain.data_folder import DataFolder, default_data_folder
from atoll.domain.errors import Internal, Unavailable
from atoll.sdk.arguments import millis
from atoll.sdk.local_server import data_folder, read_note
from atoll.sdk.task_errors import NoModelKey

FOLDER_NAME = "atoll-local"
STORE_VARIABLE = "ATOLL_AGENTS__STORE"
MODEL_VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL")
READY_S = 180.0
END_S = 120.0
_MODELS_PREFIX = "ATOLL_MODELS__"
_KEPT_PREFIXES = (_MODELS_PREFIX, "ATOLL_AGENTS__", "ATOLL_TEST_")
# What other programs' settings are called that a server of Atoll would take for its own.
_FOREIGN = frozenset(
    {
        *("PORT", "DB_PATH", "DATABASE_URL", "ADMIN_API_KEY", "TESTBASE_API_KEYS"),
        *("JWT_PUBLIC_KEY", "JWT_AUDIENCE", "JWT_ISSUER"),
    }
)
_FOREIGN_PREFIXES = ("MINIO_", "S3_")
_ATOLL = (sys.executable, "-P", "-m", "atoll.cli.main")
_SHOWN_CHARS = 2_000


class LocalRuntime:
    """A sandbox of this machine. The model's key is the environment's (OPENAI_API_KEY or ANTHROPIC_API_KEY, with their
    _BASE_URL for compatible servers), or `data`'s settings file names one; the agent `command` needs none.

    `data` is the folder that keeps workspaces and sessions from one run to the next. `timeout` bounds each task, in
    seconds.
    """

    skip_sync = False

    def __init__(
        self, timeout: float | None = None, debug: bool = False, *, data: str | os.PathLike[str] | None = None
    ) -> None:
        millis(timeout, "timeout")
        self.timeout = timeout
        self.debug = debug
        self.data = Path(data).expanduser().absolute() if data else default_data_folder().with_name(FOLDER_NAME)

    def __repr__(self) -> str:
        return f"LocalRuntime(data={str(self.data)!r})"

    def connection(self, agent: str | None) -> tuple[str | None, str | None]:
        """NoModelKey, Unavailable. Starts the server where none runs: seconds the first time, then half a second."""
        folder = DataFolder(self.data)
        if agent != "command":
            require_model_key(folder)
        url = _share(folder)
        return url, folder.owner_key.read_text().strip()

    def close(self) -> None:
        """This process needs the server no more: it ends where nobody else does either. Happens by itself at exit."""
        release(self.data)


def require_model_key(folder: DataFolder) -> None:
    """NoModelKey when neither the environment nor the folder's settings can say what a model costs a key for."""
    named = any(os.environ.get(name) for name in MODEL_VARIABLES)
    if named or any(name.startswith(_MODELS_PREFIX) for name in os.environ) or folder.config.exists():
        return
    raise NoModelKey(
        "no model key: set OPENAI_API_KEY (for codex) or ANTHROPIC_API_KEY (for claude_code), or OPENAI_BASE_URL or "
        "ANTHROPIC_BASE_URL for a server that speaks the same; the agent `command` needs none"
    )


_shared: dict[Path, tuple[int, IO[str]]] = {}  # by data folder: this process's pid and the lock that it shares


def _share(folder: DataFolder) -> str:
    """The URL of the folder's server, which runs for as long as this process does."""
    held = _shared.get(folder.root)
    if held is None or held[0] != os.getpid():
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(folder.root / "users.lock", "a")  # noqa: SIM115 (until this process ends)
        fcntl.flock(lock, fcntl.LOCK_SH)
        _shared[folder.root] = (os.getpid(), lock)
        if held is None:
            atexit.register(release, folder.root)
    with open(folder.root / "start.lock", "a") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        note = read_note(folder.root)
        if note is not None and note.alive:
            return note.url
        return str(
            _atoll("up", "--detach", "--host", "127.0.0.1", "--port", "0", folder=folder, limit_s=READY_S)["url"]
        )


def release(root: Path) -> None:
    """This process needs the server no more; where nobody else does, it ends with its sandboxes. Called at exit."""
    pid, lock = _shared.pop(root, (0, None))
    if lock is None or pid != os.getpid():
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            _atoll("down", folder=DataFolder(root), limit_s=END_S)
        except Unavailable as error:
            sys.stderr.write(f"atoll: the private server of {root} goes on: {error.message}\n")


def _atoll(*words: str, folder: DataFolder, limit_s: float) -> dict[str, Any]:
    """What a command says as JSON."""
    argv = [*_ATOLL, *words, "--data", str(folder.root), "--json"]
    try:
        done = subprocess.run(
            argv, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the private server in {folder.root} did not answer in {limit_s:g} s") from None
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip())[-_SHOWN_CHARS:].removeprefix("atoll: ")
        raise Unavailable(f"the private server in {folder.root}: {why}")
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        raise Internal(f"`atoll {words[0]}` said {done.stdout[:_SHOWN_CHARS]!r}") from None


def _environment() -> dict[str, str]:
    """Ours, with the model's keys and the agents' settings, and without what is meant for other servers. Programs of
    agents that this machine's own server has are not fetched again."""
    kept = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
    store = data_folder().agents
    if STORE_VARIABLE not in kept and os.access(store, os.W_OK | os.X_OK):
        kept[STORE_VARIABLE] = str(store)
    return kept


def _is_foreign(name: str) -> bool:
    if name.startswith("ATOLL_"):
        return not name.startswith(_KEPT_PREFIXES)
    return name in _FOREIGN or name.startswith(_FOREIGN_PREFIXES)
