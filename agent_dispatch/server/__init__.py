"""The MCP surface.

A `dispatch` call passes these modules on its way to the service:

    stdio/byte_streams   reads bytes and cuts them into lines
    stdio/messages       turns a line into a message, or answers it here (`front_door`, `malformed`)
    (the MCP library)    decodes the message and calls the middlewares and the handler
    mcp_server           `call_tool` describes the client behind the call (`calls/caller`)
    calls/toolbox        finds the tool and checks the arguments
    calls/tool_call      decides how long the call may wait, and whether it becomes a background job
    calls/pending        does the work, which may outlive the call
    tools/dispatch       turns the arguments into a `DispatchRequest` and calls the service

The answer is cut by `inline/` to what one message should hold, and goes back through
`calls/envelope`, `mcp_results` and `stdio/messages`. Only the modules of this folder and of `stdio`
know the MCP library.

`serve` starts the process, which `stdio_server` or `http_server` then runs. `tasks`, `elicitation`
and `cancel_notices` are further parts of the protocol. `next_steps` words advice as tool calls.
"""
