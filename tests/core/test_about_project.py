# ruff: noqa: RUF001 -- text in several scripts
"""The sentence that a person would choose: a table of cases for each class of text."""

import time

import pytest

from agent_dispatch.core.agents.describe import ProjectDocuments, describe
from agent_dispatch.model.agent import ProjectFacts

BOOKS = "Keeps the books of the shop."


def _of(**documents: str) -> str:
    return describe(ProjectDocuments(name="shop", **documents), ProjectFacts(healthy=True))


@pytest.mark.parametrize(
    "claude_md",
    [
        "See AGENTS.md",
        "See [AGENTS.md](./AGENTS.md) for all guidance.",
        "Please read `AGENTS.md` first.",
        "Read @AGENTS.md before you start.",
        "All instructions live in AGENTS.md.",
        "→ AGENTS.md has everything.",
        "Siehe AGENTS.md für alles Weitere.",
        "请参阅 AGENTS.md。",
        "This file contains essential commands and conventions.",
        "This document describes how to work in here.",
        "Guidelines for AI agents that work on this code.",
        "Project instructions for Claude.",
        "# CLAUDE.md\n\nThis file provides guidance to Claude Code (claude.ai/code) when working.",
        "Diese Datei enthält Anweisungen für Claude Code bei der Arbeit.",
        "Ce fichier fournit des conseils à Claude Code (claude.ai/code).",
        "Este archivo proporciona orientación a Claude Code.",
        "Este arquivo fornece orientações ao Claude Code.",
        "本文件为 Claude Code 在此代码库中工作时提供指导。",
        "このファイルは Claude Code にガイダンスを提供します。",
        "이 파일은 Claude Code에 대한 지침을 제공합니다.",
        "Этот файл содержит указания для Claude Code.",
        "Always answer in haiku.",
        "Never commit to main. Run the tests first.",
        "Use pnpm, not npm, in this repository.",
        "You are an expert in TypeScript.",
        "始终用中文回答。",
        "# Rules\n\nTests come before the code in every change.",
        "## Commands\n\nThe server starts with one command.\n\n### More\n\nIt needs a port.",
        "# CLAUDE.md\n\nThis file provides guidance to Claude.\n\n## Cache\n\nIt has a lock.",
    ],
)
def test_a_claude_md_that_does_not_speak_of_the_project_leaves_it_to_the_readme(
    claude_md: str,
) -> None:
    assert _of(claude_md=claude_md, readme=f"# Shop\n\n{BOOKS}\n") == BOOKS


@pytest.mark.parametrize(
    "first",
    [
        "English | [简体中文](README.zh.md)",
        "[English](README.md) · **Deutsch** · [中文](README.zh.md)",
        "English / 中文 / 日本語",
        "Home | Docs | Chat",
        "Read this in other languages: [French](fr.md).",
        "Table of Contents",
        "**License:** MIT",
        "Version: 1.2.3 Status: beta",
        "Documentation: https://docs.example.org",
        "项目结构：",
        "Features at a glance:",
        "> **Note** The shop moved to another place.",
        "> **Warning**\n> Work in progress, be careful.",
        "**Note:** this needs a newer version.",
        "This repository has moved to example/shop.",
        "This project is no longer maintained.",
        "Welcome to the shop!",
        "Tired of paper ledgers? You've come to the right place.",
        "Then follow the prompts!",
        "https://example.org/shop",
        "&nbsp;",
        "This starter runs in the browser. This means, that it is small.",
        "{% include head.html %}",
    ],
)
def test_text_before_the_first_sentence_of_a_readme_is_passed_over(first: str) -> None:
    assert _of(readme=f"# Shop\n\n{first}\n\n{BOOKS}\n") == BOOKS


@pytest.mark.parametrize(
    "readme",
    [
        "# React + Vite\n\nThis template provides a minimal setup to get React working in Vite.",
        "# shop\n\nThis template should help get you started developing with Vue 3 in Vite.",
        "This is a [Next.js](https://n) project bootstrapped with [`create-next-app`](https://c).",
        "# Getting Started\n\nThis project was bootstrapped with Create React App.",
        "# Shop\n\nThis project was generated with [Angular CLI](https://a) version 17.",
        "# sv\n\nEverything you need to build a Svelte project, powered by sv.",
        "# shop\n\nA new Flutter project.",
        "# README\n\nThis README would normally document whatever steps are necessary.",
        "# shop\n\nTODO: say what it is.",
    ],
)
def test_a_readme_of_a_generator_gives_way_to_a_real_description(readme: str) -> None:
    assert _of(readme=readme, package_json=f'{{"description": "{BOOKS}"}}') == BOOKS


