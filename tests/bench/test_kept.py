import json
from pathlib import Path

import pytest

from bench import kept
from bench.kept import NoBlockError, block_of, with_block


def test_a_result_is_kept_and_shown_as_it_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- speed:begin -->\n<!-- speed:end -->\n")
    kept.keep("speed", {"ms": (1, 2)}, str, folder=tmp_path, page=page)
    told = json.loads((tmp_path / "speed.json").read_text())
    assert told == {"ms": [1, 2]}
    assert block_of(page.read_text(), "speed").strip() == str(told)


def test_a_result_without_a_place_on_the_page_is_not_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(NoBlockError):
        kept.keep("speed", {}, str, folder=tmp_path, page=page)
    assert not (tmp_path / "speed.json").exists()


TEXT = "before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n"


def test_a_block_is_replaced_and_nothing_else() -> None:
    changed = with_block(TEXT, "speed", "| new |\n")
    assert changed == "before\n<!-- speed:begin -->\n\n| new |\n\n<!-- speed:end -->\nafter\n"
    assert with_block(changed, "speed", block_of(changed, "speed")) == changed


@pytest.mark.parametrize(
    "text", ["nothing\n", "<!-- speed:end -->\n<!-- speed:begin -->\n", TEXT + TEXT]
)
def test_a_text_without_exactly_one_block_is_refused(text: str) -> None:
    with pytest.raises(NoBlockError, match="speed:begin"):
        with_block(text, "speed", "new")
