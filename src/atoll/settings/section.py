"""What every section of the settings shares: its model, its units, its error."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from atoll.domain.errors import InvalidInput

KIB, MIB, GIB = 2**10, 2**20, 2**30
DAY_S = 86_400.0


class SettingsError(InvalidInput):
    """The settings are not valid."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# A time that may be unbounded; TOML and the environment say so with 0.
Bound = Annotated[float | None, Field(ge=0), AfterValidator(lambda value: value or None)]
