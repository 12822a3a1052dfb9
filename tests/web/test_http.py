"""The dashboard over HTTP: every page, who may read it, hostile text, bad input."""

from __future__ import annotations

import html
import io
import json
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from tests.support.command import discovery
from tests.support.dashboard import Running, ask, dashboard
from tests.support.small_archive import CRASHED, REFUSED, WINNER, make_archive

DPO = known_objective(PAIRS.name, "dpo").candidate.short_id
PAGES = (
    "/",
    "/campaign?name=small",
    "/candidates",
    "/candidates?campaign=small&status=ranked&origin=proposed&search=winner&where=frontier+%3E+0.5&sort=frontier:asc&col=frontier",
    "/candidates?page=9",
    f"/candidate/{WINNER.id}",
    f"/candidate/{WINNER.short_id}?campaign=small",
    f"/candidate/{CRASHED.short_id}",
    f"/candidate/{REFUSED.short_id}",
    f"/candidate/{WINNER.short_id}/lineage",
    f"/candidate/{DPO}/lineage?campaign=small",
    f"/compare?id={WINNER.short_id}&id={DPO}&id={CRASHED.short_id}",
    "/pareto?campaign=small",
    "/pareto?campaign=small&x=frontier&y=frontier/base",
)
ASSETS = ("/static/style.css", "/static/charts.js", "/static/live.js", "/static/icon.svg", "/static/plotly.css")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with dashboard(make_archive(tmp_path_factory.mktemp("dashboard") / "small.db")) as found:
        yield found


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_shown_with_everything_escaped_and_no_inline_code(running: Running, path: str) -> None:
    answer = ask(running, path)
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "\x1b" not in answer.text
    assert "\u202e" not in answer.text
    assert not re.search(r"<[^>]*\s(?:style|on[a-z]+)\s*=", answer.text)
    for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.DOTALL):
        assert not content.strip() or 'type="application/json"' in attributes
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', answer.text, re.DOTALL):
        assert json.loads(data)["layout"]
    local = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
    assert all(a.startswith(("/", "#")) for a in local)


@pytest.mark.parametrize("path", [*PAGES, *ASSETS, "/nothing", "/candidate/zz"])
def test_every_answer_has_the_protecting_headers(running: Running, path: str) -> None:
    headers = ask(running, path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
    assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == ("'none'", "'none'", "'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


def test_the_charts_script_comes_from_this_machine_and_is_kept(running: Running) -> None:
    page = ask(running, "/campaign?name=small").text
    (address,) = re.findall(r'src="(/plotly-[^"]*)"', page)
    answer = ask(running, address)
    assert answer.status == 200
    assert len(answer.body) > 1_000_000
    assert "immutable" in answer.headers["cache-control"]
    assert ask(running, "/plotly-1.js").status == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "10.0.0.1:{port}", ""]
)
def test_other_host_names_get_nothing(running: Running, host: str) -> None:
    answer = ask(running, "/", {"Host": host.format(port=running.port)})
    assert answer.status == 421
    assert "small" not in answer.text


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LOCALHOST:{port}"])
def test_names_of_this_machine_are_answered(running: Running, host: str) -> None:
    assert ask(running, "/", {"Host": host.format(port=running.port)}).status == 200


def test_pages_of_other_sites_can_link_here_and_nothing_else(running: Running) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert ask(running, "/", cross | {"Sec-Fetch-Mode": "navigate"}).status == 200
    assert ask(running, "/campaign/live?name=small", cross | {"Sec-Fetch-Mode": "no-cors"}).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(running: Running, method: str) -> None:
    for path in ("/", "/candidates", f"/candidate/{WINNER.short_id}"):
        assert ask(running, path, method=method).status == 405


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nothing", 404, "There is no such page."),
        ("/candidate/zz", 404, "has no candidate 'zz', by id or by name"),
        ("/candidate/0123456789", 404, "has no candidate '0123456789'"),
        ("/campaign?name=smal", 404, "has no campaign 'smal'"),
        ("/campaign", 400, "name"),
        ("/candidates?where=frontier+%3E", 400, "the filter cannot be understood at character 11"),
        ("/candidates?where=nothing+%3E+1", 400, "there is no 'nothing'"),
        ("/candidates?sort=nothing", 400, "there is no 'nothing'"),
        ("/candidates?status=best", 400, "does not know 'best'"),
        ("/candidates?page=0", 400, "page"),
        ("/compare", 400, "comparing takes two or more different candidates"),
        (f"/compare?id={DPO}&id={DPO}", 400, "comparing takes two or more different candidates"),
        ("/pareto?campaign=small&x=nothing", 400, "no trial reports a metric 'nothing'"),
        (f"/candidate/{DPO}/export/os:system", 400, "no format 'os:system'"),
        (f"/candidate/{REFUSED.short_id}/export/python", 422, "there is no loss to export as python"),
        ("/candidates?search=%3Cscript%3Ealert(1)%3C/script%3E&where=%3Cb%3E", 400, "the filter cannot be understood"),
    ],
)
def test_bad_input_is_told_in_one_line(running: Running, path: str, status: int, said: str) -> None:
    answer = ask(running, path)
    assert answer.status == status
    (message,) = re.findall(r'role="alert">([^\n]*)</p>', answer.text)
    assert said in html.unescape(message)
    assert "<" not in message


