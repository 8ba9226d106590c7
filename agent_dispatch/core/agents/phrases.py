# ruff: noqa: RUF001 -- words in several scripts
"""Phrases that tell whether a sentence or a heading is about the project, in tables by class.

In a table, phrases are separated by ` | ` or a line break; each is a regular expression.
"""

import re


def _any_of(*tables: str) -> str:
    phrases = (re.split(r"\s+\|\s+|\s*\n\s*", table.strip()) for table in tables)
    return "(?:" + "|".join(phrase for table in phrases for phrase in table) + ")"


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_WORD_ENDS = "(?![A-Za-zÀ-ÿЀ-ӿ])"
"""Not `\\b`: in CJK the next word follows without a space."""

_THIS = """
    this | the following | diese[sr]? | ce | cette | este | esta | questo | dit | deze | denna
    detta | ten | bu | tento | этот | данный
"""
_FILE = """
    file | document | guide | page | readme | datei | dokument | fichier | documento? | archivo
    arquivo | bestand | fil | plik | dosya | soubor | файл | документ
"""
_THIS_FILE = rf"""
    {_any_of(_THIS)}\s(?:\w+\s)?{_any_of(_FILE)}\b
    (?:本|此|该|這個?|这个?)(?:项目)?(?:文件|文档|文檔|檔案)
    (?:この|本)(?:ファイル|文書|ドキュメント)
    이 (?:파일|문서)
"""
_GUIDANCE = """
    guidance | instructions | guidelines | notes | rules | context | memory | conventions | guide
    anweisungen | hinweise | consignes | instrucciones | instruções | инструкции | руководство
"""
_FOR_READERS = rf"""
    (?:\w+ ){{0,3}}{_any_of(_GUIDANCE)} (?:for|to|für|pour|para|для)\b
    .{{0,40}}claude.{{0,80}}(?:提供|指导|指引|指示|ガイダンス|안내|지침)
    (?:为|為|给) ?claude
"""
_POINTS_ELSEWHERE = """
    see | refer to | please | read (?:the|this|our|it|me|more) | check out | visit
    follow (?:the|us) | join (?:the|us|our) | click | looking for
    for (?:more|full|details|the (?:full|latest)|further)
    siehe | voir | véase | consulte | lees | vedi | см\\.
    請 | 请参 | 参见 | 参照 | 詳しくは
"""
_RULE = """
    always | never | do not | don't | make sure | ensure | you (?:must|should|can|need)
    you(?:'re|'ve|'ll) | when you | before you | if you
    immer | niemals | toujours | siempre | sempre | всегда | никогда
    始终 | 总是 | 必须 | 请 | 常に | 必ず | 禁止
"""
_ROLE = (
    r"you are an? (?:\w+ ){0,2}(?:expert|senior|helpful|assistant|experienced|engineer|developer)"
)
_MENU = """
    table of contents | contents | toc | read (?:this|it) in | languages? | translations?
    other languages | 目录 | 目次 | 目錄
"""
_LABEL = """
    license | licence | version | authors? | maintainers? | status | website | homepage | home page
    web | docs | documentation | source(?: code)? | repository | repo | chat | issues | bugs
    download | tags | date | last updated | copyright | demo | email | mail | contact | slack
    discord | twitter | build | ci | coverage
"""
_SMALL_PRINT = r"""
    (?:copyright|©|\(c\))\s | licensed under
    (?:sponsored|supported|maintained|made|built) (?:by|with)\b
    (?:https?|www)[:.]\S+$
"""
_MADE = "(?:bootstrapped|generated|created|scaffolded)"
_GENERATOR = rf"""
    (?:then|this means|however|but)\b | welcome to [^.!]{{1,40}}[.!]?$ | welcome to your new
    this (?:template|starter|boilerplate)\b
    this \[?[\w.]+\]? (?:project|app) (?:was|is) (?:bootstrapped|generated|created)
    (?:this|here) (?:is|was) .{{0,80}}\b{_MADE}\b
    this (?:project|app|application|library|package) was {_MADE}
    everything you need to build a svelte project | a new flutter (?:project|plugin|package)
    this readme would normally | to make it easy for you to get started with gitlab
    getting started with create react app | look at the .{{0,20}}nuxt
    the skeleton application for the laravel
    laravel is a web application framework with expressive
    todo\b | tbd\b | wip\b | lorem ipsum | my new project | default template
"""
_PLACEHOLDER = (
    r"(?:add|put|insert|enter|write)? ?(?:your|a|the)? ?(?:short |brief |project )*"
    r"(?:description|project description)(?: of (?:the|your|this) (?:project|package))?"
    r"(?: goes)?(?: here)?\W*$"
)
_NEWS = r"""
    has (?:been )?(?:moved|renamed|deprecated|archived) | (?:have|was) moved | moved to
    no longer (?:maintained|developed|supported) | is (?:deprecated|archived|unmaintained)
    star (?:us|this) | we(?:'re| are) hiring
"""
_IMPERATIVE = """
    use | run | read | write | keep | answer | respond | reply | prefer | avoid | follow | be
    check | install | add | update | test | think | speak | work | start | ask | commit | format
    stick | only | no | remember | note | treat | verify | important | load | talk | explain
    review | document | must | all (?:code|commits|changes|tests)
"""
_NOTE = r"""
    note | notice | warning | important | tip | caution | attention | heads.?up | update | news
    announcement | disclaimer | deprecated | deprecation notice | hinweis | achtung | 注意 | 提示
"""
_OVERVIEW = r"""
    overview | about | introduction | intro | summary | description | what (?:is|it|this)
    purpose | abstract | background | why | synopsis | mission | the project | project\b
    überblick | projekt | aperçu | présentation | resumen | descripción | descrição | visão geral
    обзор | описание | о проекте
    项目 | 專案 | 简介 | 概述 | 概要 | 介绍 | プロジェクト | 개요 | 소개
"""
_TOPIC = r"""
    table of contents | contents | commands? | build\w* | tests? | testing | styles? | rules?
    conventions? | workflow | install\w* | usage | getting started | quick ?start | setup
    development | contribut\w+ | licen[sc]e | changelog | faq | support | sponsors? | credits
    requirements | prerequisites | documentation | docs | links | guidelines? | instructions?
    release\w* | deploy\w* | troubleshooting | authors? | community | acknowledg\w+ | security
    notes? | news | git | linting | formatting | architecture | structure
    befehle | 命令 | 安装 | 使用 | 测试 | 规范 | コマンド | テスト | 目录 | 目次
"""
_NUMBERED = r"\W*(?:\d+\.?\s*)?"

