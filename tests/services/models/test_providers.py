"""Providers: which server a model's name leads to, and that no key is shown."""

from __future__ import annotations

import pytest

from atoll.limits import model_providers
from atoll.services.models.dialects import Dialect, Kind
from atoll.services.models.providers import Provider, Providers
from atoll.services.models.refusals import Because, CallRefused
from atoll.settings import Settings, SettingsError, load

LOCAL = Provider("local", Kind.OPENAI, "http://127.0.0.1:8000/v1", "k", ("llama-*", "qwen"))
OPENAI = Provider("openai", Kind.OPENAI, "https://api.openai.com/v1", "sk-real")


def test_the_first_that_has_a_model_is_asked():
    providers = Providers([LOCAL, OPENAI], {"gpt-5-codex": "llama-3"})
    assert providers.find(Kind.OPENAI, providers.named("gpt-5-codex")) is LOCAL
    assert providers.find(Kind.OPENAI, "gpt-5") is OPENAI
    with pytest.raises(CallRefused) as caught:
        Providers([LOCAL]).find(Kind.OPENAI, "gpt-5")
    assert caught.value.because is Because.NO_MODEL
    with pytest.raises(CallRefused, match="ANTHROPIC_API_KEY"):
        providers.find(Kind.ANTHROPIC, "claude")


def test_a_star_stands_for_all_other_names():
    providers = Providers([LOCAL], {"*": "qwen", "a": "llama-1"})
    assert (providers.named("a"), providers.named("b")) == ("llama-1", "qwen")


def test_base_urls_are_as_each_maker_writes_them():
    assert LOCAL.url(Dialect.CHAT) == "http://127.0.0.1:8000/v1/chat/completions"
    for base in ("https://x.example", "https://x.example/", "https://x.example/v1"):
        assert Provider("a", Kind.ANTHROPIC, base).url(Dialect.MESSAGES) == "https://x.example/v1/messages"


def test_a_key_is_never_shown():
    assert "sk-real" not in repr(OPENAI) and "sk-real" not in repr(Providers([OPENAI]))


def test_the_seeds_names_set_the_providers():
    env = {"OPENAI_API_KEY": "sk-a", "ANTHROPIC_API_KEY": "sk-b", "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}
    openai, anthropic = model_providers(load(environ=env)).all
    assert (openai.base_url, openai.key) == ("https://api.openai.com/v1", "sk-a")
    assert (anthropic.base_url, anthropic.key) == ("http://127.0.0.1:1", "sk-b")
    assert model_providers(Settings()).all == ()
    assert "sk-a" not in repr(load(environ=env))
    with pytest.raises(SettingsError, match="without user"):
        load(environ={"OPENAI_BASE_URL": "https://me:secret@x.example/v1"})
