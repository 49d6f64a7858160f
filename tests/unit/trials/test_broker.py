"""The broker between trials and their study: an assignment waits for its trial, a trial waits for its answer."""

from __future__ import annotations

import asyncio

from lehr.trials.broker import Broker


def test_a_trial_waits_for_its_assignment_and_can_get_it_twice() -> None:
    async def scene() -> None:
        broker = Broker()
        early = asyncio.create_task(broker.get("trials/0000"))
        await asyncio.sleep(0)
        assert not early.done()
        await broker.put("trials/0000", "assignment")
        assert await early == await broker.get("trials/0000") == "assignment"  # its process was lost in between

    asyncio.run(scene())


def test_a_report_waits_for_its_own_answer() -> None:
    async def scene() -> None:
        broker = Broker()
        asked = [asyncio.create_task(broker.report(f"trials/{i:04}", {"epoch": 1.0})) for i in range(2)]
        first, second = await broker.reports(1.0)
        assert [first.folder, second.folder] == ["trials/0000", "trials/0001"]
        await broker.answer(second.number, "enough")
        assert await asked[1] == "enough"
        assert not asked[0].done()
        await broker.answer(first.number, None)
        assert await asked[0] is None
        assert await broker.reports(0.01) == []

    asyncio.run(scene())
