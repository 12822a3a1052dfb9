"""Contract, Candidate, Failure and text: what is refused at construction, and what crosses unchanged."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.candidate import Candidate, normalise_source
from sandbox.contract import Conditions, Contract, ScalarInput, TensorInput
from sandbox.failure import CandidateError, Failure, FailureKind, InfrastructureError
from sandbox.limits import Limits
from sandbox.text import clean_text, one_line

X = TensorInput("x", "a policy value", -1.0, 1.0, carries_gradient=True)


def test_contract_lists_required_and_optional_names_in_order() -> None:
    assert PAIRS.required[-1] == "beta"
    assert PAIRS.optional[-3:] == ("progress", "running_log_ratio", "moving_margin")
    assert UNPAIRED.required == ("policy_logps", "reference_logps", "desirable", "beta")
    assert PAIRS.signature().startswith("def loss(policy_chosen_logps: torch.Tensor, ")
    assert "progress" not in PAIRS.signature()
    assert [t.name for t in PAIRS.tensors_of(("beta", "policy_rejected_logps"))] == ["policy_rejected_logps"]
    assert [s.name for s in PAIRS.scalars_of(("progress", "x"))] == ["progress"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tensors": (X, X)}, "repeated"),
        ({"tensors": (replace(X, name="Bad Name"),)}, "identifier"),
        ({"function": "loss\n"}, "identifier"),
        ({"function": ""}, "identifier"),
        ({"tensors": (replace(X, carries_gradient=False),)}, "gradient"),
        ({"tensors": (replace(X, optional=True),)}, "gradient"),
        ({"scale_scalar": "gamma"}, "scale_scalar"),
        ({"label": "x"}, "label"),
        ({"tensors": (replace(X, wanted="by_label"),)}, "wanted by_label, and there is no label"),
        ({"tensors": (replace(X, name="y", optional=True), X)}, "optional"),
        ({"tensors": (replace(X, reference="y"),)}, "has no reference 'y'"),
        ({"tensors": (replace(X, reference="x"),)}, "has no reference 'x' without gradient"),
        ({"tensors": (replace(X, tokens_of="y"),)}, "counts the tokens of no input 'y'"),
        ({"tensors": (replace(X, below=X.high),)}, "is not below"),
        ({"smallest_batch": 0}, "smallest_batch must be at least 1, not 0"),
    ],
)
def test_contract_refuses_invalid_states(change: dict[str, object], what: str) -> None:
    good = Contract("family.x", "loss", "text", (X,), (ScalarInput("beta", "", 0.1, (0.1,)),), "beta")
    with pytest.raises(ValueError, match=what):
        replace(good, **change)  # type: ignore[arg-type]


def test_conditions_have_a_secret_of_their_own_and_a_batch() -> None:
    assert Conditions() != Conditions()
    with pytest.raises(ValueError, match="a batch of 0 examples"):
        Conditions(batch=0)


@pytest.mark.parametrize("change", [{"call_s": 0.0}, {"trial_s": -1.0}, {"memory_mb": 0}])
def test_limits_must_be_positive(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Limits(**change)  # type: ignore[arg-type]


@given(st.text())
def test_normalising_is_idempotent(source: str) -> None:
    once = normalise_source(source)
    assert normalise_source(once) == once
    assert once.endswith("\n")
    assert "\r" not in once


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=20), max_size=8))
def test_identity_ignores_line_ends_and_trailing_blanks(lines: list[str]) -> None:
    plain = Candidate("c", "\n".join(lines))
    assert Candidate("c", "\r\n".join(line + "  \t" for line in lines) + "\r\n\r\n") == plain
    assert Candidate("other", plain.source).id != plain.id
    assert plain.id.startswith(plain.short_id)


def test_identity_depends_on_the_text_and_survives_surrogates() -> None:
    assert Candidate("c", "a = 1").id != Candidate("c", "a = 2").id
    assert Candidate("c", " a").id != Candidate("c", "a").id  # indentation is meaning
    assert len(Candidate("c", "x = '\ud800'").id) == 64


def test_failures_are_cleaned_and_typed() -> None:
    failure = Failure("CRASH", "a\x1b[31mred\x1b[0m\u202egnp.exe\x00\u200b\ttab\nline")  # type: ignore[arg-type]
    assert failure.kind is FailureKind.CRASH
    assert failure.message == "a[31mred[0mgnp.exe\ttab\nline"
    assert str(failure) == f"CRASH: {failure.message}"
    with pytest.raises(ValueError, match="not a valid"):
        Failure("NOPE", "x")  # type: ignore[arg-type]
    assert [k for k in FailureKind if not k.candidates_fault] == [FailureKind.INFRASTRUCTURE, FailureKind.PLUGIN]
    assert InfrastructureError("lost").failure == Failure(FailureKind.INFRASTRUCTURE, "lost")


@given(st.text(max_size=300), st.integers(1, 100))
def test_clean_text_is_short_printable_and_stable(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in cleaned)
    assert clean_text(cleaned, limit) == cleaned
    cleaned.encode("utf-8")
    assert "\n" not in one_line(text, limit)
    assert len(one_line(text, limit)) <= limit


def test_clean_text_cuts_with_a_mark() -> None:
    assert clean_text("x" * 10, 5) == "xxxx…"
    assert one_line("a\n\n  b\tc") == "a b c"


def test_candidate_error_survives_pickling() -> None:
    error = CandidateError(Failure(FailureKind.TIMEOUT, "too slow"))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is CandidateError
    assert copy.failure == error.failure
    assert str(copy) == "TIMEOUT: too slow"


def test_values_are_importable_without_torch() -> None:
    modules = ["candidate", "contract", "failure", "gate", "limits", "reports", "text", "child_spec"]
    code = (
        f"import sys, json\nfor m in {modules!r}: __import__('sandbox.' + m)\nprint(json.dumps('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) is False
