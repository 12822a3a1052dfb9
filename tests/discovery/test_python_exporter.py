import ast
import importlib.util
import io
import tokenize

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discovery.exporters.base import ExportError
from discovery.exporters.python import PythonExporter
from discovery.exporters.testing import CONTEXT, HOSTILE, ExporterConformance, dossier
from discovery.exporting import Typed, make_export
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.server import OracleServer


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


KNOWN = known_objectives(PAIRS.name)
BODY = "def loss(x):\n    return x\n"


def export(**rest) -> str:
    return PythonExporter().export(dossier(**rest), CONTEXT).text


class TestConformance(ExporterConformance):
    def make_exporter(self):
        return PythonExporter()


def statements(text: str) -> list[str]:
    """The module's statements but for its docstring, `import torch`, and annotations of `loss`."""
    tree = ast.parse(text)
    found = []
    for node in tree.body[1 if ast.get_docstring(tree) is not None else 0 :]:
        if isinstance(node, ast.FunctionDef) and node.name == "loss":
            node.returns = None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        if ast.unparse(node) != "import torch":
            found.append(ast.dump(node))
    return found


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


def test_scores_come_with_intervals_and_paired_differences():
    text = export()
    assert "frontier (higher is better) on preference.enumerable, by which the search ranked:\n" in text
    assert "    mean: 0.625, 95% interval [-0.9633, 2.213], 2 seeds\n    seed 0: 0.5\n" in text
    assert "    seed 1: 0.75\n    minus dpo (0.375): +0.25, 95% interval [0.25, 0.25], better" in text


SIGNATURE = """def loss(
    policy_chosen_logps: torch.Tensor,
    policy_rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    beta: float,
) -> torch.Tensor:
"""
NAMES = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
RETURN = "    return beta * (policy_rejected_logps - policy_chosen_logps)\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"def loss({NAMES}):\n{RETURN}", f"import torch\n\n\n{SIGNATURE}{RETURN}"),
        (
            f"import torch\n\n\ndef loss({NAMES}):  # why\n{RETURN}",
            f"import torch\n\n\n{SIGNATURE[:-1]}  # why\n{RETURN}",
        ),
        (
            f"from __future__ import annotations\n\n\ndef loss({NAMES}):\n{RETURN}",
            f"from __future__ import annotations\n\nimport torch\n\n\n{SIGNATURE}{RETURN}",
        ),
        (
            f"import math\nC = 1\n\n\ndef loss({NAMES}):\n{RETURN}\n\nimport torch.nn.functional as F\n",
            f"import torch\nimport math\nC = 1\n\n\n{SIGNATURE}{RETURN}\n\nimport torch.nn.functional as F\n",
        ),
        (
            f"import math as torch\n\n\ndef loss({NAMES}):\n{RETURN}",
            f"import math as torch\n\n\ndef loss({NAMES}):\n{RETURN}",
        ),
        (f"import torch.special\n\n\ndef loss({NAMES}):\n{RETURN}", f"import torch.special\n\n\n{SIGNATURE}{RETURN}"),
    ],
)
def test_the_function_is_typed_and_its_body_stays(source, expected):
    assert check_source(Candidate(PAIRS.name, source), PAIRS).accepted
    assert export(source=source, thought="").split('"""\n')[1].strip("\n") == expected.strip("\n")


def test_annotations_that_are_there_and_defaults_are_kept():
    rest = "*, tau=0.05, kind: str = 'a', sizes=(1, 2)"
    source = f"from torch import Tensor\n\n\ndef loss({NAMES}: float, {rest}) -> Tensor:\n{RETURN}"
    text = export(source=source)
    for line in (
        "    beta: float,",
        "    *,",
        "    tau: float = 0.05,",
        "    kind: str = 'a',",
        "    sizes=(1, 2),",
        ") -> Tensor:",
    ):
        assert f"{line}\n" in text


def test_a_formula_stands_in_the_docstring(server):
    made = make_export(PythonExporter(), dossier(source=KNOWN["lrml"].candidate.source), Typed(), server).export.text
    assert "    exponential = exp(logsigmoid(z / 0.05) - z)\n    L = logistic + exponential\n" in made


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
