"""docs/settings.md, written from the settings themselves."""

from __future__ import annotations

from typing import Any, cast, get_args

from pydantic.fields import FieldInfo

from atoll.settings.aliases import ALIASES, ALIASES_WITHOUT_EFFECT, SHORT
from atoll.settings.meanings import meanings
from atoll.settings.section import GIB, KIB, MIB
from atoll.settings.tree import Settings, leaves


def render_markdown() -> str:
    """docs/settings.md: every setting with its default, its bounds and its meaning."""
    lines = [_PAGE_HEAD]
    section, words = None, meanings()
    for name, field in leaves():
        here = name.rpartition(".")[0]
        if here != section:
            section = here
            lines += ["", f"## {here}" if here else "## Top level", "", *_section_words(here)]
            lines += ["| name | default | bounds | meaning |", "|---|---|---|---|"]
        meaning = words.get(name, "").replace("|", "\\|")
        lines.append(f"| `{name}` | {_show_default(name, field)} | {_show_bounds(name, field)} | {meaning} |")
    lines += ["", "## Short names", "", "| environment | setting |", "|---|---|"]
    lines += [f"| `{variable}` | `{name}` |" for variable, name in SHORT.items()]
    lines += ["", "## Names of other systems", "", _PAGE_ALIASES, ""]
    lines += ["| environment | setting |", "|---|---|"]
    lines += [f"| `{variable}` | `{name}` |" for variable, name in ALIASES.items()]
    lines += [f"| `{variable}` | none yet |" for variable in ALIASES_WITHOUT_EFFECT]
    return "\n".join([*lines, ""])


_PAGE_HEAD = """# Settings

Written by `python -m atoll.settings`; a test holds this page to the program.

A setting comes from, strongest first: the command line; the environment; the TOML file (`atoll.toml` in the
data folder, or the file that `--config` or `ATOLL_CONFIG` names); the default. In the environment a
setting's name is `ATOLL_` and its words in capitals, a double underscore for each dot: `server.port` is
`ATOLL_SERVER__PORT`. An empty variable counts as not set. An unknown name, in the file or below `ATOLL_`, is
an error that says the nearest right one. `ATOLL_URL` and `ATOLL_API_KEY` belong to the client; the server
ignores them.

```toml
[server]
port = 8080

[limits.defaults]
memory_bytes = 536870912
```"""

_PAGE_ALIASES = """Environment names that the systems before Atoll used are read too. They are stronger than
the file, and any `ATOLL_` name is stronger than they are; where two of them set the same, the later one in
this table wins. A bucket counts only together with an endpoint, for its name alone may be meant for any other
program."""


def _section_words(dotted: str) -> list[str]:
    model: Any = Settings
    for name in filter(None, dotted.split(".")):
        model = model.model_fields[name].annotation
    words = model.__dict__.get("__doc__")
    return [" ".join(words.split()), ""] if words else []


def _show_default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "`/var/lib/atoll` for root, else `~/.local/share/atoll`"
    if field.default is None or field.default in ((), {}):
        return "none"
    default: Any = field.default
    if isinstance(default, tuple):
        return ", ".join(f"`{value}`" for value in cast("tuple[object, ...]", default))
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return _show_number(name, field.default) if isinstance(field.default, int | float) else f"`{field.default}`"


def _show_bounds(name: str, field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    signs = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
    found = [(type(bound).__name__, bound) for bound in field.metadata]
    return ", ".join(
        f"{signs[kind]} {_show_number(name, getattr(bound, kind.lower()))}" for kind, bound in found if kind in signs
    )


def _show_number(name: str, value: float) -> str:
    if name.endswith(("_bytes", ".bytes_per_s")) and value:
        unit, size = next((u, s) for u, s in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)) if value % s == 0)
        return f"{int(value) // size} {unit}"
    return str(int(value)) if value == int(value) else str(value)
