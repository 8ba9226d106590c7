import msgspec
import pytest

from agent_dispatch.model.dialogue import DialogueRequest
from agent_dispatch.server.inline.result import INLINE_CHARS
from tests.server.calling import call, error_in
from tests.server.fake_service import JOB_ID, FakeService

TOPIC = {"requester": "backend", "responder": "infra", "topic": "Are we migrated?"}


async def test_a_dialogue_is_an_object_in_the_order_of_the_readme() -> None:
    answer = await call("dispatch_dialogue", **TOPIC)
    assert not answer.is_error
    assert list(msgspec.json.decode(answer.text)) == [
        "resolved",
        "rounds",
        "total_cost_usd",
        "total_duration_ms",
        "final_answer",
        "conversation",
        "sessions",
        "job_id",
    ]
    assert answer.structured == msgspec.json.decode(answer.text)


@pytest.mark.parametrize(
    ("arguments", "rounds", "timeout_s"),
    [
        ({}, 3, None),
        ({"max_rounds": "7", "timeout_seconds": 60}, 7, 60.0),
        ({"max_rounds": None, "timeout_seconds": 1}, 3, 10.0),
        ({"timeout_seconds": 1_000_000}, 3, 7200.0),
    ],
)
async def test_a_dialogue_carries_every_argument(
    arguments: dict[str, object], rounds: int, timeout_s: float | None
) -> None:
    service = FakeService()
    await call("dispatch_dialogue", service, **TOPIC, **arguments)
    assert service.calls == [
        ("dialogue", DialogueRequest(**TOPIC, max_rounds=rounds, timeout_s=timeout_s))
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"responder": "nobody"}, "Unknown agent: 'nobody'"),
        ({"topic": 7}, "argument 'topic' must be text"),
        ({"topic": "a\0b"}, "NUL"),
        ({"rounds": 3}, "unknown argument 'rounds' (did you mean 'max_rounds'?)"),
        ({"max_rounds": "many"}, "argument 'max_rounds' must be a whole number"),
    ],
)
async def test_a_wrong_dialogue_is_an_envelope(arguments: dict[str, object], words: str) -> None:
    assert words.lower() in error_in(await call("dispatch_dialogue", **TOPIC | arguments)).lower()


async def test_a_long_dialogue_goes_out_in_part() -> None:
    answer = await call("dispatch_dialogue", **TOPIC | {"topic": "x" * 100_000})
    assert answer.structured is not None
    assert len(answer.text) < INLINE_CHARS + 2_000
    assert answer.structured["truncated"] is True
    assert f'fetch_result(ref="{JOB_ID}")' in answer.structured["hint"]
