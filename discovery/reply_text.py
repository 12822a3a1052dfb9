"""What a language model's text holds around its answer: reasoning, control tokens, line ends. All in linear time."""

from __future__ import annotations

import re

_OPEN = re.compile(r"<think(?:ing)?>|\[THINK\]|◁think▷", re.IGNORECASE)
_CLOSE = re.compile(r"</think(?:ing)?>|\[/THINK\]|◁/think▷", re.IGNORECASE)
# of models that write to several channels: what is meant for the user comes after the last of these
_FINAL = re.compile(
    r"<\|channel\|>\s{0,4}final\b[^<\n]{0,40}<\|message\|>|<\|(?:begin|start)_of_(?:answer|response)\|>"
)
# ends of turns, and whatever else a server should have left out
_TOKENS = re.compile(
    r"<[|｜][\w▁ -]{1,40}[|｜]>|</?s>|<(?:end|start)_of_turn>(?:model\b)?|<eos>|<bos>|\[/?INST\]", re.IGNORECASE
)
_QUOTED = re.compile(r"^>[ \t]?(?=[ \t]*(?:```|~~~))", re.MULTILINE)
_QUOTE_MARK = re.compile(r"^> ?", re.MULTILINE)
_RETURNS = re.compile(r"\r\n?")
_MARKS = ("\ufeff", "\ufffe", "\u200b", "\u2060")  # that stand before a text and mean nothing


def plain_text(text: str) -> str:
    """The text with LF line ends, without byte order marks, reasoning, control tokens, or marks of a quotation."""
    text = unmarked(text)
    final = None
    for final in _FINAL.finditer(text):  # noqa: B007 - the last one
        pass
    text = strip_thinking(text if final is None else text[final.end() :])
    text = _TOKENS.sub("", text)
    return _QUOTE_MARK.sub("", text) if _QUOTED.search(text) else text


def unmarked(text: str) -> str:
    """The text with LF line ends and without byte order marks before it."""
    text = text.lstrip("".join(_MARKS))
    return _RETURNS.sub("\n", text) if "\r" in text else text


def strip_thinking(text: str) -> str:
    """The text without `<think>...</think>` blocks; a block that never closes loses only its tag.

    A closing tag without an opening one ends reasoning that began in the prompt's template.
    """
    first_open, first_close = _OPEN.search(text), _CLOSE.search(text)
    if first_close and (first_open is None or first_close.start() < first_open.start()):
        text = text[first_close.end() :]
    kept: list[str] = []
    position = 0
    while True:
        start = _OPEN.search(text, position)
        if start is None:
            return "".join([*kept, text[position:]])
        kept.append(text[position : start.start()])
        end = _CLOSE.search(text, start.end())
        if end is None:
            return "".join([*kept, text[start.end() :]])
        position = end.end()
