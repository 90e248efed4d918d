"""Working trees under attack: what a tenant does in a workspace, or to the way there, harms nobody else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest_asyncio

from atoll.domain.sandbox import SandboxSpec
from atoll.domain.workspace import Quota, WorkspaceMount
from tests.ground import ROOT_ONLY, Ground, Tenant

pytestmark = ROOT_ONLY

QUOTA = Quota(bytes=24 * 2**20, inodes=1024)


@pytest_asyncio.fixture(loop_scope="session")
async def tree(ground: Ground) -> AsyncIterator[str]:
    """A tree with a keeper that is alive while the oracles look; gone afterwards."""
    await ground.runtime.make_tree("attacked", QUOTA)
    yield "attacked"
    for found in await ground.runtime.list():
        if found.id != ground.alice.tenant.id:
            await ground.runtime.destroy(found.id)
    await ground.runtime.remove_tree("attacked")


async def mallory(ground: Ground, tree: str, *, read_only: bool = False) -> Tenant:
    return await ground.make(SandboxSpec(workspaces=(WorkspaceMount("ws", "/workspace", read_only, tree),)))


async def test_a_workspace_gives_no_rights(ground: Ground, tree: str) -> None:
    tenant = await mallory(ground, tree)
    told = await tenant.told(
        """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
out = {}
def attempt(name, call):
    try:
        result = call()
        if isinstance(result, int) and result < 0:
            raise OSError(ctypes.get_errno(), "")
        out[name] = "done"
    except OSError as error:
        out[name] = errno.errorcode.get(error.errno)
os.chdir("/workspace")
open("f", "w").close()
attempt("device", lambda: os.mknod("d", 0o20666, os.makedev(1, 1)))
attempt("chown to root", lambda: os.chown("f", 0, 0))
attempt("chown to another", lambda: os.chown("f", 2000, 2000))
attempt("unmount", lambda: libc.umount2(b"/workspace", 2))
attempt("remount", lambda: libc.mount(b"none", b"/workspace", None, 0x20 | 0x1000, None))
attempt("move the mount point", lambda: os.rename("/workspace", "/elsewhere"))
attempt("remove the mount point", lambda: os.rmdir("/workspace"))
attempt("link out", lambda: os.link("/etc/passwd", "passwd"))
attempt("capability", lambda: os.setxattr("f", "security.capability", bytes(20)))
attempt("trusted", lambda: os.setxattr("f", "trusted.overlay.opaque", b"y"))
out["parent"] = sorted(os.listdir("/workspace/..")) == sorted(os.listdir("/"))
flags = os.statvfs(".").f_flag
out["flags"] = bool(flags & os.ST_NOSUID) and bool(flags & os.ST_NODEV)
print(json.dumps(out))
"""
    )
    assert told.pop("parent") and told.pop("flags")
    assert set(told.values()) <= {"EPERM", "EBUSY", "EXDEV", "EACCES", "EINVAL"}, told


async def test_a_full_workspace_is_its_own_trouble(ground: Ground, tree: str) -> None:
    tenant, neighbour = await mallory(ground, tree), await ground.make()
    full = await tenant.sh(
        "head -c 60000000 /dev/zero > /workspace/big; i=0; while true > /workspace/f$i; do i=$((i+1)); done"
    )
    assert b"No space left" in full.stderr
    image = os.stat(ground.data / "trees" / tree)
    assert image.st_blocks * 512 <= image.st_size < QUOTA.bytes + 32 * 2**20
    assert await neighbour.answers() and await tenant.answers()
    # neither a new sandbox nor the keeper needs room in it
    again = await mallory(ground, tree)
    assert (await again.sh("rm -rf /workspace/*; echo x > /workspace/y")).exit.code == 0
    assert (await (await ground.runtime.keeper(tree)).usage())[1] >= 2


async def test_who_may_only_read_changes_nothing(ground: Ground, tree: str) -> None:
    writer, reader = await mallory(ground, tree), await mallory(ground, tree, read_only=True)
    await writer.sh("echo mine > /workspace/f; chmod 666 /workspace/f; mkfifo /workspace/p; chmod 777 /workspace")
    script = (
        "cd /workspace; echo x > f; rm f; chmod 600 f; touch f; mkdir d; mv f g; ln f h; setfattr -n user.a f; true"
    )
    said = (await reader.sh(script)).stderr
    assert said.count(b"Read-only") >= 6
    assert (await writer.sh("cat /workspace/f; ls /workspace; stat -c %a /workspace/f")).stdout == b"mine\nf\np\n666\n"


async def test_a_swap_under_a_tenant_that_fights_it(ground: Ground, tree: str) -> None:
    await ground.runtime.make_tree("next", QUOTA)
    tenant = await ground.make(SandboxSpec(workspaces=(WorkspaceMount("ws", "/mnt/a/b/c", False, tree),)))
    program = (
        "import os, time\n"
        "while True:\n"
        "    for old, new in (('a', 'z'), ('z/b', 'z/y'), ('z/y', 'z/b'), ('z', 'a')):\n"
        "        os.rename('/mnt/' + old, '/mnt/' + new)\n"
        "        if old == 'a':\n"
        "            os.symlink('/etc', '/mnt/a'); os.unlink('/mnt/a')\n"
    )
    fighter = await tenant.start("python3", "-c", program)
    try:
        for wanted in ("next", tree, "next"):
            async with asyncio.timeout(15):
                while [one.tree_id for one in await ground.runtime.tree_mounts(tenant.id)] != [wanted]:
                    try:
                        await ground.runtime.swap_tree(tenant.id, "/mnt/a/b/c", wanted, read_only=False)
                    except Exception as error:  # told, and nothing has changed: the tenant only harms itself
                        assert "keep moving" in str(error), error
    finally:
        await tenant.inside.stop(fighter, 0)
    told = await tenant.sh("grep -c /dev/loop /proc/self/mountinfo; ls /etc/passwd")
    assert told.stdout == b"1\n/etc/passwd\n"
    await ground.runtime.destroy(tenant.id)
    await ground.runtime.remove_tree("next")


async def test_a_keeper_may_live_on(ground: Ground, tree: str) -> None:
    await (await ground.runtime.keeper(tree)).usage()
    await ground.check_leaks()
