"""Output of a real CLI that was damaged on its way."""

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.report import Ending, RunReport
from agent_dispatch.core.stream.reader import EventDecoder
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.jobs import record
from agent_dispatch.jobs.record_format import decode_record, encode_record
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import JobKind, new_job
from tests.core import builders
from tests.damage import damaged

JOB_ID = "0190a7b0c1d27abc8def0123456789ab"
STREAMS = [
    builders.lines(
        builders.init(),
        builders.text("héllo \U0001f600"),
        builders.tool_use("Bash"),
        builders.tool_result(),
        builders.tasks_now("b1"),
        builders.result("ok", structured_output={"a": [1, {"b": None}]}),
    ),
    builders.lines(
        builders.init(),
        builders.denied("Write"),
        builders.retry(529),
        builders.task("task_started"),
        builders.result("first"),
        builders.result("", permission_denials=[builders.denial("Write")]),
    ),
    builders.lines(builders.init(), builders.api_error(429, "limit")),
    builders.lines(builders.failed("error_max_turns", "max_turns", "Reached the maximum")),
    b"Warning: noise\r\n" + msgspec.json.format(builders.lines(builders.result("pretty"))[:-1]),
]
TOKENS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b"null", b"NaN", b"-1e999"),
    *(b"\\ud83d", b"\xff", b"\xef\xbb\xbf", b"[" * 3000, b"9" * 5000, b'{"type":"result"}'),
]


@given(
    printed=damaged(st.sampled_from(STREAMS), TOKENS),
    cuts=st.lists(st.integers(0, 2000), max_size=4),
    limit=st.sampled_from([60, 1 << 20]),
    ending=st.sampled_from([Ending.EXITED, Ending.DEADLINE, Ending.CANCELLED, Ending.GUARD_LOST]),
)
def test_output_that_was_damaged_anywhere_has_an_outcome(
    printed: bytes, cuts: list[int], limit: int, ending: Ending
) -> None:
    decoder, seen = EventDecoder(max_line_bytes=limit), Transcript()
    edges = [0, *sorted(cut for cut in cuts if cut < len(printed)), len(printed)]
    events = []
    for begin, end in itertools.pairwise(edges):
        events += decoder.feed(printed[begin:end])
    for event in [*events, *decoder.finish()]:
        seen.add(event)
    run = RunReport(
        agent=builders.agent(),
        ending=ending,
        duration_ms=5,
        timeout_s=300.0,
        seen=seen.seen(),
        response_format="json",
    )
    result = classify(run)
    assert result.success == (result.error is None) == (result.error_type is None)
    # The result can be recorded, and read again.
    request = DispatchRequest(agent="infra", task="go")
    job = new_job(JOB_ID, request, 1.0, kind=JobKind.CALL)
    content = encode_record(record.ended(record.started(job, 2.0), result, 3.0), {})
    assert decode_record(content, JOB_ID).result is not None
