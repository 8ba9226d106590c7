import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.jobs import record
from agent_dispatch.jobs.record_format import (
    HEAD_BYTES,
    CorruptRecordError,
    decode_head,
    decode_record,
    decode_unknown,
    encode_record,
)
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus, new_job, summarise

ID = "0190b5f0000070008000000000000001"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)
RESULTS = st.builds(
    DispatchResult,
    agent=TEXTS,
    success=st.booleans(),
    result=TEXTS,
    cost_usd=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    error_type=st.none() | st.sampled_from(ErrorType),
    parsed_result=st.just(msgspec.UNSET) | JSON,
    earlier_results=st.none() | st.lists(TEXTS),
)


def a_job(task: str = "List the pods", context: str = "") -> Job:
    request = DispatchRequest(agent="infra", task=task, context=context)
    return new_job(ID, request, 1000.0, kind=JobKind.CALL)


def over(result: DispatchResult) -> Job:
    return record.ended(record.started(a_job(), 1001.0), result, 1002.0)


@given(task=TEXTS, context=TEXTS, result=st.none() | RESULTS, lines=st.lists(TEXTS))
def test_a_record_reads_as_it_was_written(
    task: str, context: str, result: DispatchResult | None, lines: list[str]
) -> None:
    job = record.with_progress(record.started(a_job(task, context), 1001.0), lines, 1001.5)
    if result is not None:
        job = record.ended(job, result, 1002.0)
    content = encode_record(job, {})
    assert decode_record(content, ID) == job
    assert decode_head(content[:HEAD_BYTES]) == summarise(job)
    assert decode_unknown(content) == {}
    json.loads(content)


@given(content=st.binary())
def test_any_bytes_are_a_record_or_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        decode_record(content, ID)
    assert decode_unknown(content) == {} or content.lstrip().startswith(b"{")
    assert decode_head(content) is None


@given(cut=st.integers(min_value=0))
def test_a_record_that_is_cut_off_anywhere_is_corrupt(cut: int) -> None:
    content = encode_record(over(DispatchResult(agent="a", success=True, result="text")), {})
    with pytest.raises(CorruptRecordError):
        decode_record(content[: cut % (len(content) - 2)], ID)


def test_a_large_answer_is_encoded_once() -> None:
    size = 16 * 1024 * 1024
    job = over(DispatchResult(agent="infra", success=True, result="r" * size))
    tracemalloc.start()
    try:
        content = encode_record(job, {"later": msgspec.Raw(b"1")})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decode_record(content, ID) == job
    assert peak < 1.9 * size


def test_the_head_is_read_without_the_rest() -> None:
    job = over(DispatchResult(agent="infra", success=True, result="r" * 10_000_000, cost_usd=0.5))
    head = decode_head(encode_record(job, {})[:HEAD_BYTES])
    assert head is not None
    assert (head.status, head.cost_usd) == (JobStatus.DONE, 0.5)


def test_unknown_fields_come_back_as_they_were() -> None:
    unknown = {"note": msgspec.Raw(b'{"a" : [1,  2]}'), 'ä"': msgspec.Raw(b"null")}
    content = encode_record(a_job(), unknown)
    assert decode_record(content, ID) == a_job()
    assert {name: bytes(raw) for name, raw in decode_unknown(content).items()} == {
        name: bytes(raw) for name, raw in unknown.items()
    }


@pytest.mark.parametrize(
    "result",
    [
        DispatchResult(agent="infra", success=True, result="half \ud83d of a pair"),
        DispatchResult(agent="infra", success=True, result="x", earlier_results=["\udc00"]),
        DispatchResult(agent="infra", success=True, result="x", parsed_result={"\ud800": 1}),
        DispatchResult(agent="infra", success=True, result="x", parsed_result=[object()]),
    ],
)
def test_an_answer_that_json_cannot_represent_is_stored_as_far_as_possible(
    result: DispatchResult,
) -> None:
    stored = decode_record(encode_record(over(result), {}), ID)
    assert stored.result is not None
    assert stored.result.success
    assert stored.result.result.startswith(("x", "half \ufffd of a pair"))


@pytest.mark.parametrize("depth", [150, 250, 20_000])
def test_a_deeply_nested_answer_keeps_its_text(depth: int) -> None:
    nested: Any = []
    for _ in range(depth):
        nested = [nested]
    result = DispatchResult(agent="infra", success=True, result="text", parsed_result=nested)
    stored = decode_record(encode_record(over(result), {}), ID)
    assert stored.result is not None
    assert stored.result.result == "text"
    assert (stored.result.parsed_result is msgspec.UNSET) == (depth > 200)


def test_a_record_of_the_predecessor_is_readable() -> None:
    fields = {
        "id": "8f3ad0a2b6c94f0e9d7a1b2c3d4e5f60",
        "agent": "infra",
        "task": "audit",
        "status": "failed",
        "created_at": 1730000000.5,
        "completed_at": 1730000009,
        "context": None,
        "result": {
            "agent": "infra",
            "success": False,
            "result": "",
            "session_id": None,
            "error_type": "rate_limit",
            "parsed_result": None,
            "outcome": "blocked",
        },
        "progress": ["Using tool: Bash"],
    }
    content = json.dumps(fields, indent=2).encode()
    job = decode_record(content, str(fields["id"]))
    assert job.kind is JobKind.BACKGROUND
    assert job.context == ""
    assert job.result is not None
    assert job.result.error_type is ErrorType.CLI_ERROR
    assert job.result.parsed_result is None
    assert decode_head(content) is None


@pytest.mark.parametrize("result", [{"a": 1}, 5, ["x"]], ids=["object", "number", "list"])
def test_an_answer_that_was_not_text_is_readable_as_text(result: object) -> None:
    fields = msgspec.json.decode(encode_record(a_job(), {}))
    fields["result"] = {"agent": "infra", "success": True, "result": result}
    job = decode_record(msgspec.json.encode(fields), ID)
    assert job.result is not None
    assert json.loads(job.result.result) == result


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "0190b5f0000070008000000000000002"}, "wrongly named"),
        ({"status": "sleeping"}, "not a job"),
        ({"created_at": "yesterday"}, "not a job"),
        ({"task": None}, "not a job"),
        ({"result": "a text"}, "not a job"),
    ],
)
def test_the_record_of_another_job_is_corrupt(change: dict[str, object], reason: str) -> None:
    fields = msgspec.json.decode(encode_record(a_job(), {}))
    with pytest.raises(CorruptRecordError, match=reason):
        decode_record(msgspec.json.encode({**fields, **change}), ID)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"[]", b"7", b'{"a":' * 50_000, b"\xff\xfe", b'{"id":"\\ud800"}']
)
def test_anything_but_a_json_object_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptRecordError, match="it is not"):
        decode_record(content, ID)
