"""The report: figures that show something, text that nothing hostile can break, commands that work."""

from __future__ import annotations

import io
import re
import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from db.archive import Archive
from discovery.dossier import Comparison
from discovery.exporters.base import Curve, ExportError
from discovery.exporters.card import CardExporter, fenced, span
from discovery.exporters.plots import loss_figure, score_figure, shape_of
from discovery.exporters.testing import CONTEXT, CURVES, HOSTILE, ExporterConformance, dossier, measurement
from discovery.exporting import curve
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.server import OracleServer
from tests.support.command import discovery
from tests.support.small_archive import WINNER, make_archive

KNOWN = known_objectives(PAIRS.name)
SHAPES = [shape_of(curve) for curve in CURVES]
MARKDOWN = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table")
NASTY = (
    *HOSTILE,
    "`` ` `` <script>alert(1)</script> ![x](http://evil/x.png) [y](javascript:z) | a | b |\n# heading\n```\n</details>",
    "$\\frac{", "http://evil.example www.evil.example", "    code\n\n---\n===",
)  # fmt: skip


class TestConformance(ExporterConformance):
    hostile = NASTY

    def make_exporter(self):
        return CardExporter()

    @pytest.mark.slow  # it draws four figures of each of them
    def test_every_known_objective_exports_and_what_it_exports_to_computes_the_loss(self):
        super().test_every_known_objective_exports_and_what_it_exports_to_computes_the_loss()


def pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def share_of(image: np.ndarray, colour: str) -> float:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(image.astype(int) - wanted).max(-1) < 12).mean())


def flat(text: str) -> list:
    tokens = MARKDOWN.parse(text)
    return [*tokens, *(c for t in tokens for c in t.children or ())]


def test_the_figure_shows_the_candidate_thick_and_every_known_loss():
    image = pixels(loss_figure(SHAPES, 0.1))
    assert image.shape[1] >= 1200
    ours = share_of(image, "#D55E00")
    others = [share_of(image, colour) for colour in ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")]
    assert all(o > 1e-4 for o in others)
    assert ours > 1.5 * max(others)
    assert loss_figure(SHAPES, 0.1) == loss_figure(SHAPES, 0.1)


def test_differences_are_drawn_by_verdict():
    better = measurement()
    difference = replace(better.versus[0].difference, verdict="worse", mean=-0.3, low=-0.4, high=-0.2)
    worse = replace(better.versus[0], name="other", difference=difference)
    image = pixels(score_figure([replace(better, versus=(*better.versus, worse))]))
    assert share_of(image, "#009E73") > 1e-5
    assert share_of(image, "#D55E00") > 1e-4
    single = Comparison("one seed", "c" * 64, 0.1, replace(better.versus[0].difference, low=None, high=None))
    assert pixels(score_figure([replace(better, versus=(single,))])).size


def test_curves_are_what_the_losses_compute():
    with OracleServer() as server:
        dpo = curve(server, "dpo", KNOWN["dpo"].candidate, PAIRS)
        lrml = curve(server, "lrml", KNOWN["lrml"].candidate, PAIRS)
    z = 0.1 * np.array(dpo.margins)
    assert np.allclose(dpo.losses, np.logaddexp(0, -z))
    assert np.allclose(dpo.slopes, -0.1 / (1 + np.exp(z)))
    numerical = np.gradient(lrml.losses, np.array(lrml.margins))
    assert np.allclose(lrml.slopes[1:-1], numerical[1:-1], atol=2e-3)


def test_turning_points_are_named():
    """Of LRML, as DiscoPOP's appendix has them: z = -0.1186 and z = 0.0720, at beta 0.1."""
    with OracleServer() as server:
        curves = [curve(server, n, KNOWN[n].candidate, PAIRS) for n in ("lrml", "dpo")]
    text = CardExporter().export(dossier(), replace(CONTEXT, curves=curves)).text
    assert "it has a minimum near d = -1.19, a maximum near d = +0.72." in text
    assert (
        "neither a minimum nor a maximum"
        in CardExporter().export(dossier(), replace(CONTEXT, curves=curves[::-1])).text
    )


def test_a_flat_start_and_values_that_are_not_finite_can_be_drawn():
    margins = CURVES[0].margins
    cubic = Curve("cubic", margins, tuple(m**3 for m in margins), tuple(3 * m * m for m in margins))
    assert shape_of(cubic).unit == 75
    losses = tuple(m if m < 2 else float("nan") for m in margins)
    broken = Curve("broken", margins, losses, tuple(1.0 if m < 2 else float("inf") for m in margins))
    assert pixels(loss_figure([shape_of(broken), shape_of(cubic)], 0.1)).size
    with pytest.raises(ExportError, match="no finite value at margin 0"):
        shape_of(Curve("none", margins, (float("nan"),) * len(margins), (1.0,) * len(margins)))


@pytest.mark.parametrize("text", NASTY)
def test_hostile_text_stays_in_code_spans_and_blocks(text):
    bad = replace(dossier(name=text, thought=text, campaign=text, proposer=text), model=text)
    bad = replace(bad, lineage=tuple(replace(a, name=text) for a in bad.lineage))
    context = replace(CONTEXT, command="discovery export x")
    plain, hostile = (flat(CardExporter().export(d, context).text) for d in (dossier(), bad))
    kinds = (
        "html_block",
        "html_inline",
        "link_open",
        "image",
        "heading_open",
        "table_open",
        "hr",
        "fence",
        "code_block",
    )
    for kind in kinds:
        assert sum(t.type == kind for t in hostile) == sum(t.type == kind for t in plain), kind
    assert [t.attrs["src"] for t in hostile if t.type == "image"] == [
        "export_files/loss.png",
        "export_files/scores.png",
    ]


def test_spans_and_fences_cannot_be_closed_from_inside():
    assert span("a`b|c\nd") == "`a'b¦c d`"
    assert span("") == "` `"
    assert fenced("x ```` y", "text") == "`````text\nx ```` y\n`````"


def test_without_scores_formula_or_curves_it_says_so():
    bare = replace(
        dossier(origin="known", campaign="", score=None), measurements=(), proposal=None, lineage=(), probe=None
    )
    export = CardExporter().export(bare, replace(CONTEXT, curves=()))
    assert not export.attachments
    reasons = (
        "No formula can be written: `it was not looked for`",
        "Not drawn",
        "Not measured.",
        "on no earlier loss.",
    )
    for said in reasons:
        assert said in export.text
    assert "proposer's words" not in export.text


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExportError, match=r"pip install 'objective-discovery\[card\]'"):
        CardExporter().export(dossier(), CONTEXT)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("card") / "small.db")


