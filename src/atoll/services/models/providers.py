"""Providers: where models are, by their names; the operator's settings say it, nobody else.

Model calls ask it for each request. A name may stand for another one: programs insist on names that a server of one's
own does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from atoll.services.models.dialects import Dialect, Kind
from atoll.services.models.refusals import Because, CallRefused

OWN = {Kind.OPENAI: "https://api.openai.com/v1", Kind.ANTHROPIC: "https://api.anthropic.com"}
_VARIABLES = {
    Kind.OPENAI: "OPENAI_API_KEY (and OPENAI_BASE_URL for a compatible server)",
    Kind.ANTHROPIC: "ANTHROPIC_API_KEY (and ANTHROPIC_BASE_URL for a compatible server)",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """One server of models. `base_url` is OpenAI's with its /v1, Anthropic's without."""

    name: str
    kind: Kind
    base_url: str
    key: str = field(default="", repr=False)
    models: tuple[str, ...] = ()  # patterns of the names that it has; empty: all

    def url(self, dialect: Dialect) -> str:
        base = self.base_url.rstrip("/")
        if self.kind is Kind.ANTHROPIC and not base.endswith("/v1"):
            base += "/v1"
        return f"{base}/{dialect}"

    def credential(self) -> list[tuple[str, str]]:
        """The headers that its key goes into."""
        if not self.key:
            return []
        if self.kind is Kind.ANTHROPIC:
            return [("x-api-key", self.key)]
        return [("Authorization", f"Bearer {self.key}")]

    def has(self, model: str) -> bool:
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


def providers_of(
    openai: tuple[str, str] | None,
    anthropic: tuple[str, str] | None,
    others: Sequence[Provider],
    aliases: Mapping[str, str],
) -> Providers:
    """The providers of the settings: `openai` and `anthropic` are (base URL, key), an empty URL is the maker's own;
    they are asked last."""
    own = [
        Provider(kind.value, kind, given[0] or OWN[kind], given[1])
        for kind, given in ((Kind.OPENAI, openai), (Kind.ANTHROPIC, anthropic))
        if given is not None
    ]
    return Providers([*others, *own], aliases)


class Providers:
    """`providers` in the order in which they are asked; `aliases`: the name that a request says -> what is called."""

    def __init__(self, providers: Sequence[Provider] = (), aliases: Mapping[str, str] | None = None) -> None:
        self.all = tuple(providers)
        self._aliases = dict(aliases or {})

    def named(self, model: str) -> str:
        """What a model that a request names is really called; `*` stands for all others."""
        return self._aliases.get(model) or self._aliases.get("*") or model

    def find(self, kind: Kind, model: str | None = None) -> Provider:
        """CallRefused when the operator has set up none, or none with that model."""
        of_kind = [one for one in self.all if one.kind is kind]
        if not of_kind:
            raise CallRefused(
                Because.NOT_SET_UP,
                f"no model is set up for this API: the operator sets {_VARIABLES[kind]} or models.providers",
            )
        for one in of_kind:
            if model is None or one.has(model):
                return one
        raise CallRefused(Because.NO_MODEL, f"the model {model!r} is not one of this server's", field="model")
