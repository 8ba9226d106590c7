from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus, new_job
from agent_dispatch.model.message import Message
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.server.inline.job import inline_job
from agent_dispatch.server.inline.result import INLINE_CHARS, cut_page, inline, inline_all, refer

JOB_ID = "0190a7b0c1d27abc8def0123456789ab"
MOST_BYTES_ON_THE_WIRE = 0.2 * 2**20


def result(text: str, **fields: Any) -> DispatchResult:
    values: dict[str, Any] = {"agent": "infra", "success": True, "job_id": JOB_ID}
    return DispatchResult(result=text, **(values | fields))


def wire_bytes(answer: msgspec.Struct) -> int:
    """What a reply takes: the answer as structured content, and as JSON inside its text."""
    document = msgspec.json.encode(answer)
    return len(document) + len(msgspec.json.encode(document.decode()))


@pytest.mark.parametrize("chars", [None, 500])
def test_errors_of_many_share_what_one_answer_may_have(chars: int | None) -> None:
    failed = result("", success=False, error="It broke." + "e" * 4_000 + "Mend it so.")
    short = result("", success=False, error="It broke, too.")
    shown = inline_all([failed] * 500 + [short], [chars] * 501)
    assert sum(wire_bytes(one) for one in shown) < 3 * 2**20 / 4
    assert shown[0].error is not None
    assert shown[0].error.startswith("It broke.")
    assert f'characters left out here; fetch_result(ref="{JOB_ID}") gives all' in shown[0].error
    assert shown[0].error.endswith("Mend it so.")
    assert shown[-1].error == short.error


@pytest.mark.parametrize("character", ["x", "ä", "漢", "😀", '"', "\n", "\x01"])
def test_an_answer_of_up_to_40_000_characters_is_whole(character: str) -> None:
    whole = result(character * INLINE_CHARS, hint="h")
    assert inline(whole) == whole


@pytest.mark.parametrize("character", ["x", "ä", "漢", "😀", '"', "\n", "\x01"])
def test_a_longer_answer_goes_out_in_part_whatever_its_content(character: str) -> None:
    shown = inline(result(character * 3_000_000))
    assert 0 < len(shown.result) <= INLINE_CHARS
    assert shown.truncated
    assert shown.full_size == 3_000_000
    assert wire_bytes(shown) < MOST_BYTES_ON_THE_WIRE


def test_plain_text_is_cut_at_40_000_characters_and_says_where_it_goes_on() -> None:
    shown = inline(result("x" * (INLINE_CHARS + 1), hint="Bash was denied."))
    assert len(shown.result) == INLINE_CHARS
    assert shown.hint == (
        "Bash was denied. `result` has characters 0 to 40000 of 40001; the next:"
        f' fetch_result(ref="{JOB_ID}", offset=40000, max_chars=40000)'
    )


def test_a_result_that_cannot_be_fetched_again_is_never_cut() -> None:
    only_copy = result("x" * 1_000_000, parsed_result=["y" * 1_000_000], job_id=None)
    assert inline(only_copy) == only_copy
    assert refer(only_copy, 500) == only_copy


def test_a_character_outside_the_basic_plane_is_never_split() -> None:
    shown = inline(result("😀" * 50_000), max_chars=101)
    assert shown.result == "😀" * 101
    assert cut_page(result("a😀b"), 1, 1).result == "😀"


@pytest.mark.parametrize(
    "parsed",
    [
        ["x" * 10_000_000],
        {"x" * 10_000_000: 1},
        {str(n): "x" for n in range(100_000)},
        [0] * 10_000_000,
        [[0] * 1_000] * 1_000,
        ["\x01" * 20_000],
        [["漢" * 1_000] * 50],
    ],
)
def test_a_large_parsed_answer_is_left_out_and_the_hint_says_so(parsed: object) -> None:
    for text in ("short", "x" * 1_000_000):
        shown = inline(result(text, parsed_result=parsed))
        assert shown.parsed_result is msgspec.UNSET
        assert shown.truncated
        assert "Left out, being large: parsed_result. " in (shown.hint or "")
        assert f'All of it: fetch_result(ref="{JOB_ID}")' in (shown.hint or "")
        assert wire_bytes(shown) < MOST_BYTES_ON_THE_WIRE
    assert inline(result("short", parsed_result=parsed)).full_size == len("short")


