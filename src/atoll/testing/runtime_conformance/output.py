"""Output: the ring with its offsets, what a late or a slow client sees, and limits on what is kept."""

from __future__ import annotations

import asyncio

from atoll.domain.process import ProcessSpec
from atoll.sidekick.client import SidekickClient
from atoll.sidekick.protocol import STDERR, STDOUT
from atoll.testing.runtime_conformance.suite import PATIENCE_S, Suite, read_all, read_until, sh


class OutputChecks(Suite):
    async def test_output_is_replayed_from_any_offset_after_the_end(self, inside: SidekickClient) -> None:
        ended = await sh(inside, "echo 0123456789")
        for offset, rest in ((0, b"0123456789\n"), (4, b"456789\n"), (11, b""), (99, b"")):
            stream = await inside.attach(ended.process_id, offset)
            assert stream.first_offset == min(offset, 11)
            assert await read_all(stream) == rest
            assert stream.offset == 11
            assert stream.exit == ended.exit
            await stream.close()

    async def test_a_client_that_comes_back_misses_nothing_and_sees_nothing_twice(self, inside: SidekickClient) -> None:
        first = await inside.start(ProcessSpec(("sh", "-c", "echo one; cat"), stdin=True))
        assert await read_until(first, b"one\n") == b"one\n"
        await first.close()
        second = await inside.attach(first.id, first.offset)
        await second.write_stdin(b"two\n")
        assert await read_until(second, b"two\n") == b"two\n"
        await second.close()
        third = await inside.attach(first.id, second.offset)
        await third.write_stdin(b"three\n")
        await third.close_stdin()
        assert await read_all(third) == b"three\n"
        assert third.offset == len(b"one\ntwo\nthree\n")
        await third.close()

    async def test_several_clients_see_the_same(self, inside: SidekickClient) -> None:
        first = await inside.start(ProcessSpec(("cat",), stdin=True))
        others = [await inside.attach(first.id) for _ in range(3)]
        await first.write_stdin(b"for all\n")
        await first.close_stdin()
        outputs = await asyncio.gather(*(read_all(stream) for stream in (first, *others)))
        assert set(outputs) == {b"for all\n"}
        for stream in (first, *others):
            await stream.close()

    async def test_both_streams_replay_in_their_order(self, inside: SidekickClient) -> None:
        ended = await sh(inside, "echo a; sleep 0.05; echo b >&2; sleep 0.05; echo c")
        stream = await inside.attach(ended.process_id)
        async with asyncio.timeout(PATIENCE_S):
            pieces = [piece async for piece in stream]
        assert pieces == [(STDOUT, b"a\n"), (STDERR, b"b\n"), (STDOUT, b"c\n")]
        await stream.close()

    async def test_the_ring_keeps_the_newest_and_says_where_it_starts(self, inside: SidekickClient) -> None:
        size = 5 * 2**20
        job = await inside.start(ProcessSpec(self.flood_argv(size)))
        await job.close()
        async with asyncio.timeout(PATIENCE_S):
            await inside.wait(job.id)
        stream = await inside.attach(job.id, 10)
        assert 10 < stream.first_offset < size
        rest = await read_all(stream)
        assert stream.first_offset + len(rest) == stream.offset == size
        await stream.close()

    async def test_a_client_that_keeps_up_sees_all_of_a_flood(self, inside: SidekickClient) -> None:
        size = 5 * 2**20
        stream = await inside.start(ProcessSpec(self.flood_argv(size)))
        total = 0
        async with asyncio.timeout(PATIENCE_S):
            async for _, data in stream:
                total += len(data)
        assert total == size
        await stream.close()

    async def test_a_run_keeps_what_it_may_and_says_that_it_dropped_the_rest(self, inside: SidekickClient) -> None:
        async with asyncio.timeout(PATIENCE_S):
            result = await inside.run(ProcessSpec(self.flood_argv(300_000)), max_output_bytes=1000)
        assert (len(result.stdout), result.truncated, result.exit.code) == (1000, True, 0)
