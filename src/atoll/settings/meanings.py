"""Meanings: the words below each setting in the source, for its page; pydantic would read them at every start."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any, cast

from pydantic import BaseModel

from atoll.settings.section import Section
from atoll.settings.tree import Settings


def meanings(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, str]:
    """What each setting means, by its dotted name; those without a word are absent."""
    said: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, Section) and one is not Section:
            said |= _below_each_field(one)
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        branch: Any = field.annotation
        if isinstance(branch, type) and issubclass(branch, Section):
            found |= meanings(branch, f"{prefix}{name}.")
        elif name in said:
            found[prefix + name] = said[name]
    return found


def _below_each_field(model: type[Section]) -> dict[str, str]:
    (declared,) = ast.parse(inspect.getsource(model)).body
    return {
        field.target.id: inspect.cleandoc(words.value.value)
        for field, words in pairwise(cast("ast.ClassDef", declared).body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant) and isinstance(words.value.value, str)
    }
