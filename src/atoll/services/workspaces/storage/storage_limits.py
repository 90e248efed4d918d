"""Bounds of the chunk store and of archives, as one frozen value; atoll.limits fills it from the settings."""

from __future__ import annotations

import os
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """Sizes in bytes. What a writer holds in memory: about three packs and `batches` batches; a reader: `runs` runs."""

    threads: int = min(4, (os.cpu_count() or 1) + 1)
    grace_s: float = 24 * 3600.0  # the collector's; chunks in packs older than half of it are refreshed when found

    stored_bytes_max: int = 2**40  # of all lineages of one owner with a standard key; 0: no limit
    free_bytes_min: int = 2**30  # on each disk of the server that is written to; 0: no reserve

    # writing
    pack_bytes: int = 12 * MIB  # a pack is stored once it holds that much
    batch_bytes: int = MIB  # of chunks sealed in one job
    batch_chunks: int = 128
    batches: int = 4  # sealed at once or waiting for their turn

    # reading
    lookup_chunks: int = 1_024  # whose places are looked up at once
    run_bytes: int = 4 * MIB  # of chunks read and opened in one job
    run_chunks: int = 256
    runs: int = 3  # read ahead
    gap_bytes: int = 64 * 2**10  # between two chunks of a pack that are still read in one piece
    page_cache_bytes: int = 64 * MIB  # of decoded pages
