"""Hand a task to a Claude Code agent in another project directory, and bring the result back.

The map, from the surfaces down; imports go one way, and `lint-imports` keeps it so:

    __main__        the three ways in, told apart before anything heavy is imported
    server/         the MCP surface over stdio: translates, decides nothing
    cli/            the cyclopts surface: the same for a shell
    worker          the third surface: a process that runs one background job
    dispatch/       the run loop, its shapes (parallel, dialogue, shared runs), the machine-wide
                    slots, and the service that wires them
    jobs/           one durable record per dispatch, and who owns it
    process/        one `claude` and everything under it: fork_server, guard, child, turns
    project/        `agents.toml`, and what a project directory says of itself
    core/           decisions: values in, values out; never imports trio
    model/          frozen msgspec structs: what is stored, what travels
    errors          calls that are wrong

The life of a dispatch: a surface turns its arguments into a `DispatchRequest`; the `Service` has
it checked and recorded as a job, durably, before anything starts; the `Dispatcher` waits for a
slot, and a `Run` has one guarded `claude` work in the agent's directory; its output is decoded to
events while it runs; `core.outcome` makes one `DispatchResult` of what was seen; the record is
terminal before the answer is given. When the scope around it ends, by an answer, a deadline, a
cancel or the death of this process, the guard ends every process of the run.

Identical calls share one run (`run.single_flight`), a clean answer is given again for a while
(`core.cache`), several dispatches at once are one nursery (`run.parallel`), and a dialogue
keeps its two agents' processes from the first turn to the last (`run.dialogue`).

The life of a job: `pending` (recorded, owned by a lock), `running`, then `done`, `failed` or
`cancelled`, and never anything else after that. A `call` belongs to the process that serves its
caller; a `background` job to a worker, to which its submitter hands the lock. Whoever reads a job
that is not over and whose lock is free writes how it ended: `lost`, or cancelled if that was asked.
"""

__version__ = "0.1.0"
