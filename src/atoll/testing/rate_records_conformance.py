"""What every store's shared counters do; `RecordsConformance` includes it."""

from __future__ import annotations

import asyncio

from atoll.domain.rate import Rate, Window
from atoll.records.base import Records

Stores = tuple[Records, Records]
SLOW = Rate(0.001, 10)  # so that nothing flows in while a test runs


class RateRecordsConformance:
    """`stores` are two connections to one store."""

    async def test_a_burst_is_given_once_whichever_server_asks(self, stores: Stores) -> None:
        taken = [await stores[n % 2].take_tokens("a", SLOW) for n in range(14)]
        assert [one.tokens for one in taken] == [1] * 10 + [0] * 4
        assert round(taken[0].spent) == 1 and round(taken[-1].spent) == 10

    async def test_less_is_given_where_not_all_can_be(self, stores: Stores) -> None:
        assert [(await stores[0].take_tokens("a", SLOW, 4)).tokens for _ in range(5)] == [4, 4, 1, 1, 0]

    async def test_names_are_apart(self, stores: Stores) -> None:
        assert [(await stores[0].take_tokens(name, Rate(0.001, 1))).tokens for name in "aba"] == [1, 1, 0]

    async def test_a_rate_flows_in(self, stores: Stores) -> None:
        fast = Rate(50.0, 1)
        assert (await stores[0].take_tokens("a", fast)).tokens == 1
        for _ in range(100):
            if (await stores[1].take_tokens("a", fast)).tokens:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nothing flowed in")

    async def test_a_window_is_full_until_its_end_and_says_since_when(self, stores: Stores) -> None:
        window = Window(3, 0.3)
        first = [await stores[0].take_tokens("w", window) for _ in range(3)]
        assert [(one.tokens, one.spent) for one in first] == [(1, 1.0), (1, 2.0), (1, 3.0)]
        full = await stores[1].take_tokens("w", Window(3, 3600.0))
        assert (full.tokens, full.spent) == (0, 3.0) and 0 <= full.age_s < 3600
        await asyncio.sleep(0.35)
        again = await stores[1].take_tokens("w", window)
        assert (again.tokens, again.spent) == (1, 1.0)

    async def test_no_more_is_given_than_there_is_however_many_ask_at_once(self, stores: Stores) -> None:
        for pace in (SLOW, Window(10, 3600.0)):
            asked = (stores[n % 2].take_tokens(f"{pace}", pace, 1 + n % 3) for n in range(40))
            assert sum(one.tokens for one in await asyncio.gather(*asked)) == 10

    async def test_what_is_given_back_can_be_taken_again_and_no_more_than_that(self, stores: Stores) -> None:
        await stores[0].give_back_token("a")  # of which nothing is known
        assert [(await stores[0].take_tokens("a", SLOW)).tokens for _ in range(11)] == [1] * 10 + [0]
        for _ in range(2):
            await stores[1].give_back_token("a")
        assert [(await stores[0].take_tokens("a", SLOW)).tokens for _ in range(3)] == [1, 1, 0]
        for _ in range(20):
            await stores[0].give_back_token("a")
        assert [(await stores[1].take_tokens("a", SLOW)).tokens for _ in range(11)] == [1] * 10 + [0]

    async def test_what_nobody_asked_for_lately_is_forgotten(self, stores: Stores) -> None:
        window = Window(1, 3600.0)
        await stores[0].take_tokens("old", window)
        await stores[0].prune_rates(3600.0)
        assert (await stores[0].take_tokens("old", window)).tokens == 0
        await asyncio.sleep(0.01)
        await stores[1].prune_rates(0.0)
        assert (await stores[0].take_tokens("old", window)).tokens == 1
