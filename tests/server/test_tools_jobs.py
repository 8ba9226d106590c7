import json
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from mcp import Client
from trio.testing import MockClock

from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.model.job import Job, JobKind, JobStatus, new_job
from agent_dispatch.server.inline.result import INLINE_CHARS
from agent_dispatch.server.mcp_results import WARNINGS
from agent_dispatch.server.mcp_server import build_server
from tests.server.calling import call, call_with, error_in
from tests.server.fake_service import JOB_ID, FakeService

OTHER_ID = "0190a7b0c1d27abc8def0123456789ff"


async def answer_of(tool: str, service: FakeService, /, **arguments: object) -> dict[str, Any]:
    answer = await call(tool, service, **arguments)
    assert not answer.is_error, answer.text
    assert answer.structured is not None
    assert json.loads(answer.text) == answer.structured
    return answer.structured


async def error_of(tool: str, service: FakeService | None = None, /, **arguments: object) -> str:
    return error_in(await call(tool, service, **arguments))


def job(**fields: Any) -> Job:
    pending = new_job(
        JOB_ID, DispatchRequest(agent="infra", task="look"), 1.5, kind=JobKind.BACKGROUND
    )
    return msgspec.structs.replace(pending, **fields)


def done(text: str = "fine", **fields: Any) -> Job:
    result = DispatchResult(agent="infra", success=True, result=text, job_id=JOB_ID, **fields)
    return job(status=JobStatus.DONE, result=result)


async def test_a_background_job_is_answered_by_its_id() -> None:
    service = FakeService()
    answer = await answer_of(
        "dispatch_async",
        service,
        agent="infra",
        task="look",
        context="c",
        caller="me",
        goal="g",
        response_format="json",
        timeout_seconds=5,
        group="shop",
        model="opus",
        effort="high",
        verify=True,
    )
    assert answer == {"job_id": JOB_ID, "status": "pending", "agent": "infra"}
    assert service.requests == [
        DispatchRequest(
            agent="infra",
            task="look",
            context="c",
            caller="me",
            goal="g",
            response_format="json",
            timeout_s=10,
            group="shop",
            model="opus",
            effort="high",
            verify=True,
        )
    ]


async def test_a_wrong_submission_is_an_error() -> None:
    assert "Unknown agent: 'foo'" in await error_of("dispatch_async", agent="foo", task="x")
    said = await error_of("dispatch_async", agent="infra", task="x", return_ref=True)
    assert "unknown argument 'return_ref'" in said.lower()


@pytest.mark.parametrize(
    "tool", ["dispatch_status", "dispatch_wait", "dispatch_cancel", "fetch_result"]
)
async def test_an_invalid_id_is_refused(tool: str) -> None:
    name = "ref" if tool == "fetch_result" else "job_id"
    for text in ("", "x", "../../etc/passwd", JOB_ID.upper(), JOB_ID + "\n", "0" * 10_000):
        said = await error_of(tool, **{name: text})
        assert said.startswith("Not a job id: ")
        assert len(said) < 400
    assert "NUL" in await error_of(tool, **{name: "a\0b"})


@pytest.mark.parametrize("tool", ["dispatch_status", "dispatch_wait", "fetch_result"])
async def test_an_unknown_job_is_an_error(tool: str) -> None:
    name = "ref" if tool == "fetch_result" else "job_id"
    assert "Unknown job" in await error_of(tool, **{name: JOB_ID})


async def test_the_status_is_the_record() -> None:
    running = job(status=JobStatus.RUNNING, started_at=2.5, progress=["Using tool: Bash"])
    answer = await answer_of("dispatch_status", FakeService(kept=running), job_id=JOB_ID)
    assert answer == {
        "id": JOB_ID,
        "kind": "background",
        "agent": "infra",
        "task": "look",
        "status": "running",
        "created_at": 1.5,
        "started_at": 2.5,
        "progress": ["Using tool: Bash"],
    }


@pytest.mark.parametrize("tool", ["dispatch_status", "dispatch_wait"])
async def test_an_ended_job_has_its_long_result_in_part(tool: str) -> None:
    service = FakeService(kept=done("x" * 1_000_000))
    result = (await answer_of(tool, service, job_id=JOB_ID))["result"]
    assert len(result["result"]) == INLINE_CHARS
    assert result["truncated"] is True
    assert result["full_size"] == 1_000_000
    assert "offset=40000" in result["hint"]


