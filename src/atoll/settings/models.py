"""Models: the providers that tasks' calls go to, and the bounds of those calls."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from atoll.settings.section import DAY_S, KIB, MIB, Section


def _base_url(text: str) -> str:
    """An http(s) URL, of the operator's own machine too. A credential in it would stand in logs: there is `api_key`."""
    if not text:
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be a URL without user, query and fragment")
    return text


_BaseUrl = Annotated[str, AfterValidator(_base_url)]
_Key = Annotated[SecretStr, Field(max_length=4096)]


class OpenAiSettings(Section):
    """OpenAI, or a server that speaks its APIs: it is used where a key or a base_url is set."""

    api_key: _Key | None = None
    """Key of the server's own; it goes to the provider and nowhere else."""
    base_url: _BaseUrl = ""
    """Where it is, with /v1. Empty: OpenAI's own address."""


class AnthropicSettings(Section):
    """Anthropic, or a server that speaks its API: it is used where a key or a base_url is set."""

    api_key: _Key | None = None
    """Key of the server's own; it goes to the provider and nowhere else."""
    base_url: _BaseUrl = ""
    """Where it is, without /v1. Empty: Anthropic's own address."""


class ModelProviderSettings(Section):
    """One entry of `models.providers`; docs/models.md has them all."""

    kind: Literal["openai", "anthropic"] = "openai"
    base_url: _BaseUrl = Field(min_length=1)
    api_key: _Key | None = None
    models: tuple[str, ...] = ()


class ModelSettings(Section):
    openai: OpenAiSettings = OpenAiSettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    providers: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")], ModelProviderSettings] = Field(
        default={}, max_length=32
    )
    """Further servers of models by name, in the TOML file: kind, base_url, api_key and models (patterns of names; none:
    all). They are asked before the two above."""
    aliases: dict[str, str] = Field(default={}, max_length=1_000)
    """Names that programs ask for, and the models that are called instead; `*` stands for all other names."""
    hosted_tools: tuple[str, ...] = ()
    """Types of tools that run at the provider and may be asked for: web_search. They cost what no usage states.
    Environment: with commas."""
    remote_content: bool = False
    """Whether conversations may name URLs and files that the provider fetches: a way out for sandboxes without one."""
    output_tokens_max: int = Field(default=32_000, ge=256, le=10_000_000)
    """Most output of one call, and what is set aside for a call that does not say."""
    output_tokens_min: int = Field(default=256, ge=1, le=10_000_000)
    """Least output that a balance must pay for a call that does not say."""
    image_tokens: int = Field(default=30_000, ge=0, le=10_000_000)
    """Input tokens that at least are set aside for each image of a request, however few bytes it has."""
    document_tokens: int = Field(default=100_000, ge=0, le=10_000_000)
    """Input tokens that at least are set aside for each PDF or video."""
    request_bytes: int = Field(default=32 * MIB, ge=64 * KIB, le=256 * MIB)
    """Largest request."""
    answer_bytes: int = Field(default=64 * MIB, ge=64 * KIB, le=1024 * MIB)
    """Largest answer."""
    held_bytes: int = Field(default=512 * MIB, ge=1 * MIB, le=65_536 * MIB)
    """Most that all requests under way may hold; further ones are told to try again."""
    account_held_bytes: int = Field(default=64 * MIB, ge=64 * KIB, le=65_536 * MIB)
    """Most that those of one account may hold, or one request where that is more: likewise."""
    calls_per_task: int = Field(default=16, ge=1, le=1_000)
    """Calls of one task at once; others wait."""
    calls_max: int = Field(default=256, ge=1, le=10_000)
    """Calls of all tasks at once; others wait."""
    queue_s: float = Field(default=60.0, ge=0, le=3_600)
    """Longest wait for a place among those."""
    connect_s: float = Field(default=10.0, ge=0.1, le=600)
    """Longest time to connect to a provider."""
    first_byte_s: float = Field(default=300.0, ge=0.1, le=DAY_S)
    """Longest time until a provider begins to answer: a model that hangs ends its task."""
    between_s: float = Field(default=120.0, ge=0.1, le=DAY_S)
    """Longest silence within an answer: likewise."""
    call_s: float = Field(default=1_800.0, ge=1, le=DAY_S)
    """Longest call: likewise."""

    @field_validator("hosted_tools", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _least_is_less(self) -> Self:
        if self.output_tokens_min > self.output_tokens_max:
            raise ValueError("output_tokens_min is above output_tokens_max")
        return self
