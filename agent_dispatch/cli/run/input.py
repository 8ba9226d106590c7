"""Read a task, a list of tasks or a schema from a file or stdin."""

from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import InvalidRequestError

_MAX_INPUT_BYTES = 32 * 2**20


def read_text(shell: Shell, name: str, what: str) -> str:
    """Read the file `name`, or stdin for `-`.

    Args:
        name: The argument of the command.
        what: The subject of an error, such as "The task".

    Raises:
        InvalidRequestError: It cannot be read, is too long, or is not UTF-8.
    """
    where = "on stdin" if name == "-" else f"in {name}"
    try:
        if name == "-":
            data = shell.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(f"{what} {where} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_INPUT_BYTES:
        raise InvalidRequestError(
            f"{what} {where} is longer than {_MAX_INPUT_BYTES >> 20} MiB; put it into a file of the"
            " agent's project and name that file in the task"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{what} {where} is not UTF-8 (byte {error.start}); convert it, for example with"
            " iconv -t UTF-8"
        ) from error


def read_schema(shell: Shell, file: str) -> str:
    """Read a JSON Schema from the file, or from stdin for `-`.

    Raises:
        InvalidRequestError: It cannot be read, or is empty.
    """
    schema = read_text(shell, file, "The schema").strip()
    if not schema:
        # An empty schema in a request means that there is none.
        raise InvalidRequestError(
            f"The schema {'on stdin' if file == '-' else f'in {file}'} is empty; it takes a JSON"
            ' Schema, such as {"type": "object"}'
        )
    return schema
