import json
from typing import Any

import pytest

from agent_dispatch.server.calls.envelope import Envelope
from agent_dispatch.server.inline.result import INLINE_CHARS
from tests.server.calling import call, error_in
from tests.server.fake_service import JOB_ID, FakeService

LOOK = {"agent": "infra", "task": "look"}


def listed(answer: Envelope) -> list[dict[str, Any]]:
    assert not answer.is_error, answer.text
    assert answer.structured is None
    items: list[dict[str, Any]] = json.loads(answer.text)
    return items


@pytest.mark.parametrize("as_text", [True, False])
async def test_answers_come_in_the_order_of_the_request(as_text: bool) -> None:
    items = [{"agent": "infra", "task": f"task {number}"} for number in range(5)]
    dispatches = json.dumps(items) if as_text else items
    answers = listed(await call("dispatch_parallel", dispatches=dispatches))
    assert [answer["result"] for answer in answers] == [f"did: task {n}" for n in range(5)]


async def test_an_item_carries_every_argument() -> None:
    service = FakeService()
    item = {
        **LOOK,
        "context": "c",
        "caller": "me",
        "goal": "g",
        "response_format": "json",
        "json_schema": {"type": "object"},
        "timeout_seconds": "60",
        "model": "opus",
        "effort": "high",
        "return_ref": True,
        "summary_chars": 7,
        "group": "shop",
        "verify": True,
    }
    await call("dispatch_parallel", service, dispatches=[item])
    (request,) = service.requests
    assert (request.context, request.caller, request.goal) == ("c", "me", "g")
    assert request.group == "shop"
    assert (request.response_format, request.timeout_s) == ("json", 60)
    assert request.json_schema == '{"type":"object"}'
    assert (request.model, request.effort, request.verify) == ("opus", "high", True)


async def test_a_member_may_be_answered_by_a_ref() -> None:
    items = [{**LOOK, "task": "big 1000", "return_ref": True, "summary_chars": 5}, LOOK]
    ref, plain = listed(await call("dispatch_parallel", dispatches=items))
    assert (ref["ref"], ref["summary"], ref["size"]) == (JOB_ID, "äääää", 1000)
    assert plain["result"] == "did: look"


async def test_with_aggregate_the_answer_is_an_object() -> None:
    answer = await call("dispatch_parallel", dispatches=[LOOK, LOOK], aggregate="infra")
    assert answer.structured is not None
    assert list(answer.structured) == ["individual_results", "aggregated"]
    assert len(answer.structured["individual_results"]) == 2
    assert answer.structured["aggregated"]["result"] == "all is well"
    assert json.loads(answer.text) == answer.structured


async def test_large_answers_share_the_room_of_one() -> None:
    items = [{**LOOK, "task": "big 1000000"} for _ in range(3)] + [LOOK]
    answer = await call("dispatch_parallel", dispatches=items)
    *large, small = listed(answer)
    assert small["result"] == "did: look"
    assert all(one["truncated"] and one["full_size"] == 1_000_000 for one in large)
    assert all(f'fetch_result(ref="{JOB_ID}"' in one["hint"] for one in large)
    assert INLINE_CHARS * 0.7 < sum(len(one["result"]) for one in large) <= INLINE_CHARS
    assert len(answer.text.encode()) < 200 * 1024


async def test_a_long_aggregated_answer_gets_the_room_that_the_others_leave() -> None:
    service = FakeService(combined="c" * 39_000)
    answer = await call("dispatch_parallel", service, dispatches=[LOOK], aggregate="infra")
    assert answer.structured is not None
    assert answer.structured["aggregated"]["result"] == service.combined


async def test_the_aggregated_answer_is_not_cut_in_favour_of_the_others() -> None:
    items = [{**LOOK, "task": f"big {100_000 + n}"} for n in range(100)]
    service = FakeService(combined="c" * 20_000)
    answer = await call("dispatch_parallel", service, dispatches=items, aggregate="infra")
    assert answer.structured is not None
    assert answer.structured["aggregated"]["result"] == service.combined
    assert all(one["truncated"] for one in answer.structured["individual_results"])
    assert len(answer.text.encode()) < 200 * 1024


@pytest.mark.parametrize(
    ("dispatches", "said"),
    [
        ("[{", "dispatches is not JSON"),
        ("[" * 5000, "dispatches is not JSON"),
        ("{}", "dispatches must be a list such as"),
        ("null", "dispatches must be a list such as"),
        ("[]", "dispatches has 0 items"),
        ([], "dispatches has 0 items"),
        ([LOOK] * 1001, "dispatches has 1001 items"),
        ([LOOK, "look"], "dispatches[1]: "),
        ('[{"agent": "infra"}]', "dispatches[0]: Missing argument 'task'"),
        ([{**LOOK, "tsk": 1}], "(did you mean 'task'?)"),
        ([{**LOOK, "context": {"k": 1}}], "dispatches[0]: Argument 'context' must be text"),
        ([{**LOOK, "caller": 5}], "dispatches[0]: "),
        ([LOOK, {**LOOK, "task": "\n"}], "dispatches[1]: task is empty"),
        ([{**LOOK, "response_format": "xml"}], "dispatches[0]: response_format 'xml'"),
        ('[{"agent": "infra", "task": "a\\u0000b"}]', "NUL"),
        ('[{"agent": "infra", "task": "\\ud800"}]', "dispatches"),
        ([{**LOOK, "json_schema": "["}], "dispatches[0]: json_schema is not JSON"),
        ([{}] * 9, "and 4 more items are wrong"),
        (7, "dispatches"),
    ],
)
async def test_a_wrong_item_is_named_and_nothing_is_started(dispatches: Any, said: str) -> None:
    service = FakeService()
    error = error_in(await call("dispatch_parallel", service, dispatches=dispatches))
    assert said in error
    assert len(error) < 3000
    assert service.calls == []


async def test_a_stream_is_never_answered_from_the_cache() -> None:
    service = FakeService()
    answer = await call("dispatch_stream", service, **LOOK)
    assert answer.structured is not None
    assert answer.structured["result"] == "did: look"
    assert service.calls == [("dispatch", (False, True))]


@pytest.mark.parametrize("name", ["return_ref", "summary_chars"])
async def test_a_stream_has_no_ref(name: str) -> None:
    assert (
        f"unknown argument '{name}'"
        in error_in(await call("dispatch_stream", **LOOK, **{name: 1})).lower()
    )


async def test_a_session_is_never_answered_from_the_cache() -> None:
    service = FakeService()
    await call("dispatch_session", service, **LOOK)
    assert service.calls == [("dispatch", (False, True))]


@pytest.mark.parametrize("tool", ["dispatch", "dispatch_session", "dispatch_async"])
@pytest.mark.parametrize("schema", [{"type": "object"}, '{"type":"object"}'])
async def test_a_schema_is_an_object_or_its_json(tool: str, schema: object) -> None:
    service = FakeService()
    await call(tool, service, **LOOK, json_schema=schema)
    assert service.requests[0].json_schema == '{"type":"object"}'


async def test_the_cache_has_statistics() -> None:
    stats = (await call("cache_stats")).structured
    assert stats is not None
    assert list(stats) == ["enabled", "size", "max_size", "ttl", "hits", "misses", "hit_rate"]
    assert (await call("cache_clear")).structured == {"cleared": 1}
