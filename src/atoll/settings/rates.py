"""How often one may ask: of a key, of an address, on each surface; and which ways a key may come in besides headers."""

from __future__ import annotations

from pydantic import Field

from atoll.settings.section import DAY_S, Section


class SurfaceRates(Section):
    key_per_s: float | None = Field(default=None, gt=0, le=1_000_000)
    """Requests a second of one key here, in the long run. Empty: `rates.key_per_s`."""
    key_burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests of one key at once here. Empty: `rates.key_burst`."""
    address_requests: int = Field(default=0, ge=0, le=1_000_000_000)
    """Requests from one address here in a window. 0: no such limit."""
    address_window_s: float = Field(default=900.0, ge=1, le=DAY_S)
    """Seconds of that window."""


class TestbaseRates(SurfaceRates):
    """Of the Testbase API, `/admin` included."""

    __test__ = False  # to pytest a class of this name holds tests
    address_requests: int = Field(default=100, ge=0, le=1_000_000_000)
    """Requests from one address here in a window. 0: no such limit."""


class ExecutionRates(SurfaceRates):
    """Of the executions of the Testbase API, besides."""

    address_requests: int = Field(default=30, ge=0, le=1_000_000_000)
    """Requests from one address here in a window. 0: no such limit."""


class SignupRates(SurfaceRates):
    """Of `/v1/waitlist` and `/v1/quota-requests`."""

    address_requests: int = Field(default=5, ge=0, le=1_000_000_000)
    """Requests from one address here in a window. 0: no such limit."""
    address_window_s: float = Field(default=3_600.0, ge=1, le=DAY_S)
    """Seconds of that window."""


class ExecboxRates(SurfaceRates):
    """Of the execbox API and Atoll's own."""


class TerminalRates(SurfaceRates):
    """Of the Cloud Terminal Platform's APIs."""


class ComputeRates(SurfaceRates):
    """Of the ComputeSDK API."""


class ObjectRates(SurfaceRates):
    """Of the object-store door, whose clients send a request for each file."""

    key_per_s: float | None = Field(default=100.0, gt=0, le=1_000_000)
    """Requests a second of one key here, in the long run. Empty: `rates.key_per_s`."""
    key_burst: int | None = Field(default=400, ge=1, le=1_000_000)
    """Requests of one key at once here. Empty: `rates.key_burst`."""


class PreviewRates(SurfaceRates):
    """Of previews, whose pages ask for many things at once."""

    key_per_s: float | None = Field(default=500.0, gt=0, le=1_000_000)
    """Requests a second of one key here, in the long run. Empty: `rates.key_per_s`."""
    key_burst: int | None = Field(default=2_000, ge=1, le=1_000_000)
    """Requests of one key at once here. Empty: `rates.key_burst`."""


class Rates(Section):
    """Requests a second. Owner and internal keys from loopback are never limited."""

    enabled: bool = True
    """False turns every rate off."""
    key_per_s: float = Field(default=50.0, gt=0, le=1_000_000)
    """Requests a second of one key, in the long run; a key may have a rate of its own."""
    key_burst: int = Field(default=200, ge=1, le=1_000_000)
    """Requests of one key at once."""
    address_per_s: float = Field(default=100.0, gt=0, le=1_000_000)
    """Requests a second from one address (an IPv6 /64), in the long run."""
    address_burst: int = Field(default=400, ge=1, le=1_000_000)
    """Requests from one address at once."""
    refused_per_s: float = Field(default=0.5, gt=0, le=1_000_000)
    """Requests a second from one address with a missing or wrong credential, in the long run."""
    refused_burst: int = Field(default=50, ge=1, le=1_000_000)
    """Such requests from one address at once."""
    addresses: int = Field(default=10_000, ge=100, le=10_000_000)
    """Addresses remembered at a time; the longest unseen is forgotten first."""
    shared: bool = True
    """Count together with the other servers on the same PostgreSQL database. On SQLite a server counts alone."""
    testbase: TestbaseRates = TestbaseRates()
    testbase_execute: ExecutionRates = ExecutionRates()
    signup: SignupRates = SignupRates()
    execbox: ExecboxRates = ExecboxRates()
    terminal_platform: TerminalRates = TerminalRates()
    computesdk: ComputeRates = ComputeRates()
    objects: ObjectRates = ObjectRates()
    previews: PreviewRates = PreviewRates()
