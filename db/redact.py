"""Passwords masked in everything that is stored, logged or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_NAMES = r"(?:ssl)?password|passwd|pwd|passphrase|secret|access_token|auth_token|api_key|apikey"

# everything up to the last "@" belongs to the password: masking too much of an odd URL beats masking too little
_WHOLE_URL = re.compile(r"^(.*?:/+[^:@]*):.+@", re.DOTALL)
_URL_IN_TEXT = re.compile(r"""\b([a-z][\w+.-]*://[^\s:@/"<>]*):[^\s"<>]+@""", re.IGNORECASE)
_PARAMETER = re.compile(rf"""((?:^|[?&;\s,'"(])(?:{_NAMES})=)('[^']*'|[^\s&;#,'")]+)""", re.IGNORECASE)
_QUERY_PARAMETER = re.compile(rf"([?&;](?:{_NAMES})=)[^&;#]*", re.IGNORECASE)
_API_KEY = re.compile(
    r"\b(sk-[\w-]{8,}|hf_\w{16,}|gh[pousr]_\w{16,}|AKIA[A-Z0-9]{16}|AIza[\w-]{20,})|\bBearer\s+\S{4,}", re.IGNORECASE
)
_SECRET_KEY = re.compile(rf"^(?:\w+[_-])?(?:{_NAMES}|token|authorization)$", re.IGNORECASE)


def redact_url(url: str) -> str:
    """A database or endpoint URL with its password masked, whether it stands before the host or among the parameters."""
    masked = _WHOLE_URL.sub(rf"\1:{MASK}@", url)
    return _QUERY_PARAMETER.sub(rf"\1{MASK}", masked)


def redact_secrets(text: str) -> str:
    """Free text in which API keys, the passwords of URLs and ``password=...`` settings are masked."""
    text = _API_KEY.sub(MASK, text)
    if "://" in text:
        text = _URL_IN_TEXT.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(rf"\1{MASK}", text) if "=" in text else text


def holds_api_key(text: str) -> bool:
    """Whether a text contains what looks like an API key or a bearer token."""
    return _API_KEY.search(text) is not None


def redact_config(value: Any, key: str = "") -> Any:
    """JSON-like settings with every password masked, also values under a key such as `api_key` (but not `api_key_env`)."""
    if isinstance(value, Mapping):
        return {k: redact_config(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_config(v, key) for v in value]
    if isinstance(value, str):
        return MASK if value and _SECRET_KEY.match(key) else redact_secrets(value)
    return value