def test_a_malformed_filter_is_told_as_in_the_terminal(running: Running) -> None:
    archive = running.process.args[3]  # type: ignore[index]
    terminal = discovery("candidates", "--archive", archive, "--where", "frontier >").error.removeprefix("error: ")
    page = html.unescape(ask(running, "/candidates?where=frontier+%3E&search=winner").text)
    assert terminal in page
    assert 'name="where" value="frontier >"' in page  # what was typed is there to be mended
    assert 'name="search" value="winner"' in page


def test_exports_are_what_the_terminal_writes(running: Running) -> None:
    answer = ask(running, f"/candidate/{WINNER.short_id}/export/python")
    assert answer.status == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="winner.py"'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    scope: dict[str, object] = {}
    exec(compile(answer.text, "winner.py", "exec"), scope)  # a fixed source of these tests
    assert callable(scope["loss"])
    record = json.loads(ask(running, f"/candidate/{CRASHED.short_id}/export/json").text)
    assert record
    card = ask(running, f"/candidate/{WINNER.short_id}/export/card")
    names = zipfile.ZipFile(io.BytesIO(card.body)).namelist()
    assert "winner.md" in names
    assert len(names) > 1


def test_live_numbers_are_json(running: Running) -> None:
    live = json.loads(ask(running, "/campaign/live?name=small").text)
    assert live["status"] == "finished"
    assert live["running"] == []
    assert set(live["charts"]) == {"leader", "scores", "failures", "throughput"}
    assert live["charts"]["leader"]["data"][0]["y"] == [0.875, 0.875]
    tile = live["tiles"][0]
    assert (tile["label"], tile["value"]) == ("Leading loss", "0.8750")
    assert re.fullmatch(r"winner: \+0\.0938 \[-0\.\d{4}, \+0\.\d{4}\] to dpo, not separated", tile["note"])
    assert live["tiles"][1]["note"] == "dpo, ± 0.0312 over 2 seeds"


def test_another_address_asks_for_a_token_that_stays_out_of_addresses(tmp_path: Path) -> None:
    with dashboard(make_archive(tmp_path / "small.db"), "--host", "0.0.0.0", lines=3) as running:
        token = running.lines[2]
        for path in ("/", "/candidates", "/campaign/live?name=small", f"/?token={token}"):
            answer = ask(running, path)
            assert (answer.status, answer.headers["location"]) == (303, "/login")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ask(running, "/login").status == 200
        wrong = ask(running, "/login", form, "POST", "token=guess")
        assert (wrong.status, "set-cookie" in wrong.headers) == (403, False)
        assert ask(running, "/login", form, "POST", "token=" + "x" * 5000).status == 413
        right = ask(running, "/login", form, "POST", f"token={token}")
        assert (right.status, right.headers["location"]) == (303, "/")
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert token not in cookie
        assert ask(running, "/", {"Cookie": cookie.split(";")[0]}).status == 200
        name = cookie.split("=")[0]
        assert ask(running, "/", {"Cookie": f"{name}=guess"}).status == 303
        assert ask(running, "/", {"Cookie": '"; \x01=;'}).status == 303
        assert ask(running, "/", {"Cookie": cookie.split(";")[0], "Host": "evil.example"}).status == 421
        known = {"Cookie": cookie.split(";")[0], "Host": f"192.0.2.7:{running.port}"}
        assert ask(running, "/", known).status == 200


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "small.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = discovery("dashboard", "--archive", archive, "--port", port)
    assert ended.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ended.error
    assert "choose another --port" in ended.error


def test_no_archive_is_told_in_one_line(tmp_path: Path) -> None:
    ended = discovery("dashboard", "--archive", tmp_path / "none.db")
    assert ended.code == 2
    assert "none.db" in ended.error


def test_the_command_line_does_not_import_the_server() -> None:
    code = """
import sys
from discovery.cli import main
assert main(["dashboard", "--help"]) == 0
loaded = [m for m in ("fastapi", "starlette", "uvicorn", "pygments", "sqlalchemy", "torch") if m in sys.modules]
assert not loaded, loaded
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
