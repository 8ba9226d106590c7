"""Masks what looks like a key in text that is shown, logged or sent on.

Progress lines, the tails of stderr, error texts, the output of `verify`, denied calls and
notifications are masked. Prompts, results and questions are not: the caller asked for them.

At most four characters of a key stay, followed by an ellipsis. Patterns match the beginning of a
key, so that a key that was cut off is masked too.
"""

import functools
import re

_SIGN = "…"
_KEPT_CHARS = 4

_WORD_START = r"(?<![A-Za-z0-9])"
_VALUE = r"[^\s\"'`,;&|<>(){}\[\]\\…]"
_QUOTE = r"(?:\\?[\"'])?"
_SECRET_WORD = (
    r"(?:password|passwd|passphrase|pwd|(?<=_)pass|secret|token|credentials?"
    r"|(?:api|access|secret|account|private|auth)[_-]?key)"
)
_ASSIGNMENT = _QUOTE + r"\s*(?:=|:(?!:)|=>)\s*"
# "Unexpected token: end", `token = Name.Function`: words that also mean something else.
_NO_PROSE = r"(?!(?<=(?i:token: |oken = )|ntial: )[A-Za-z_.]+(?:[\s,;)]|$))"
_NO_VALUE = (
    r"(?!(?:null|none|nil|true|false|undefined|string|str|bytes|optional|required"
    r"|secret(?:str|bytes))\b)"
)
_NO_PATH = r"(?!(?:~|\.{1,2})?/[\w.-]+(?:/|\.|$|\s))"
_NO_REFERENCE = r"(?!\$)"
_NAMED = rf"(?i:{_SECRET_WORD}){_ASSIGNMENT}"

PATTERNS = {
    # Anthropic API documentation: keys begin with sk-ant- (sk-ant-api03-, sk-ant-oat01-).
    "anthropic": _WORD_START + r"sk-ant-[A-Za-z0-9_-]{6,}",
    # OpenAI API reference: keys begin with sk-, sk-proj-, sk-svcacct- or sk-admin-. The names of
    # some packages begin with sk- too.
    "openai": (
        _WORD_START + r"sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{6,}"
        r"|(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}|[A-Za-z0-9]{20,})"
    ),
    # AWS IAM User Guide, unique identifiers of access keys.
    "aws_id": _WORD_START + r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{10,16}(?![0-9A-Za-z])",
    # AWS CLI User Guide, environment variables and the shared credentials file.
    "aws_secret": (
        r"(?i:aws_?secret_?access_?key|aws_?session_?token|secretaccesskey|sessiontoken)"
        rf"{_QUOTE}\s*[:=]\s*{_QUOTE}(?P<aws_secret>[A-Za-z0-9/+=]{{8,}}+)"
    ),
    # GitHub Docs, About authentication to GitHub: token formats.
    "github": _WORD_START + r"(?:gh[pousr]_[A-Za-z0-9]{6,}|github_pat_[A-Za-z0-9_]{6,})",
    # GitLab Docs, token overview: token prefixes.
    "gitlab": _WORD_START + r"gl(?:pat|dt|ptt|rt|cbt|oas|soat|ft|imt|agent)-[A-Za-z0-9_.-]{6,}",
    # Slack API documentation, token types.
    "slack": (
        rf"{_WORD_START}xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{{6,}}"
        rf"|{_WORD_START}xapp-\d-[A-Za-z0-9-]{{6,}}"
    ),
    # Slack API documentation, incoming webhooks: the address is the secret.
    "slack_webhook": (
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<slack_webhook>[A-Za-z0-9/_-]{6,})"
    ),
    # Stripe documentation, API keys and webhook signing secrets.
    "stripe": _WORD_START + r"(?:(?:sk|rk)_(?:live|test)|whsec)_[A-Za-z0-9]{6,}",
    # Google Cloud documentation, API keys.
    "google_api": _WORD_START + r"AIza[0-9A-Za-z_-]{10,}",
    # Google Identity documentation, OAuth 2.0 access tokens and client secrets.
    "google_oauth": _WORD_START + r"(?:ya29\.[0-9A-Za-z_-]{6,}|GOCSPX-[0-9A-Za-z_-]{6,})",
    # npm, PyPI, Docker Hub and RubyGems documentation of access tokens.
    "registry": (
        _WORD_START + r"(?:npm_[A-Za-z0-9]{20,}|pypi-AgE[A-Za-z0-9_-]{6,}"
        r"|dckr_(?:pat|oat)_[A-Za-z0-9_-]{6,}|rubygems_[0-9a-f]{20,})"
    ),
    # Hugging Face Hub documentation, user access tokens.
    "hugging_face": (
        _WORD_START + r"hf_(?:(?=[a-z]*[A-Z])(?=[A-Z]*[a-z])[A-Za-z]{10,}|[A-Za-z0-9]{20,})"
    ),
    # Documentation of DigitalOcean, HashiCorp Vault, Doppler, Shopify, Grafana, Linear, Notion,
    # Postman, Databricks and SendGrid: token formats.
    "hosting": (
        _WORD_START + r"(?:do[opr]_v1_[0-9a-f]{16,}|hvs\.[A-Za-z0-9_-]{10,}"
        r"|dp\.(?:pt|st|ct|sa)\.\w{10,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{16,}"
        r"|glsa_[A-Za-z0-9_]{16,}|lin_api_\w{16,}|ntn_\w{16,}|PMAK-[0-9a-f-]{16,}"
        r"|dapi[0-9a-f]{16,}|SG\.[\w-]{16,}(?:\.[\w-]+)?)"
    ),
    # Twilio documentation, API keys; Mailgun documentation, private API keys.
    "messages": (
        _WORD_START + r"(?:SK[0-9a-f]{20,32}(?![0-9A-Za-z])|key-[0-9a-f]{20,32}(?![0-9A-Za-z]))"
    ),
    # Square developer documentation, access tokens and secrets.
    "square": _WORD_START + r"(?:sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{6,}|EAAA[A-Za-z0-9_-]{40,})",
    # AWS, Azure and Google Cloud documentation of presigned addresses.
    "signed_address": (
        r"(?i:[?&](?:sig|x-amz-(?:signature|security-token|credential)|x-goog-signature))="
        r"(?P<signed_address>[^&\s\"'…]{6,}+)(?!…)"
    ),
    # RFC 6265, sections 4.1 and 4.2: the Cookie and Set-Cookie headers.
    "cookie": (
        rf"(?i:(?<![A-Za-z])(?:set-)?cookie){_QUOTE}:\s*{_QUOTE}"
        r"(?P<cookie>[A-Za-z0-9_.-]+=[^\"'\r\n…]{4,}+)(?!…)"
    ),
    # Telegram Bot API, authorizing a bot.
    "telegram": r"(?<![0-9A-Za-z])(?:bot)?\d{8,10}:AA[A-Za-z0-9_-]{20,}",
    # RFC 7519, JSON Web Token, and RFC 7516: base64url of an object.
    "jwt": _WORD_START + r"eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){0,4}",
    # RFC 7468, textual encodings of private keys; RFC 4880, ASCII armor.
    "private_key": (
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?P<private_key>[\s\S]+?)"
        r"(?:-----END|\Z)"
    ),
    # age, the format of X25519 identities.
    "age": _WORD_START + r"AGE-SECRET-KEY-1[0-9A-Z]{6,}",
    # RFC 3986, section 3.2.1: user information of an address.
    "url_password": r"(?<=[A-Za-z0-9])://[^/\s:@\"']*:(?P<url_password>[^/\s@\"'…]+)@",
    # RFC 9110, section 11.6.2: the Authorization header.
    "authorization": (
        rf"(?i:(?:proxy-)?authorization){_QUOTE}\s*[:=]\s*{_QUOTE}"
        r"(?>(?:(?i:bearer|basic|token|digest|negotiate|apikey)\s+)?)"
        rf"(?P<authorization>{_NO_REFERENCE}{_VALUE}{{4,}}+)(?!…)"
    ),
    # RFC 6750, section 2.1: bearer tokens.
    "bearer": (
        _WORD_START + r"(?i:bearer)\s+"
        r"(?P<bearer>(?=[A-Za-z._~+/-]*\d)[A-Za-z0-9._~+/=-]{12,}+)(?!…)"
    ),
    # A field whose name says that its value is secret, with the value in quotation marks.
    "quoted": rf"{_NAMED}\\?\"(?P<quoted>{_NO_REFERENCE}{_NO_PATH}[^\"\\…]{{4,}}+)(?=\\?\")",
    "single_quoted": rf"{_NAMED}'(?P<single_quoted>{_NO_REFERENCE}{_NO_PATH}[^'…]{{4,}}+)(?=')",
    # A variable, field or option whose name says that its value is secret, as in gitleaks' generic
    # rule.
    "assignment": (
        rf"{_NAMED}{_QUOTE}(?P<assignment>{_NO_REFERENCE}(?i:{_NO_VALUE}){_NO_PATH}{_NO_PROSE}"
        rf"{_VALUE}{{4,}}+)(?!…|\(|\[)"
    ),
    # The same for an option with its value after a space, as in --password VALUE.
    "option": (
        rf"(?<!\S)--?(?i:[\w-]*{_SECRET_WORD})\s+{_QUOTE}"
        rf"(?P<option>(?!-){_NO_REFERENCE}{_NO_PATH}{_VALUE}{{4,}}+)(?!…)"
    ),
}
"""The kinds of keys, each below the document that describes its format. If only a part of the match
is the key, that part is a group with the name of the kind."""

