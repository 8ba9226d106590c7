"""A job belongs to a client's session or, without one, to a directory."""

from pathlib import Path

import pytest

from agent_dispatch.jobs.origin import REQUEST_SESSION, SESSION_VARIABLE, Origin
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import JobKind

REQUEST = DispatchRequest(agent="infra", task="look")


def made_by(origin: Origin, directory: Path) -> str:
    store = JobStore(directory, origin=origin)
    claim = store.create(store.new_job(REQUEST, kind=JobKind.BACKGROUND))
    store.release(claim)
    return claim.job.id


def mine(origin: Origin, directory: Path) -> set[str]:
    rows = JobStore(directory).lister.newest(matches=origin.is_mine).jobs
    return {row.id for row in rows}


def test_a_job_belongs_to_the_session_wherever_it_was_started(tmp_path: Path) -> None:
    session = {SESSION_VARIABLE: "s-1"}
    first = made_by(Origin(session, "/a"), tmp_path)
    second = made_by(Origin(session, "/b"), tmp_path)
    other = made_by(Origin({SESSION_VARIABLE: "s-2"}, "/a"), tmp_path)
    assert mine(Origin(session, "/c"), tmp_path) == {first, second}
    assert JobStore(tmp_path).read(first).client_session == "s-1"
    # A process without a session has the jobs of its directory.
    assert mine(Origin({}, "/a"), tmp_path) == {first, other}
    assert mine(Origin({SESSION_VARIABLE: "s-3"}, "/a"), tmp_path) == set()


def test_the_request_outranks_the_environment(tmp_path: Path) -> None:
    origin = Origin({SESSION_VARIABLE: "s-1"}, "/a")
    token = REQUEST_SESSION.set("s-9")
    try:
        job_id = made_by(origin, tmp_path)
        assert mine(origin, tmp_path) == {job_id}
    finally:
        REQUEST_SESSION.reset(token)
    assert mine(origin, tmp_path) == set()


def test_a_store_without_an_origin_records_none(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    claim = store.create(store.new_job(REQUEST, kind=JobKind.CALL))
    assert claim.job.client_session is None
    assert mine(Origin({}, "/a"), tmp_path) == set()
    store.release(claim)


def test_a_removed_current_directory_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert Origin({}).fields() == {"client_session": None, "started_from": None}
