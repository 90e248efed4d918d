"""Templates: names and aliases, content-addressed layers, one build of a tag at a time, clean failures."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.agents.base import Package
from atoll.domain import crash
from atoll.domain.errors import AtollError, InvalidInput, Unavailable, Unsupported
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import BakedFile, SandboxSpec, SandboxState
from atoll.runtimes.base import Capability
from atoll.services.agents.installed import AgentLayers, Wanted
from atoll.services.templates import Templates, layer_tag, tree_bytes
from atoll.testing.fake_runtime import FakeRuntime

from .conftest import ALICE, BOB, OWNER, QUICK, House, until

S = SandboxState


class Counting(FakeRuntime):
    """Counts bakes, and takes a moment over each."""

    bakes = 0

    async def bake(self, sandbox_id: str, destination: str) -> None:
        self.bakes += 1
        await asyncio.sleep(0.05)
        await super().bake(sandbox_id, destination)


def layers(house: House) -> list[str]:
    return sorted(path.name for path in (house.data / "layers").iterdir())


async def test_a_tag_is_the_hash_that_the_wire_contract_gives() -> None:
    files = [BakedFile("/b", b"2"), BakedFile("/a", b"1")]
    digest = hashlib.sha256(b"host\0" + b"echo 1\0" + b"echo 2\0" + b"/a\0001\0" + b"/b\0002\0").hexdigest()
    assert layer_tag("host", ["echo 1", "echo 2"], files) == "execbox-" + digest[:16]
    assert layer_tag("host", ["echo 2", "echo 1"], files) != layer_tag("host", ["echo 1", "echo 2"], files)


async def test_setup_and_files_are_there_and_are_built_once(house: House) -> None:
    await house.restart(Counting(house.host))
    asked = {
        "setup": ("cat /opt/name > /opt/copy", "echo done > /opt/done"),
        "files": (BakedFile("/opt/name", b"atoll"),),
    }
    first = await house.create(**asked)
    assert await house.actions(first) == ["sandbox.created", "sandbox.building", "sandbox.started"]
    second = await house.create(principal=BOB, **asked)
    assert await house.actions(second) == ["sandbox.created", "sandbox.started"]
    for principal, sandbox in ((ALICE, first), (BOB, second)):
        spec = ProcessSpec(("cat", "/opt/copy", "/opt/done"))
        result = await house.sandboxes.processes.run(principal, sandbox.id, spec)
        assert result.stdout == b"atolldone\n"
    assert isinstance(house.runtime, Counting)
    assert house.runtime.bakes == 1
    assert set(house.host.sandboxes) == {first.id, second.id}
    assert first.spec.files == ()
    tag = layer_tag("host", asked["setup"], asked["files"])
    assert first.spec.layers == (str(house.data / "layers" / tag),)
    assert layers(house) == [tag, f"{tag}.json"]


FILES = {"files": (BakedFile("/a; true", b"true"), BakedFile("/b; true", b"true"))}
SAME_TAG = [
    {"files": (BakedFile("/a; true", b"true\0/b; true\0true"),)},  # one file that reads like both
    {"setup": ("/a; true", "true", "/b; true", "true")},  # lines that read like paths and contents
]


@pytest.mark.parametrize("crafted", SAME_TAG)
async def test_nobody_gets_the_layer_of_another_content_that_has_the_same_tag(
    house: House, crafted: dict[str, Any]
) -> None:
    tags = {layer_tag("host", asked.get("setup", ()), asked.get("files", ())) for asked in (FILES, crafted)}
    assert len(tags) == 1
    await house.create(principal=BOB, **crafted)
    sandbox = await house.create(**FILES)
    result = await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("cat", "/a; true", "/b; true")))
    assert result.stdout == b"truetrue"


async def test_of_two_builds_under_one_tag_the_second_is_told_to_try_again(house: House) -> None:
    await house.restart(Counting(house.host))
    both = (house.create(**FILES), house.create(principal=BOB, **SAME_TAG[0]))
    results = await asyncio.gather(*both, return_exceptions=True)
    assert [str(result) for result in results if isinstance(result, Unavailable)] == [
        "another build has taken this layer's tag: try again"
    ]
    assert (await house.create(principal=BOB, **SAME_TAG[0])).state is S.RUNNING
    assert (await house.create(**FILES)).state is S.RUNNING


async def test_everybody_who_needs_a_layer_waits_for_one_build(house: House) -> None:
    await house.restart(Counting(house.host))
    made = await asyncio.gather(*(house.create(principal=OWNER, setup=("echo 1",)) for _ in range(8)))
    assert {sandbox.state for sandbox in made} == {S.RUNNING}
    assert isinstance(house.runtime, Counting)
    assert house.runtime.bakes == 1


async def test_a_layer_outlives_the_server(house: House) -> None:
    await house.create(setup=("echo 1 > /one",))
    await house.restart(Counting(house.host))
    again = await house.create(setup=("echo 1 > /one",))
    assert isinstance(house.runtime, Counting)
    assert house.runtime.bakes == 0
    assert (await house.sandboxes.processes.run(ALICE, again.id, ProcessSpec(("cat", "/one")))).stdout == b"1\n"


async def test_a_failing_line_fails_with_its_log_and_leaves_nothing(house: House) -> None:
    with pytest.raises(InvalidInput, match=r"setup line 2 failed \(exit 7\): echo broken here") as caught:
        await house.create(setup=("echo fine", "echo broken here >&2; exit 7"))
    assert caught.value.field == "setup"
    assert "broken here" in caught.value.message.splitlines()[-1]
    (record,) = await house.sandboxes.list(ALICE)
    assert record.state is S.FAILED
    assert "broken here" in (record.reason or "")
    assert not house.host.sandboxes
    assert layers(house) == []


async def test_a_line_that_does_not_end_is_ended(house: House) -> None:
    with pytest.raises(InvalidInput, match="timed out"):
        await house.create(setup=("sleep 100",))
    assert not house.host.sandboxes


async def test_a_build_has_a_deadline(house: House) -> None:
    house.limits = replace(QUICK, build_s=0.2, setup_line_s=60)
    await house.restart()
    with pytest.raises(AtollError, match="building the template took longer"):
        await house.create(setup=("sleep 100",))
    assert not house.host.sandboxes
    assert layers(house) == []


async def test_a_builder_is_no_orphan(house: House) -> None:
    creating = asyncio.create_task(house.create(setup=("sleep 0.3",)))
    await until(lambda: len(house.host.sandboxes) == 1)
    builder = next(iter(house.host.sandboxes))
    await house.sandboxes.reconciler.run()
    await house.sandboxes.reconciler.run()
    assert builder in house.host.sandboxes
    assert (await creating).state is S.RUNNING
    assert builder not in house.host.sandboxes


async def test_a_kill_while_its_layer_is_built_wins(house: House) -> None:
    creating = asyncio.create_task(house.create(setup=("sleep 0.2",)))
    await until(lambda: len(house.host.sandboxes) == 1)
    (record,) = await house.sandboxes.list(ALICE)
    assert record.state is S.BUILDING
    await house.sandboxes.kill(ALICE, record.id)
    with pytest.raises(AtollError, match="session already killed"):
        await creating
    assert not house.host.sandboxes
    assert await house.state(record) is S.KILLED


@pytest.mark.parametrize("point", sorted(name for name in crash.POINTS if name.startswith("templates.")))
async def test_a_build_that_breaks_anywhere_leaves_a_clean_slate(house: House, point: str) -> None:
    def stop(name: str) -> None:
        raise RuntimeError(name)

    with crash.armed(point, stop), pytest.raises(AtollError):
        await house.create(setup=("echo 1 > /one",))
    assert not house.host.sandboxes
    await house.restart()
    sandbox = await house.create(setup=("echo 1 > /one",))
    assert (await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("cat", "/one")))).stdout == b"1\n"
    assert not [name for name in layers(house) if "partial" in name]


async def test_partial_layers_of_an_earlier_life_are_removed(house: House) -> None:
    left = house.data / "layers" / "execbox-0123456789abcdef.partial"
    left.mkdir()
    (left / "file").write_text("half")
    await house.restart()
    assert layers(house) == []


async def test_aliases_name_templates_and_unknown_ones_say_what_exists(house: House) -> None:
    house.aliases = {"python:3.12": "host"}
    await house.restart()
    assert (await house.create(image="python:3.12")).spec.image == "python:3.12"
    with pytest.raises(InvalidInput, match=r"'node:20' does not exist here; there are: host, python:3.12$"):
        await house.create(image="node:20")


async def test_a_layer_is_an_image_only_by_an_operators_alias(house: House) -> None:
    made = await house.create(files=(BakedFile("/secret", b"alice's"),))
    tag = Path(made.spec.layers[0]).name
    for principal in (ALICE, BOB, OWNER):
        with pytest.raises(InvalidInput) as caught:
            await house.create(principal=principal, image=tag)
        assert tag not in caught.value.message.split("there are")[1]
    names = [template.name for template in house.sandboxes.templates.list(BOB)]
    assert names == ["host"]
    assert [template.name for template in house.sandboxes.templates.list(OWNER)] == ["host", tag]
    house.aliases = {"base": tag}
    await house.restart()
    on_top = await house.create(principal=BOB, image="base", setup=("cat /secret > /copy",))
    assert len(on_top.spec.layers) == 2
    result = await house.sandboxes.processes.run(BOB, on_top.id, ProcessSpec(("cat", "/copy")))
    assert result.stdout == b"alice's"


async def test_the_least_recently_used_layers_go_but_none_in_use(house: House) -> None:
    house.limits = replace(QUICK, layers_max=2)
    await house.restart()
    used = await house.create(principal=OWNER, setup=("echo 0",))
    for number in range(1, 5):
        sandbox = await house.create(principal=OWNER, setup=(f"echo {number}",))
        await house.sandboxes.kill(OWNER, sandbox.id)
    await house.sandboxes.reconciler.prune()
    kept = [template.name for template in house.sandboxes.templates.list(OWNER) if template.kind == "layer"]
    assert len(kept) == 2
    assert Path(used.spec.layers[0]).name in kept
    await until(lambda: layers(house) == sorted([*kept, *(f"{name}.json" for name in kept)]))
    shown = [template for template in house.sandboxes.templates.list(OWNER) if template.kind == "layer"]
    assert all(template.base == "host" and template.size_bytes > 0 and template.created_at for template in shown)


async def test_a_build_beyond_the_bytes_that_layers_may_hold_lets_older_ones_go(house: House) -> None:
    house.limits = replace(QUICK, layers_bytes_max=1)
    await house.restart()
    used = await house.create(principal=OWNER, setup=("echo used",))
    idle = await house.create(principal=OWNER, setup=("echo idle",))
    await house.sandboxes.kill(OWNER, idle.id)
    idle_layer = Path(idle.spec.layers[0])
    assert idle_layer.name in layers(house)
    last = await house.create(principal=OWNER, setup=("echo last",))
    await until(lambda: idle_layer.name not in layers(house))
    kept = [template for template in house.sandboxes.templates.list(OWNER) if template.kind == "layer"]
    assert {template.name for template in kept} == {Path(one.spec.layers[0]).name for one in (used, last)}


def test_a_layer_counts_what_it_allocates(tmp_path: Path) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**30)
    (tmp_path / "one").write_bytes(bytes(2**20))
    os.link(tmp_path / "one", tmp_path / "two")
    assert 2**20 <= tree_bytes(tmp_path) < 2**21


async def test_a_runtime_without_layers_says_so(house: House) -> None:
    class Plain(FakeRuntime):
        @property
        def capabilities(self) -> frozenset[Capability]:
            return frozenset()

    await house.restart(Plain(house.host))
    with pytest.raises(Unsupported, match="bake setup and files"):
        await house.create(setup=("echo 1",))
    assert house.records.writes == 0


class Agents(AgentLayers):
    """One that is installed, and one that is not."""

    def layer(self, agent: str) -> str:
        return super().layer(agent) if agent != "codex" else self.folder

    folder = ""


async def test_a_sandbox_sees_its_agent_s_program_below_everything_else(house: House, tmp_path: Path) -> None:
    agents = Agents(tmp_path, {"claude_code": Wanted(Package("npm", "c", "1", "package", "claude"), ())})
    program = tmp_path / "layer/opt/atoll/agents/codex/bin/codex"
    program.parent.mkdir(parents=True)
    program.write_text("it runs\n")
    agents.folder = str(tmp_path / "layer")
    templates = Templates(house.runtime, house.data, QUICK, {}, agents)
    await templates.start()
    plan = templates.plan(SandboxSpec(agent="codex", setup=("true",)))
    assert plan.spec.layers[0] == agents.folder and len(plan.spec.layers) == 2
    with pytest.raises(Unavailable, match="atoll agent install claude_code"):
        templates.plan(SandboxSpec(agent="claude_code"))
    with pytest.raises(InvalidInput, match="agent 'other' has no program"):
        templates.plan(SandboxSpec(agent="other"))
    with pytest.raises(Unavailable, match="not installed here"):  # a server without a store of them
        await house.sandboxes.create(ALICE, SandboxSpec(agent="codex"))
