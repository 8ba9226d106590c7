"""`TABLE.md` names only tests and faults that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from bench.chaos.agents import ENDING, HANGING
from bench.chaos.plan import FAULTS

HERE = Path(__file__).parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (HERE / "TABLE.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]


@cache
def functions(path: str) -> set[str]:
    """Names of what is defined in a file of tests."""
    tree = ast.parse((HERE.parent / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | {
        node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_each_fault_has_tests_that_exist(row: list[str]) -> None:
    _, fault, outcome, tests, _ = row
    assert fault
    assert outcome
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", tests)
    assert named
    assert len(named) == tests.count("::")
    for path, name in named:
        assert name in functions(path)


def test_the_table_has_all_faults_including_those_of_chaos() -> None:
    assert [row[0] for row in ROWS] == [str(number) for number in range(1, 49)]
    told = {name for row in ROWS for name in re.findall("`([^`]+)`", row[4])}
    assert told <= {*FAULTS, *HANGING, *ENDING}
    assert told >= {*FAULTS}
