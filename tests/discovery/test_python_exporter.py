import ast
import importlib.util
import io
import tokenize
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from db.records import TrialRecord
from discovery.exporters.base import ExportError
from discovery.exporters.python import PythonExporter
from discovery.exporters.testing import CONTEXT, HOSTILE, ExporterConformance, entry
from evaluators.base import Metric
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source

KNOWN = known_objectives(PAIRS.name)
BODY = "def loss(x):\n    return x\n"


def export(**rest) -> str:
    return PythonExporter().export(entry(**rest), (), CONTEXT)


class TestConformance(ExporterConformance):
    def make_exporter(self):
        return PythonExporter()


def statements(text: str) -> list[str]:
    tree = ast.parse(text)
    return [ast.dump(n) for n in tree.body[1 if ast.get_docstring(tree) is not None else 0 :]]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_module_computes_what_the_candidate_computed(name, tmp_path):
    path = tmp_path / "exported.py"
    path.write_text(export(source=KNOWN[name].candidate.source), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    original = {}
    exec(KNOWN[name].candidate.source, original)
    inputs = {t.name: torch.linspace(-3, -1, 5) * (i + 1) for i, t in enumerate(PAIRS.tensors)}
    inputs |= {t.name: (-inputs[t.name]).ceil().long() for t in PAIRS.tensors if t.dtype == "int64"}
    given = {n: inputs.get(n, 0.1) for n in KNOWN[name].inputs}
    assert torch.equal(module.loss(**given), original["loss"](**given))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_an_exported_module_passes_the_gate_again(name):
    assert check_source(Candidate(PAIRS.name, export(source=KNOWN[name].candidate.source)), PAIRS).accepted


def test_the_documentation_names_the_inputs_that_the_function_takes():
    plain = KNOWN["dpo"].candidate.source
    assert "progress" not in export(source=plain)
    with_progress = plain.replace("logps, beta)", "logps, beta, progress=1.0)")
    assert with_progress != plain
    doc = ast.get_docstring(ast.parse(export(source=with_progress)))
    assert "progress=...)" in doc
    assert "progress: how far training is" in doc


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["name", "thought", "source"])
def test_hostile_text_cannot_leave_the_docstring_or_the_comments(text, field):
    literal = f"{text!r}\nimport torch\n{BODY}".replace("\\ud800", "")
    exported = export(**{field: literal if field == "source" else text})
    assert statements(exported) == statements(literal if field == "source" else KNOWN["dpo"].candidate.source)
    assert tokenize.detect_encoding(io.BytesIO(exported.encode()).readline)[0] == "utf-8"  # no forged encoding cookie


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_name_and_thought_leave_the_code_as_it_is(name, thought):
    assert statements(export(name=name, thought=thought)) == statements(KNOWN["dpo"].candidate.source)


@pytest.mark.parametrize(
    "source",
    [
        BODY,
        f'"""Doc."""; import torch\n{BODY}',
        f'# first\n\n"""Doc é with\n\nlines "and" quotes."""  # after\nfrom __future__ import annotations\n{BODY}',
        f'("Doc " "in pieces")\n{BODY}',
        f'"é"; import math\n{BODY}',
        f"from __future__ import annotations\n{BODY}",
        f'"""Doc."""\n"""A second string."""\n{BODY}',
    ],
)
def test_module_docstrings_of_all_shapes_move_into_ours(source):
    exported = export(source=source)
    assert statements(exported) == statements(source)
    assert ast.get_docstring(ast.parse(exported)).startswith("Training objective a_loss")
    compile(exported, "exported", "exec")  # a __future__ import must still stand first


def test_trials_are_listed_with_their_metrics():
    trial = TrialRecord(
        1, "a", "t" * 64, "preference.enumerable", 3, "done", 1, (Metric("kl", 1.5, False, "nats", 0.25),)
    )
    text = PythonExporter().export(entry(), (trial, replace(trial, status="failed", seed=9)), CONTEXT)
    assert "Trial of preference.enumerable, seed 3, task tttttttttt:\n    kl: 1.5 +- 0.25 nats" in text
    assert "seed 9" not in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def loss(:", "not valid Python"),
        (f"import os\n{BODY}", "imports 'os'"),
        (f"from . import x\n{BODY}", "imports '.'"),
    ],
)
def test_what_was_never_accepted_is_not_exported(source, said):
    with pytest.raises(ExportError, match=said):
        export(source=source)
