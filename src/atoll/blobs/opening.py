"""Opens a store of blobs by its URL; the composition root and the command line call it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from atoll.blobs.base import Blobs, check_key
from atoll.domain.errors import InvalidInput

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

CONNECT_S_MAX = 10.0
SILENCES_MAX = 20  # a request takes at most so many times its longest silence

# The account of an emulator.
_NOBODY = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How an object store is reached. What is None comes from the environment or the machine, as each cloud has it."""

    endpoint: str | None = None  # with its scheme; None: the provider's own
    region: str | None = None
    path_style: bool = True
    access_key: str | None = None
    secret_key: str | None = None
    timeout_s: float = 30.0  # longest silence
    retries: int = 3
    backoff_s: float = 1.0  # before the first retry; doubles
    backoff_max_s: float = 30.0
    concurrency: int = 32  # requests at a time

    def __repr__(self) -> str:
        return f"StoreAccess(endpoint={self.endpoint!r}, region={self.region!r})"


def open_blobs(url: str, access: StoreAccess = StoreAccess(), *, read_only: bool = False) -> Blobs:
    """The store, not started: file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX.

    `read_only`: a folder is not made, and may be one that cannot be written."""
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    if parts.scheme == "file":
        from atoll.blobs.local_disk import LocalDisk

        return LocalDisk(Path(unquote(parts.path)), read_only=read_only)
    if parts.scheme not in ("s3", "gs", "az") or not parts.netloc:
        raise InvalidInput("blobs are at file:///FOLDER, s3://BUCKET, gs://BUCKET or az://CONTAINER", field="blobs.url")
    if prefix:
        check_key(prefix)
    return _open_object_store(parts.scheme, parts.netloc, prefix or None, access)


def _open_object_store(scheme: str, bucket: str, prefix: str | None, access: StoreAccess) -> Blobs:
    # Loading obstore takes a moment that a server on a local disk need not spend.
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    from atoll.blobs.object_store import ObjectStore

    client, retry = _client(access), _retry(access)
    name = f"{scheme}://{bucket}"
    try:
        if scheme == "s3":
            store = S3Store(
                bucket, prefix=prefix, config=_s3(bucket, access), client_options=client, retry_config=retry
            )
        elif scheme == "gs":
            store = GCSStore(bucket, prefix=prefix, config=_gcs(access), client_options=client, retry_config=retry)
        else:
            store = AzureStore(bucket, prefix=prefix, config=_azure(access), client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise InvalidInput(f"{name}: {str(error).splitlines()[0]}", field="blobs") from error
    pauses_s = [min(access.backoff_s * 2**number, access.backoff_max_s) for number in range(access.retries)]
    return ObjectStore(store, name, concurrency=access.concurrency, pauses_s=pauses_s)


def _s3(bucket: str, access: StoreAccess) -> S3Config:
    config: S3Config = {"virtual_hosted_style_request": not access.path_style, "disable_bulk_delete": True}
    if access.endpoint:
        endpoint = access.endpoint
        if not access.path_style:
            scheme, _, host = endpoint.partition("://")
            endpoint = f"{scheme}://{bucket}.{host}"
        config["endpoint"] = endpoint
    if access.region:
        config["region"] = access.region
    if access.access_key and access.secret_key:
        config["access_key_id"], config["secret_access_key"] = access.access_key, access.secret_key
    return config


def _gcs(access: StoreAccess) -> GCSConfig:
    config: GCSConfig = {}
    if access.endpoint:
        config["base_url"] = access.endpoint
    if access.secret_key:
        config["service_account_key"] = access.secret_key
    elif access.endpoint:
        config["service_account_key"] = json.dumps(_NOBODY | {"gcs_base_url": access.endpoint})
    return config


def _azure(access: StoreAccess) -> AzureConfig:
    config: AzureConfig = {}
    if access.endpoint:
        config["endpoint"] = access.endpoint
    if access.access_key and access.secret_key:
        config["account_name"], config["account_key"] = access.access_key, access.secret_key
    return config


def _client(access: StoreAccess) -> ClientConfig:
    return {
        # An operator who writes http:// means it; what is stored is encrypted before it gets here.
        "allow_http": bool(access.endpoint and access.endpoint.startswith("http://")),
        "connect_timeout": timedelta(seconds=min(access.timeout_s, CONNECT_S_MAX)),
        "read_timeout": timedelta(seconds=access.timeout_s),
        "timeout": timedelta(seconds=access.timeout_s * SILENCES_MAX),
    }


def _retry(access: StoreAccess) -> RetryConfig:
    longest = access.timeout_s * SILENCES_MAX + access.backoff_max_s
    return {
        "max_retries": access.retries,
        "retry_timeout": timedelta(seconds=longest * (access.retries + 1)),
        "backoff": {
            "init_backoff": timedelta(seconds=access.backoff_s),
            "max_backoff": timedelta(seconds=max(access.backoff_s, access.backoff_max_s)),
            "base": 2,
        },
    }
