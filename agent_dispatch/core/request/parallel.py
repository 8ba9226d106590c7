"""Several dispatches at once: reads the request, and asks one agent to combine the answers."""

from collections.abc import Sequence

import msgspec

from agent_dispatch.core.request.arguments import ArgumentDecoder
from agent_dispatch.core.request.checks import check_request, schema_text
from agent_dispatch.core.request.quoting import quote
from agent_dispatch.core.request.timeout import call_timeout_s
from agent_dispatch.core.text import clip, cut_middle, fair_shares
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, Member
from agent_dispatch.model.parallel import DispatchItem

_MAX_ITEMS = 1000
MAX_AGGREGATED_CHARS = 400_000
"""Of all answers together, in the prompt of the agent that combines them: about 100,000 tokens,
half of the context of its model."""

_SHOWN_PROBLEMS = 5
_EXAMPLE = '[{"agent": "infra", "task": "..."}, {"agent": "db", "task": "..."}]'
_AGGREGATE_TASK = (
    "Several agents, each in a project of its own, worked on a task each; their answers are in the"
    " context. Combine them into one answer: say what they found together, where they agree or"
    " contradict each other, and what is missing because one of them failed. Do not do their work"
    " again."
)


def read_members(dispatches: object) -> list[Member]:
    """Read `dispatches`, a list of objects or its JSON; one wrong item refuses all.

    Raises:
        InvalidRequestError: Names the wrong items by index, beginning at 0.
    """
    if isinstance(dispatches, str | bytes):
        try:
            dispatches = msgspec.json.decode(dispatches)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequestError(
                f"dispatches is not JSON: {error}. It takes a list such as {_EXAMPLE}"
            ) from error
    if not isinstance(dispatches, list):
        raise InvalidRequestError(f"dispatches must be a list such as {_EXAMPLE}")
    if not 0 < len(dispatches) <= _MAX_ITEMS:
        raise InvalidRequestError(
            f"dispatches has {len(dispatches)} items; it takes 1 to {_MAX_ITEMS}, as in {_EXAMPLE}"
        )
    decoder = ArgumentDecoder("Each item", DispatchItem)
    members: list[Member] = []
    problems: list[str] = []
    for index, item in enumerate(dispatches):
        try:
            member = _member(decoder.decode(item))
            check_request(member.request)
            members.append(member)
        except InvalidRequestError as error:
            problems.append(f"dispatches[{index}]: {error}")
    if problems:
        raise wrong_items(problems)
    return members


def wrong_items(problems: Sequence[str]) -> InvalidRequestError:
    """Return the refusal of all items because some are wrong."""
    more = len(problems) - _SHOWN_PROBLEMS
    rest = [f"and {more} more items are wrong"] if more > 0 else []
    shown = " ".join([*problems[:_SHOWN_PROBLEMS], *rest])
    return InvalidRequestError(f"Nothing was started. {shown}")


def _member(item: DispatchItem) -> Member:
    request = DispatchRequest(
        agent=item.agent,
        task=item.task,
        context=item.context,
        caller=item.caller,
        goal=item.goal,
        group=item.group,
        response_format=item.response_format,
        json_schema=schema_text(item.json_schema),
        timeout_s=call_timeout_s(item.timeout_seconds),
        model=item.model,
        effort=item.effort,
        verify=item.verify,
    )
    return Member(
        request=request,
        ref=item.return_ref,
        summary_chars=max(item.summary_chars, 0),
        fresh=item.fresh,
    )


def aggregate_request(
    agent: str, members: Sequence[Member], results: Sequence[DispatchResult]
) -> DispatchRequest:
    """Return the request that asks `agent` to combine all answers into one.

    If the answers are too long together, the longest are cut in their middle.
    """
    texts = [_answer_or_error(result) for result in results]
    shares = fair_shares([len(text) for text in texts], MAX_AGGREGATED_CHARS)
    quoted_answers = [
        quote(
            f"{index}. Task of agent {result.agent}: {_one_line(member.request.task)} - its"
            f" {'answer' if result.success else 'failure'}",
            cut_middle(
                text, share, f"all of it is in job {result.job_id}" if result.job_id else ""
            ),
        )
        for index, (member, result, text, share) in enumerate(
            zip(members, results, texts, shares, strict=True), start=1
        )
    ]
    return DispatchRequest(
        agent=agent,
        task=_AGGREGATE_TASK,
        context="\n\n".join(quoted_answers),
        words_only=True,
        caller=_common([member.request.caller for member in members]),
        goal=_common([member.request.goal for member in members]),
    )


def _answer_or_error(result: DispatchResult) -> str:
    if result.success:
        return result.result
    return "\n\n".join(filter(None, (f"It failed: {result.error}", result.result)))


def _one_line(text: str) -> str:
    return clip(" ".join(text[:2000].split()), 300)


def _common(texts: Sequence[str]) -> str:
    """Return the text that all have in common; empty if they differ."""
    return texts[0] if len(set(texts)) == 1 else ""
