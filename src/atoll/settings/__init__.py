"""The settings: one frozen tree from defaults, a TOML file and the environment; an unknown name is an error.

The composition root calls `load` once and hands out branches; `python -m atoll.settings` prints their page.
"""

from atoll.settings.aliases import ALIASES
from atoll.settings.loading import load
from atoll.settings.section import DAY_S, GIB, KIB, MIB, SettingsError
from atoll.settings.server import database_url
from atoll.settings.tree import Settings, environment_name, leaves

__all__ = [
    "ALIASES",
    "DAY_S",
    "GIB",
    "KIB",
    "MIB",
    "Settings",
    "SettingsError",
    "database_url",
    "environment_name",
    "leaves",
    "load",
]