@pytest.mark.parametrize("parsed", [None, False, 0, "", {"a": None}, ["x" * 2_000], 1e300, 2**64])
def test_a_small_parsed_answer_always_comes_along(parsed: object) -> None:
    for text in ("short", "漢" * INLINE_CHARS, "x" * 1_000_000):
        whole = result(text, parsed_result=parsed)
        assert inline(whole).parsed_result == parsed
        referred = refer(whole, 500)
        assert referred.parsed_result == parsed


def test_a_json_answer_of_30_000_characters_comes_as_text_and_parsed() -> None:
    value = {"rows": [{"name": f"row {n}", "value": n} for n in range(900)]}
    whole = result(msgspec.json.encode(value).decode(), parsed_result=value)
    assert 25_000 < len(whole.result) < 40_000
    assert inline(whole) == whole
    assert wire_bytes(whole) < MOST_BYTES_ON_THE_WIRE


def test_of_many_earlier_answers_the_newest_come_along() -> None:
    answers = [f"{n} " + "x" * 10_000 for n in range(100)]
    shown = inline(result("last", earlier_results=answers))
    assert shown.earlier_results is not None
    assert 0 < len(shown.earlier_results) < 100
    assert shown.earlier_results == answers[-len(shown.earlier_results) :]
    left_out = 100 - len(shown.earlier_results)
    assert f"the oldest {left_out} of earlier_results" in (shown.hint or "")
    assert wire_bytes(shown) < MOST_BYTES_ON_THE_WIRE
    few = result("last", earlier_results=["one", "two"])
    assert inline(few) == few


def test_an_earlier_answer_that_is_too_large_leaves_none() -> None:
    shown = inline(result("last", earlier_results=["x" * 10_000_000]))
    assert shown.earlier_results is None
    assert "the oldest 1 of earlier_results" in (shown.hint or "")


def test_everything_large_at_once_is_bounded() -> None:
    shown = inline(
        result("漢" * 10**7, parsed_result=["x" * 10**7], earlier_results=["\x01" * 10**6] * 16)
    )
    assert wire_bytes(shown) < MOST_BYTES_ON_THE_WIRE


def test_a_fetch_without_bounds_gives_the_whole_of_it() -> None:
    whole = result("x" * 1_000_000, parsed_result=["x" * 1_000_000], earlier_results=["y" * 10**6])
    assert cut_page(whole, 0, 0) == whole


@given(text=st.text(max_size=200), page=st.integers(1, 50))
def test_pages_make_up_the_whole(text: str, page: int) -> None:
    whole = result(text)
    pages: list[str] = []
    offset = 0
    while True:
        shown = cut_page(whole, page, offset)
        pages.append(shown.result)
        offset += len(shown.result)
        if offset >= (shown.full_size if shown.full_size is not None else len(shown.result)):
            break
    assert "".join(pages) == text


@pytest.mark.parametrize(
    ("max_chars", "offset", "text", "truncated"),
    [
        (4, 0, "0123", True),
        (10, 0, "0123456789", None),
        (11, 0, "0123456789", None),
        (4, 8, "89", True),
        (0, 8, "89", True),
        (4, 10, "", True),
        (4, 11, "", True),
        (0, 10**30, "", True),
        (10**30, 0, "0123456789", None),
    ],
)
def test_a_page_says_what_it_is_of(
    max_chars: int, offset: int, text: str, truncated: bool | None
) -> None:
    shown = cut_page(result("0123456789"), max_chars, offset)
    assert shown.result == text
    assert shown.truncated == truncated
    assert shown.full_size == (10 if truncated else None)


