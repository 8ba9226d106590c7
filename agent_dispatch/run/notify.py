"""Run the user's `notify` command with an event on its stdin.

Its end is awaited, with a bound. Nothing depends on its success: a failure is only logged.
"""

import os
import signal
from collections.abc import Callable, Mapping

import msgspec

from agent_dispatch.config.registry import Registry
from agent_dispatch.core.masking import mask
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.log import write_to_stderr
from agent_dispatch.model.event import Event, end_event
from agent_dispatch.model.job import Job, JobKind

TIMEOUT_S = 10.0


class Notifier:
    """Runs the command that the settings name; made once per service or command."""

    def __init__(
        self,
        registry: Registry,
        environ: Mapping[str, str],
        *,
        report: Callable[[str], object] = write_to_stderr,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Read the command from the configuration of `registry` at each event.

        Args:
            environ: Of the command.
            report: Gets lines about failures.
            timeout_s: How long the command may take; it is killed then, with what it started.
        """
        self._registry = registry
        self._environ = environ
        self._report = report
        self._timeout_s = timeout_s

    def job_ended(self, job: Job) -> None:
        """Report the end of a background job; never raises."""
        if job.kind is not JobKind.CALL:
            self.notify(end_event(job))

    def notify(self, event: Event) -> None:
        """Run the command to its end, if there is one; never raises."""
        try:
            argv = self._registry.load().settings.notify
        except DispatchError:
            return  # Another reader of the configuration reports it.
        if argv:
            problem = self._run(argv, msgspec.json.encode(_without_keys(event)) + b"\n")
            if problem:
                self._report(f"agent-dispatch: notify ({argv[0]}) {problem}\n")

    def _run(self, argv: list[str], line: bytes) -> str:
        """Run the command, and say what went wrong."""
        import subprocess  # Only needed if there is such a command.

        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Not a project's directory, in which a relative path would name one of its files.
                cwd=self._registry.path.parent,
                env=dict(self._environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"cannot be run: {error}"
        try:
            process.communicate(line, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            # The rest of the line is dropped: a child in another group may hold the pipe open.
            process.wait()
            return f"was killed: it had not ended after {self._timeout_s:g} s"
        finally:
            if process.stdin is not None:
                process.stdin.close()
        return f"ended with status {process.returncode}" if process.returncode else ""


def _without_keys(event: Event) -> Event:
    """Mask keys in the summary; a question stays whole, because a person must decide about it."""
    if isinstance(event.summary, str):
        return msgspec.structs.replace(event, summary=mask(event.summary))
    return event
