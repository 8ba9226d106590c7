"""Cuts a dialogue down to what goes out with its call; all of it is in the job's record."""

import msgspec

from agent_dispatch.core.outcome.evidence import without_lists
from agent_dispatch.core.text import fair_shares
from agent_dispatch.model.dialogue import DialogueResult, DialogueTurn
from agent_dispatch.server.inline.result import INLINE_CHARS, ROOM_BYTES, join_hints, wire_bytes

_FEWEST_CHARS = 1_000
"""Of all texts together. If it is still too large, something other than texts is."""


def inline_dialogue(dialogue: DialogueResult) -> DialogueResult:
    """Cut a dialogue down to what goes out with its call.

    Half of the room is shared among all texts; the other half goes to the final answer and the
    newest messages. A dialogue without a job cannot be fetched again and stays whole.
    """
    if dialogue.job_id is None or _fits(dialogue):
        return dialogue
    room_chars = INLINE_CHARS
    while True:
        shown = _cut(dialogue, dialogue.job_id, room_chars)
        size = wire_bytes(shown)
        if size <= ROOM_BYTES or room_chars < _FEWEST_CHARS:
            return shown
        room_chars = room_chars * ROOM_BYTES // size


def _fits(dialogue: DialogueResult) -> bool:
    texts = [dialogue.final_answer]
    for turn in dialogue.conversation:
        texts += [turn.message, *(turn.earlier_results or ())]
    # Counted first: encoding many MiB would take several times as much memory.
    return sum(map(len, texts)) <= INLINE_CHARS and wire_bytes(dialogue) <= ROOM_BYTES


def _cut(dialogue: DialogueResult, job_id: str, room_chars: int) -> DialogueResult:
    newest_first = dialogue.conversation[::-1]
    sizes = [len(dialogue.final_answer), *(len(turn.message) for turn in newest_first)]
    shares = fair_shares(sizes, room_chars // 2)
    room_chars -= sum(shares)
    for index, size in enumerate(sizes):
        more = max(min(size - shares[index], room_chars), 0)
        shares[index] += more
        room_chars -= more
    turns = [_cut_turn(turn, share) for turn, share in zip(newest_first, shares[1:], strict=True)]
    left_out = (
        f"Long texts are cut here, and earlier_results left out. All of it, as parsed_result:"
        f' fetch_result(ref="{job_id}")'
    )
    return msgspec.structs.replace(
        dialogue,
        final_answer=dialogue.final_answer[: shares[0]],
        conversation=turns[::-1],
        hint=join_hints(dialogue.hint, left_out),
        truncated=True,
    )


def _cut_turn(turn: DialogueTurn, chars: int) -> DialogueTurn:
    is_cut = chars < len(turn.message)
    return msgspec.structs.replace(
        turn,
        message=turn.message[:chars],
        evidence=turn.evidence and without_lists(turn.evidence),
        earlier_results=None,
        truncated=is_cut or None,
        full_size=len(turn.message) if is_cut else None,
    )
