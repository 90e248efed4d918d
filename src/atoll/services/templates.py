"""Templates: the names that `image` may have, and layers baked from setup lines and files, kept by their content's tag.

Sandboxes asks for a plan before it records anything and builds what the plan lacks; `atoll template ls` lists.
Layers lie in `layers/<tag>/` of the data folder, each with `<tag>.json` beside it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from atoll.domain import crash
from atoll.domain.errors import InvalidInput, Unavailable
from atoll.domain.ids import new_sandbox_id
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import BakedFile, Resources, SandboxSpec
from atoll.runtimes.base import Capability, Runtime
from atoll.services.agents.installed import NO_AGENTS, AgentLayers
from atoll.services.deadline import deadline
from atoll.services.limits import Limits

_log = structlog.get_logger()

HOST = "host"
TAG_PREFIX = "execbox-"
TAG_HEX = 16
BUILD_LOG_BYTES = 8_192
BUILDER_PIDS = 512


@dataclass(frozen=True, slots=True)
class Template:
    """What `atoll template ls` shows. kind: builtin, alias (of `base`) or layer (baked on `base`)."""

    name: str  # host, python:3.12, execbox-0123456789abcdef
    kind: str
    base: str = ""
    size_bytes: int = 0
    created_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make: the spec with its layers resolved; `tag` names a layer that has to be built first."""

    spec: SandboxSpec
    tag: str | None = None
    content: str = ""  # see `content_digest`
    setup: tuple[str, ...] = ()
    files: tuple[BakedFile, ...] = ()


def layer_tag(base: str, setup: Iterable[str], files: Iterable[BakedFile]) -> str:
    """`execbox-` and 16 hex digits: SHA-256 over base, setup lines, then paths and contents by path, each with NUL."""
    digest = hashlib.sha256(base.encode() + b"\0")
    for line in setup:
        digest.update(line.encode() + b"\0")
    for file in sorted(files, key=lambda file: file.path):
        digest.update(file.path.encode() + b"\0" + file.content + b"\0")
    return TAG_PREFIX + digest.hexdigest()[:TAG_HEX]


def content_digest(base: str, setup: Iterable[str], files: Iterable[BakedFile]) -> str:
    """A digest that different contents cannot share, as they can a tag: there a setup line may read like a file's path,
    a file with a NUL like two. Without it one tenant could bake what another's request then finds."""
    digest = hashlib.sha256()
    sorted_files = sorted(files, key=lambda file: file.path)
    for group in ([base], setup, (file.path for file in sorted_files)):
        parts = [part.encode() for part in group]
        digest.update(b"%d\n" % len(parts) + b"".join(b"%d:%b" % (len(part), part) for part in parts))
    for file in sorted_files:
        digest.update(hashlib.sha256(file.content).digest())
    return digest.hexdigest()


@dataclass(slots=True)
class _Layer:
    """The description beside a layer."""

    base: str
    setup: tuple[str, ...]
    paths: tuple[str, ...]
    size_bytes: int
    created_at: float
    last_used_at: float = 0.0
    content: str = ""  # unknown where a crash came before the description was written


@dataclass(slots=True)
class _Building:
    """Builders at work: the reconciler takes none of them for an orphan."""

    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, "asyncio.Task[None]"])
    contents: dict[str, str] = field(default_factory=dict[str, str])
    sandboxes: set[str] = field(default_factory=set[str])