FILE_MENTION = _compile(
    r"(?:agents|claude|gemini|contributing|copilot-instructions|readme)(?:\.local)?\.md\b"
    r"|\.cursor(?:rules|/rules)"
)
NOT_ABOUT = _compile(
    "|".join(
        (
            _any_of(_THIS_FILE, _FOR_READERS, _ROLE, _SMALL_PRINT, _GENERATOR),
            _any_of(_POINTS_ELSEWHERE, _RULE) + _WORD_ENDS,
            rf"{_any_of(_MENU)}{_WORD_ENDS}(?! of| for| that| is)",
            rf"{_any_of(_LABEL)}\s?[:：]",
            _PLACEHOLDER,
        )
    )
)
MOVED = _compile(rf"\b{_any_of(_NEWS)}\b")
RULE = _compile(_any_of(_IMPERATIVE) + _WORD_ENDS)
"""Imperatives: a rule in a file of instructions, perhaps a slogan in a README."""
NOTE = _compile(
    rf"\W{{0,6}}(?P<mark>[*_]{{0,2}})(?:\w+ )?{_any_of(_NOTE)}\b"
    r"(?:(?P=mark)\s*[:：!.—-]|[:：!]|(?<=\w)[*_]{2}|$)"
)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z])|(?<=[。！？])")
MENU_BORDER = re.compile(r"\s*[|·•¦]\s*|\s+[/—–-]\s+")
ABOUT = _compile(
    rf"{_NUMBERED}(?:(?:project|repository|repo|product|general|quick|high.level)\s)?"
    rf"{_any_of(_OVERVIEW)}"
)
HOW_TO = _compile(rf"{_NUMBERED}(?:\w+\s){{0,3}}{_any_of(_TOPIC)}{_WORD_ENDS}")
