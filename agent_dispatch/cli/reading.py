"""Texts that a command is given by file name, or on stdin by `-`."""

from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import InvalidRequestError

_MAX_BYTES = 32 * 2**20


def read_text(shell: Shell, name: str, what: str) -> str:
    """Read the file `name`, or stdin for `-`.

    Args:
        shell: The outside world.
        name: As it was given on the command line.
        what: What it holds, for the beginning of a sentence.

    Raises:
        InvalidRequestError: It cannot be read, is too long, or is no text.
    """
    where = "on stdin" if name == "-" else f"in {name}"
    try:
        if name == "-":
            data = shell.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(f"{what} {where} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise InvalidRequestError(
            f"{what} {where} is longer than {_MAX_BYTES >> 20} MiB; put it into a file of the"
            " agent's project and name that file in the task"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{what} {where} is not UTF-8 (byte {error.start}); convert it, for example with"
            " iconv -t UTF-8"
        ) from error