async def test_waiting_for_an_ended_job_reports_no_timeout() -> None:
    answer = await answer_of("dispatch_wait", FakeService(kept=done()), job_id=JOB_ID)
    assert answer["status"] == "done"
    assert answer["result"]["result"] == "fine"
    assert "timed_out_waiting" not in answer


async def test_when_the_wait_times_out_the_job_is_shown_as_it_is(
    autojump_clock: MockClock,
) -> None:
    service = FakeService(kept=job(status=JobStatus.RUNNING))
    answer = await answer_of("dispatch_wait", service, job_id=JOB_ID)
    assert answer["status"] == "running"
    assert answer["timed_out_waiting"] is True
    assert trio.current_time() == pytest.approx(60)


@pytest.mark.parametrize(
    ("asked", "meant"), [(-1, 0), (0, 0), (0.5, 0.5), ("15", 15), (3601, 3600), (1e300, 3600)]
)
async def test_the_time_to_wait_is_brought_into_its_range(
    autojump_clock: MockClock, asked: object, meant: float
) -> None:
    service = FakeService(kept=job(status=JobStatus.DONE))
    await answer_of("dispatch_wait", service, job_id=JOB_ID, timeout_seconds=asked)
    assert service.calls == [("wait", meant)]


async def test_a_wait_reports_the_progress_of_the_job(autojump_clock: MockClock) -> None:
    messages: list[str] = []

    async def report(number: float, message: str) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    service = FakeService(kept=job(status=JobStatus.RUNNING, progress=["Using tool: Bash"]))
    arguments = {"job_id": JOB_ID, "timeout_seconds": 20}
    await call_with("dispatch_wait", arguments, service, report=report)
    assert messages == [
        "Using tool: Bash",
        "Using tool: Bash",
        "Using tool: Bash",
    ]


@pytest.mark.parametrize(
    ("kept", "outcome", "hint"),
    [
        (job(status=JobStatus.RUNNING), "cancelled", None),
        (done(), "already_terminal", "dispatch_status"),
        (None, "not_found", "dispatch_jobs"),
    ],
)
async def test_a_cancellation_reports_its_outcome(
    kept: Job | None, outcome: str, hint: str | None
) -> None:
    answer = await answer_of("dispatch_cancel", FakeService(kept=kept), job_id=JOB_ID)
    assert answer["job_id"] == JOB_ID
    assert answer["outcome"] == outcome
    assert (hint or "") in answer.get("hint", "")
    assert ("hint" in answer) == (hint is not None)


async def test_a_cancellation_may_keep_the_last_words() -> None:
    service = FakeService(kept=job(status=JobStatus.RUNNING))
    await answer_of("dispatch_cancel", service, job_id=JOB_ID, keep=True)
    assert ("cancel", "keep") in service.calls


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (job(status=JobStatus.RUNNING), {"outcome": "delivered"}),
        (
            done(),
            {
                "outcome": "already_terminal",
                "session_id": "5e55",
                "next": (
                    'Ask infra: dispatch_session(agent="infra", task="and \\"nodes\\"",'
                    ' session_id="5e55")'
                ),
            },
        ),
        (
            None,
            {
                "outcome": "not_found",
                "hint": (
                    "No such job; it may have been removed. dispatch_jobs() lists the known ones."
                ),
            },
        ),
    ],
)
async def test_a_message_reports_its_outcome(kept: Job | None, expected: dict[str, str]) -> None:
    service = FakeService(kept=kept)
    answer = await answer_of("dispatch_send", service, job_id=JOB_ID, message='and "nodes"')
    assert answer == {"job_id": JOB_ID} | expected


async def test_a_wrong_message_is_an_error() -> None:
    kept = job(status=JobStatus.RUNNING)
    for message, problem in ((" ", "is empty"), ("x" * 100_001, "100,000 are allowed")):
        service = FakeService(kept=kept)
        said = await error_of("dispatch_send", service, job_id=JOB_ID, message=message)
        assert problem in said


async def test_a_listing_is_a_list_of_summaries() -> None:
    service = FakeService(kept=done("x" * 1_000_000, cost_usd=0.02))
    answer = await call("dispatch_jobs", service)
    assert answer.structured is None
    assert answer.warnings == []
    assert json.loads(answer.text) == [
        {
            "id": JOB_ID,
            "kind": "background",
            "agent": "infra",
            "status": "done",
            "task": "look",
            "created_at": 1.5,
            "success": True,
            "cost_usd": 0.02,
        }
    ]
    assert service.calls == [("jobs", (None, 20))]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"status": "running"}, (JobStatus.RUNNING, 20)),
        ({"status": " Failed "}, (JobStatus.FAILED, 20)),
        ({"status": ""}, (None, 20)),
        ({"limit": 0}, (None, 1)),
        ({"limit": -5}, (None, 1)),
        ({"limit": "7"}, (None, 7)),
        ({"limit": 10**30}, (None, 1000)),
    ],
)
async def test_a_listing_is_filtered_and_bounded(asked: dict[str, Any], meant: object) -> None:
    service = FakeService()
    assert json.loads((await call("dispatch_jobs", service, **asked)).text) == []
    assert service.calls == [("jobs", meant)]


