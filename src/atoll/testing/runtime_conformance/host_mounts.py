"""Host mounts: folders of the host in live sandboxes, to read unless it is said otherwise, and never past a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError, Conflict, NotFound, Unsupported
from atoll.domain.ids import new_sandbox_id
from atoll.runtimes.base import Capability, Runtime
from atoll.sidekick.client import SidekickClient
from atoll.testing.runtime_conformance.suite import Suite, able, chunks, content, sh


class HostMountChecks(Suite):
    @pytest.fixture
    def root(self, runtime: Runtime, tmp_path: Path) -> Path:
        """A folder of the host that everybody may read and write."""
        able(runtime, Capability.HOST_MOUNTS)
        folder = tmp_path.resolve() / "root"
        (folder / "data" / "deep").mkdir(parents=True)
        (folder / "data" / "a").write_bytes(b"of the host")
        for one in (folder, folder / "data", folder / "data" / "deep"):
            one.chmod(0o777)
        return folder

    async def test_a_folder_of_the_host_is_seen_by_programs_and_by_the_api(
        self, runtime: Runtime, sandbox_id: str, inside: SidekickClient, root: Path
    ) -> None:
        for _ in range(2):  # the second call does nothing
            await runtime.mount_host(sandbox_id, str(root), "data", "/home/user/mine", read_only=True)
        assert await content(inside, "/home/user/mine/a") == b"of the host"
        assert (await sh(inside, "cat /home/user/mine/a")).stdout == b"of the host"
        (root / "data" / "b").write_bytes(b"later")
        (root / "data" / "b").chmod(0o644)
        assert await content(inside, "/home/user/mine/b") == b"later"
        with pytest.raises(AtollError):
            await inside.write_file("/home/user/mine/c", chunks(b"x"))
        assert (await sh(inside, "echo x > /home/user/mine/c")).exit.code != 0
        assert sorted(os.listdir(root / "data")) == ["a", "b", "deep"]

    async def test_it_can_be_written_where_that_is_said(
        self, runtime: Runtime, sandbox_id: str, inside: SidekickClient, root: Path
    ) -> None:
        try:
            await runtime.mount_host(sandbox_id, str(root), "data/deep", "/home/user/mine", read_only=False)
        except Unsupported:
            pytest.skip("the file system of this test's folder maps no owners")
        await inside.write_file("/home/user/mine/c", chunks(b"x"))
        assert (root / "data" / "deep" / "c").read_bytes() == b"x"

    async def test_a_link_put_in_the_way_leads_nowhere(
        self, runtime: Runtime, sandbox_id: str, inside: SidekickClient, root: Path
    ) -> None:
        secret = root.parent / "secret"
        secret.mkdir()
        (root / "link").symlink_to(secret)
        (root / "above").symlink_to(root.parent)
        for below in ("link", "above/secret", "nothing", "data/a"):
            with pytest.raises(NotFound):
                await runtime.mount_host(sandbox_id, str(root), below, "/home/user/mine", read_only=True)
        with pytest.raises(NotFound):
            await runtime.mount_host(sandbox_id, str(root / "link"), ".", "/home/user/mine", read_only=True)
        assert (await sh(inside, "ls /home/user/mine")).stdout == b""

    async def test_a_place_is_taken_once_and_a_file_is_none(
        self, runtime: Runtime, sandbox_id: str, inside: SidekickClient, root: Path
    ) -> None:
        await runtime.mount_host(sandbox_id, str(root), "data", "/home/user/mine", read_only=True)
        with pytest.raises(Conflict):
            await runtime.mount_host(sandbox_id, str(root), ".", "/home/user/mine", read_only=True)
        await inside.write_file("/home/user/file", chunks(b""))
        with pytest.raises(Conflict):
            await runtime.mount_host(sandbox_id, str(root), "data", "/home/user/file", read_only=True)
        with pytest.raises(NotFound):
            await runtime.mount_host(new_sandbox_id(), str(root), "data", "/home/user/mine", read_only=True)
