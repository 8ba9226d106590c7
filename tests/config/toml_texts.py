"""Strategies for TOML texts: agents in every form, comments, and text that looks like tables."""

from hypothesis import strategies as st

TRICKY_VALUES = (
    '"plain"',
    '"a \\" quote # and no comment"',
    "'literal [agents.fake]'",
    '"""\n[agents.fake]\n# no comment\ndirectory = 1\n"""',
    "'''\n[settings]\n# no comment\n'''",
    '"""a\\"""b"""',
    '""""quoted""""',
    "''''quoted''''",
    '"""ends with a backslash \\\\"""',
    '"""two at the end"""""',
    '"""\\\n   folded"""',
    "[]",
    "[1, 2,]",
    '[\n  "a", # ] and }\n  "b",\n  # last\n]',
    '[["#"], ["]"], [[]]]',
    "1979-05-27 07:32:00",
    "07:32:00",
    "1_000",
    "0x1F",
    "-1.5e3",
    "inf",
    "nan",
    "true",
    "{}",
    '{ a = 1, "b.c" = [1, { d = "}" }], e.f = \'{\' }',
)

KEYS = ("key", '"quoted key"', "'literal#key'", '"\\u0041scaped"', "deep.er", 'deep . "e.r"')


@st.composite
def assignments(draw: st.DrawFn) -> str:
    """Lines of unknown keys, each with or without a comment."""
    lines = []
    for number in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(KEYS))
        value = draw(st.sampled_from(TRICKY_VALUES))
        indent = draw(st.sampled_from(("", "  ", "\t")))
        space = draw(st.sampled_from(("", " ", "\t")))
        comment = draw(st.sampled_from(("", " # a comment", '#"""')))
        lines.append(f"{indent}part{number}.{key}{space}={space}{value}{comment}\n")
    return "".join(lines)


@st.composite
def agent_blocks(draw: st.DrawFn, name: str) -> str:
    """One agent as a separate table, with comments that clearly belong to it."""
    header = draw(
        st.sampled_from((f"[agents.{name}]", f'[agents."{name}"]', f"[ agents . '{name}' ]"))
    )
    above = draw(st.sampled_from(("", f"# about {name}\n", f"# about\n# {name}\n")))
    directory = f"directory = '/srv/{name}' # of {name}\n"
    model = draw(st.sampled_from(("", 'model = "sonnet"\n', 'model="""\nsonnet"""#x\n')))
    below = draw(st.sampled_from(("", f"# timeout = 300 for {name}\n")))
    subtable = draw(st.sampled_from(("", f"[agents.{name}.env]\nHOME = '[x]'\n")))
    return f"{above}{header} # table\n{directory}{draw(assignments())}{model}{below}{subtable}"


@st.composite
def other_blocks(draw: st.DrawFn, number: int) -> str:
    """A table that is not an agent, or a comment that stands alone."""
    header = draw(
        st.sampled_from(
            (f"[other{number}]\n", f"[[list{number}]]\n", f"# alone {number}\n", f"[x{number}.y]\n")
        )
    )
    return header if header.startswith("#") else header + draw(assignments())


@st.composite
def agent_lines(draw: st.DrawFn, name: str) -> str:
    """One agent on separate lines below `[agents]`."""
    if draw(st.booleans()):
        part = draw(st.sampled_from(TRICKY_VALUES))
        return f"{name} = {{ directory = '/srv/{name}', part = {part} }} # of {name}\n"
    return f'{name}.directory = "/srv/{name}"\n"{name}" . model = "sonnet" # of {name}\n'


@st.composite
def documents(draw: st.DrawFn) -> list[tuple[str | None, str]]:
    """Blocks in order, each with the name of its agent or None."""
    names = [f"agent-{number}" for number in range(draw(st.integers(1, 4)))]
    blocks: list[tuple[str | None, str]] = [(name, draw(agent_blocks(name))) for name in names]
    blocks += [(None, draw(other_blocks(number))) for number in range(draw(st.integers(0, 3)))]
    lines = [f"line-{number}" for number in range(draw(st.integers(0, 2)))]
    top: list[tuple[str | None, str]] = [(None, "[agents] # all\n")] if lines else []
    top += [(name, draw(agent_lines(name))) for name in lines]
    return top + draw(st.permutations(blocks))
