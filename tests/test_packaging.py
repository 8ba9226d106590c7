"""What is published agrees with itself, and sends nobody to another product."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import agent_dispatch
from agent_dispatch.cli.setup.registration import SERVER_NAME

ROOT = Path(agent_dispatch.__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY: str = PROJECT["urls"]["Repository"]


def _json(path: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return document


def _links_absolute(text: str) -> str:
    """What the metadata hook makes of a text; it runs in the environment of builds."""
    code = "import sys, hatch_build; print(hatch_build.with_absolute_links(sys.stdin.read(), 'U'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_versions_agree() -> None:
    versions = {
        _json("server.json")["version"],
        _json("plugin/.claude-plugin/plugin.json")["version"],
        agent_dispatch.__version__,
    }
    assert len(versions) == 1


def test_the_registry_is_told_of_no_package_while_its_name_belongs_to_another() -> None:
    server = _json("server.json")
    assert PROJECT["name"] != "agent-dispatch" or "packages" not in server
    assert server["websiteUrl"] == REPOSITORY
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", server["name"])
    assert len(server["description"]) <= 100


def test_every_url_of_the_project_follows_the_repository() -> None:
    assert {"Repository", "Changelog", "Documentation", "Issues"} <= PROJECT["urls"].keys()
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())
    for url in PROJECT["urls"].values():
        if "/blob/main/" in url:
            assert (ROOT / url.partition("/blob/main/")[2]).is_file()


def test_every_python_from_the_oldest_to_the_newest_is_named() -> None:
    oldest = int(PROJECT["requires-python"].removeprefix(">=3."))
    named = [line.rpartition(" :: 3.")[2] for line in PROJECT["classifiers"] if " :: 3." in line]
    assert [int(minor) for minor in named] == list(range(oldest, 15))


def test_links_of_the_readme_work_on_the_package_index() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = _links_absolute(readme)
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    assert targets
    assert all(target.startswith(("https://", "U/blob/main/", "U/raw/main/")) for target in targets)
    for target in targets:
        if target.startswith("U/"):
            path = re.sub(r"^U/(blob|raw)/main/", "", target).partition("#")[0]
            assert (ROOT / path).exists(), target


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](docs/a.md#b)", "[a](U/blob/main/docs/a.md#b)"),
        ("![a](docs/a.svg)", "![a](U/raw/main/docs/a.svg)"),
        ("[a](https://b.c/d)", "[a](https://b.c/d)"),
        ("[a](#b)", "[a](#b)"),
    ],
)
def test_only_relative_links_are_changed(text: str, shown: str) -> None:
    assert _links_absolute(text).strip() == shown


def test_nothing_tells_anybody_to_install_the_other_product() -> None:
    # By its name the package index gives another program.
    install = re.compile(
        r"(?:pip3? install|pipx (?:install|run)|uv tool (?:install|run)|uvx|uv pip install|--with)"
        rf"(?: -\S+)* ['\"]?{SERVER_NAME}\b"
    )
    files = [
        *(ROOT / "agent_dispatch").rglob("*.py"),
        *(ROOT / "plugin").rglob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *ROOT.glob("*.md"),
    ]
    told = {
        f"{path.name}: {found[0]}"
        for path in files
        for found in install.finditer(path.read_text(encoding="utf-8"))
    }
    assert told == set()


def test_the_plugin_starts_without_the_clone() -> None:
    servers = _json("plugin/.mcp.json")["mcpServers"]
    assert [servers[name]["command"] for name in servers] == [SERVER_NAME]
    [plugin] = _json(".claude-plugin/marketplace.json")["plugins"]
    assert (ROOT / plugin["source"] / ".claude-plugin" / "plugin.json").is_file()
    assert plugin["source"].startswith("./")


@pytest.mark.parametrize("name", [PROJECT["name"], "another-name"])
def test_wheel_and_sdist_are_built_and_pass_the_checks_of_the_index(
    tmp_path: Path, name: str
) -> None:
    # The name is one setting: nothing else has to change with it.
    tree = tmp_path / "tree"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(".*cache*", ".venv", ".git", ".hypothesis", "__pycache__"),
    )
    text = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(
        text.replace(f'name = "{PROJECT["name"]}"', f'name = "{name}"')
    )
    built = tmp_path / "dist"
    for command in (
        ("hatchling", "build", "-d", str(built)),
        ("twine", "check", "--strict", f"{built}/*"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tree, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = built.glob("*.whl")
    assert wheel.name.startswith(f"{name.replace('-', '_')}-{agent_dispatch.__version__}-")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert {"agent_dispatch/__main__.py", "agent_dispatch/server/stdio/front_door.tsv"} <= names
    assert {path.split("/")[0] for path in names if ".dist-info/" not in path} == {"agent_dispatch"}
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        kept = {path.partition("/")[2] for path in archive.getnames()}
    assert {"plugin/.mcp.json", ".claude-plugin/marketplace.json", "server.json"} <= kept