def test_a_page_beyond_the_end_says_so() -> None:
    hint = cut_page(result("0123456789"), 5, 11).hint
    assert hint == "offset 11 is beyond the end: `result` has 10 characters."


def test_later_pages_have_no_parsed_and_earlier_answers() -> None:
    whole = result("0123456789", parsed_result=123456789, earlier_results=["one"], hint="h")
    page = cut_page(whole, 5, 5)
    assert page.parsed_result is msgspec.UNSET
    assert page.earlier_results is None
    assert page.hint == "h"


def test_a_result_of_which_the_record_kept_only_the_beginning_says_so() -> None:
    kept = result("x" * 8_000, truncated=True, full_size=1_000_000)
    for shown in (inline(kept), cut_page(kept, 5_000, 5_000)):
        assert shown.truncated
        assert shown.full_size == 1_000_000
        assert shown.hint == "No more than 8000 characters could be kept."
    assert "the next: fetch_result" in (cut_page(kept, 5_000, 0).hint or "")


def test_a_ref_has_what_a_caller_decides_by() -> None:
    ref = refer(
        result(
            "Inspected 32 containers.",
            success=False,
            session_id="s",
            cost_usd=0.08,
            duration_ms=9200,
            error="e",
            error_type=ErrorType.TIMEOUT,
            denied_tools=["Bash"],
            hint="h",
            num_turns=3,
        ),
        9,
    )
    assert msgspec.to_builtins(ref) == {
        "ref": JOB_ID,
        "agent": "infra",
        "success": False,
        "size": 24,
        "summary_chars": 9,
        "summary": "Inspected",
        "session_id": "s",
        "cost_usd": 0.08,
        "duration_ms": 9200,
        "error": "e",
        "error_type": "timeout",
        "denied_tools": ["Bash"],
        "hint": "h",
    }


def test_a_ref_is_bounded_too() -> None:
    ref = refer(result("😀" * 10**6, parsed_result=["x" * 10**7]), 10**6)
    assert isinstance(ref, ResultRef)
    assert ref.size == 10**6
    assert ref.summary_chars == INLINE_CHARS
    assert ref.parsed_result is msgspec.UNSET
    assert ref.hint == (
        f'Left out, being large: parsed_result. All of it: fetch_result(ref="{JOB_ID}")'
    )
    assert wire_bytes(ref) < MOST_BYTES_ON_THE_WIRE


def job(**fields: Any) -> Job:
    request = DispatchRequest(agent="infra", task="look", context="c", caller="me", goal="g")
    started = new_job(JOB_ID, request, 1.0, kind=JobKind.BACKGROUND)
    return msgspec.structs.replace(started, **fields)


def test_a_job_of_usual_size_is_not_cut() -> None:
    done = job(status=JobStatus.DONE, result=result("fine"), progress=["one", "two"])
    assert inline_job(done) == msgspec.structs.replace(done, context="")
    assert inline_job(job()) == job(context="")


def test_a_job_is_shown_with_the_beginning_of_its_request() -> None:
    told = [Message(id=str(number), text="m" * 10**5, sent_at=1) for number in range(100)]
    shown = inline_job(job(messages=told))
    assert shown.messages is not None
    assert [message.id for message in shown.messages] == [str(n) for n in range(80, 100)]
    assert len(msgspec.json.encode(shown)) < 6_000
    shown = inline_job(job(task="t" * 10**6, context="c" * 10**6, progress=["p" * 10**6] * 100))
    assert shown.task == "t" * 120
    assert shown.context == ""
    assert shown.progress is not None
    assert len(shown.progress) == 20
    assert wire_bytes(shown) < MOST_BYTES_ON_THE_WIRE


def test_the_result_of_a_job_can_be_fetched_even_if_it_does_not_name_the_job() -> None:
    shown = inline_job(job(status=JobStatus.DONE, result=result("x" * 10**6, job_id=None)))
    assert shown.result is not None
    assert len(shown.result.result) == INLINE_CHARS
    assert f'fetch_result(ref="{JOB_ID}"' in (shown.result.hint or "")
