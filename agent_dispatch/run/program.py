"""Find the `claude` program and look at the agent's directory before anything is started.

All of it waits for file systems, so it belongs into a thread.
"""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence

from agent_dispatch.core.outcome.report import StartFailure, StartStage
from agent_dispatch.run.places import usual_folders


def find_program(
    claude: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[str, ...] | StartFailure:
    """The program to run with an absolute path, or why there is none.

    Args:
        claude: The program and its first arguments; None: `claude` on PATH, else where its
            installers put it.
        environ: Whose PATH and home are searched.
    """
    name, *rest = claude or ("claude",)
    # An absolute path: the search must not depend on the agent's directory.
    path = _path(environ)
    if (found := shutil.which(name, path=path)) is not None:
        return (os.path.abspath(found), *rest)
    if (plain := _find_any_file(name, path)) is not None:
        return StartFailure(
            errno=errno.EACCES,
            stage=StartStage.CLI_NOT_EXECUTABLE,
            text=f"{plain} is not executable",
            file=plain,
        )
    if claude is not None:
        return StartFailure(
            errno=errno.ENOENT, stage=StartStage.CLI_MISSING, text=f"{name!r} is not on PATH"
        )
    found = shutil.which(name, path=os.pathsep.join(usual_folders(environ)))
    if found is not None:
        return (found,)
    return StartFailure(
        errno=errno.ENOENT,
        stage=StartStage.CLI_MISSING,
        text=f"{name!r} is not on PATH, nor where its installers put it",
    )


def is_on_path(program: str, environ: Mapping[str, str]) -> bool:
    """Whether `environ` finds an absolute `program` by its name."""
    found = shutil.which(os.path.basename(program), path=_path(environ))
    return found is not None and os.path.abspath(found) == program


def with_program_on_path(environ: Mapping[str, str], program: str) -> dict[str, str]:
    """The environment to run an absolute `program` in.

    One that was found elsewhere gets its folder added to the end of PATH: a script of npm
    needs the `node` beside it.
    """
    if is_on_path(program, environ):
        return dict(environ)
    return {**environ, "PATH": f"{_path(environ)}{os.pathsep}{os.path.dirname(program)}"}


def _path(environ: Mapping[str, str]) -> str:
    return environ.get("PATH", os.defpath)


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
