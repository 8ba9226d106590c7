"""The bytes of a record file: how a job is encoded and decoded. No I/O.

The file is one JSON object: first `summary`, alone on its line, then the fields of the `Job`, then
the fields of other versions, kept as they were. A listing reads only the first line, so it stays
fast however large the results are; `decode_record` ignores that line.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from agent_dispatch.core.text import scrubbed
from agent_dispatch.errors import NOT_JSON
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobKind, JobSummary, summarise
from agent_dispatch.model.next_step import NextStep

HEAD_BYTES = 8 * 1024
TAIL = b"}\n"
"""How each of our records ends."""
_HEAD = b'{"summary":'
_SUMMARY_FIELD = "summary"
_MAX_DEPTH = 200
"""Deepest nesting of a parsed answer; every reader can decode that, however deep its own stack."""

_ENCODER = msgspec.json.Encoder()
_JOB: msgspec.json.Decoder[Job] = msgspec.json.Decoder(Job)
_SUMMARY: msgspec.json.Decoder[JobSummary] = msgspec.json.Decoder(JobSummary)
_FIELDS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KNOWN = frozenset({*Job.__struct_fields__, _SUMMARY_FIELD})


class CorruptRecordError(Exception):
    """The bytes are not a job; the message says why, for the end of a sentence."""


def encode_record(job: Job, unknown: Mapping[str, msgspec.Raw]) -> bytearray:
    """The whole content of a job's file."""
    if job.result is not None and too_deep(job.result.parsed_result):
        job = _without_parsed(job)
    try:
        record = _encode(job)
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError):
        # A paid answer is stored without the values that JSON cannot represent.
        record = _encode(_encodable(_without_parsed(job)))
    record[-1:] = b"".join(
        b"," + _ENCODER.encode(name) + b":" + bytes(value)
        for name, value in unknown.items()
        if name not in _KNOWN
    )
    record += TAIL
    return record


def _encode(job: Job) -> bytearray:
    """Encode summary and job into one buffer, because the answer may be large."""
    record = bytearray(b"".join((_HEAD, _ENCODER.encode(summarise(job)), b",\n")))
    line_feed = len(record) - 1
    _ENCODER.encode_into(job, record, line_feed)
    record[line_feed] = ord("\n")  # Replaces the job's own opening brace.
    return record


def decode_record(content: bytes | bytearray, job_id: str) -> Job:
    """Read a job from the whole content of its file.

    Args:
        job_id: From the name of the file; the record must say the same.

    Raises:
        CorruptRecordError: It is not a job, or not this one.
    """
    try:
        job = _JOB.decode(content)
    except msgspec.ValidationError:
        job = _decode_leniently(content)
    except NOT_JSON as error:
        raise CorruptRecordError(f"it is not JSON ({error})") from error
    if job.id != job_id:
        raise CorruptRecordError(f"it is wrongly named; it says that it is job {job.id[:40]!r}")
    return job


def decode_unknown(content: bytes | bytearray) -> dict[str, msgspec.Raw]:
    """Fields of a record that no `Job` has; empty if it cannot be read."""
    try:
        fields = _FIELDS.decode(content)
    except NOT_JSON:
        return {}
    # Copied, because a Raw keeps the whole buffer in memory.
    return {name: raw.copy() for name, raw in fields.items() if name not in _KNOWN}


def decode_head(head: bytes | bytearray) -> JobSummary | None:
    """Read the first line of a record; None if it is not ours or longer than `head`."""
    line, newline, _ = head.partition(b"\n")
    if not (newline and line.startswith(_HEAD) and line.endswith(b"},")):
        return None
    try:
        return _SUMMARY.decode(line[len(_HEAD) : -1])
    except NOT_JSON:
        return None


def _decode_leniently(content: bytes | bytearray) -> Job:
    """Read a record of an older or newer version: with nulls, no `kind`, unknown reasons."""
    try:
        fields = msgspec.json.decode(content)
        if not isinstance(fields, dict):
            raise CorruptRecordError("it is not a JSON object")
        fields = _without_nulls(fields)
        fields.setdefault("kind", JobKind.BACKGROUND.value)
        if isinstance(fields.get("result"), dict):
            fields["result"] = _lenient_result(fields["result"])
        return msgspec.convert(_known_reason(fields), Job)
    except NOT_JSON as error:
        raise CorruptRecordError(f"it is not a job ({error})") from error


def _lenient_result(fields: Mapping[str, Any]) -> dict[str, Any]:
    result = _known_reason(_without_nulls(fields))
    if "parsed_result" in fields:
        result["parsed_result"] = fields["parsed_result"]
    try:
        msgspec.convert(result.get("next_steps", []), list[NextStep])
    except msgspec.ValidationError:
        del result["next_steps"]  # A newer version has more kinds.
    if not isinstance(result.get("result", ""), str):
        result["result"] = _ENCODER.encode(result["result"]).decode()
    return {"result": "", **result}


def _without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _known_reason(fields: dict[str, Any]) -> dict[str, Any]:
    if "error_type" in fields and fields["error_type"] not in list(ErrorType):
        return {**fields, "error_type": ErrorType.CLI_ERROR.value}
    return fields


def _without_parsed(job: Job) -> Job:
    if job.result is None:
        return job
    result = msgspec.structs.replace(job.result, parsed_result=msgspec.UNSET)
    return msgspec.structs.replace(job, result=result)


def too_deep(value: object) -> bool:
    """Whether lists and objects in `value` nest deeper than `_MAX_DEPTH`."""
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True


def _encodable(job: Job) -> Job:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    return msgspec.convert(scrubbed(msgspec.to_builtins(job)), Job)
