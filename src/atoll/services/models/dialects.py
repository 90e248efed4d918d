"""Dialects: the operations of OpenAI's and Anthropic's APIs that programs in a task's sandbox may call."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Whose API a provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Dialect(StrEnum):
    """The value is the path below /v1."""

    RESPONSES = "responses"
    CHAT = "chat/completions"
    MESSAGES = "messages"
    COUNT = "messages/count_tokens"
    MODELS = "models"

    @property
    def kind(self) -> Kind:
        """Of `MODELS`: OpenAI's, unless the request says `anthropic-version`."""
        return Kind.ANTHROPIC if self in (Dialect.MESSAGES, Dialect.COUNT) else Kind.OPENAI

    @property
    def metered(self) -> bool:
        """Whether tokens are used."""
        return self not in (Dialect.COUNT, Dialect.MODELS)


def dialect_of(path: str) -> Dialect | None:
    """By path, with or without /v1."""
    name = path.removeprefix("/v1/") if path.startswith("/v1/") else path.removeprefix("/")
    try:
        return Dialect(name)
    except ValueError:
        return None
