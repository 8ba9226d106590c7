"""The command line.

`__main__` calls `app`, which finds the command in `command_table`, binds its arguments (`parsing`),
calls its function, and reports a refused call (`errors`).

The functions of the commands stand in a package for each subject, and `command_table` says in which
module each is:

- `agents`: show and change what is in `agents.toml`: agents, groups, hosts.
- `run`: run agents in the foreground (`foreground`), or submit a job.
- `jobs`: show and follow jobs, and act on them; questions, costs.
- `watch`: the live view of all jobs.
- `setup`: `init` and `uninstall`, which edit the files of Claude Code and other clients.
- `doctor`: the checks of all that.
- `demo`: a dispatch on a scripted stand-in for Claude.

All of them get a `Shell` (`shell`), check values through `validation`, write through `output`,
advise through `next_steps` and reach agents through `event_loop`. `help_pages` and `completion`
read the table too. `remote_stub` starts the host's side of a link.

A command that only reads starts in the time of a Python with msgspec. It must not import cyclopts,
rich, pydantic, mcp or trio; such imports stand in the functions that need them.
"""