class Templates:
    """The registry of templates. `start` first; nothing else touches `layers/`."""

    def __init__(
        self,
        runtime: Runtime,
        data: Path,
        limits: Limits,
        aliases: dict[str, str],
        agents: AgentLayers = NO_AGENTS,
    ) -> None:
        self._runtime = runtime
        self._agents = agents
        self._folder = data / "layers"
        self._limits = limits
        self._aliases = aliases
        self._layers: dict[str, _Layer] = {}
        self._building = _Building()
        self._slots = asyncio.Semaphore(limits.builds_max)

    async def start(self) -> None:
        """Read what is there; builds that were cut short are removed."""
        await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Give up builds that run."""
        tasks = list(self._building.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._limits.destroy_s)

    @property
    def builders(self) -> Collection[str]:
        """The ids of the sandboxes that builds run in."""
        return frozenset(self._building.sandboxes)

    def list(self, principal: Principal) -> list[Template]:
        """Built in and aliases; for owners layers too, by name: their tags are nobody else's business."""
        principal.require(Scope.READ)
        found = self._named()
        if principal.kind is not KeyKind.STANDARD:
            found += [_shown(tag, layer) for tag, layer in sorted(self._layers.items())]
        return found

    async def look(self, spec: SandboxSpec) -> None:
        """Before `plan`, which then need not read many files itself. Errors as there."""
        if spec.agent and Capability.LAYERS in self._runtime.capabilities:
            await asyncio.to_thread(self._agents.layer, spec.agent)

    def plan(self, spec: SandboxSpec) -> Plan:
        """InvalidInput `image` that lists what exists; Unsupported when this runtime cannot build layers; Unavailable
        when the agent that it should see is not installed."""
        base, layers = self._resolve(spec.image)
        if spec.agent:
            if Capability.LAYERS not in self._runtime.capabilities:
                raise self._runtime.unsupported("show a sandbox an agent's program")
            layers = (self._agents.layer(spec.agent), *layers)
        if not spec.setup and not spec.files:
            return Plan(replace(spec, layers=layers))
        if Capability.LAYERS not in self._runtime.capabilities:
            raise self._runtime.unsupported("bake setup and files into a template")
        content = content_digest(base, spec.setup, spec.files)
        tag = layer_tag(base, spec.setup, spec.files)
        if self._content(tag) not in (None, content):
            tag = f"{tag}-{content[:TAG_HEX]}"
        # The contents are in the layer from now on: a record keeps the lines, for people, and no bytes.
        planned = replace(spec, files=(), layers=(*layers, str(self._folder / tag)))
        if tag in self._layers:
            self._use(tag)
            return Plan(planned)
        return Plan(planned, tag, content, spec.setup, spec.files)

    async def build(self, plan: Plan) -> None:
        """Make the plan's layer; one build of a tag at a time, whoever asks. InvalidInput with the log of a failing
        line, Unavailable when too many builds wait, DeadlineExceeded."""
        tag = plan.tag
        if tag is None:
            return
        if self._content(tag) not in (None, plan.content):
            raise Unavailable("another build has taken this layer's tag: try again")
        if tag in self._layers:
            return
        task = self._building.tasks.get(tag)
        if task is None:
            if len(self._building.tasks) >= self._limits.builds_max + self._limits.builds_waiting_max:
                raise Unavailable("too many template builds are waiting")
            task = asyncio.create_task(self._build(tag, plan), name=f"build {tag}")
            self._building.tasks[tag] = task
            self._building.contents[tag] = plan.content
            task.add_done_callback(lambda done: self._built(tag, done))
        await asyncio.shield(task)

    async def prune(self, in_use: Collection[str]) -> int:
        """Remove the least recently used layers beyond the limits, but none of `in_use` (spec.layers); how many."""
        victims = self._beyond(in_use)
        gone = [self._folder / f"{tag}.{new_sandbox_id()}.partial" for tag in victims]
        # All names go at once, before anybody else's turn: a create that came in between would plan with one of them.
        # A removal that is cut short leaves partials for the next start to clear.
        for tag, partial in zip(victims, gone, strict=True):
            os.rename(self._folder / tag, partial)
            (self._folder / f"{tag}.json").unlink(missing_ok=True)
            del self._layers[tag]
        for partial in gone:
            await asyncio.to_thread(self._clear, partial)
        return len(victims)

    def _beyond(self, in_use: Collection[str]) -> Collection[str]:
        count, held_bytes = len(self._layers), sum(layer.size_bytes for layer in self._layers.values())
        victims: deque[str] = deque()
        for tag in sorted(self._layers, key=lambda tag: self._layers[tag].last_used_at):
            if count <= self._limits.layers_max and held_bytes <= self._limits.layers_bytes_max:
                break
            if str(self._folder / tag) not in in_use:
                victims.append(tag)
                count -= 1
                held_bytes -= self._layers[tag].size_bytes
        return victims

    def _content(self, tag: str) -> str | None:
        """The content digest of the layer that has this tag, or is being built under it; None when none is."""
        layer = self._layers.get(tag)
        return self._building.contents.get(tag) if layer is None else layer.content

    # building

    async def _build(self, tag: str, plan: Plan) -> None:
        async with deadline(self._limits.build_s, "building the template"), self._slots:
            builder = new_sandbox_id()
            self._building.sandboxes.add(builder)
            partial = self._folder / f"{tag}.partial"
            try:
                await self._runtime.make(builder, _builder_spec(plan.spec, self._limits))
                await self._fill(builder, plan)
                await asyncio.to_thread(self._clear, partial)
                await self._runtime.bake(builder, str(partial))
                crash.point("templates.build.baked")
                await asyncio.to_thread(self._keep, tag, plan, partial)
            finally:
                await asyncio.shield(asyncio.ensure_future(self._tidy(builder, partial)))

    async def _fill(self, builder: str, plan: Plan) -> None:
        sidekick = self._runtime.sidekick(builder)
        for file in sorted(plan.files, key=lambda file: file.path):
            await sidekick.write_file(file.path, _once(file.content))
        for number, line in enumerate(plan.setup, 1):
            command = ProcessSpec(("sh", "-c", line), timeout_s=self._limits.setup_line_s)
            result = await sidekick.run(command, max_output_bytes=2**20)
            if result.exit.code != 0:
                output = (result.stdout + result.stderr)[-BUILD_LOG_BYTES:].decode(errors="replace").strip()
                how = "timed out" if result.exit.timed_out else f"exit {result.exit.code}"
                raise InvalidInput(f"setup line {number} failed ({how}): {line}\n{output}", field="setup")

    async def _tidy(self, builder: str, partial: Path) -> None:
        try:
            async with deadline(self._limits.destroy_s, "destroying the builder"):
                await self._runtime.destroy(builder)
        except Exception:
            _log.exception("template.builder_left", sandbox_id=builder)
        finally:
            self._building.sandboxes.discard(builder)
            await asyncio.to_thread(self._clear, partial)

    def _built(self, tag: str, task: asyncio.Task[None]) -> None:
        self._building.tasks.pop(tag, None)
        self._building.contents.pop(tag, None)
        if not task.cancelled() and task.exception() is not None:
            _log.info("template.build_failed", tag=tag, error=str(task.exception())[:500])

    # the folder (blocking)

    def _read(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in list(self._folder.iterdir()):
            if entry.suffix == ".partial":
                self._clear(entry)
        for entry in sorted(self._folder.glob(f"{TAG_PREFIX}*")):
            if entry.suffix == "":
                self._layers[entry.name] = self._describe(entry)

    def _describe(self, folder: Path) -> _Layer:
        """What stands beside the layer; a crash may have come before that was written."""
        try:
            layer = _Layer(**json.loads(folder.with_suffix(".json").read_text()))
        except (OSError, ValueError, TypeError):
            made = folder.stat().st_mtime
            layer = _Layer(HOST, (), (), tree_bytes(folder), made, made)
        try:
            layer.last_used_at = folder.with_suffix(".json").stat().st_mtime
        except OSError:
            pass
        return layer

    def _keep(self, tag: str, plan: Plan, partial: Path) -> None:
        os.rename(partial, self._folder / tag)
        crash.point("templates.build.renamed")
        now = datetime.now(UTC).timestamp()
        paths = tuple(file.path for file in plan.files)
        base = self._resolve(plan.spec.image)[0]
        layer = _Layer(base, plan.setup, paths, tree_bytes(self._folder / tag), now, now, plan.content)
        description = self._folder / f"{tag}.json"
        draft = description.with_suffix(".json.partial")
        draft.write_text(json.dumps(asdict(layer)))
        os.replace(draft, description)
        self._layers[tag] = layer

    def _use(self, tag: str) -> None:
        self._layers[tag].last_used_at = datetime.now(UTC).timestamp()
        try:
            os.utime(self._folder / f"{tag}.json")
        except OSError:
            pass

    def _clear(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _named(self) -> list[Template]:
        aliases = [Template(name, "alias", base) for name, base in sorted(self._aliases.items())]
        return [Template(HOST, "builtin"), *aliases]

    def _resolve(self, image: str) -> tuple[str, tuple[str, ...]]:
        """(base name, its layers). Only an operator's alias names a layer: what a tenant baked is not for others."""
        name = self._aliases.get(image, image)
        if name == HOST:
            return HOST, ()
        if image in self._aliases and name in self._layers:
            self._use(name)
            return name, (str(self._folder / name),)
        known = ", ".join(template.name for template in self._named())
        raise InvalidInput(f"image {image!r} does not exist here; there are: {known}", field="image")


def _builder_spec(spec: SandboxSpec, limits: Limits) -> SandboxSpec:
    """Like the sandbox that asked, but without its env, command and ports: the tag does not cover those."""
    resources = Resources(
        cpu_millis=spec.resources.cpu_millis,
        memory_bytes=spec.resources.memory_bytes,
        pids=max(spec.resources.pids, BUILDER_PIDS),
        disk_bytes=spec.resources.disk_bytes,
        inodes=spec.resources.inodes,
        timeout_s=limits.build_s + limits.destroy_s,
    )
    return SandboxSpec(image=spec.image, resources=resources, network=spec.network, layers=spec.layers[:-1], env={})


def _shown(tag: str, layer: _Layer) -> Template:
    created, used = (datetime.fromtimestamp(at, UTC) for at in (layer.created_at, layer.last_used_at))
    return Template(tag, "layer", layer.base, layer.size_bytes, created, used)


def tree_bytes(folder: Path) -> int:
    """What it allocates: a sparse file counts what it holds, one with two names once."""
    blocks: dict[tuple[int, int], int] = {}
    for root, folders, names in os.walk(folder):
        for name in (".", *folders, *names):
            found = os.lstat(os.path.join(root, name))
            blocks[found.st_dev, found.st_ino] = found.st_blocks
    return 512 * sum(blocks.values())


async def _once(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content
