"""Hand a task to a Claude Code agent in another project directory, and bring the result back.

The map, from the surfaces down; imports go one way, and `lint-imports` keeps it so:

    __main__        the three ways in, told apart before anything heavy is imported
    server/         the MCP surface over stdio: translates, decides nothing
    cli/            the cyclopts surface: the same for a shell
    dispatch/       the run loop, the machine-wide slots, and the service that wires them
    process/        one `claude` and everything under it: spawner, guard, child, turns
    project/        `agents.toml`, and what a project directory says of itself
    core/           decisions: values in, values out; never imports trio
    model/          frozen msgspec structs: what is stored, what travels
    errors          calls that are wrong

The life of a dispatch: a surface turns its arguments into a `DispatchRequest`; the `Dispatcher`
checks it, waits for a slot, and runs one guarded `claude` in the agent's directory; its output is
decoded to events while it runs; `core.outcome` makes one `DispatchResult` of what was seen. When
the scope around it ends, by an answer, a deadline, a cancel or the death of this process, the
guard ends every process of the run.
"""

__version__ = "0.1.0"
