"""What messages, documents and pages tell people to type is there: commands, options, settings, metrics and expressions."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from db.filters import comparisons, parse
from db.selection import FACTS
from discovery.cli.app import app
from discovery.config import load_config
from evaluators.plugins import load_plugin, plugin_names

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = sorted((ROOT / "discovery" / "web" / "templates").glob("*.html"))
SOURCES = [
    p for package in ("discovery", "db", "evaluators", "sandbox") for p in sorted((ROOT / package).rglob("*.py"))
]
METRICS = {m.name for name in plugin_names("evaluators") for m in load_plugin("evaluators", name).metrics}
COMMAND = typer.main.get_command(app)


def in_documents() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        lines = [
            line for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.M) for line in block.splitlines()
        ]
        quoted = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))
        yield from ((path.name, line.strip()) for line in (*lines, *quoted))


def in_sources() -> Iterator[tuple[str, str]]:
    """Texts of the program, with X for what is filled in."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
            quoted = re.findall(r"`(discovery [^`\n]+)`", text)
            quoted, text = [re.sub(r"(?<=[a-z])X", " X", q) for q in quoted], re.sub(r"(?<=[a-z])X", " X", text)
            yield from ((path.name, found) for found in (*quoted, *([text] if text.startswith("discovery ") else [])))
    for path in PAGES:
        yield from ((path.name, found) for found in re.findall(r"<code>(discovery [^<]+)</code>", path.read_text()))


def typed(texts: Iterator[tuple[str, str]]) -> list[Any]:
    """Only what begins with a command of ours; a comment behind it does not belong to it."""
    found = {}
    for where, text in texts:
        line = text.split("  #")[0].strip().rstrip(",")
        if re.match(r"discovery [a-z-]", line):
            found.setdefault(line, where)
    return [pytest.param(line, id=f"{where}: {line[:70]}") for line, where in found.items()]


DOCUMENTED, ADVISED = typed(in_documents()), typed(in_sources())


def require_understood(line: str) -> None:
    """The command is there, and so is each of its options."""
    words, command = shlex.split(line), COMMAND
    rest = words[1 : next((i for i, w in enumerate(words) if w in ("|", ">", "&&", "#")), None)]
    while rest and (inner := getattr(command, "commands", {}).get(rest[0])) is not None:
        command, rest = inner, rest[1:]
    assert command is not COMMAND or rest[0].startswith("-"), f"no command {rest[0]!r} in {line!r}"
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known = {*options, "--help", "-h", "--debug", "--version"}
    for word in rest:
        if word.startswith("-") and not re.fullmatch(r"-?\d.*", word):
            assert word.split("=")[0] in known, f"no option {word} in {line!r}"


def test_there_is_enough_to_look_at() -> None:
    assert len(DOCUMENTED) > 40
    assert len(ADVISED) > 15
    with pytest.raises(AssertionError, match="no option"):
        require_understood("discovery show ID --jsn")
    with pytest.raises(AssertionError, match="no command"):
        require_understood("discovery shw ID")


@pytest.mark.parametrize("line", DOCUMENTED)
def test_documents_tell_people_what_is_there(line: str) -> None:
    require_understood(line)


@pytest.mark.parametrize("line", ADVISED)
def test_messages_and_pages_tell_people_what_is_there(line: str) -> None:
    require_understood(line)


def names_in(expression: str) -> set[str]:
    return {c.name for c in comparisons(parse(expression))}


WHERE = sorted(
    {
        expression
        for _, line in in_documents()
        if line.startswith("discovery ")
        for expression in re.findall(r"--where [\"']([^\"']+)[\"']", line)
    }
)


@pytest.mark.parametrize("expression", WHERE)
def test_expressions_in_documents_name_what_is_there(expression: str) -> None:
    assert names_in(expression) <= METRICS | set(FACTS)


def test_parts_of_metrics_in_documents_and_comments_are_there() -> None:
    """``frontier/few_pairs``: a regime that exists."""
    assert WHERE
    bases = {m.split("/")[0] for m in METRICS if "/" in m}
    for path in (*DOCUMENTS, *SOURCES):
        for base, part in re.findall(r"`(\w+)/([a-z_]+)`", path.read_text(encoding="utf-8")):
            assert base not in bases or f"{base}/{part}" in METRICS or part in ("world", "regime"), (path, base, part)


@pytest.mark.parametrize(
    "line",
    [p.values[0] for p in DOCUMENTED if re.match(r"discovery (run|doctor) examples/\S+\.yaml", str(p.values[0]))],
)
def test_settings_on_documented_command_lines_are_taken(line: str) -> None:
    words = shlex.split(line)
    settings = [words[i + 1] for i, w in enumerate(words) if w == "--set"]
    assert load_config(ROOT / words[2], settings)


def test_what_is_advised_about_keys_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value that the message names goes back into the configuration, as typed."""
    from discovery.proposers.openai import OpenAIProposer
    from evaluators.options import OptionsError
    from evaluators.preference.contract import PAIRS

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "campaign.yaml"
    path.write_text(
        "objective: {evaluator: preference.enumerable}\nbudget: {tokens: 9}\n"
        "proposer: {kind: openai, model: m, base_url: 'http://127.0.0.1:1/v1'}\n"
    )
    with pytest.raises(OptionsError) as caught:
        OpenAIProposer(load_config(path).proposer.options, PAIRS, 0)
    advised = re.search(r"set (proposer\.\w+) to (\w+)", str(caught.value))
    assert advised is not None
    config = load_config(path, [f"{advised[1]}={advised[2]}"])
    OpenAIProposer(config.proposer.options, PAIRS, 0)


def test_no_axis_or_legend_of_a_chart_is_without_a_title() -> None:
    from discovery.web.charts import bars, figure, label

    titles = [figure([], "", "")["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
    assert titles == ["", ""]
    found = bars({"STATIC": 2}, "count", "kind")["layout"]
    assert (found["xaxis"]["title"]["text"], found["yaxis"]["title"]["text"]) == ("count", "kind")
    assert label("") == "unnamed"  # a loss that has no name


def test_charts_of_every_page_have_titled_axes(tmp_path: Path) -> None:
    from db.archive import Archive
    from discovery.web import candidate, compare, overview, pareto
    from tests.support.small_archive import make_archive

    def charts(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict) and "layout" in value:
            yield value
        elif isinstance(value, dict):
            for inner in value.values():
                yield from charts(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                yield from charts(inner)

    with Archive(make_archive(tmp_path / "small.db")) as archive:
        pages = [
            overview.campaign(archive, "small"),
            candidate.candidate(archive, "winner", None),
            compare.compared(archive, ["dpo", "winner"], None),
            pareto.plot(archive, "small", None, None),
        ]
        found = [chart for page in pages for chart in charts(page)]
    assert len(found) >= 4
    for chart in found:
        for axis in ("xaxis", "yaxis"):
            assert chart["layout"][axis]["title"]["text"] not in ("", "unnamed")
        assert all(trace.get("name", "x") not in ("", "unnamed") for trace in chart["data"])
