"""Where settings come from: defaults, a TOML file, the environment, overrides; an unknown name is an error."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from atoll.domain.data_folder import DataFolder, default_data_folder
from atoll.settings.aliases import NOT_OURS, NOT_OURS_PREFIX, SHORT, from_aliases
from atoll.settings.section import SettingsError
from atoll.settings.tree import Settings, environment_name, leaves


def load(
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in force. SettingsError names each wrong key and the nearest right one.

    Weakest first: defaults, the TOML file (`config`, else DATA/atoll.toml where it exists), the seeds'
    environment names, ATOLL_* names, `overrides` (dotted names, as "server.port"; None means not given).
    """
    environ = os.environ if environ is None else environ
    flat = from_aliases(environ) | _from_environment(environ)
    flat |= {name: value for name, value in (overrides or {}).items() if value is not None}
    if config is None and environ.get("ATOLL_CONFIG"):
        config = Path(environ["ATOLL_CONFIG"])
    tree = _read_toml(config) if config else {}
    data = Path(flat.get("data") or tree.get("data") or default_data_folder()).expanduser().absolute()
    if config is None and DataFolder(data).config.exists():
        tree = _read_toml(DataFolder(data).config)
        if "data" in tree:
            raise SettingsError("data cannot be set in the data folder's own atoll.toml", field="data")
    for name, value in flat.items():
        _put(tree, name, value)
    tree["data"] = data
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error))) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {environment_name(name): name for name, _ in leaves()} | SHORT
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for variable, value in environ.items():
        if not variable.startswith("ATOLL_") or variable in NOT_OURS or variable.startswith(NOT_OURS_PREFIX):
            continue
        if variable not in known:
            raise SettingsError(f"unknown setting {variable}{_nearest(variable, known)}", field=variable)
        name = known[variable]
        if name in found and found[name] != value:
            raise SettingsError(f"{variable} and {source[name]} set {name} to different values", field=name)
        found[name], source[name] = value, variable
    # An empty variable means "not set", so that a shell script can pass one through.
    return {name: value for name, value in found.items() if value != ""}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *branches, leaf = dotted.split(".")
    for name in branches:
        branch = tree.setdefault(name, {})
        if not isinstance(branch, dict):
            raise SettingsError(f"{name} is a section, not a value", field=name)
        tree = cast(dict[str, Any], branch)
    tree[leaf] = value


def _explain(error: ValidationError) -> Iterator[str]:
    names = [name for name, _ in leaves()]
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield f"unknown setting {where}{_nearest(where, names)}"
        else:
            message = problem["msg"].removeprefix("Value error, ")  # pydantic's words before those of a check of ours
            yield f"{where}: {message}" if where else message


def _nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    # By its last word too: `server.prot` is nearer to `server.port` than to anything of equal length.
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""
