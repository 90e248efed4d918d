"""Blanking: a secret is found as programs show it and as JSON spells it; what only looks like one stays."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from atoll.domain.key import new_key_text
from atoll.domain.sandbox import Sandbox
from atoll.services.key_rules import KEY_PREFIX
from atoll.services.models.blanking import BLANK, Blanking
from tests.gateway.models import sandbox

PEM = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"


async def blanked(secret: bytes, text: str) -> str:
    async def known(_sandbox: Sandbox) -> Sequence[bytes]:
        return [secret]

    body, _ = await Blanking(known).blank(sandbox(secrets=True), json.dumps({"input": text}).encode())
    return json.loads(body)["input"]  # it is JSON still


@pytest.mark.parametrize("secret", [b"plain-secret-value", b'quo"ted\\back/slash', "schlüssel-größe".encode(), PEM])
async def test_a_secret_is_found_as_json_spells_it_once_and_twice(secret: bytes):
    value = secret.decode()
    assert value.strip() not in await blanked(secret, f"env: {value} end")
    arguments = json.dumps({"cmd": f"echo {value}"})
    assert json.loads(await blanked(secret, arguments))["cmd"].count(BLANK.decode()) >= 1


async def test_the_lines_of_a_long_value_are_found_one_by_one():
    shown = "\n".join(f"{number}\t{line}" for number, line in enumerate(PEM.decode().splitlines()))
    assert "MIIEvQ" not in await blanked(PEM, shown) and "AQEFAA" not in await blanked(PEM, shown)


async def test_short_values_are_parts_of_anything_and_stay():
    assert await blanked(b"abc", "abcabc") == "abcabc"


async def test_keys_of_this_server_are_taken_out_and_digests_stay():
    async def nothing(_sandbox: Sandbox) -> Sequence[bytes]:
        return ()

    blanking = Blanking(nothing, ["admin-key-of-the-operator"])
    digest = "sha256:" + "ab" * 32
    body = f"{new_key_text()} {new_key_text('sk_live_')} admin-key-of-the-operator {digest}".encode()
    after, places = await blanking.blank(sandbox(), body)
    assert places == 3 and after == b" ".join([BLANK, BLANK, BLANK, digest.encode()])


@pytest.mark.parametrize("before", ["\n", "\t", "\r", "\x0b", '"', "\\", "\\n", " ", "=", "é"])
async def test_a_key_behind_an_escape_is_taken_out_and_the_rest_is_still_json(before: str):
    async def nothing(_sandbox: Sandbox) -> Sequence[bytes]:
        return ()

    key = new_key_text()
    body = json.dumps({"input": f"x{before}{key}"}).encode()
    after, places = await Blanking(nothing).blank(sandbox(), body)
    assert places == 1 and key not in json.loads(after)["input"]


@pytest.mark.parametrize("prefix", ["sk_", "k_", "a_b_c_", "tb_user_", "abcdefgh_", "x1_y2_"])
async def test_keys_of_every_prefix_that_may_be_asked_for_are_taken_out(prefix: str):
    async def nothing(_sandbox: Sandbox) -> Sequence[bytes]:
        return ()

    assert KEY_PREFIX.fullmatch(prefix)
    key = new_key_text(prefix)
    after, places = await Blanking(nothing).blank(sandbox(), json.dumps([key, f"a {key}.", f"={key}"]).encode())
    assert places == 3 and key.encode()[-64:] not in after and len(json.loads(after)) == 3
