from pathlib import Path

import pytest

from bench.readme import NoBlockError, block_of, with_block, write_block

TEXT = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n"


def test_a_block_is_replaced_and_nothing_else() -> None:
    changed = with_block(TEXT, "speed", "| new |\n")
    assert changed == "before\n<!-- speed:begin -->\n\n| new |\n\n<!-- speed:end -->\nafter\n"


def test_writing_a_block_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    write_block("speed", "new", path)
    once = path.read_text()
    write_block("speed", block_of(once, "speed"), path)
    assert path.read_text() == once


@pytest.mark.parametrize(
    "text",
    [
        "nothing\n",
        "<!-- speed:begin -->\n",
        "<!-- speed:end -->\n<!-- speed:begin -->\n",
        TEXT + TEXT,
    ],
)
def test_a_text_without_exactly_one_block_is_refused(text: str) -> None:
    with pytest.raises(NoBlockError, match="speed:begin"):
        with_block(text, "speed", "new")
