"""What people write in good faith: accepted, mended with a note, or refused with advice that leads to an accepted text."""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox import allowlist, gate_hints, mend
from sandbox.candidate import Candidate
from sandbox.check import check_candidate
from sandbox.gate import check_source
from sandbox.mend import MAX_NOTES, read_candidate
from sandbox.mend_source import Source
from sandbox.server import OracleServer
from tests.sandbox.make_keywords import derive
from tests.support.honest import HONEST
from tests.support.idioms import IDIOMS, Idiom
from tests.support.losses import KNOWN

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="candidates run on Linux only")


def of(verdict: str) -> Any:
    found = [i for i in IDIOMS if i.verdict == verdict]
    return pytest.mark.parametrize("idiom", found, ids=lambda i: i.name)


def plain_function(source: str, name: str) -> Callable[..., torch.Tensor]:
    """The function as plain Python has it, without gate and cage; only for texts of our own."""
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "<idiom>", "exec", dont_inherit=True), namespace)
    made: Callable[..., torch.Tensor] = namespace[name]
    return made


def losses(function: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Its answer to fixed inputs; by name, as far as it takes them."""
    grid = torch.linspace(-40.0, -2.0, 24)
    inputs: Mapping[str, Any] = {t.name: grid.roll(3 * i).clone() for i, t in enumerate(PAIRS.tensors)} | {"beta": 0.1}
    code = getattr(function, "__wrapped__", function).__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    own = ["no method"] if names[:1] == ("self",) else []
    first = code.co_posonlyargcount
    by_place = own + [inputs[n] for n in names[:first]]
    return function(*by_place, **{n: inputs[n] for n in names[first:] if n in inputs})


def test_the_corpus_is_large_and_varied() -> None:
    assert len(IDIOMS) >= 120
    assert len({i.name for i in IDIOMS}) == len(IDIOMS)
    assert {i.verdict for i in IDIOMS} == {"accepted", "mended", "refused"}


@ON_LINUX
@of("accepted")
def test_accepted_as_it_is(idiom: Idiom, server: OracleServer) -> None:
    candidate = read_candidate(idiom.source, PAIRS)
    assert (candidate.source, candidate.notes) == (Candidate(PAIRS.name, idiom.source).source, ())
    gate, report = check_candidate(server, candidate, PAIRS)
    assert [str(v) for v in gate.violations] == []
    assert report is not None
    assert report.failure is None


@ON_LINUX
@of("mended")
def test_mended_with_a_note(idiom: Idiom, server: OracleServer) -> None:
    assert not check_source(Candidate(PAIRS.name, idiom.source), PAIRS).accepted
    candidate = read_candidate(idiom.source, PAIRS)
    gate, report = check_candidate(server, candidate, PAIRS)
    assert [str(v) for v in gate.violations] == []
    assert gate.notes == candidate.notes
    assert any(idiom.fragment in note for note in gate.notes), gate.notes
    assert all(note.isprintable() and len(note) < 400 for note in gate.notes)
    assert report is not None
    assert report.failure is None


@of("mended")
def test_mending_changes_nothing_that_the_loss_computes(idiom: Idiom, monkeypatch: pytest.MonkeyPatch) -> None:
    def unchanged(function: Any = None, **_: Any) -> Any:
        return function if function is not None else unchanged

    monkeypatch.setattr(torch, "compile", unchanged)
    monkeypatch.setattr(torch.jit, "script", unchanged)
    before = losses(plain_function(idiom.source, idiom.function))
    after = losses(plain_function(read_candidate(idiom.source, PAIRS).source, "loss"))
    assert torch.equal(before, after)


@of("mended")
def test_mending_is_done_once(idiom: Idiom) -> None:
    candidate = read_candidate(idiom.source, PAIRS)
    again = read_candidate(candidate.source, PAIRS)
    assert (again, again.notes) == (candidate, ())


@of("refused")
def test_refused_with_advice_that_can_be_followed(idiom: Idiom) -> None:
    report = check_source(read_candidate(idiom.source, PAIRS), PAIRS)
    assert not report.accepted
    assert idiom.fragment in "\n".join(str(v) for v in report.violations)
    followed = check_source(Candidate(PAIRS.name, idiom.followed), PAIRS)
    assert [str(v) for v in followed.violations] == []
    assert losses(plain_function(idiom.followed, "loss")).shape == (24,)


@pytest.mark.parametrize("source", [*(c.source for c in HONEST.values()), *(c.source for c in KNOWN.values())])
def test_what_is_accepted_is_never_mended(source: str) -> None:
    candidate = read_candidate(source, PAIRS)
    assert (candidate.source, candidate.notes) == (source, ())


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_byte_order_marks_are_no_difference(mark: str, end: str) -> None:
    plain = KNOWN["dpo"]
    candidate = read_candidate(mark + plain.source.replace("\n", end), PAIRS)
    assert (candidate, candidate.notes) == (plain, ())


def test_a_text_that_is_mended_in_part_says_what_is_left() -> None:
    head = "import numpy as np\nimport torch\n\ndef loss(policy_chosen_logps, policy_rejected_logps, beta):\n"
    source = head + "    while 1: pass\n"
    candidate = read_candidate(source, PAIRS)
    report = check_source(candidate, PAIRS)
    assert [v.problem for v in report.violations] == ["a `while` loop is not allowed"]
    assert candidate.source.split("\n")[report.violations[0].line - 1] == "    while 1: pass"
    assert len(report.notes) == 2


def test_nothing_is_taken_out_where_nobody_knows_what_the_loss_is() -> None:
    source = "import torch\n\ndef one(a):\n    while a: pass\n\nclass Two:\n    pass\n"
    candidate = read_candidate(source, PAIRS)
    assert (candidate.source, candidate.notes) == (source, ())


def test_another_contract_is_mended_by_its_own_names() -> None:
    source = (
        "import torch.nn.functional as F\n\ndef kto(policy_logps, desirable):\n    return -F.logsigmoid(policy_logps)\n"
    )
    candidate = read_candidate(source, UNPAIRED)
    report = check_source(candidate, UNPAIRED)
    assert report.violations == ()
    assert report.parameters == UNPAIRED.required
    assert f"def {UNPAIRED.function}(policy_logps, desirable, " in candidate.source


def test_notes_are_few_and_of_one_line() -> None:
    blocks = "".join(f"class C{i}:\n    pass\n" for i in range(60))
    candidate = read_candidate(KNOWN["dpo"].source + blocks, PAIRS)
    assert candidate == KNOWN["dpo"]
    assert len(candidate.notes) == MAX_NOTES


def test_the_keywords_are_those_that_torch_documents() -> None:
    """If this fails with another torch: `python -m tests.sandbox.make_keywords`, and look at what became new."""
    assert {name: list(keywords) for name, keywords in allowlist.KEYWORDS_OF.items()} == derive()


def advice() -> dict[str, str]:
    tables = (gate_hints._NAMES, gate_hints._ATTRIBUTES, gate_hints._DOTTED)
    return {name: text for table in tables for name, text in table.items()}


@pytest.mark.parametrize("name", advice())
def test_advice_names_only_what_there_is(name: str) -> None:
    text = advice()[name]
    for dotted in re.findall(r"\btorch(?:\.\w+)+|\bmath\.\w+", text):
        assert dotted in allowlist.DOTTED | allowlist.TENSOR_TYPES, dotted
    for attribute in re.findall(r"(?<![\w)])\.(\w+)", text):
        assert attribute in allowlist.ATTRIBUTES, attribute


def test_every_name_that_a_nearest_name_is_suggested_for_exists() -> None:
    leaves = [n for n in [*vars(torch), *vars(torch.nn.functional), *vars(torch.special), *vars(math)] if n[0] != "_"]
    for leaf in leaves:
        for module in ("torch", "torch.nn.functional"):
            said = gate_hints.about_dotted(f"{module}.{leaf}")
            for named in re.findall(r"(?:Did you mean|Use) `(torch[.\w]*|math\.\w+)", said):
                assert named in allowlist.DOTTED, said


def test_a_long_text_is_read_once_for_each_change_not_for_each_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies are mended where a campaign is steered: a hostile one must not hold that up."""
    read: list[str] = []
    monkeypatch.setattr(mend, "Source", lambda text, contract: read.append(text) or Source(text, contract))
    classes = "".join(f"class A{i}:\n    pass\n\n\n" for i in range(12))
    given = classes + KNOWN["dpo"].source + "".join(f"\n\nprint({i})" for i in range(10)) + "\n"
    assert check_source(Candidate(PAIRS.name, given), PAIRS).violations
    found = read_candidate(given, PAIRS)
    assert check_source(found, PAIRS).accepted
    assert len(read) <= 10  # a change or two in each of some rounds; fifteen rules in each would be ninety


@pytest.fixture(autouse=True)
def _packages_that_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jaxtyping",):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
