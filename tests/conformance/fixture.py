"""The server that the official conformance suite expects, behind our HTTP app.

    python -m tests.conformance.fixture    prints its address and serves until it is killed

Names and answers of its tools, prompts and resources are those that the suite asks for. It has
the same library `Server`, the same app, guard and middleware as `agent-dispatch serve --http`.
"""

import base64
import hashlib
import hmac
import json
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from agent_dispatch.server.http_server import PATH, http_app, listen, serve_app

PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d7"
        "63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
    )
).decode()
WAV = base64.b64encode(
    b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0"
)
WAV_TEXT = WAV.decode()
_PAUSE_S = 0.05
_KEY = b"integrity of requestState"

Ctx = ServerRequestContext[Any]
CallResult = types.CallToolResult | types.InputRequiredResult


def text(said: str) -> types.CallToolResult:
    """A result of one text."""
    return types.CallToolResult(content=[types.TextContent(text=said)])


def embedded(uri: str, content: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    """A resource inside a content."""
    resource = types.TextResourceContents(uri=uri, mime_type=mime_type, text=content)
    return types.EmbeddedResource(resource=resource)


IMAGE = types.ImageContent(data=PNG, mime_type="image/png")
CONTENTS: Mapping[str, list[types.ContentBlock]] = {
    "test_simple_text": [types.TextContent(text="This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [types.AudioContent(data=WAV_TEXT, mime_type="audio/wav")],
    "test_embedded_resource": [
        embedded("test://embedded-resource", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        types.TextContent(text="Multiple content types test:"),
        IMAGE,
        embedded(
            "test://mixed-content-resource", '{"test":"data","value":123}', "application/json"
        ),
    ],
}


# -- tools that talk to their client while they run (2025)


async def with_logging(ctx: Ctx) -> types.CallToolResult:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Deprecated in 2026-07-28.
            await ctx.session.send_log_message("info", said, related_request_id=ctx.request_id)
        await trio.sleep(_PAUSE_S)
    return text("It was logged.")


async def with_progress(ctx: Ctx) -> types.CallToolResult:
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100)
        await trio.sleep(_PAUSE_S)
    return text("It was reported.")


async def always_wrong(ctx: Ctx) -> types.CallToolResult:
    await trio.lowlevel.checkpoint()
    content = types.TextContent(text="This tool intentionally returns an error for testing")
    return types.CallToolResult(content=[content], is_error=True)


async def sampling(ctx: Ctx, prompt: str) -> types.CallToolResult:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = await ctx.session.create_message(
            [message], max_tokens=100, related_request_id=ctx.request_id
        )
    return text(f"LLM response: {answer.content}")


async def elicit(ctx: Ctx, message: str, schema: dict[str, Any]) -> types.CallToolResult:
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    content = json.dumps(answer.content)
    return text(f"Elicitation completed: action={answer.action}, content={content}")


def form(**properties: Any) -> dict[str, Any]:
    """A form, all of whose fields are required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


USER = form(
    username={"type": "string", "description": "User's response"},
    email={"type": "string", "description": "User's email address"},
)
DEFAULTS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    },
}
_OPTIONS = ["option1", "option2", "option3"]
_TITLED = [
    {"const": f"value{number}", "title": f"{word} Option"}
    for number, word in enumerate(("First", "Second", "Third"), start=1)
]
ENUMS = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
}

TALKING: Mapping[str, Callable[..., Awaitable[types.CallToolResult]]] = {
    "test_tool_with_logging": with_logging,
    "test_logging_tool": with_logging,
    "test_tool_with_progress": with_progress,
    "test_error_handling": always_wrong,
    "test_sampling": sampling,
    "test_elicitation": lambda ctx, message: elicit(ctx, message, USER),
    "test_elicitation_sep1034_defaults": lambda ctx: elicit(ctx, "Defaults?", DEFAULTS),
    "test_elicitation_sep1330_enums": lambda ctx: elicit(ctx, "Which?", ENUMS),
}
ARGUMENTS: Mapping[str, list[str]] = {
    "test_sampling": ["prompt"],
    "test_elicitation": ["message"],
}


# -- tools that ask for input and are called again (2026)


def ask_form(message: str, **properties: Any) -> types.ElicitRequest:
    params = types.ElicitRequestFormParams(message=message, requested_schema=form(**properties))
    return types.ElicitRequest(params=params)


def ask_model(prompt: str, max_tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    params = types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    return types.CreateMessageRequest(params=params)


NAME = {"type": "string"}
_NAME_FORM = ask_form("What is your name?", name=NAME)
_ROOTS = types.ListRootsRequest()
ROUNDS: Mapping[str, list[dict[str, Any]]] = {
    "test_input_required_result_elicitation": [{"user_name": _NAME_FORM}],
    "test_streaming_elicitation": [{"user_name": _NAME_FORM}],
    "test_input_required_result_sampling": [
        {"capital_question": ask_model("What is the capital of France?")}
    ],
    "test_input_required_result_list_roots": [{"client_roots": _ROOTS}],
    "test_input_required_result_request_state": [
        {"confirm": ask_form("Please confirm", ok={"type": "boolean"})}
    ],
    "test_input_required_result_multiple_inputs": [
        {
            "user_name": _NAME_FORM,
            "greeting": ask_model("Generate a greeting", 50),
            "client_roots": _ROOTS,
        }
    ],
    "test_input_required_result_multi_round": [
        {"step1": ask_form("Step 1: What is your name?", name=NAME)},
        {"step2": ask_form("Step 2: What is your favorite color?", color=NAME)},
    ],
    "test_input_required_result_tampered_state": [
        {"confirm": ask_form("Please confirm", ok={"type": "boolean"})}
    ],
    "test_input_required_result_capabilities": [
        {"user_name": _NAME_FORM, "greeting": ask_model("Generate a greeting", 50)}
    ],
}
_CAPABILITIES = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling"}


def signed(state: str) -> str:
    """A state that nobody else can make."""
    return f"{state}.{hmac.new(_KEY, state.encode(), hashlib.sha256).hexdigest()}"


def next_round(
    name: str, rounds: list[dict[str, Any]], params: Any, declared: Mapping[str, Any] | None
) -> types.InputRequiredResult | None:
    """What is asked for next; None if all of it was given."""
    number = 0
    if params.request_state is not None:
        state, _, _ = params.request_state.rpartition(".")
        if not hmac.compare_digest(signed(state), params.request_state):
            raise MCPError(types.INVALID_PARAMS, "requestState was changed")
        number = int(state.rpartition(":")[2])
    given = params.input_responses or {}
    if set(rounds[number]) <= set(given):
        number += 1
    if number == len(rounds):
        return None
    asked = rounds[number]
    if name.endswith("capabilities"):
        known = declared or {}
        asked = {key: ask for key, ask in asked.items() if _CAPABILITIES[ask.method] in known}
    return types.InputRequiredResult(input_requests=asked, request_state=signed(f"{name}:{number}"))


# -- the server


JSON_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def tools() -> list[types.Tool]:
    names = [*CONTENTS, *TALKING, *ROUNDS, "test_missing_capability"]
    listed = [
        types.Tool(
            name=name,
            description=f"For the scenario that calls {name}.",
            input_schema={"type": "object"} | form(**dict.fromkeys(ARGUMENTS.get(name, ()), NAME)),
        )
        for name in names
    ]
    listed.append(
        types.Tool(
            name="test_headers",
            description="Its argument travels in a header too.",
            input_schema=form(region={"type": "string", "x-mcp-header": "Region"}),
        )
    )
    listed.append(
        types.Tool(
            name="json_schema_2020_12_tool",
            description="Tool with JSON Schema 2020-12 features",
            input_schema=JSON_SCHEMA,
        )
    )
    return listed


async def list_tools(ctx: Ctx, params: Any) -> types.ListToolsResult:
    await trio.lowlevel.checkpoint()
    return types.ListToolsResult(tools=tools())


def declared_capabilities(ctx: Ctx) -> Mapping[str, Any]:
    meta = (ctx.params or {}).get("_meta") or {}
    found: Mapping[str, Any] = meta.get("io.modelcontextprotocol/clientCapabilities") or {}
    return found


async def call_tool(ctx: Ctx, params: types.CallToolRequestParams) -> CallResult:
    await trio.lowlevel.checkpoint()
    name = params.name
    if name in CONTENTS:
        return types.CallToolResult(content=CONTENTS[name])
    if name in TALKING:
        return await TALKING[name](ctx, **(params.arguments or {}))
    if name in ROUNDS:
        asked = next_round(name, ROUNDS[name], params, declared_capabilities(ctx))
        answers = json.dumps(params.input_responses or {}, default=repr)
        return asked or text(f"state-ok {answers}")
    if name == "test_headers":
        return text(f"Region: {(params.arguments or {}).get('region')}")
    if name == "test_missing_capability":
        if "sampling" not in declared_capabilities(ctx):
            raise MCPError(-32021, "sampling is needed", {"requiredCapabilities": {"sampling": {}}})
        return text("ok")
    raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {name}")


RESOURCES: Mapping[str, types.TextResourceContents | types.BlobResourceContents] = {
    "test://static-text": types.TextResourceContents(
        uri="test://static-text",
        mime_type="text/plain",
        text="This is the content of the static text resource.",
    ),
    "test://static-binary": types.BlobResourceContents(
        uri="test://static-binary", mime_type="image/png", blob=PNG
    ),
    "test://watched-resource": types.TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="Watched."
    ),
}


async def list_resources(ctx: Ctx, params: Any) -> types.ListResourcesResult:
    await trio.lowlevel.checkpoint()
    return types.ListResourcesResult(
        resources=[
            types.Resource(uri=uri, name=uri, description=uri, mime_type=content.mime_type)
            for uri, content in RESOURCES.items()
        ]
    )


async def list_templates(ctx: Ctx, params: Any) -> types.ListResourceTemplatesResult:
    await trio.lowlevel.checkpoint()
    template = types.ResourceTemplate(
        uri_template="test://template/{id}/data", name="data", mime_type="application/json"
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(
    ctx: Ctx, params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    await trio.lowlevel.checkpoint()
    uri = str(params.uri)
    if uri in RESOURCES:
        return types.ReadResourceResult(contents=[RESOURCES[uri]])
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        said = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        content = types.TextResourceContents(
            uri=uri, mime_type="application/json", text=json.dumps(said)
        )
        return types.ReadResourceResult(contents=[content])
    raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})


async def accept(ctx: Ctx, params: Any) -> types.EmptyResult:
    await trio.lowlevel.checkpoint()
    return types.EmptyResult()


def said(*contents: types.ContentBlock) -> types.GetPromptResult:
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=content) for content in contents]
    )


PROMPTS: Mapping[str, tuple[list[str], Callable[..., types.GetPromptResult]]] = {
    "test_simple_prompt": (
        [],
        lambda: said(types.TextContent(text="This is a simple prompt for testing.")),
    ),
    "test_prompt_with_arguments": (
        ["arg1", "arg2"],
        lambda arg1, arg2: said(
            types.TextContent(text=f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")
        ),
    ),
    "test_prompt_with_embedded_resource": (
        ["resourceUri"],
        lambda resourceUri: said(  # noqa: N803  # as the suite calls it
            embedded(resourceUri, "Embedded resource content for testing."),
            types.TextContent(text="Please process the embedded resource above."),
        ),
    ),
    "test_prompt_with_image": (
        [],
        lambda: said(IMAGE, types.TextContent(text="Please analyze the image above.")),
    ),
    "test_input_required_result_prompt": ([], lambda: said(types.TextContent(text="Done."))),
}
PROMPT_ROUNDS = [{"user_context": ask_form("What context should the prompt use?", context=NAME)}]


async def list_prompts(ctx: Ctx, params: Any) -> types.ListPromptsResult:
    await trio.lowlevel.checkpoint()
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description=f"For the scenario that gets {name}.",
                arguments=[types.PromptArgument(name=name, required=True) for name in arguments],
            )
            for name, (arguments, _) in PROMPTS.items()
        ]
    )


async def get_prompt(
    ctx: Ctx, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    await trio.lowlevel.checkpoint()
    if params.name == "test_input_required_result_prompt":
        asked = next_round(params.name, PROMPT_ROUNDS, params, None)
        if asked is not None:
            return asked
    return PROMPTS[params.name][1](**(params.arguments or {}))


async def complete(ctx: Ctx, params: Any) -> types.CompleteResult:
    await trio.lowlevel.checkpoint()
    return types.CompleteResult(completion=types.Completion(values=["paris", "park"]))


def fixture_server() -> Server[Any]:
    """The server over all of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Logging is deprecated in 2026-07-28.
        server: Server[Any] = Server(
            "conformance-fixture",
            version="1",
            on_list_tools=list_tools,
            on_call_tool=call_tool,
            on_list_resources=list_resources,
            on_list_resource_templates=list_templates,
            on_read_resource=read_resource,
            on_subscribe_resource=accept,
            on_unsubscribe_resource=accept,
            on_list_prompts=list_prompts,
            on_get_prompt=get_prompt,
            on_completion=complete,
            on_set_logging_level=accept,
        )
    server.middleware[:] = []
    return server


def main() -> None:
    """Serve on a free port of loopback, and print the address."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        sys.stdout.write(f"http://127.0.0.1:{port}{PATH}\n")
        sys.stdout.flush()
        trio.run(serve_app, http_app(fixture_server(), "127.0.0.1", None), listener)


if __name__ == "__main__":
    main()
