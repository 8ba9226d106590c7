"""Cuts a large result down to what goes out with a call, and says how to fetch the rest.

An answer may have many MiB. A client shows its model a few ten thousand characters, and gets each
of them twice: in the text of the reply and in its structured content. The whole answer is in the
job's record.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from agent_dispatch.core.outcome.evidence import without_lists
from agent_dispatch.core.text import MIN_SHARE_CHARS, cut_middle, fair_shares
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.replies import ResultRef

INLINE_CHARS = 40_000
"""A shorter answer is never cut: Claude Code shows this much (measured with 2.1.330)."""
ROOM_BYTES = 160 * 1024
"""Bytes on the wire for the text and other large parts; a whole reply is below 0.2 MiB."""
_SMALL_BYTES = 8 * 1024
"""A smaller parsed answer, or smaller earlier answers, are never left out."""
_SMALL_EVIDENCE_BYTES = 1024
"""Smaller evidence is never cut."""


def inline(result: DispatchResult, max_chars: int = INLINE_CHARS) -> DispatchResult:
    """Cut a result down to what goes out with its call.

    A text of up to `max_chars` characters stays whole, and so does a result without a job, which
    cannot be fetched again.
    """
    if result.job_id is None:
        return result
    text = result.result
    if len(text) > max_chars:
        text = _fitting(text[:max_chars])
    return _shown(result, text)


def inline_all(
    results: Sequence[DispatchResult],
    summaries: Sequence[int | None],
    max_chars: int = INLINE_CHARS,
) -> list[DispatchResult | ResultRef]:
    """Cut several results down to what goes out with one call: together as much as one alone.

    Args:
        results: The whole results.
        summaries: For each, the length of the summary to give instead; None for the result itself.
        max_chars: Of all texts together.
    """
    sizes = [
        len(result.result) if chars is None else min(chars, len(result.result))
        for result, chars in zip(results, summaries, strict=True)
    ]
    room_bytes = ROOM_BYTES // max(len(results), 1)
    shown: list[DispatchResult | ResultRef] = []
    cut_errors = _with_cut_errors(results)
    shares = fair_shares(sizes, max_chars)
    for result, chars, share in zip(cut_errors, summaries, shares, strict=True):
        if result.job_id is None:
            shown.append(result)
        elif chars is not None:
            shown.append(refer(result, min(chars, share), room_bytes))
        else:
            text = _fitting(result.result[:share], room_bytes)
            shown.append(_shown(result, text, room_bytes=room_bytes))
    return shown


def _with_cut_errors(results: Sequence[DispatchResult]) -> Iterator[DispatchResult]:
    """Cut the middle of errors that are too long together; their ends say what to do."""
    shares = fair_shares([len(result.error or "") for result in results], INLINE_CHARS)
    for result, share in zip(results, shares, strict=True):
        if result.error is not None and result.job_id is not None:
            where = f'fetch_result(ref="{result.job_id}") gives all of it'
            yield msgspec.structs.replace(result, error=cut_middle(result.error, share, where))
        else:
            yield result


def cut_page(result: DispatchResult, max_chars: int, offset: int) -> DispatchResult:
    """Cut a page out of a result that was fetched.

    Args:
        result: The whole result, with the id by which it was fetched.
        max_chars: The most characters of the text; 0 for all.
        offset: Where the page begins; the other parts come with the page at 0 only.
    """
    if not max_chars and not offset:
        return result
    text = result.result[offset : offset + max_chars if max_chars else None]
    return _shown(result, text, offset)


def refer(
    result: DispatchResult, summary_chars: int, room_bytes: int = ROOM_BYTES
) -> ResultRef | DispatchResult:
    """Return a reference to a result whose text the caller does not want now.

    A result without a job cannot be referred to and is returned itself.
    """
    if result.job_id is None:
        return result
    summary_chars = min(summary_chars, INLINE_CHARS)
    summary = _fitting(result.result[:summary_chars], room_bytes)
    parsed, hint = result.parsed_result, result.hint
    if _is_left_out(parsed, _room_beside(summary, room_bytes)):
        parsed = msgspec.UNSET
        hint = join_hints(hint, _left_out_hint(result, ["parsed_result"]))
    evidence = result.evidence
    if evidence is not None and wire_bytes(evidence) > _SMALL_EVIDENCE_BYTES:
        evidence = without_lists(evidence)
    return ResultRef(
        ref=result.job_id,
        agent=result.agent,
        success=result.success,
        size=_full_size(result),
        summary_chars=summary_chars,
        summary=summary,
        session_id=result.session_id,
        cost_usd=result.cost_usd,
        duration_ms=result.duration_ms,
        error=result.error,
        error_type=result.error_type,
        parsed_result=parsed,
        denied_tools=result.denied_tools,
        evidence=evidence,
        verified=result.verified,
        hint=hint,
    )


def _shown(
    result: DispatchResult, text: str, offset: int = 0, room_bytes: int = ROOM_BYTES
) -> DispatchResult:
    """Return the result with the part of its text at `offset`, and with what fits beside it.

    The other large parts come with the beginning of the text only.
    """
    room_bytes = 0 if offset else _room_beside(text, room_bytes)
    left_out: list[str] = []
    parsed = result.parsed_result
    if _is_left_out(parsed, room_bytes):
        parsed = msgspec.UNSET
        left_out.append("parsed_result")
    elif parsed is not msgspec.UNSET:
        room_bytes -= wire_bytes(parsed)
    evidence = result.evidence
    if evidence is not None and (size := wire_bytes(evidence)) > _SMALL_EVIDENCE_BYTES:
        if size > room_bytes:
            evidence = without_lists(evidence)
            left_out.append("files_changed and commits")
        else:
            room_bytes -= size
    verify_output = result.verify_output
    if verify_output is not None and wire_bytes(verify_output) > room_bytes:
        verify_output = verify_output[-MIN_SHARE_CHARS:]
        left_out.append("the beginning of verify_output")
    earlier = _newest(result.earlier_results or [], room_bytes)
    if missing := len(result.earlier_results or ()) - len(earlier):
        left_out.append(f"the oldest {missing} of earlier_results")
    end = offset + len(text)
    is_whole = not offset and end == len(result.result) and not left_out
    if is_whole and not result.truncated:
        return result
    return msgspec.structs.replace(
        result,
        result=text,
        parsed_result=parsed,
        evidence=evidence,
        verify_output=verify_output,
        earlier_results=earlier or None,
        hint=join_hints(
            result.hint,
            _page_hint(result, offset, end),
            _left_out_hint(result, left_out) if left_out and not offset else None,
        ),
        truncated=True,
        full_size=_full_size(result),
    )


def _page_hint(result: DispatchResult, offset: int, end: int) -> str | None:
    """Say which part of the text is shown, and how to fetch the next."""
    size = len(result.result)
    if offset > size:
        return f"offset {offset} is beyond the end: `result` has {size} characters."
    if end < size:
        return (
            f"`result` has characters {offset} to {end} of {size}; the next:"
            f' fetch_result(ref="{result.job_id}", offset={end}, max_chars={INLINE_CHARS})'
        )
    if result.truncated:
        return f"No more than {size} characters could be kept."
    return None


def _left_out_hint(result: DispatchResult, parts: Iterable[str]) -> str:
    what = " and ".join(parts)
    return f'Left out, being large: {what}. All of it: fetch_result(ref="{result.job_id}")'


def _full_size(result: DispatchResult) -> int:
    """Return the length of the text, including what could not be kept."""
    return len(result.result) if result.full_size is None else result.full_size


def join_hints(*texts: str | None) -> str | None:
    """Join hints; None if all are empty."""
    # A hint with next steps has one per line, and a command extends to the end of its line.
    lines = any(text and "\n" in text for text in texts)
    return ("\n" if lines else " ").join(filter(None, texts)) or None


# -- sizes on the wire


def wire_bytes(value: object) -> int:
    """Return the bytes of `value` in a reply: as structured content and as JSON inside a text."""
    try:
        document = msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half of a surrogate pair goes out as one character of three bytes.
        document = str(value).encode("utf-8", "replace")
    return len(document) + len(msgspec.json.encode(document.decode()))


def _room_beside(text: str, room_bytes: int) -> int:
    return max(_SMALL_BYTES * room_bytes // ROOM_BYTES, room_bytes - wire_bytes(text))


def _fitting(text: str, room_bytes: int = ROOM_BYTES) -> str:
    """Return the beginning of `text` that fits on the wire."""
    while (size := wire_bytes(text)) > room_bytes:
        text = text[: len(text) * room_bytes // size]
    return text


def _newest(answers: list[str], room_bytes: int) -> list[str]:
    kept = 0
    for answer in reversed(answers):
        if len(answer) > room_bytes or (size := wire_bytes(answer)) > room_bytes:
            break
        room_bytes -= size
        kept += 1
    return answers[len(answers) - kept :]


def _is_left_out(parsed: Any, room_bytes: int) -> bool:
    if parsed is msgspec.UNSET:
        return False
    # Estimated first: encoding many MiB would take several times as much memory.
    return _is_heavier(parsed, room_bytes) or wire_bytes(parsed) > room_bytes


def _is_heavier(value: object, limit: int) -> bool:
    """Whether a JSON value surely takes more than `limit` bytes; visits no more than that."""
    waiting = [value]
    while waiting and limit >= 0:
        item = waiting.pop()
        limit -= 1
        if isinstance(item, str):
            limit -= len(item)
        elif isinstance(item, dict | list):
            if len(item) > limit:
                return True
            if isinstance(item, dict):
                waiting.extend(item)
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return limit < 0
