"""Model limits: every bound and deadline of calls of models, as one frozen value; filled from the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Times in seconds."""

    request_bytes: int = 32 * 2**20
    answer_bytes: int = 64 * 2**20
    held_bytes: int = 512 * 2**20  # of all requests that are being read or wait for their answers
    account_held_bytes: int = 64 * 2**20  # of those of one account
    image_tokens: int = 30_000  # that an image is at least held as
    document_tokens: int = 100_000  # that a PDF or video is
    output_tokens_max: int = 32_000
    output_tokens_min: int = 256  # what a balance must pay at least, where the request says no bound
    calls_per_task: int = 16
    calls_max: int = 256
    queue_s: float = 60.0  # for a place among those
    body_s: float = 60.0
    connect_s: float = 10.0
    first_byte_s: float = 300.0
    between_s: float = 120.0
    call_s: float = 1800.0
    remote_content: bool = False  # whether a conversation may name URLs and files that the provider fetches
    hosted_tools: frozenset[str] = frozenset()  # types of tools that run at the provider and may be asked for
