"""The desk between trials and their study: work waits for its trial, a trial waits for its answer."""

from __future__ import annotations

import asyncio

from lehr.trials.broker import Broker


def test_a_trial_waits_for_its_work_and_can_take_it_twice() -> None:
    async def scene() -> None:
        desk = Broker()
        early = asyncio.create_task(desk.take("trials/0000"))
        await asyncio.sleep(0)
        assert not early.done()
        await desk.lay_out("trials/0000", "work")
        assert await early == await desk.take("trials/0000") == "work"  # its process was lost in between

    asyncio.run(scene())


def test_a_question_waits_for_its_own_answer() -> None:
    async def scene() -> None:
        desk = Broker()
        asked = [asyncio.create_task(desk.ask(f"trials/{i:04}", {"epoch": 1.0})) for i in range(2)]
        first, second = await desk.questions(1.0)
        assert [first.folder, second.folder] == ["trials/0000", "trials/0001"]
        await desk.answer(second.number, "enough")
        assert await asked[1] == "enough"
        assert not asked[0].done()
        await desk.answer(first.number, None)
        assert await asked[0] is None
        assert await desk.questions(0.01) == []

    asyncio.run(scene())
