"""`group`: manage groups of agents and the context that their members share."""

from collections.abc import Mapping, Sequence

from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.cli.output import (
    Colour,
    cell_width,
    counted,
    listing,
    one_line,
    pad,
    paint,
    printable,
    title,
    warn,
    write_json,
    write_lines,
)
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.cli.validation import check_choice
from agent_dispatch.config.groups import (
    add_group,
    inspect_group,
    list_groups,
    remove_group,
    update_group,
)
from agent_dispatch.model.config import GroupMember
from agent_dispatch.model.group import GroupChange, GroupDetails

_OPTIONS: Mapping[str, Sequence[str]] = {
    "add": ("--description", "--shared-context", "--member"),
    "list": (),
    "inspect": (),
    "update": ("--description", "--shared-context", "--member", "--remove-member"),
    "remove": (),
}
"""The options of each action, beside `--json`."""


def group(
    action: str,
    name: str = "",
    /,
    *,
    description: str = "",
    shared_context: str = "",
    member: Sequence[str] = (),
    remove_member: Sequence[str] = (),
    json: bool = False,
    shell: Shell,
) -> int:
    """Manage groups of agents: `group add|list|inspect|update|remove`.

    An agent that gets a task with `run --group NAME` is told the group's shared context too.

    Args:
        action: add, list, inspect, update or remove.
        name: The group; `list` takes none.
        description: How to work with the group; no agent reads it. "none" clears it.
        shared_context: Facts that every member is told. "none" clears them.
        member: AGENT or AGENT=USE_FOR, as often as there are members; `update` adds or changes it.
        remove_member: With `update`: an agent that leaves the group.
        json: Print what there is, or what was changed, as JSON.
    """
    options = {
        "--description": description,
        "--shared-context": shared_context,
        "--member": member,
        "--remove-member": remove_member,
    }
    _check(action, name, [option for option, value in options.items() if value])
    registry = open_registry(shell)
    members = [_member(text) for text in member]
    if action == "list":
        groups = list_groups(registry)
        if json:
            write_json(shell, groups)
        else:
            _show_list(groups, shell)
        return 0
    if action == "inspect":
        details = inspect_group(registry, name)
        if json:
            write_json(shell, details)
        else:
            _show_details(details, shell)
        return 0
    texts = {"description": description, "shared_context": shared_context}
    if action == "add":
        change = add_group(registry, name, members=members, **texts)
    elif action == "update":
        change = update_group(registry, name, members=members, leaving=remove_member, **texts)
    else:
        change = remove_group(registry, name)
    if json:
        write_json(shell, change)
    else:
        _show_change(change, shell)
    return 0


def _check(action: str, name: str, options: Sequence[str]) -> None:
    check_choice("The action", action, _OPTIONS)
    if bool(name) == (action == "list"):
        wanted = "takes no name" if name else "needs the name of a group"
        raise MisuseError(f"`group {action}` {wanted}.")
    for option in options:
        if option not in _OPTIONS[action]:
            raise MisuseError(f"`group {action}` takes no {option}.")


def _member(text: str) -> GroupMember:
    agent, _, use_for = text.partition("=")
    return GroupMember(agent=agent.strip(), use_for=use_for.strip())


def _show_list(groups: Sequence[GroupDetails], shell: Shell) -> None:
    if not groups:
        write_lines(
            shell, ["No groups yet. Create one: agent-dispatch group add NAME --member AGENT"]
        )
        return
    width = max(cell_width(one_line(group.name)) for group in groups)
    for group in groups:
        name = paint(pad(one_line(group.name), width), Colour.NAME, shell)
        agents = listing([member.agent for member in group.members]) or "no members"
        lines = [f"{name}  {agents}"]
        if group.description:
            lines.append(" " * (width + 2) + one_line(group.description))
        write_lines(shell, lines)
        _warn(group.name, group.missing, group.problem, shell)


def _show_details(details: GroupDetails, shell: Shell) -> None:
    lines = [title(one_line(details.name), shell)]
    if details.description:
        lines += ["  description", *_indented(details.description)]
    if details.shared_context:
        lines += ["  shared context", *_indented(details.shared_context)]
    if details.members:
        lines.append("  members")
    for member in details.members:
        words = [one_line(member.agent)]
        if member.missing:
            words.append("(missing)")
        if member.use_for:
            words.append(f"- {one_line(member.use_for)}")
        lines.append(f"    {' '.join(words)}")
    write_lines(shell, lines)
    _warn(details.name, details.missing, details.problem, shell)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in printable(text).splitlines()]


def _show_change(change: GroupChange, shell: Shell) -> None:
    about = listing(change.changed) if change.changed else counted(len(change.members), "member")
    write_lines(shell, [f"{change.action.capitalize()} {one_line(change.group)}: {about}"])
    if change.action != "removed":
        _warn(change.group, change.missing, None, shell)


def _warn(name: str, missing: Sequence[str], problem: str | None, shell: Shell) -> None:
    if problem is not None:
        warn(shell, f"group {name}: {problem}")
    warn(shell, *(f"group {name}: member {agent} is not configured" for agent in missing))
