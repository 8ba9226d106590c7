import msgspec
import pytest

from agent_dispatch.model.dialogue import DialogueResult, DialogueTurn, Role
from agent_dispatch.server.inline.dialogue import inline_dialogue
from agent_dispatch.server.inline.result import INLINE_CHARS, ROOM_BYTES, wire_bytes


def dialogue(final_answer: str, *messages: str, job_id: str | None = "0f") -> DialogueResult:
    turns = [
        DialogueTurn(
            agent="db",
            role=Role.RESPONDER,
            round=number,
            message=message,
            earlier_results=["earlier"],
        )
        for number, message in enumerate(messages, start=1)
    ]
    return DialogueResult(
        resolved=True,
        rounds=len(turns),
        total_duration_ms=1,
        final_answer=final_answer,
        conversation=turns,
        job_id=job_id,
        hint="As you wish.",
    )


def texts(shown: DialogueResult) -> list[str]:
    return [shown.final_answer, *(turn.message for turn in shown.conversation)]


def test_a_dialogue_of_usual_size_is_not_cut() -> None:
    whole = dialogue("a" * 10_000, "b" * 10_000, "c" * 19_000)
    assert inline_dialogue(whole) is whole


def test_a_result_that_cannot_be_fetched_again_goes_out_whole() -> None:
    whole = dialogue("a" * 100_000, job_id=None)
    assert inline_dialogue(whole) is whole


def test_long_messages_are_cut_the_newest_least_and_the_hint_says_how_to_get_all() -> None:
    sizes = [100_000, 50, 100_000, 100_000]
    shown = inline_dialogue(dialogue("a" * 10_000, *("b" * size for size in sizes)))
    lengths = [len(turn.message) for turn in shown.conversation]
    assert shown.final_answer == "a" * 10_000
    assert 3_000 < lengths[0] == lengths[2] < lengths[3]
    assert lengths[1] == 50
    assert sum(map(len, texts(shown))) <= INLINE_CHARS
    assert [turn.full_size for turn in shown.conversation] == [100_000, None, 100_000, 100_000]
    assert [turn.truncated for turn in shown.conversation] == [True, None, True, True]
    assert [turn.earlier_results for turn in shown.conversation] == [None] * 4
    assert shown.truncated
    assert shown.hint is not None
    assert shown.hint.startswith("As you wish. ")
    assert 'fetch_result(ref="0f")' in shown.hint


def test_answers_before_the_last_one_are_left_out_when_they_do_not_fit() -> None:
    whole = dialogue("a" * 100, "b" * 100)
    long = msgspec.structs.replace(whole.conversation[0], earlier_results=["x" * INLINE_CHARS])
    shown = inline_dialogue(msgspec.structs.replace(whole, conversation=[long]))
    assert texts(shown) == texts(whole)
    assert shown.conversation[0].earlier_results is None
    assert shown.truncated


@pytest.mark.parametrize("letter", ["\0", "\u20ac", "\\", "\U0001f433", "\ud800"])
def test_twenty_turns_of_megabytes_stay_within_the_wire_whatever_their_letters(letter: str) -> None:
    shown = inline_dialogue(dialogue(letter * 100_000, *([letter * 100_000] * 20)))
    assert wire_bytes(shown) <= ROOM_BYTES
    assert all(len(text) >= 100 for text in texts(shown))
