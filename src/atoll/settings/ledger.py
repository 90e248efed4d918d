"""How the ledger is looked after while the server runs."""

from __future__ import annotations

from pydantic import Field

from atoll.settings.section import Section


class LedgerSettings(Section):
    prove_h: float = Field(default=24.0, ge=0, le=8_760)
    """Hours between two proofs of the ledger, as `atoll ledger verify` makes them; 0: none."""