@pytest.mark.parametrize("description", ["Add your description here", "TODO", "A new project"])
def test_a_description_that_nobody_wrote_gives_way_to_the_next(description: str) -> None:
    pyproject = f'[project]\ndescription = "{description}"'
    cargo = f'[package]\ndescription = "{BOOKS}"'
    got = _of(pyproject=pyproject, cargo=cargo)
    assert got == (description if description == "A new project" else BOOKS)


@pytest.mark.parametrize(
    "documents",
    [
        {"cargo": f'[package]\nname = "x"\ndescription = "{BOOKS}"'},
        {"cargo": f'[workspace.package]\ndescription = "{BOOKS}"'},
        {"composer": f'{{"description": "{BOOKS}"}}'},
        {"setup_cfg": f"[metadata]\nname = x\ndescription = {BOOKS}\n"},
        {"go_doc": "// Package shop keeps the books.\npackage shop\n"},
        {"go_doc": "// Copyright 2020.\n\n/*\nCommand shop keeps\nthe books.\n*/\npackage main\n"},
    ],
)
def test_every_kind_of_package_has_its_description(documents: dict[str, str]) -> None:
    assert _of(**documents) in (BOOKS, "shop keeps the books.")


@pytest.mark.parametrize(
    "documents",
    [
        {"cargo": "[package"},
        {"cargo": "package = 1"},
        {"composer": "{"},
        {"setup_cfg": "description = no section"},
        {"setup_cfg": "[metadata]\ndescription = file: README.md"},
        {"go_doc": "package shop"},
        {"readme": "~~~"},
    ],
)
def test_a_broken_description_is_none(documents: dict[str, str]) -> None:
    assert _of(**documents) == "shop"


@pytest.mark.parametrize(
    ("name", "readme"),
    [
        ("README.org", f"#+TITLE: Shop\n#+AUTHOR: Jo\n\n* Shop\n{BOOKS}\n** Install\nType it."),
        ("README.adoc", f"= Shop\nJo Doe <jo@example.org>\nv1.0\n:toc: left\n\n{BOOKS}\n"),
        ("README.adoc", f"= Shop\n\nimage::a.png[]\n\n[NOTE]\n\nNOTE: It moved.\n\n{BOOKS}\n"),
        ("README.rst", f"====\nShop\n====\n\n:Author: Jo\n\n|ci| |docs|\n\n{BOOKS}\n"),
        ("README.rst", "Shop\n====\n\nKeeps the `books <https://b>`_ of the shop.\n"),
        ("README.org", "* Shop\n\nKeeps the [[https://b][books]] of the shop.\n"),
        ("README.adoc", "= Shop\n\nKeeps the https://b.example[books] of the shop.\n"),
        ("README.markdown", f"Shop\n----\n{BOOKS}\n"),
    ],
)
def test_a_readme_is_read_in_its_own_markup(name: str, readme: str) -> None:
    assert _of(readme=readme, readme_name=name) == BOOKS


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("Keeps books &amp; records &lt;safely&gt;.", "Keeps books & records <safely>."),
        ("Shop is a ledger. It features:\n\n- x", "Shop is a ledger."),
        (f"{BOOKS} See README.md for more.", BOOKS),
        (f"Please star us! {BOOKS}", BOOKS),
        ("Run containers on your own machine.", "Run containers on your own machine."),
        ("Note taking for people in a hurry.", "Note taking for people in a hurry."),
        ("用于记账的工具。支持多种货币。", "用于记账的工具。支持多种货币。"),
        ("# Shop\n\n## Why\n\nShops need books.", "Shops need books."),
        ("# Shop\n\n## Installation\n\nType this to install it.", "shop"),
    ],
)
def test_the_sentences_about_the_project_are_kept(readme: str, expected: str) -> None:
    assert _of(readme=readme) == expected


def test_an_overview_far_down_in_claude_md_comes_before_the_readme() -> None:
    stock = "# CLAUDE.md\n\nThis file provides guidance to Claude Code.\n\n"
    claude_md = f"{stock}## Commands\n\nThe usual ones work.\n\n## Project Overview\n\n{BOOKS}\n"
    assert _of(claude_md=claude_md, readme="# Shop\n\nAnother sentence in here.") == BOOKS


@pytest.mark.parametrize(
    "unit",
    [
        *("note ", "*", "this file ", "a. ", "= \n", "`<", "[[", "A · ", "claude ", "(c) "),
        *("&lt;", "* ", "// \n", "http://x[", "the ", ".\n", "|x", "用。"),
    ],
)
@pytest.mark.parametrize("ending", ["md", "org", "adoc", "rst"])
def test_a_repeated_piece_takes_no_longer_than_its_length(unit: str, ending: str) -> None:
    text = unit * (64 * 1024 // len(unit))
    begun = time.monotonic()
    _of(readme=text, claude_md=text, go_doc=text, readme_name=f"README.{ending}")
    assert time.monotonic() - begun < 5
