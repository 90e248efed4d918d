"""Logins: refresh tokens are good once, a replay ends everything, and on every kind of database all of it is exact."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from atoll.domain.errors import Conflict, Forbidden, NotFound, RateLimited, Unauthenticated, Unavailable
from atoll.domain.user import Login, User
from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.services.identity import passwords
from atoll.services.identity.logins import LoginLimits, TokenPair, WrongLogin, WrongRefreshToken
from atoll.services.identity.passwords import Passwords
from atoll.services.identity.throttling import TryLimits
from atoll.services.identity.users import OPERATOR, UserChanges, principal_of
from atoll.testing.memory_vault import MemoryVault
from tests.records.postgres import postgres_server, postgres_url
from tests.services.identity.clocks import Time
from tests.services.identity.logged_in import HOME, PASSWORD, Pair, Server

__all__ = ["postgres_server", "postgres_url"]


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def refresh(server: Server, tokens: TokenPair) -> TokenPair:
    return await server.logins.refresh(tokens.refresh, address=HOME)


async def opens(server: Server, tokens: TokenPair) -> bool:
    try:
        await server.tokens.authenticate(tokens.access.text)
    except Unauthenticated:
        return False
    return True


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def login_of(pair: Pair, tokens: TokenPair) -> Login:
    credential = (await pair.server().tokens.authenticate(tokens.access.text)).credential
    found = await pair.records.get_login(credential)
    assert found is not None
    return found


async def test_a_username_is_found_in_any_case(pair: Pair) -> None:
    await pair.here.user("Ann@Example.com")
    assert await opens(pair.there, await pair.here.login("ANN@example.com"))


async def test_a_refresh_goes_on_with_the_same_login(pair: Pair) -> None:
    await pair.here.user()
    first = await pair.here.login()
    second = await refresh(pair.there, first)
    assert second.refresh != first.refresh and second.access.text != first.access.text
    assert await opens(pair.here, first) and await opens(pair.here, second)
    assert await login_of(pair, first) == await login_of(pair, second)


async def test_a11_a_replay_ends_the_login_of_thief_and_user_alike(pair: Pair) -> None:
    await pair.here.user()
    first = await pair.here.login()
    login = await login_of(pair, first)
    second = await refresh(pair.here, first)
    other = await pair.here.login()
    with pytest.raises(WrongRefreshToken):
        await refresh(pair.there, first)
    with pytest.raises(WrongRefreshToken):
        await refresh(pair.here, second)
    assert not await opens(pair.there, second)
    assert await opens(pair.there, other)  # another login of the user's is none of it
    stored = await pair.records.get_login(login.id)
    assert stored is not None and stored.reason == "replayed"
    events = await pair.records.list_events(target=login.id)
    assert [(one.action, one.outcome) for one in events] == [
        ("login.created", "ok"),
        ("login.refreshed", "ok"),
        ("login.ended", "refused"),
    ]


@pytest.mark.parametrize("text", ["", "rt_", "rt_" + "0" * 64, "rt_é", "x" * 300, "\0"])
async def test_any_other_text_is_no_refresh_token(pair: Pair, text: str) -> None:
    with pytest.raises(WrongRefreshToken):
        await pair.here.logins.refresh(text, address=HOME)
    with pytest.raises(WrongRefreshToken):
        await pair.here.logins.logout(refresh_token=text)


async def test_the_records_hold_no_refresh_token(pair: Pair) -> None:
    await pair.here.user()
    tokens = await pair.here.login()
    held = repr((vars(pair.records), await pair.records.list_events()))
    assert tokens.refresh not in held and tokens.refresh[3:] not in held and PASSWORD not in held


async def test_refresh_tokens_and_logins_run_out(pair: Pair) -> None:
    server = pair.server(limits=LoginLimits(refresh_ttl_s=1000, login_ttl_s=2500))
    await server.user()
    idle, used = await server.login(), await server.login()
    pair.time.pass_s(999)
    used = await refresh(server, used)
    pair.time.pass_s(2)
    with pytest.raises(WrongRefreshToken):
        await refresh(server, idle)
    pair.time.pass_s(900)
    used = await refresh(server, used)
    pair.time.pass_s(598)
    assert (await refresh(server, used)).access.expires_in_s == 1  # the login ends then
    pair.time.pass_s(2)
    with pytest.raises(WrongRefreshToken):
        await refresh(server, used)


async def test_a_disabled_user_neither_refreshes_nor_logs_in(pair: Pair) -> None:
    await pair.here.user()
    tokens = await pair.here.login()
    await pair.here.users.change(OPERATOR, "ann", UserChanges(disabled=True))
    for server in (pair.here, pair.there):
        with pytest.raises(WrongRefreshToken):
            await refresh(server, tokens)
        with pytest.raises(WrongLogin):
            await server.login()


async def test_only_so_many_logins_of_a_user_last(pair: Pair) -> None:
    server = pair.server(limits=LoginLimits(logins_kept=2))
    await server.user()
    tokens = []
    for _ in range(3):
        pair.time.pass_s(3)
        tokens.append(await server.login())
    assert [await opens(server, one) for one in tokens] == [False, True, True]


async def test_a_logout_by_either_token_ends_both(pair: Pair) -> None:
    await pair.here.user()
    for by in ("access", "refresh"):
        tokens = await pair.here.login()
        login = await login_of(pair, tokens)
        given = {"access_token": tokens.access.text} if by == "access" else {"refresh_token": tokens.refresh}
        await pair.here.logins.logout(**given)
        assert not await opens(pair.here, tokens)
        with pytest.raises(WrongRefreshToken):
            await refresh(pair.there, tokens)
        with pytest.raises(Unauthenticated):
            await pair.here.logins.logout(**given)
        assert (await pair.actions(login.id))[-1] == "login.ended"


async def test_a15_guesses_are_bounded_and_a_right_password_is_not_told_then(pair: Pair) -> None:
    server = pair.server(tries=TryLimits(pair_burst=3))
    await server.user()
    for _ in range(3):
        with pytest.raises(WrongLogin):
            await server.login(password="guess")
    for password in ("guess", PASSWORD):
        with pytest.raises(RateLimited):
            await server.login(password=password)
    assert await server.logins.login("ann", PASSWORD, address="198.51.100.1")
    pair.time.pass_s(30)
    assert await server.login()


async def test_a15_who_has_logged_in_from_there_finds_a_place_while_strangers_fill_the_queue(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "STRANGERS_MAX", 2)
    await pair.here.user()
    await pair.here.login()
    guesses = [pair.here.logins.login("eve", "guess", address=f"198.51.100.{number}") for number in range(8)]
    found = await asyncio.gather(*guesses, pair.here.login(), return_exceptions=True)
    assert [type(one) for one in found].count(Unavailable) == 6
    assert isinstance(found[-1], TokenPair)


async def test_a15_made_up_refresh_tokens_are_bounded(pair: Pair) -> None:
    server = pair.server(tries=TryLimits(address_burst=3))
    for _ in range(3):
        with pytest.raises(WrongRefreshToken):
            await server.logins.refresh("rt_" + "0" * 64, address=HOME)
    with pytest.raises(RateLimited):
        await server.logins.refresh("rt_" + "0" * 64, address=HOME)
    with pytest.raises(WrongRefreshToken):  # nobody else is kept out
        await server.logins.refresh("rt_" + "0" * 64, address="198.51.100.1")


async def test_a15_bad_refresh_tokens_keep_nobody_at_their_address_from_refresh_login_and_logout(pair: Pair) -> None:
    server = pair.server(tries=TryLimits(address_burst=3))
    await server.user()
    tokens = await server.login()
    for _ in range(10):
        with pytest.raises((WrongRefreshToken, RateLimited)):
            await server.logins.refresh("rt_" + "0" * 64, address=HOME)
    tokens = await refresh(server, tokens)
    other = await server.login()
    for one in (tokens, other):
        await server.logins.logout(refresh_token=one.refresh)
        assert not await opens(server, one)


async def test_who_changes_their_password_while_somebody_logs_in_with_the_old_one_shuts_them_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.here.user()
    real = pair.records.add_login

    async def late(*arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(pair.records, "add_login", real)
        await pair.there.users.set_password(OPERATOR, "ann", "another horse battery")
        await real(*arguments, **more)

    monkeypatch.setattr(pair.records, "add_login", late)
    with pytest.raises(WrongLogin):
        await pair.here.login()
    assert "login.created" not in await pair.actions()
    assert await pair.here.login(password="another horse battery")


async def test_other_changes_meanwhile_keep_nobody_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.here.user()
    real = pair.records.add_login

    async def late(*arguments: Any, **more: Any) -> None:
        monkeypatch.setattr(pair.records, "add_login", real)
        await pair.there.users.change(OPERATOR, "ann", UserChanges(name="Ann"))
        await real(*arguments, **more)

    monkeypatch.setattr(pair.records, "add_login", late)
    assert await opens(pair.there, await pair.here.login())


async def test_one_s_own_password_is_changed_by_who_knows_it(pair: Pair) -> None:
    server = pair.server(tries=TryLimits(pair_burst=2))
    user = await server.user()
    tokens = await server.login()
    principal = await server.tokens.authenticate(tokens.access.text)
    change = server.logins.change_password
    with pytest.raises(Forbidden):
        await change(principal, "guess", "another horse battery", address=HOME)
    await change(principal, PASSWORD, "another horse battery", address=HOME)
    assert not await opens(server, tokens)
    assert await server.login(password="another horse battery")
    with pytest.raises(Forbidden):
        await change(principal_of(user, "key_000000000000"), PASSWORD, PASSWORD, address=HOME)
    with pytest.raises(Forbidden):
        await change(OPERATOR, PASSWORD, PASSWORD, address=HOME)
    with pytest.raises(Forbidden):
        await change(principal, "guess", "third horse battery", address=HOME)
    with pytest.raises(RateLimited):
        await change(principal, "another horse battery", "third horse battery", address=HOME)


async def test_a_password_is_hashed_anew_when_the_costs_have_changed(pair: Pair) -> None:
    user = await pair.here.user()
    pair.here.logins._passwords = Passwords(time_cost=2, memory_kib=8, parallelism=1)  # pyright: ignore
    await pair.here.login()
    stored = await pair.records.get_user(user.id)
    assert stored is not None and stored.password_hash is not None and "t=2" in stored.password_hash
    await pair.here.login()


async def test_a11_a_vault_that_is_down_uses_no_refresh_token_up_and_excuses_no_replay(pair: Pair) -> None:
    await pair.here.user()
    used, kept = await pair.here.login(), await pair.here.login()
    second = await refresh(pair.here, used)
    pair.vault.available = False
    with pytest.raises(Unavailable):
        await refresh(pair.there, kept)  # it has not opened the signing key yet
    with pytest.raises(WrongRefreshToken):
        await refresh(pair.there, used)
    pair.vault.available = True
    assert await opens(pair.there, await refresh(pair.there, kept))
    with pytest.raises(WrongRefreshToken):
        await refresh(pair.there, second)


async def test_a_vault_that_is_down_begins_no_login(pair: Pair) -> None:
    user = await pair.here.user()
    pair.vault.available = False
    with pytest.raises(Unavailable):
        await pair.here.login()
    assert not [action for action in await pair.actions() if action.startswith("login")]
    pair.vault.available = True
    assert await opens(pair.there, await pair.here.login())
    assert user.id


async def test_nobody_registers_unless_the_settings_say_so(pair: Pair) -> None:
    with pytest.raises(NotFound):
        await pair.here.logins.register("eve", PASSWORD, address=HOME)
    server = pair.server(limits=LoginLimits(registration=True), tries=TryLimits(pair_burst=3))
    assert await opens(pair.there, await server.logins.register("eve", PASSWORD, address=HOME))
    with pytest.raises(Conflict):
        await server.logins.register("eve", PASSWORD, address=HOME)
    await server.logins.register("fay", PASSWORD, address=HOME)
    with pytest.raises(RateLimited):
        await server.logins.register("guy", PASSWORD, address=HOME)


# on real databases, two servers each


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Server, Server, Records]]:
    stores, vault, time = (open_records(url), open_records(url)), MemoryVault(), Time()
    for store in stores:
        await store.start()
    yield Server(stores[0], vault, time), Server(stores[1], vault, time), stores[0]
    for store in stores:
        await store.close()


async def test_a11_of_many_refreshes_at_once_one_gets_tokens_and_the_login_is_over(
    two: tuple[Server, Server, Records],
) -> None:
    here, there, _ = two
    user: User = await here.user()
    first = await here.login()
    done = await asyncio.gather(
        *((here, there)[number % 2].logins.refresh(first.refresh, address=HOME) for number in range(8)),
        return_exceptions=True,
    )
    won = [one for one in done if isinstance(one, TokenPair)]
    lost = [one for one in done if not isinstance(one, TokenPair)]
    assert len(won) == 1
    assert all(isinstance(one, WrongRefreshToken) for one in lost), lost
    for server in two[:2]:
        server.standing.forget(user.id)  # what time would do
        for tokens in (first, *won):
            assert not await opens(server, tokens)
            with pytest.raises(WrongRefreshToken):
                await refresh(server, tokens)


async def test_a_life_of_a_user_on_a_real_database(two: tuple[Server, Server, Records]) -> None:
    here, there, records = two
    user = await here.user(name="Ann")
    tokens = await here.login()
    principal = await there.tokens.authenticate(tokens.access.text)
    made = await here.own_keys.create(principal, "ci")
    assert (await there.keys.authenticate(made.text)).id == user.id
    tokens = await refresh(there, tokens)
    await there.logins.logout(access_token=tokens.access.text)
    await here.users.change(OPERATOR, user.id, UserChanges(disabled=True))
    await here.users.change(OPERATOR, user.id, UserChanges(disabled=False))
    await here.users.delete(OPERATOR, user.id)
    with pytest.raises(NotFound):
        await there.users.get(OPERATOR, "ann")
    with pytest.raises(Unauthenticated):
        await there.standing.user(user.id)
    actions = [one.action for one in await records.list_events(tenant=user.id)]
    assert actions == [
        "user.created",
        "login.created",
        "key.created",
        "login.refreshed",
        "login.ended",
        "user.disabled",
        "user.enabled",
        "user.deleted",
    ]


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
async def test_a13_a_dump_of_the_database_opens_nothing(tmp_path: Path, algorithm: str) -> None:
    store, time = open_records(f"sqlite:///{tmp_path}/atoll.db"), Time()
    await store.start()
    server = Server(store, MemoryVault(), time, algorithm=algorithm)
    await server.user()
    tokens = await server.login()
    ann = await server.tokens.authenticate(tokens.access.text)
    made = await server.own_keys.create(ann, "ci")
    second = await refresh(server, tokens)
    _, private = await server.signing_keys.signer()
    whole = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secrets = [PASSWORD, tokens.refresh, second.refresh, tokens.access.text, made.text, made.text[12:]]
    await store.close()
    held = everything_in(tmp_path)
    assert made.key.hash.encode() in held and b"$argon2id$" in held  # it is the database
    for secret in [secret.encode() for secret in secrets] + [whole, whole[16:48], whole[-32:], base64.b64encode(whole)]:
        assert secret not in held
