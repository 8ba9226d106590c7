import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.outcome.report import TreeChanges
from agent_dispatch.core.outcome.work_tree import (
    MAX_COMMITS,
    Entry,
    Look,
    Status,
    changes,
    is_oid,
    parse_commits,
    parse_status,
)

ONE, TWO = "1" * 40, "2" * 40
PRINTED = (
    f"# branch.oid {ONE}\0# branch.head main\0"
    f"1 .D N... 100644 100644 000000 {ONE} {TWO} gone away\0"
    f"2 R. N... 100644 100644 100644 {ONE} {ONE} R100 new name\0old name\0"
    f"u UU N... 100644 100644 100644 100644 {ONE} {ONE} {ONE} both changed\0"
    "? un tracked\0! ignored\0"
)


def look(*paths: str, **prints: str) -> Look:
    return Look(status=Status(ONE, {path: Entry() for path in paths}), prints=prints)


def test_a_status_is_read_record_by_record() -> None:
    assert parse_status(PRINTED.encode()) == Status(
        ONE,
        {
            "gone away": Entry(deleted_oid=TWO),
            "new name": Entry(),
            "both changed": Entry(),
            "un tracked": Entry(is_untracked=True),
        },
    )


def test_before_the_first_commit_there_is_no_head() -> None:
    assert parse_status(b"# branch.oid (initial)\0") == Status(None, {})


@pytest.mark.parametrize("cut", range(0, len(PRINTED), 7))
def test_a_status_that_was_cut_is_read_as_far_as_it_goes(cut: int) -> None:
    assert set(parse_status(PRINTED[:cut].encode()).entries) - {"un", "un trac"} <= {
        *("gone away", "new name", "both changed", "un tracked"),
        *(
            name[:length]
            for name in ("gone away", "new name", "both changed", "un tracked")
            for length in range(1, 12)
        ),
    }


@given(st.binary())
def test_arbitrary_output_can_be_read(printed: bytes) -> None:
    status = parse_status(printed)
    commits = parse_commits([ONE], printed)
    before = look(*status.entries)
    assert changes(before, before, {}, prefix="") == TreeChanges((), ())
    changes(look(), Look(status=status, prints={}), commits, prefix="sub")


def test_a_file_may_have_a_name_like_the_id_of_a_commit() -> None:
    printed = f"{ONE}\0{'a' * 40}\0{TWO}\0file\0".encode()
    assert parse_commits([ONE, TWO], printed) == {ONE: ["a" * 40], TWO: ["file"]}


def test_a_path_dirty_before_and_after_is_compared_by_content() -> None:
    before = look("same", "other", "gone", same="1", other="1", gone="1")
    after = look("same", "other", "new", same="1", other="2")
    commits = {ONE: ["same", "committed"]}
    assert changes(before, after, commits, prefix="") == TreeChanges(
        ("committed", "gone", "new", "other"), (ONE,)
    )


def test_the_newest_commits_are_kept() -> None:
    ids = [f"{number:040}" for number in range(MAX_COMMITS + 5)]
    made = changes(look(), look(), {commit: [] for commit in ids}, prefix="").commits
    assert made == tuple(ids[5:])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [(ONE, True), ("b" * 64, True), ("g" * 40, False), ("1" * 41, False), ("", False)],
)
def test_ids_are_full_and_hexadecimal(text: str, is_one: bool) -> None:
    assert is_oid(text) is is_one