async def test_an_unknown_status_names_the_known_ones() -> None:
    said = await error_of("dispatch_jobs", status="finished" * 100)
    assert said.endswith("Use one of: pending, running, done, failed, cancelled; empty for all.")
    assert len(said) < 200


async def test_a_listing_comes_with_warnings_about_skipped_entries() -> None:
    service = FakeService(kept=done(), warnings=["caf\udce9.json: not a job record; left alone"])
    async with Client(build_server(service), raise_exceptions=True) as client:
        listed = await client.call_tool("dispatch_jobs", {})
        service.warnings = []
        clean = await client.call_tool("dispatch_jobs", {})
    assert listed.meta is not None
    assert listed.meta[WARNINGS] == ["caf\ufffd.json: not a job record; left alone"]
    assert listed.content == clean.content
    assert WARNINGS not in (clean.meta or {})


async def test_gc_says_how_many_jobs_it_removed() -> None:
    service = FakeService()
    assert await answer_of("dispatch_gc", service) == {"purged": 0}
    service = FakeService(kept=done(), warnings=["notes.txt: not a job record; left alone"])
    assert await answer_of("dispatch_gc", service, max_age_days="0.5") == {
        "purged": 1,
        "warnings": ["notes.txt: not a job record; left alone"],
    }
    assert service.calls == [("gc", (0.5, False))]


async def test_a_result_is_fetched_whole_or_page_by_page() -> None:
    service = FakeService(kept=done("x" * 99_999 + "y", cost_usd=0.02))
    whole = await answer_of("fetch_result", service, ref=JOB_ID)
    assert len(whole["result"]) == 100_000
    assert "truncated" not in whole
    page = await answer_of("fetch_result", service, ref=JOB_ID, max_chars=2_000)
    assert page["result"] == "x" * 2_000
    assert (page["truncated"], page["full_size"], page["cost_usd"]) == (True, 100_000, 0.02)
    last = await answer_of("fetch_result", service, ref=JOB_ID, max_chars="10", offset=99_998)
    assert last["result"] == "xy"
    beyond = await answer_of("fetch_result", service, ref=JOB_ID, offset=10**30)
    assert beyond["result"] == ""
    assert await answer_of("fetch_result", service, ref=JOB_ID, max_chars=-1, offset=-1) == whole


async def test_a_fetched_result_names_its_job_even_if_its_record_did_not() -> None:
    nameless = DispatchResult(agent="infra", success=True, result="fine")
    service = FakeService(kept=job(status=JobStatus.DONE, result=nameless))
    assert (await answer_of("fetch_result", service, ref=JOB_ID))["job_id"] == JOB_ID


async def test_a_long_answer_goes_out_in_part() -> None:
    answer = await answer_of("dispatch", FakeService(), agent="infra", task="big 40001")
    assert len(answer["result"]) == INLINE_CHARS
    assert answer["full_size"] == 40_001
    whole = await answer_of("dispatch", FakeService(), agent="infra", task="big 40000")
    assert len(whole["result"]) == 40_000
    assert "truncated" not in whole


@pytest.mark.parametrize(("asked", "meant"), [(None, 500), (-1, 0), (0, 0), ("7", 7)])
async def test_a_ref_has_a_summary_instead_of_the_text(asked: object, meant: int) -> None:
    service = FakeService()
    answer = await answer_of(
        "dispatch",
        service,
        agent="infra",
        task="big 100000",
        return_ref="true",
        summary_chars=asked,
    )
    assert answer == {
        "ref": JOB_ID,
        "agent": "infra",
        "success": True,
        "size": 100_000,
        "summary_chars": meant,
        "summary": "ä" * meant,
    }
    assert service.calls == [("dispatch", (True, False))]


async def test_a_record_is_kept_for_a_ref_only_if_one_was_requested() -> None:
    service = FakeService()
    await answer_of("dispatch", service, agent="infra", task="x", summary_chars=5)
    assert service.calls == [("dispatch", (False, False))]