_HINT = (
    r"sk-|A[KSBC][IC]A|gh[pousr]_|github_pat|gl[a-z]{2,5}-|xox|xapp-|slack|[sr]k_|whsec|AIza|ya29"
    r"|GOCSPX|npm_|pypi-|dckr|rubygems|hf_|_v1_|hvs\.|dp\.|shp|glsa|lin_api|ntn_|PMAK|dapi|SG\.|:AA"
    r"|SK[0-9]|SK[a-f]|sq0|EAAA|[sS]ig=|[sS]ignature|(?i:amz-|cookie)"
    r"|eyJ|PRIVATE KEY|SECRET|@|(?i:key|secret|token|passw|passphrase|pwd|_pass"
    r"|credential|bearer|author)"
)
"""Found in every text with a key of any kind; most texts need no closer look."""


def mask(text: str) -> str:
    """Cut what looks like a key to its first characters and `…`; masking twice changes nothing."""
    return _keys().sub(_masked, text) if _hints().search(text) else text


@functools.cache
def _hints() -> re.Pattern[str]:
    return re.compile(_HINT)


@functools.cache
def _keys() -> re.Pattern[str]:
    # Compiled on first use: it takes some milliseconds, and most runs do not need it.
    return re.compile("|".join(f"(?:{pattern})" for pattern in PATTERNS.values()))


def _masked(match: re.Match[str]) -> str:
    whole, group = match[0], match.lastgroup
    if group is None:
        return _shown(whole)
    begin, end = match.start(group) - match.start(), match.end(group) - match.start()
    value = _SIGN if group == "private_key" else _shown(whole[begin:end])
    return whole[:begin] + value + whole[end:]


def _shown(value: str) -> str:
    """Keep the beginning of a value, short enough that even a short value cannot be guessed."""
    return value[: min(_KEPT_CHARS, len(value) // 4)] + _SIGN
