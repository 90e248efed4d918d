"""Model request: what a program asks of a model, read no further than money and tenancy need, and written anew.

The gateway reads it, model calls change it. Members of the body that stay as they are stay so byte for byte.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from atoll.services.models.dialects import Dialect
from atoll.services.models.limits import ModelLimits
from atoll.services.models.media import HINT as MEDIA_HINT
from atoll.services.models.media import media_tokens
from atoll.services.models.meter import BYTES_PER_TOKEN
from atoll.services.models.references import HINT, reference_in
from atoll.services.models.refusals import Because, CallRefused

_Members = dict[str, msgspec.Raw]
_READ = msgspec.json.Decoder(_Members)
CHOICES_MAX = 8
BOUNDS = {
    Dialect.RESPONSES: ("max_output_tokens",),
    Dialect.CHAT: ("max_completion_tokens", "max_tokens"),
    Dialect.MESSAGES: ("max_tokens",),
}
_WHO = ("metadata", "user", "safety_identifier", "client_metadata")  # who asks
# what costs more than the table says, at a provider that knows it: being first, other models, sounds, searches
_DEARER = ("service_tier", "speed", "inference_geo", "models", "provider", "plugins", "route", "modalities", "audio")
_OTHERS = ("preset", "fallbacks", "api_base", "base_url", "api_key", "extra_body", "model_list")
_SEARCHES = ("web_search_options", "search_parameters", "enable_search", "search_options")
_LEFT_OUT = (*_WHO, *_DEARER, *_OTHERS, *_SEARCHES)
DROPPED = {
    Dialect.RESPONSES: _LEFT_OUT,
    Dialect.CHAT: (*_LEFT_OUT, "store"),
    Dialect.MESSAGES: (*_LEFT_OUT, "mcp_servers", "container"),
    Dialect.COUNT: ("metadata", "mcp_servers", "container"),
}
# They name what lies at the provider, below one key for all tenants.
REFUSED = {
    "previous_response_id": "send the whole conversation instead",
    "conversation": "send the whole conversation instead",
    "prompt": "send instructions and input instead",
    "background": "the answer has to come over this connection",
}
_OWN_TOOLS = ("function", "custom", "local_shell", "apply_patch")
_OWN_ANTHROPIC_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")


class ModelRequest:
    """CallRefused, naming the member, for a body that is not one of this dialect or asks for what is not served."""

    def __init__(self, dialect: Dialect, body: bytes, limits: ModelLimits) -> None:
        self.dialect = dialect
        self.size = len(body)
        self._limits = limits
        try:
            self._members: _Members = _READ.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _bad("the body must be a JSON object") from None
        self.model = self._text("model")
        self.streamed = self._value("stream") is True
        self.choices = self._choices()
        self.bound = self._bound()
        self.usage_asked = self._usage_asked()
        self._neutralise()
        self.input_tokens = -(-self.size // BYTES_PER_TOKEN) + self._media_tokens()  # that it may have

    def output_bound(self) -> int | None:
        """The most output tokens that the answer may have, all choices together; None: the request does not say."""
        return None if self.bound is None else min(self.bound, self._limits.output_tokens_max) * self.choices

    def encoded(self, model: str, bound: int | None) -> bytes:
        """The body that is sent on, for that model and with that bound on the output of all choices together."""
        members = dict(self._members)
        members["model"] = _raw(model)
        if bound is not None and self.dialect in BOUNDS:
            self._write_bound(members, max(1, bound // self.choices))
        if self.dialect is Dialect.CHAT and self.streamed:
            options = self._value("stream_options")
            kept = cast("dict[str, Any]", options) if isinstance(options, dict) else {}
            members["stream_options"] = _raw({**kept, "include_usage": True})
        return msgspec.json.encode(members)

    def _write_bound(self, members: _Members, bound: int) -> None:
        names = [name for name in BOUNDS[self.dialect] if name in members]
        for name in names or BOUNDS[self.dialect][-1:]:
            members[name] = _raw(bound)
        thinking = self._value("thinking") if self.dialect is Dialect.MESSAGES else None
        if isinstance(thinking, dict):
            budget = cast("dict[str, Any]", thinking).get("budget_tokens")
            if isinstance(budget, int) and budget >= bound:  # the provider would refuse it: it is part of the output
                if bound > 1024:
                    members["thinking"] = _raw({**thinking, "budget_tokens": bound - 1})
                else:
                    del members["thinking"]

    def _value(self, name: str) -> Any:
        raw = self._members.get(name)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _bad(f"{name} is not valid JSON", name) from None

    def _text(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str) or not 0 < len(value) <= 200:
            raise _bad(f"{name} must be a text of 1 to 200 characters", name)
        return value

    def _bound(self) -> int | None:
        found = [(name, self._value(name)) for name in BOUNDS.get(self.dialect, ())]
        given = [(name, value) for name, value in found if value is not None]
        for name, value in given:
            if type(value) is not int or not 1 <= value <= 10**9:
                raise _bad(f"{name} must be a whole number above 0", name)
        return min((value for _, value in given), default=None)

    def _choices(self) -> int:
        value = self._value("n") if self.dialect is Dialect.CHAT else None
        if value is None:
            return 1
        if type(value) is not int or not 1 <= value <= CHOICES_MAX:
            raise _bad(f"n must be 1 to {CHOICES_MAX}", "n")
        return value

    def _usage_asked(self) -> bool:
        options = self._value("stream_options") if self.dialect is Dialect.CHAT else None
        return isinstance(options, dict) and cast("dict[str, Any]", options).get("include_usage") is True

    def _neutralise(self) -> None:
        # some servers read a name in any case: none may say again what was looked at here
        self._members = {name: value for name, value in self._members.items() if name == name.lower()}
        if self.dialect is Dialect.RESPONSES:
            for name, instead in REFUSED.items():
                if self._value(name) not in (None, False):
                    raise _bad(f"{name} is not served here: {instead}", name)
                self._members.pop(name, None)
            self._members["store"] = _raw(False)
        for name in DROPPED.get(self.dialect, ()):
            self._members.pop(name, None)
        if "tools" in self._members:
            self._drop_hosted_tools()
        if not self._limits.remote_content:
            for name in ("input", "messages", "system"):
                self._refuse_references(name)

    def _refuse_references(self, name: str) -> None:
        raw = self._members.get(name)
        if raw is not None and HINT.search(bytes(raw)) and (found := reference_in(self._value(name))):
            raise _bad(f"{name} names what the provider would have to fetch ({found}): send the content itself", name)

    def _media_tokens(self) -> int:
        limits, found = self._limits, 0
        for name in ("input", "messages", "system"):
            raw = self._members.get(name)
            if raw is not None and MEDIA_HINT.search(bytes(raw)):
                found += media_tokens(self._value(name), limits.image_tokens, limits.document_tokens)
        return found

    def _drop_hosted_tools(self) -> None:
        """Tools that would run at the provider: on its network, with its files, at a price that no usage states."""
        tools = self._value("tools")
        if not isinstance(tools, list):
            if tools is not None:
                raise _bad("tools must be a list", "tools")
            return
        listed = cast("list[Any]", tools)
        kept = [tool for tool in listed if self._runs_here(tool)]
        if len(kept) == len(listed):
            return
        if kept:
            self._members["tools"] = _raw(kept)
        else:
            for name in ("tools", "tool_choice"):
                self._members.pop(name, None)

    def _runs_here(self, tool: Any) -> bool:
        if not isinstance(tool, dict):
            return False
        known = cast("dict[str, Any]", tool)
        kind = known.get("type")
        if kind in self._limits.hosted_tools:
            return True
        if self.dialect in (Dialect.MESSAGES, Dialect.COUNT):
            return kind is None or (isinstance(kind, str) and kind.startswith(_OWN_ANTHROPIC_TOOLS))
        if kind == "shell":
            environment = known.get("environment")
            return isinstance(environment, dict) and cast("dict[str, Any]", environment).get("type") == "local"
        if kind == "namespace":
            inside = known.get("tools")
            return isinstance(inside, list) and all(map(self._runs_here, cast("list[Any]", inside)))
        return kind in _OWN_TOOLS


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _bad(message: str, field: str | None = None) -> CallRefused:
    return CallRefused(Because.REQUEST, message, field=field)
