"""The agent contract: how a program that does tasks is installed, started in a sandbox, and understood.

An adapter is pure: it makes a command line and files, and reads lines. `services/tasks` runs it; the suite
`atoll.testing.agent_conformance` holds every adapter to these docstrings. Inside, the model is at
`http://127.0.0.1:<model port>` (OpenAI below /v1, Anthropic at /v1/messages) and needs no credential: programs that
insist on one are given a placeholder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from atoll.domain.price import TokenUse
from atoll.domain.process import Exit
from atoll.domain.task import TaskSpec


@dataclass(frozen=True, slots=True)
class Package:
    """What is installed, outside of any sandbox, by this server's own pip or npm; exactly this version."""

    source: str  # pip or npm
    name: str  # {platform}: as npm's packages of one platform are called, such as linux-x64
    version: str
    folder: str  # in the package; what lies in it is the layer's folder
    program: str  # of that folder's files the one that is started
    hashes: tuple[str, ...] = ()  # of its archives, one for each platform: hex SHA-256 (pip), sha512-... (npm)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task runs: absolute paths inside the sandbox."""

    workspace: str  # the tree that it works on, and its current folder
    home: str  # the thread's own folder, which lasts from task to task; the adapter lays it out as it likes
    layer: str  # where the agent's package lies, read-only; "" for none
    model_url: str  # http://127.0.0.1:<port>, without a path
    model: str  # empty: the agent's own default


@dataclass(frozen=True, slots=True)
class Start:
    """How to start it. `files` are written below `Place.home` before, by relative path; `env` adds to the sandbox's."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    stdin: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes], hash=False)


@dataclass(frozen=True, slots=True)
class Said:
    """What a line meant: a task event's type and data (`domain.task.TaskEvent`)."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run went, as the program told it."""

    ok: bool
    output: str  # its last message; what a plain command wrote
    error: str = ""
    agent_thread: str = ""  # what continues the conversation: for the next `start` and `reader`; "" when nothing does
    tokens: TokenUse | None = None  # of this run, as the program counts: for the log only, money is metered outside


class Reader(ABC):
    """Understands the output of one run. Lines may be anything: none of them is an error, however long or odd."""

    @abstractmethod
    def line(self, line: bytes) -> Sequence[Said]:
        """One line of stdout, without its end."""

    @abstractmethod
    def stderr(self, data: bytes) -> None:
        """For the error message of a run that fails; bounded."""

    @property
    @abstractmethod
    def agent_thread(self) -> str:
        """What continues the conversation, as soon as the program told; it may change until the end."""

    @abstractmethod
    def end(self, exit: Exit | None) -> Outcome:
        """The program has ended; None: nobody knows how. Called once, after the last line."""


class Agent(ABC):
    """One kind of agent."""

    name: ClassVar[str]
    package: ClassVar[Package | None]  # None: nothing is installed
    speaks: ClassVar[str] = ""  # whose API it asks its model by, openai or anthropic; "": it need not have one

    @abstractmethod
    def start(self, spec: TaskSpec, place: Place, agent_thread: str) -> Start:
        """The command for one task; `agent_thread` continues that conversation, "" begins one. InvalidInput, naming the
        field, for what this agent cannot do."""

    @abstractmethod
    def reader(self, agent_thread: str = "") -> Reader:
        """For the output of a run that was started with that `agent_thread`: some programs count from its beginning."""
