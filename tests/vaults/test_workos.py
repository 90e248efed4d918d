"""The vault of WorkOS against a stand-in of its API, which its own client takes for the real one."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.vaults.workos import Workos
from tests.vaults.fake_workos import FakeWorkos

KEY = secrets.token_bytes(32)
CONTEXT = {"organization_id": "org_1"}


@pytest.fixture
async def vault(workos: FakeWorkos, workos_url: str) -> AsyncIterator[Workos]:
    made = Workos(workos_url, workos.api_key, CONTEXT, timeout_s=5)
    await made.start()
    yield made
    await made.close()


async def test_each_wrapped_key_has_a_data_key_of_its_own(vault: Workos, workos: FakeWorkos) -> None:
    workos.requests.clear()
    wrapped = await vault.wrap(KEY, "lin_0")
    assert await vault.unwrap(wrapped, "lin_0") == KEY
    assert workos.requests == ["/vault/v1/keys/data-key", "/vault/v1/keys/decrypt"]


async def test_a_wrong_api_key_is_told_at_the_start_and_not_repeated(workos: FakeWorkos, workos_url: str) -> None:
    wrong = "sk_wrong_" + secrets.token_hex(8)
    vault = Workos(workos_url, wrong, CONTEXT)
    with pytest.raises(Unavailable, match="401: Unauthorized") as raised:
        await vault.start()
    assert wrong not in raised.value.message


async def test_errors_that_pass_are_tried_again(vault: Workos, workos: FakeWorkos) -> None:
    wrapped = await vault.wrap(KEY, "lin_0")
    workos.refuse = [500, 429]
    assert await vault.unwrap(wrapped, "lin_0") == KEY
    workos.refuse = [503, 503, 503]
    with pytest.raises(Unavailable, match="503"):
        await vault.unwrap(wrapped, "lin_0")


async def test_what_it_does_not_know_is_corrupt_and_what_it_refuses_is_not(vault: Workos, workos: FakeWorkos) -> None:
    wrapped = await vault.wrap(KEY, "lin_0")
    for status in (401, 403):
        workos.refuse = [status]
        with pytest.raises(Unavailable):
            await vault.unwrap(wrapped, "lin_0")
    for status in (400, 404, 422):
        workos.refuse = [status]
        with pytest.raises(Corrupt):
            await vault.unwrap(wrapped, "lin_0")


def test_a_context_is_needed() -> None:
    with pytest.raises(InvalidInput):
        Workos("https://api.example", "sk", {})


def test_the_official_client_takes_the_stand_in_for_the_api(workos: FakeWorkos, workos_url: str) -> None:
    client_of = pytest.importorskip("workos", reason="the client of WorkOS is not installed (pip install workos)")
    with client_of.WorkOSClient(api_key=workos.api_key, client_id="client_1", base_url=workos_url) as client:
        made = client.vault.create_data_key(context=CONTEXT)
        assert client.vault.create_decrypt(keys=made.encrypted_keys).data_key == made.data_key
        sealed = client.vault.encrypt(data="text", key_context=CONTEXT)
        assert client.vault.decrypt(encrypted_data=sealed) == "text"
