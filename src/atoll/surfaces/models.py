"""Models: what bodies and answers of every dialect are declared with.

A model's validator is built when it is first used: most of these only describe answers in a document that is seldom
asked for, and a server starts sooner without them.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BodyModel(BaseModel):
    """Of a request: nothing beyond its fields, and no value of another type taken for theirs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class AnswerModel(BaseModel):
    """Never built for a request: the dialects answer with plain dictionaries, which tests hold to these."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
