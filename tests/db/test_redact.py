"""Passwords are masked, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.redact import redact_config, redact_secrets, redact_url


@pytest.mark.parametrize(
    ("given_url", "shown"),
    [
        ("postgresql+psycopg://me:hunter2@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me:p@ss/w:rd@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host/db?password=a b&sslpassword=c", "postgresql://me@host/db?password=***&sslpassword=***"),
        ("postgresql://host/db?sslmode=require&PASSWORD=x", "postgresql://host/db?sslmode=require&PASSWORD=***"),
        ("http://:hunter2@host/", "http://:***@host/"),
        ("sqlite:///runs/a.db", "sqlite:///runs/a.db"),
        ("runs/a.db", "runs/a.db"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
    ],
)
def test_urls(given_url: str, shown: str) -> None:
    assert redact_url(given_url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach postgres://u:p@h/d, retrying", "cannot reach postgres://u:***@h/d, retrying"),
        ("dsn host=h password=secret user=u", "dsn host=h password=*** user=u"),
        ("dsn password='two words' x", "dsn password=*** x"),
        ("GET http://h/?api_key=abc&x=1", "GET http://h/?api_key=***&x=1"),
        ("see https://host:8080/a and mail a@b.c", "see https://host:8080/a and mail a@b.c"),
        ("beta = 0.1; loss = -logsigmoid(beta * h)", "beta = 0.1; loss = -logsigmoid(beta * h)"),
    ],
)
def test_free_text(text: str, shown: str) -> None:
    assert redact_secrets(text) == shown


def test_settings() -> None:
    settings = {"api_key": "k", "openai_api_key": "k", "api_key_env": "NAME", "tokens": 5, "list": ["x://a:b@c"]}
    assert redact_config(settings) == {
        "api_key": "***", "openai_api_key": "***", "api_key_env": "NAME", "tokens": 5, "list": ["x://a:***@c"]
    }  # fmt: skip


@given(st.text(alphabet=st.characters(exclude_characters="#&;", exclude_categories=("C",)), min_size=1))
def test_no_password_survives(password: str) -> None:
    secret = f"QQ{password}QQ"
    assert "QQ" not in redact_url(f"postgresql://user:{secret}@host/db")
    assert "QQ" not in redact_url(f"postgresql://host/db?password={secret}")
