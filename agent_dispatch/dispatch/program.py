"""Find the `claude` program and look at the agent's directory before anything is started.

All of it waits for file systems, so it belongs into a thread.
"""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence

from agent_dispatch.core.report import StartFailure, StartStage


def find_program(
    claude: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[str, ...] | StartFailure:
    """The program to run with an absolute path, or why there is none.

    Args:
        claude: The program and its first arguments; None: `claude` on PATH.
        environ: Whose PATH is searched.
    """
    name, *rest = claude or ("claude",)
    # An absolute path: the search must not depend on the agent's directory.
    path = environ.get("PATH", os.defpath)
    if (found := shutil.which(name, path=path)) is not None:
        return (os.path.abspath(found), *rest)
    if (plain := _find_any_file(name, path)) is not None:
        return StartFailure(
            errno=errno.EACCES,
            stage=StartStage.CLI_NOT_EXECUTABLE,
            text=f"{plain} is not executable",
        )
    return StartFailure(
        errno=errno.ENOENT, stage=StartStage.CLI_MISSING, text=f"{name!r} is not on PATH"
    )


def _find_any_file(name: str, path: str) -> str | None:
    folders = [""] if os.path.dirname(name) else path.split(os.pathsep)
    candidates = (os.path.join(folder, name) for folder in folders)
    return next((file for file in candidates if os.path.isfile(file)), None)


def check_directory(directory: str) -> StartFailure | None:
    """Why an agent cannot run in `directory`, if it cannot."""
    try:
        os.scandir(directory).close()
    except OSError as error:
        number = error.errno or errno.ENOENT
        return StartFailure(
            errno=number, stage=StartStage.DIRECTORY, text=f"{directory}: {os.strerror(number)}"
        )
    return None


def no_answer(timeout_s: float) -> StartFailure:
    """Why an agent cannot run whose directory, or one of PATH, did not answer in time."""
    text = f"it, or a directory of PATH, did not answer for {timeout_s:g} s: a mount that hangs?"
    return StartFailure(errno=errno.ETIMEDOUT, stage=StartStage.DIRECTORY, text=text)
