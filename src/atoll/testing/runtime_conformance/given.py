"""What a sandbox is given of secrets: variables of its main process alone, and files that no layer takes along."""

from __future__ import annotations

from pathlib import Path

from atoll.domain.sandbox import SandboxSpec
from atoll.domain.secret import FILES_FOLDER, Given
from atoll.runtimes.base import Capability, Runtime
from atoll.sidekick.client import SidekickClient
from atoll.testing.runtime_conformance.suite import Suite, able, chunks, content, made, read_until, sh

FILE = f"{FILES_FOLDER}/key"
VALUE = bytes(range(256))


class GivenChecks(Suite):
    async def test_what_is_given_is_there_before_the_main_process_and_its_variables_are_its_own(
        self, runtime: Runtime
    ) -> None:
        given = Given({"TOKEN": "t0p", "A": "given"}, {FILE: b"contents\n"})
        spec = SandboxSpec(command=("sh", "-c", f"cat {FILE}; echo $TOKEN-$A; sleep 9"), env={"A": "own"}, given=given)
        inside = runtime.sidekick(await made(runtime, spec))
        stream = await inside.attach("main")
        assert await read_until(stream, b"t0p-given\n") == b"contents\nt0p-given\n"
        await stream.close()
        assert b"t0p" not in (await sh(inside, "env")).stdout
        assert (await sh(inside, "echo $A")).stdout == b"own\n"

    async def test_a_given_file_is_exact_and_its_users_alone(self, runtime: Runtime) -> None:
        spec = SandboxSpec(given=Given(files={FILE: VALUE, f"{FILES_FOLDER}/other": b"x" * 65_536}))
        inside = runtime.sidekick(await made(runtime, spec))
        assert await content(inside, FILE) == VALUE
        entries = {entry.name: (entry.mode, entry.size) for entry in await inside.list_dir(FILES_FOLDER)}
        assert entries == {"key": (0o400, 256), "other": (0o400, 65_536)}

    async def test_a_file_that_is_given_later_replaces_one(self, inside: SidekickClient) -> None:
        for contents in (b"one", b"two"):
            await inside.write_file(FILE, chunks(contents), mode=0o400)
            assert await content(inside, FILE) == contents
        assert [entry.name for entry in await inside.list_dir(FILES_FOLDER)] == ["key"]

    async def test_a_baked_layer_has_nothing_of_it(self, runtime: Runtime, tmp_path: Path) -> None:
        able(runtime, Capability.LAYERS)
        builder = await made(runtime, SandboxSpec(given=Given(files={FILE: b"c4n4ry"})))
        await runtime.sidekick(builder).write_file("/opt/kept", chunks(b"kept"))
        layer = tmp_path / "layer"
        await runtime.bake(builder, str(layer))
        inside = runtime.sidekick(await made(runtime, SandboxSpec(layers=(str(layer),))))
        assert await content(inside, "/opt/kept") == b"kept"
        assert await inside.list_dir(FILES_FOLDER) == []
        files = [path for path in layer.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not any(part in path.read_bytes() for path in files for part in (b"c4n4ry", b"c4n4ry".hex().encode()))
