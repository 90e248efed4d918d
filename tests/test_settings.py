"""The settings: where a value comes from, what is refused and how; and the page in docs/ says the same."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from atoll.domain.sandbox import Resources
from atoll.settings import ALIASES, SettingsError, environment_name, leaves, load
from atoll.settings.meanings import meanings
from atoll.settings.page import render_markdown

ROOT = Path(__file__).parents[1]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ATOLL_DATA": str(tmp_path)}


def test_the_page_of_settings_equals_the_program() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == render_markdown()


def test_every_setting_says_what_it_means() -> None:
    words = meanings()
    assert [name for name, _ in leaves() if not words.get(name)] == []


def test_defaults_hold_without_file_or_environment(env: dict[str, str], tmp_path: Path) -> None:
    settings = load(environ=env)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.database_url == f"sqlite:///{tmp_path}/atoll.db"
    assert settings.limits.defaults.resources() == Resources()


def test_settings_are_frozen(env: dict[str, str]) -> None:
    with pytest.raises((FrozenInstanceError, ValidationError)):
        load(environ=env).server.port = 1  # type: ignore[misc]


def test_environment_is_stronger_than_the_file_and_overrides_are_stronger_than_both(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "atoll.toml").write_text("[server]\nport = 1111\ndrain_s = 3\n[limits.defaults]\npids = 77\n")
    assert load(environ=env).server.port == 1111
    env["ATOLL_SERVER__PORT"] = "2222"
    settings = load(environ=env)
    assert (settings.server.port, settings.server.drain_s, settings.limits.defaults.pids) == (2222, 3, 77)
    assert load(environ=env, overrides={"server.port": 3333, "server.host": None}).server.port == 3333


def test_aliases_of_the_seeds_are_weaker_than_atoll_names_and_stronger_than_the_file(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "atoll.toml").write_text("[server]\nport = 1111\n")
    env |= {"PORT": "2222", "DB_PATH": "/srv/x.db", "ADMIN_API_KEY": "a" * 32, "OPENAI_API_KEY": "ignored"}
    settings = load(environ=env)
    assert settings.server.port == 2222
    assert settings.database_url == "sqlite:////srv/x.db"
    assert settings.admin.api_key is not None and settings.admin.api_key.get_secret_value() == "a" * 32
    assert "aaaa" not in repr(settings)
    env |= {"ATOLL_PORT": "3333", "DATABASE_URL": "postgres://u:p@h:5/db"}
    settings = load(environ=env)
    assert (settings.server.port, settings.database_url) == (3333, "postgresql+asyncpg://u:p@h:5/db")


def test_the_client_s_names_are_ignored(env: dict[str, str]) -> None:
    load(environ=env | {"ATOLL_URL": "http://x", "ATOLL_API_KEY": "k", "ATOLL_TEST_POSTGRES_URL": "p"})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("ATOLL_PROT", "ATOLL_PORT"),
        ("ATOLL_SERVER_PORT", "ATOLL_SERVER__PORT"),
        ("ATOLL_LIMITS__DEFAULTS__MEMORY", "ATOLL_LIMITS__DEFAULTS__MEMORY_BYTES"),
    ],
)
def test_an_unknown_environment_name_is_an_error_with_the_nearest_right_one(
    env: dict[str, str], variable: str, nearest: str
) -> None:
    with pytest.raises(SettingsError, match=rf"unknown setting {variable}: did you mean {nearest}\?"):
        load(environ=env | {variable: "1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1\n", r"unknown setting server\.prot: did you mean server\.port\?"),
        ("[limits.default]\npids = 9\n", r"unknown setting limits\.default: did you mean limits\.defaults"),
        ("port = 1\n", r"unknown setting port: did you mean server\.port\?"),
        ("server = 3\n", r"server: "),
        ("[server]\nport = 65536\n", r"server\.port: "),
        ("[server]\nport = nan\n", r"server\.port: "),
        ("[server]\ndrain_s = nan\n", r"server\.drain_s: "),
        ("[rates]\nkey_per_s = inf\n", r"rates\.key_per_s: "),
        ("[limits.defaults]\npids = 60_000\n", r"defaults\.pids \(60000\) is above maxima\.pids"),
        ("[database]\nurl = 'mysql://x'\n", r"database\.url: .*sqlite:///"),
        ("[database]\nurl = 'sqlite://relative'\n", r"database\.url: .*sqlite:///"),
        ("[admin]\napi_key = 'short'\n", r"admin\.api_key: .*32"),
        ("[keys]\ncache_s = 5\n", r"keys\.cache_s: "),
        ("[server\n", r"atoll\.toml: "),
        ("data = '/x'\n", r"data cannot be set"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_key(
    env: dict[str, str], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "atoll.toml").write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        load(environ=env)
    assert "short" not in str(raised.value).replace("shorter", ""), "a secret is repeated in the message"


def test_two_names_of_one_setting_that_disagree_are_an_error(env: dict[str, str]) -> None:
    load(environ=env | {"ATOLL_PORT": "1", "ATOLL_SERVER__PORT": "1"})
    with pytest.raises(SettingsError, match=r"set server\.port to different values"):
        load(environ=env | {"ATOLL_PORT": "1", "ATOLL_SERVER__PORT": "2"})


def test_a_named_file_must_exist_and_may_name_the_data_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "none.toml", environ={})
    (tmp_path / "a.toml").write_text(f"data = '{tmp_path}/data'\n")
    assert load(tmp_path / "a.toml", environ={}).data == tmp_path / "data"
    assert load(environ={"ATOLL_CONFIG": str(tmp_path / "a.toml")}).data == tmp_path / "data"


def test_zero_and_empty_mean_no_bound_and_not_set(env: dict[str, str]) -> None:
    settings = load(environ=env | {"ATOLL_LIMITS__SESSION_TIMEOUT_S": "0", "ATOLL_SERVER__PORT": ""})
    assert settings.limits.session_timeout_s is None
    assert settings.server.port == 8080


def test_lists_and_tables_come_from_the_environment_too(env: dict[str, str]) -> None:
    values = {
        "ATOLL_SERVER__TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8",
        "ATOLL_IMAGES__ALIASES": '{"a:1": "host"}',
    }
    settings = load(environ=env | values)
    assert settings.server.trusted_proxies == ("127.0.0.1", "10.0.0.0/8")
    assert settings.images.aliases == {"a:1": "host"}
    with pytest.raises(SettingsError, match=r"images\.aliases"):
        load(environ=env | {"ATOLL_IMAGES__ALIASES": "nonsense"})
    with pytest.raises(SettingsError, match=r"server\.trusted_proxies"):
        load(environ=env | {"ATOLL_SERVER__TRUSTED_PROXIES": "nonsense"})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ATOLL_OUTBOUND__NETWORKS", '["127.0.0.0/8"]', "separated by commas"),
        ("ATOLL_IDENTITY__PROVIDERS", "https://issuer.example", "a JSON list, such as"),
    ],
)
def test_a_list_in_another_form_is_an_error_that_says_which(
    env: dict[str, str], variable: str, value: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load(environ={**env, variable: value})


def test_every_setting_can_come_from_the_environment(env: dict[str, str]) -> None:
    settings = load(environ=env)
    values = {name: _value(settings, name) for name, _ in leaves() if name != "data"}
    scalars = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    assert len(scalars) > 30
    environ = env | {environment_name(name): str(value) for name, value in scalars.items()}
    again = load(environ=environ)
    assert {name: _value(again, name) for name in scalars} == scalars


def _value(settings: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        settings = getattr(settings, part)
    return settings


def test_every_alias_names_a_setting() -> None:
    assert set(ALIASES.values()) <= {name for name, _ in leaves()}


MINIO = {"MINIO_ENDPOINT": "minio:9000", "MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "p", "MINIO_BUCKET": "old"}
S3 = {"S3_ENDPOINT": "https://s3.example", "S3_ACCESS_KEY": "k", "S3_SECRET_KEY": "hush", "S3_BUCKET": "new"}


def test_the_seeds_names_of_an_object_store_are_understood(env: dict[str, str], tmp_path: Path) -> None:
    assert load(environ=env).blobs_url == (tmp_path / "blobs").as_uri()
    settings = load(environ=env | MINIO)
    assert (settings.blobs_url, settings.blobs.endpoint) == ("s3://old", "http://minio:9000")
    assert settings.blobs.access_key == "root"
    settings = load(environ=env | MINIO | {"MINIO_ACCESS_KEY": "mine", "MINIO_SECRET_KEY": "q"})
    assert settings.blobs.access_key == "mine"
    settings = load(environ=env | MINIO | S3)
    assert (settings.blobs_url, settings.blobs.endpoint) == ("s3://new", "https://s3.example")
    assert settings.blobs.access_key == "k"
    assert settings.blobs.secret_key is not None and settings.blobs.secret_key.get_secret_value() == "hush"
    assert "hush" not in repr(settings)
    assert load(environ=env | MINIO | S3 | {"ATOLL_BLOBS_URL": "gs://b/p/"}).blobs_url == "gs://b/p"


def test_a_bucket_without_an_endpoint_is_not_ours(env: dict[str, str], tmp_path: Path) -> None:
    assert load(environ=env | {"S3_BUCKET": "somebody-s"}).blobs_url == (tmp_path / "blobs").as_uri()


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("localhost:9000", "http://localhost:9000"),
        ("minio:9000", "http://minio:9000"),
        ("s3.eu-central-003.backblazeb2.com", "https://s3.eu-central-003.backblazeb2.com"),
        ("http://10.0.0.1:9000/", "http://10.0.0.1:9000"),
    ],
)
def test_an_endpoint_without_a_scheme_is_https_outside_of_one_s_own_network(
    env: dict[str, str], given: str, endpoint: str
) -> None:
    assert load(environ=env | {"ATOLL_BLOBS__ENDPOINT": given}).blobs.endpoint == endpoint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[blobs]\nurl = 'http://x'\n", r"blobs\.url: .*s3://BUCKET"),
        ("[blobs]\nurl = 'memory:'\n", r"blobs\.url: .*s3://BUCKET"),
        ("[blobs]\nurl = 'file://host/x'\n", r"blobs\.url: .*file:///FOLDER"),
        ("[blobs]\nurl = 's3://k:hush@bucket'\n", r"blobs\.url: .*blobs\.secret_key"),
        ("[blobs]\nendpoint = 'ftp://x'\n", r"blobs\.endpoint: .*https://HOST"),
        ("[blobs]\naccess_key = 'k'\n", r"blobs: .*access_key needs secret_key"),
        ("[blobs]\nurl = 'file:///a'\ncopy_url = 'file:///b/../a/'\n", r"blobs: .*the store itself"),
        ("[blobs]\nurl = 's3://a/b'\ncopy_url = 's3://a//b/'\n", r"blobs: .*the store itself"),
        ("[blobs]\ncopy_url = 'there'\n", r"^blobs\.copy_url: a blobs URL is /FOLDER"),
        ("[vault]\nkind = 'cupboard'\n", r"vault\.kind: "),
        ("[vault]\nkind = 'workos'\n", r"vault: kind workos needs workos\.api_key"),
        ("[workspaces]\nquota_inodes = 20_000_000\n", r"quota_inodes \(20000000\) is above max_quota_inodes"),
    ],
)
def test_a_wrong_store_of_workspaces_is_an_error_that_names_the_key(
    env: dict[str, str], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "atoll.toml").write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        load(environ=env)
    assert "hush" not in str(raised.value)


def test_a_store_may_be_written_as_a_folder(env: dict[str, str], tmp_path: Path) -> None:
    blobs = load(environ=env | {"ATOLL_BLOBS__COPY_URL": str(tmp_path / "a b"), "ATOLL_BLOBS__URL": "~/blobs"}).blobs
    assert blobs.copy_url == (tmp_path / "a b").as_uri()
    assert blobs.url == (Path.home() / "blobs").as_uri()


def test_the_second_store_is_not_the_default_of_the_first(env: dict[str, str], tmp_path: Path) -> None:
    data = load(environ=env).folder
    (tmp_path / "link").symlink_to(data.root)
    for place in (data.blobs, tmp_path / "link" / "blobs"):
        with pytest.raises(SettingsError, match=r"blobs\.copy_url is the store itself"):
            load(environ=env | {"ATOLL_BLOBS__COPY_URL": f"{place.absolute().as_uri()}/"})
    beside = (data.root / "copies").absolute().as_uri()
    assert load(environ=env | {"ATOLL_BLOBS__COPY_URL": beside}).blobs.copy_url == beside
    elsewhere = {"ATOLL_BLOBS__URL": "s3://a/b", "ATOLL_BLOBS__COPY_URL": "s3://a/b"}
    assert load(environ=env | elsewhere | {"ATOLL_BLOBS__COPY_ENDPOINT": "https://far.example"}).blobs.copy_endpoint


def test_folders_are_absolute_and_lie_in_the_data_folder_unless_named(env: dict[str, str], tmp_path: Path) -> None:
    settings = load(environ=env)
    assert (settings.trees_folder, settings.master_key_file) == (tmp_path / "trees", tmp_path / "master.key")
    settings = load(environ=env | {"ATOLL_WORKSPACES__TREES": "~/t", "ATOLL_VAULT__KEY_FILE": "keys/k"})
    assert (settings.trees_folder, settings.master_key_file) == (Path.home() / "t", Path.cwd() / "keys/k")