def test_the_command_writes_report_and_figures(archive, tmp_path):
    path = tmp_path / "winner.md"
    ended = discovery("export", WINNER.short_id, "--format", "card", "-o", path, "--archive", archive)
    assert ended.code == 0, ended.stderr
    assert "and 2 files in winner_files/" in ended.stderr
    text = path.read_text(encoding="utf-8")
    images = [t.attrs["src"] for t in flat(text) if t.type == "image"]
    assert images == ["winner_files/loss.png", "winner_files/scores.png"]
    for image in images:
        assert share_of(pixels((tmp_path / image).read_bytes()), "#FFFFFF") < 0.99
    latex = r"\min\left(\exp\left(-\beta\,\mathrm{margin}\right), 20\right)"
    for fact in ("a parent", "`a-model`", latex, "+0.09375", "not separated"):
        assert fact in text
    again = discovery("export", WINNER.short_id, "--format", "card", "-o", path, "--archive", archive)
    assert again.code == 2
    assert "--force" in again.error
    assert (
        discovery("export", WINNER.short_id, "--format", "card", "-o", path, "--archive", archive, "--force").code == 0
    )


def test_it_needs_a_file(archive):
    ended = discovery("export", WINNER.short_id, "--format", "card", "--archive", archive)
    assert ended.code == 2
    assert "-o FILE.md" in ended.error
    assert ended.stdout == ""


def test_figures_that_are_there_are_not_overwritten(archive, tmp_path):
    (tmp_path / "w_files").mkdir()
    (tmp_path / "w_files" / "mine.txt").write_text("precious")
    arguments = ("export", WINNER.short_id, "--format", "card", "-o", tmp_path / "w.md", "--archive", archive)
    ended = discovery(*arguments)
    assert ended.code == 2
    assert "w_files" in ended.error
    assert [p.name for p in tmp_path.iterdir()] == ["w_files"]
    assert discovery(*arguments, "--force").code == 0
    assert (tmp_path / "w_files" / "mine.txt").read_text() == "precious"


def test_the_commands_to_reproduce_are_complete(archive, tmp_path):
    path = tmp_path / "winner.md"
    discovery("export", WINNER.short_id, "--format", "card", "-o", path, "--archive", archive)
    block = re.search(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    assert block is not None
    commands = [shlex.split(line) for line in block[1].splitlines() if not line.startswith("#")]
    assert {c[1] for c in commands} == {"export", "evaluate"}
    assert all(c[0] == "discovery" and c[-2:] == ["--archive", str(archive)] for c in commands)
    evaluate = next(c for c in commands if c[1] == "evaluate")
    assert evaluate[2:-2] == [WINNER.short_id, "--evaluator", "preference.enumerable", "--seeds", "0,1,"]
    shown = discovery(*commands[2][1:-4], *commands[2][-2:])  # the trainer, to stdout
    assert shown.code == 0, shown.stderr
    with Archive(archive) as stored:
        assert stored.entry(evaluate[2]).candidate.id == WINNER.id
