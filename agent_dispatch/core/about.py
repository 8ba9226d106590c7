# ruff: noqa: E501, RUF001 -- lists of words, in several scripts
"""Words by which a sentence shows that it is not about the project it stands in."""

import re

FILE_MENTION = re.compile(
    r"(?:agents|claude|gemini|contributing|copilot-instructions|readme)(?:\.local)?\.md\b"
    r"|\.cursor(?:rules|/rules)",
    re.IGNORECASE,
)
_SELF = (
    r"(?:this|the following|diese[sr]?|ce|cette|este|esta|questo|dit|deze|denna|detta|ten|bu|tento|"
    r"этот|данный)\s(?:\w+\s)?(?:file|document|guide|page|readme|datei|dokument|fichier|documento?|"
    r"archivo|arquivo|bestand|fil|plik|dosya|soubor|файл|документ)\b"
    r"|(?:本|此|该|這個?|这个?)(?:项目)?(?:文件|文档|文檔|檔案)|(?:この|本)(?:ファイル|文書|ドキュメント)|이 (?:파일|문서)"
)
NOT_ABOUT = re.compile(
    # It speaks of itself, or of the people and programs that should read it.
    rf"(?:{_SELF})"
    r"|(?:\w+ ){0,3}(?:guidance|instructions|guidelines|notes|rules|context|memory|conventions|guide|"
    r"anweisungen|hinweise|consignes|instrucciones|instruções|инструкции|руководство)"
    r" (?:for|to|für|pour|para|для)\b"
    r"|.{0,40}claude.{0,80}(?:提供|指导|指引|指示|ガイダンス|안내|지침)|(?:为|為|给) ?claude"
    # It points elsewhere.
    r"|(?:see|refer to|please|read (?:the|this|our|it|me|more)|check out|visit|follow (?:the|us)|"
    r"join (?:the|us|our)|click|looking for|for (?:more|full|details|the (?:full|latest)|further)|"
    r"siehe|voir|véase|consulte|lees|vedi|請|请参|参见|参照|詳しくは|см\.)(?![A-Za-zÀ-ÿЀ-ӿ])"
    # It is a rule.
    r"|(?:always|never|do not|don't|make sure|ensure|you (?:must|should|can|need)|when you|before you|"
    r"if you|immer|niemals|toujours|siempre|sempre|всегда|никогда|始终|总是|必须|请|常に|必ず|禁止)(?![A-Za-zÀ-ÿЀ-ӿ])"
    r"|you are an? (?:\w+ ){0,2}(?:expert|senior|helpful|assistant|experienced|engineer|developer)"
    # A menu, a label or what the head of a README has besides.
    r"|(?:table of contents|contents|toc|read (?:this|it) in|languages?|translations?|other languages|"
    r"目录|目次|目錄)(?![A-Za-zÀ-ÿЀ-ӿ])(?! of| for| that| is)"
    r"|(?:license|licence|version|authors?|maintainers?|status|website|homepage|home page|web|docs|"
    r"documentation|source(?: code)?|repository|repo|chat|issues|bugs|download|tags|date|last updated|"
    r"copyright|demo|email|mail|contact|slack|discord|twitter|build|ci|coverage)\s?[:：]"
    r"|(?:copyright|©|\(c\))\s|licensed under|(?:sponsored|supported|maintained|made|built) (?:by|with)\b"
    # What a generator wrote.
    r"|(?:then|this means|however)\b|welcome to [^.!]{1,40}[.!]?$|this (?:template\b|starter\b|boilerplate\b|\[?[\w.]+\]? (?:project|app) (?:was|is) (?:bootstrapped|generated|created))"
    r"|(?:this|here) (?:is|was) .{0,80}\b(?:bootstrapped|generated|created|scaffolded)\b"
    r"|this (?:project|app|application|library|package) was (?:bootstrapped|generated|created|scaffolded)"
    r"|everything you need to build a svelte project|a new flutter (?:project|plugin|package)"
    r"|this readme would normally|to make it easy for you to get started with gitlab"
    r"|welcome to your new|(?:getting started with create react app)|look at the .{0,20}nuxt"
    r"|(?:add|put|insert|enter|write)? ?(?:your|a|the)? ?(?:short |brief |project )*"
    r"(?:description|project description)(?: of (?:the|your|this) (?:project|package))?"
    r"(?: goes)?(?: here)?\W*$|todo\b|tbd\b|wip\b|lorem ipsum|my new project|default template"
    r"|the skeleton application for the laravel|laravel is a web application framework with expressive"
    r"|(?:https?|www)[:.]\S+$",
    re.IGNORECASE,
)
MOVED = re.compile(
    r"\b(?:has (?:been )?(?:moved|renamed|deprecated|archived)|(?:have|was) moved|moved to"
    r"|no longer (?:maintained|developed|supported)|is (?:deprecated|archived|unmaintained)"
    r"|star (?:us|this)|we(?:'re| are) hiring)\b",
    re.IGNORECASE,
)
RULE = re.compile(
    r"(?:use|run|read|write|keep|answer|respond|reply|prefer|avoid|follow|be|check|install|add|update|"
    r"test|think|speak|work|start|ask|commit|format|stick|only|no|remember|note|treat|verify|important|"
    r"load|talk|explain|review|document|must|all (?:code|commits|changes|tests))(?![A-Za-zÀ-ÿЀ-ӿ])",
    re.IGNORECASE,
)
"""Imperatives: a rule in a file of instructions, perhaps a slogan in a README."""
NOTE = re.compile(
    r"\W{0,6}(?P<mark>[*_]{0,2})(?:\w+ )?(?:note|notice|warning|important|tip|caution|attention|heads.?up|update|"
    r"news|announcement|disclaimer|deprecated|deprecation notice|hinweis|achtung|注意|提示)\b"
    r"(?:(?P=mark)\s*[:：!.—-]|[:：!]|(?<=\w)[*_]{2}|$)",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z])|(?<=[。！？])")
MENU_BORDER = re.compile(r"\s*[|·•¦]\s*|\s+[/—–-]\s+")
ABOUT = re.compile(
    r"\W*(?:\d+\.?\s*)?(?:(?:project|repository|repo|product|general|quick|high.level)\s)?"
    r"(?:overview|about|introduction|intro|summary|description|what (?:is|it|this)|purpose|abstract|"
    r"background|why|synopsis|mission|the project|project\b|überblick|projekt|aperçu|présentation|"
    r"resumen|descripción|descrição|visão geral|обзор|описание|о проекте|项目|專案|简介|概述|概要|介绍|"
    r"プロジェクト|개요|소개)",
    re.IGNORECASE,
)
HOW_TO = re.compile(
    r"\W*(?:\d+\.?\s*)?(?:\w+\s){0,3}(?:table of contents|contents|commands?|build\w*|tests?|testing|"
    r"styles?|rules?|conventions?|workflow|install\w*|usage|getting started|quick ?start|setup|"
    r"development|contribut\w+|licen[sc]e|changelog|faq|support|sponsors?|credits|requirements|"
    r"prerequisites|documentation|docs|links|guidelines?|instructions?|release\w*|deploy\w*|"
    r"troubleshooting|authors?|community|acknowledg\w+|security|notes?|news|git|linting|formatting|"
    r"architecture|structure|befehle|命令|安装|使用|测试|规范|コマンド|テスト|目录|目次)(?![A-Za-zÀ-ÿЀ-ӿ])",
    re.IGNORECASE,
)
