"""What a URL opens: the right store, its prefix, its way of asking; wrong ones are refused before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from obstore.store import AzureStore, GCSStore, S3Store

from atoll.adapters import open_blob_store
from atoll.blobs.local_disk import LocalDisk
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.domain.errors import InvalidInput, Unavailable
from atoll.settings import load
from tests.blobs.servers import ACCESS_KEY, SECRET_KEY, ObjectServer, make_s3_bucket, s3_access

KEYS = StoreAccess(access_key="k", secret_key="c2VjcmV0")
SHORT_LIVED = """
import asyncio, sys
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.domain.errors import Unavailable

async def main():
    blobs = open_blobs("s3://bucket", StoreAccess(sys.argv[1], access_key="k", secret_key="s", retries=0))
    try:
        await blobs.start()
    except Unavailable:
        return 7

sys.exit(asyncio.run(main()))
"""


def store_of(url: str, access: StoreAccess = KEYS) -> Any:
    return vars(open_blobs(url, access))["_store"]


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    opened = open_blobs((tmp_path / "a b").as_uri())
    assert isinstance(opened, LocalDisk)
    assert vars(opened)["_folder"].folder == tmp_path / "a b"


def test_an_s3_url_is_a_bucket_and_a_prefix() -> None:
    store = store_of("s3://bucket/some/prefix/", StoreAccess(None, "eu-west-1", access_key="k", secret_key="s"))
    assert isinstance(store, S3Store)
    assert (store.config["bucket"], store.prefix, store.config["region"]) == ("bucket", "some/prefix", "eu-west-1")
    assert (store.config["access_key_id"], store.config["secret_access_key"]) == ("k", "s")
    assert store_of("s3://bucket").client_options["allow_http"] == "false"


def test_an_endpoint_may_be_plain_http_and_want_the_bucket_in_its_name() -> None:
    store = store_of("s3://bucket", StoreAccess("http://127.0.0.1:9000", access_key="k", secret_key="s"))
    assert store.config["endpoint"] == "http://127.0.0.1:9000"
    assert store.client_options["allow_http"] == "true"
    store = store_of("s3://bucket", StoreAccess("https://s3.example", path_style=False))
    assert store.config["endpoint"] == "https://bucket.s3.example"


def test_retries_and_times_are_the_settings() -> None:
    access = StoreAccess(access_key="k", secret_key="s", timeout_s=7, retries=4, backoff_s=2, backoff_max_s=20)
    store = store_of("s3://bucket", access)
    assert store.retry_config["max_retries"] == 4
    assert store.retry_config["backoff"]["init_backoff"].total_seconds() == 2
    assert store.retry_config["backoff"]["max_backoff"].total_seconds() == 20
    assert store.client_options["read_timeout"] == "7s"


def test_google_and_azure_are_opened_by_construction_only() -> None:
    store = store_of("az://container/pre", StoreAccess(access_key="account", secret_key="c2VjcmV0"))
    assert isinstance(store, AzureStore)
    assert (store.config["container_name"], store.config["account_name"]) == ("container", "account")
    assert store.prefix == "pre"
    store = store_of("gs://bucket/pre", StoreAccess("http://127.0.0.1:4443"))
    assert isinstance(store, GCSStore)
    assert (store.config["bucket"], store.prefix) == ("bucket", "pre")


@pytest.mark.parametrize("url", ["", "memory:", "s3:", "s3://", "http://x", "/srv", "s3://bucket/../x", "s3://b/a//b"])
def test_a_url_that_opens_nothing_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_blobs(url)


def test_a_secret_that_cannot_be_one_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as raised:
        open_blobs("gs://bucket", StoreAccess(secret_key='{"private_key": "hush"'))
    assert "hush" not in str(raised.value)
    assert "hush" not in repr(StoreAccess(secret_key="hush"))


async def test_a_wrong_secret_and_a_missing_bucket_are_refused_at_the_start(seaweed: ObjectServer) -> None:
    bucket = make_s3_bucket(seaweed)
    wrong = open_blobs(f"s3://{bucket}", s3_access(seaweed, secret_key="wrong"))
    with pytest.raises(InvalidInput, match=rf"s3://{bucket}: the store answers 403 Forbidden"):
        await wrong.start()
    unknown = open_blobs(f"s3://{bucket}", s3_access(seaweed, access_key="nobody"))
    with pytest.raises(InvalidInput, match="403"):
        await unknown.start()
    missing = open_blobs("s3://no-such-bucket", s3_access(seaweed))
    with pytest.raises(InvalidInput, match=r"404 Not Found \(NoSuchBucket\)"):
        await missing.start()


@pytest.mark.parametrize("names", [("S3", "ACCESS_KEY", "SECRET_KEY"), ("MINIO", "ROOT_USER", "ROOT_PASSWORD")])
async def test_the_seeds_environment_names_open_a_store_that_works(
    seaweed: ObjectServer, tmp_path: Path, names: tuple[str, str, str]
) -> None:
    family, key, secret = names
    environ = {
        "ATOLL_DATA": str(tmp_path),
        f"{family}_ENDPOINT": seaweed.address.removeprefix("http://"),
        f"{family}_{key}": ACCESS_KEY,
        f"{family}_{secret}": SECRET_KEY,
        f"{family}_BUCKET": make_s3_bucket(seaweed),
    }
    blobs = open_blob_store(load(environ=environ))
    await blobs.start()
    await blobs.put("a/k", b"value")
    assert [blob.key async for blob in blobs.list("")] == ["a/k"]
    await blobs.close()


async def test_what_is_not_started_is_unavailable(tmp_path: Path) -> None:
    for blobs in (open_blobs(tmp_path.as_uri()), open_blobs("s3://bucket", KEYS)):
        with pytest.raises(Unavailable):
            await blobs.put("k", b"")


def test_a_program_may_end_right_after_it_closed_a_store() -> None:
    """obstore's threads let go of Python objects after an answer: an interpreter that ends meanwhile would abort."""
    programs = [subprocess.Popen([sys.executable, "-c", SHORT_LIVED, "http://127.0.0.1:1"]) for _ in range(4)]
    assert [program.wait(30) for program in programs] == [7] * 4
