import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.masking import PATTERNS, mask

# Made up, and put together here so that no scanner takes them for real ones.
LETTERS = "q9W8e7R6t5Y4u3I2o1P0aSdFgHjKlZxCvBnM"
HEX = "0123456789abcdef" * 2
KEYS = {
    "anthropic": [f"sk-ant-{kind}-{LETTERS}" for kind in ("api03", "oat01", "admin01")],
    "openai": [f"sk-{LETTERS}", f"sk-proj-{LETTERS}", f"sk-svcacct-{LETTERS}", f"sk-{'a' * 48}"],
    "aws_id": ["AKIA" + "Q9W8E7R6T5Y4U3I2", "ASIA" + "Q9W8E7R6T5Y4U3I2"],
    "github": [*(f"gh{kind}_{LETTERS}" for kind in "pousr"), f"github_pat_{LETTERS}"],
    "gitlab": [f"glpat-{LETTERS}", f"glrt-{LETTERS}"],
    "slack": [f"xoxb-123456789012-{LETTERS}", f"xoxp-1-{LETTERS}", f"xapp-1-A1-{LETTERS}"],
    "stripe": [f"sk_live_{LETTERS}", f"rk_test_{LETTERS}", f"whsec_{LETTERS}"],
    "google_api": [f"AIza{LETTERS}"],
    "google_oauth": [f"ya29.{LETTERS}", f"GOCSPX-{LETTERS}"],
    "registry": [f"npm_{LETTERS}", f"pypi-AgEIcHlwaS5vcmc{LETTERS}", f"dckr_pat_{LETTERS}"],
    "hugging_face": ["hf_" + "abcdefghijKLMNOPQRST", "hf_" + "a" * 34],
    "messages": [f"SK{HEX}", f"key-{HEX}"],
    "square": [f"sq0atp-{LETTERS}", f"EAAA{LETTERS}{LETTERS}"],
    "hosting": [f"dop_v1_{HEX}", f"hvs.{LETTERS}", f"shpat_{HEX}", f"SG.{LETTERS}.{LETTERS}"],
    "telegram": [f"1234567890:AA{LETTERS}"],
    "jwt": [f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{LETTERS}", "eyJhbGciOiJIUzI1NiJ9.eyJz"],
    "age": ["AGE-SECRET-KEY-1" + "Q9W8E7R6T5Y4U3I2"],
}
"""Kind of key -> keys that are recognized wherever they stand."""

INSIDE = [
    ("slack_webhook", f"https://hooks.slack.com/services/{{T0/B0/{LETTERS}}}"),
    ("aws_secret", f"AWS_SECRET_ACCESS_KEY={{/{LETTERS}+/x=}}"),
    ("aws_secret", f'"SecretAccessKey": "{{{LETTERS}}}"'),
    ("url_password", "git clone https://me:{pa55word}@example.org/x.git"),
    ("authorization", f"curl -H 'Authorization: Bearer {{{LETTERS}}}'"),
    ("authorization", "Proxy-Authorization: Basic {dXNlcjpwYXNz}"),
    ("authorization", '{{"authorization":"{s3cr3tvalue}"}}'),
    ("authorization", "Authorization: Bearer {abcd}"),
    ("signed_address", "https://x.blob.example/?se=1&sig={Abc%2Bdef123}&x=1"),
    ("signed_address", f"https://b.example/k?X-Amz-Signature={{{HEX}}}"),
    ("cookie", "curl -H 'Cookie: {session=abcdef0123; theme=dark}'"),
    ("bearer", f"sent bearer {{{LETTERS}}}"),
    ("assignment", "export DB_PASSWORD={hunter2}"),
    ("assignment", "password: {hunter2}"),
    ("assignment", "x-api-key: {0123abcd}"),
    ("assignment", "AccountKey={abcd1234+/==};EndpointSuffix=x"),
    ("assignment", "https://example.org/?access_token={abcd1234}&x=1"),
    ("assignment", "DB_PASS={abcd1234}"),
    ("assignment", "token = {abcd1234}"),
    ("assignment", "API_TOKEN={secretword}"),
    ("quoted", 'password = "{correct horse battery}"'),
    ("quoted", '{{"command":"PASSWORD=\\"{correct horse}\\" run"}}'),
    ("single_quoted", "{{'client_secret': '{correct horse}'}}"),
    ("option", "mysql --password {hunter22} -e x"),
    ("option", "tool --api-key '{abcd1234}'"),
    ("private_key", "-----BEGIN RSA PRIVATE KEY-----{ MIIEabc }-----END RSA PRIVATE KEY-----"),
    ("private_key", "-----BEGIN OPENSSH PRIVATE KEY-----{ b3BlbnNzaC1r}"),
]
"""Kind of key, and a text in which braces stand around one."""


def split(text: str) -> tuple[str, str, str]:
    before, rest = re.split(r"(?<!{){(?!{)", text, maxsplit=1)
    value, after = rest.split("}", 1)
    return before.replace("{{", "{"), value, after.replace("}}", "}")


@pytest.mark.parametrize("key", [key for keys in KEYS.values() for key in keys])
@pytest.mark.parametrize("text", ["{}", "echo {} | cat", '{{"a":"{}"}}', "x={}&y=2", "({}),"])
def test_a_key_is_cut_to_four_characters_wherever_it_stands(key: str, text: str) -> None:
    masked = mask(text.format(key))
    assert masked == text.format(f"{key[:4]}…")


@pytest.mark.parametrize("key", [key for keys in KEYS.values() for key in keys])
def test_a_key_that_was_cut_off_is_masked_too(key: str) -> None:
    assert len(mask(key[: 3 * len(key) // 4])) <= 5


@pytest.mark.parametrize(("_kind", "text"), INSIDE)
def test_only_the_value_is_cut_where_a_name_says_that_it_is_secret(_kind: str, text: str) -> None:
    before, value, after = split(text)
    masked = mask(before + value + after)
    assert masked.startswith(before)
    assert masked.endswith(f"…{after}")
    assert len(masked) <= len(before) + 5 + len(after)


def test_every_kind_of_key_has_an_example() -> None:
    assert set(PATTERNS) == {*KEYS, *(kind for kind, _ in INSIDE)}


@pytest.mark.parametrize("kind", PATTERNS)
def test_every_kind_of_key_is_found_by_its_own_pattern(kind: str) -> None:
    inside = ["".join(split(text)) for example, text in INSIDE if example == kind]
    for text in [*KEYS.get(kind, ()), *inside]:
        assert re.search(PATTERNS[kind], text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "commit 3f2504e04f8911d39a0c0305e82c3301abcdef01",
        "index 3f2504e..4f8911d 100644",
        "session 11111111-2222-4333-8444-555555555555",
        "job 0190b5f0000070008000000000000001",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "/srv/app/secrets/token.py:12: token = parse(text)",
        "Reading /home/me/.ssh/id_ed25519 and ~/.aws/credentials",
        "secret=/run/secrets/db.txt",
        "PWD=/srv/app/x OLDPWD=/srv/app/y",
        "password=$PASSWORD token=${TOKEN}",
        'token="$TOKEN"',
        "password=",
        "Enter password: ",
        "max_tokens=4096, tokens: 12345",
        "The token is expired; the password was wrong",
        "SyntaxError: Unexpected token: punc",
        "token = Name.Function",
        "next_token = self.parse",
        "password: SecretStr",
        "def login(password: str, token: None) -> bool",
        "api_key = os.environ['X']",
        "password=get_password()",
        "Bearer authentication is needed",
        "git@github.com:me/repo.git",
        "http://localhost:8080/@scope/package",
        "std::secret::value and token::Kind",
        "task-management-system-v2 and sk-learn",
        "author: Jane Doe",
        "-----BEGIN CERTIFICATE----- MIIEabc -----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY----- MIIEabc -----END PUBLIC KEY-----",
        "tokenizer=foo/bar secret_name: my-secret",
        "Bash: uv run pytest -q tests/core/test_secrets.py -x",
    ],
)
def test_text_without_keys_is_not_changed(text: str) -> None:
    assert mask(text) == text


ANY_TEXT = st.text(alphabet="sk-anthpi_=: \"'token@/eyJ.AKI0123456789", max_size=120)


@given(ANY_TEXT)
def test_masking_twice_changes_nothing(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "a://",
        "token=",
        "-",
        "-----BEGIN PRIVATE KEY-----",
        "A",
        "--token-",
        "://a:",
        "sk-a",
        "bearer ",
        "password: ",
        "0",
    ],
)
def test_no_text_takes_long(unit: str) -> None:
    text: Any = (unit * 65_536)[:65_536] + " key"
    mask(text)
