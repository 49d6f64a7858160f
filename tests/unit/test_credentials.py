"""Credentials are told from what only looks like them, and no sentence shows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehr.credentials import has_credentials, is_secret, mask
from lehr.errors import JobError, LehrError, StorageError

MASKED = [
    ("https://user:token@host/x", "https://…@host/x"),
    ("https://ghp_x@github.com/a.git", "https://…@github.com/a.git"),  # a user alone is a token there
    ("git+https://t@host/r.git@v1", "git+https://…@host/r.git@v1"),
    ("--index-url=https://u:p@host/simple", "--index-url=https://…@host/simple"),
    ("postgresql+psycopg2://u:p@host/db", "postgresql+psycopg2://…@host/db"),
    ("https://u:p?ss#1@host/x", "https://…@host/x"),
    ("s3://KEY:with/slash@bucket/runs", "s3://…@bucket/runs"),
    ("s3://KEY:12/34+5@bucket/runs", "s3://…@bucket/runs"),  # not a port: buckets have none
    ("https://bucket/x?X-Amz-Signature=ab%2F&X-Amz-Date=1", "https://bucket/x?X-Amz-Signature=…&X-Amz-Date=1"),
    ("https://box/x?sv=1&sig=ab", "https://box/x?sv=1&sig=…"),
    ("https://bucket/x?X-Amz-Sign%61ture=ab", "https://bucket/x?X-Amz-Sign%61ture=…"),
    ("postgres://host/db?user=me&password=a", "postgres://host/db?user=me&password=…"),
    ("http://host:8265/?token=abc#access_token=d", "http://host:8265/?token=…#access_token=…"),
    ("told https://hooks.slack.com/services/T0/B0/x.", "told https://hooks.slack.com/…"),
    ("https://u:p@discord.com:443/api/webhooks/1/x", "https://discord.com:443/…"),
    ("https://chat.example.org/hooks/xxxgeneratedkeyxxxxxxxxxxx", "https://chat.example.org/…"),
    ("https://api.telegram.org/bot1:x/sendMessage", "https://api.telegram.org/…"),
    ("s3://K:S@b: cannot be read, ask me@home", "s3://…@b: cannot be read, ask me@home"),
]
SHOWN = [
    "s3://bucket/runs?region=eu-1",
    "https://slack.com/help/hooks",
    "https://example.org/hooks/build",
    "https://example.org/services/T0/B0/x",
    "s3://bucket/a:b@c",
    "http://host:8265/user@x",
    "http://[::1]:8265/a@b",
    "http://[::1]/a@b",
    "http://localhost:8265: no cluster answers there; ask me@home",
    "gs://anonymous@bucket/data",
    "abfs://container@account.dfs.core.windows.net/data",
    "ssh://git@github.com/x.git",
    "hdfs://namenode:8020/user@x",
    "https://user:${TOKEN}@host/simple",  # pip reads it from the environment
    "https://${TOKEN}@host/simple",
    "run:digits me@home a:b@c",
    "https://peer.example:9077 refused the write of agent ai:me@home",
    "allowed: http://HOST:PORT or https://HOST/PATH",
]


@pytest.mark.parametrize(("text", "shown"), MASKED)
def test_credentials_in_an_address_are_not_shown(text: str, shown: str) -> None:
    assert has_credentials(text)
    assert mask(text) == shown
    for kind in (LehrError, StorageError, JobError):
        assert shown in str(kind(f"it says {text}"))


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert mask(text) == text


secrets = st.text("abcXYZ019/+=%-_.~", min_size=1, max_size=40).map(lambda text: f"q{text}")


@given(user=secrets, password=secrets, scheme=st.sampled_from(["s3", "https", "gs", "postgres"]))
def test_no_part_of_a_password_is_left_and_masking_twice_changes_nothing(user: str, password: str, scheme: str) -> None:
    shown = mask(f"cannot open {scheme}://{user.replace('/', '')}:{password}@place/path, try again")
    assert shown == f"cannot open {scheme}://…@place/path, try again"
    assert mask(shown) == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "x"),
        ("WANDB_API_KEY", "x"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "/starts/with/a/slash"),
        ("DB_PASSWORD", "x"),
        ("MYTOKEN", "x"),
        ("DATABASE_URL", "postgres://me:word@host/db"),
        ("HTTPS_PROXY", "http://me:word@proxy:3128"),
        ("PLAIN", "AKIAABCDEFGHIJKLMNOP"),
        ("PLAIN", "ghp_" + "a" * 36),
        ("PLAIN", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
    ],
)
def test_a_variable_that_holds_a_secret_is_known_by_its_name_or_its_value(name: str, value: str) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "512"),
        ("KEYBOARD", "us"),
        ("USE_AUTH_TOKEN", "true"),
        ("OMP_NUM_THREADS", "4"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
        ("HF_TOKEN_PATH", "/run/secrets/hf"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/run/secrets/key.json"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/run/secrets/aws"),
    ],
)
def test_an_ordinary_variable_is_no_secret(name: str, value: str) -> None:
    assert not is_secret(name, value)
