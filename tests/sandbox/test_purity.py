"""A loss changes nothing that it has not made: whoever calls its functions, and whatever gives back its own argument."""

from __future__ import annotations

import functools

import pytest

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from tests.sandbox import sharing
from tests.support.losses import HEAD, MARGIN, body

END = "    return -F.logsigmoid(beta * d)\n"
INPUTS = ", ".join(PAIRS.required[:4])
HIT = "    if isinstance(beta, torch.Tensor):\n        beta.mul_(0.0)\n        return beta\n"
SUBTRACT = "    if isinstance(beta, torch.Tensor):\n        beta -= beta\n        return beta\n"


def words_of(source: str) -> str:
    return "\n".join(str(v) for v in check_source(Candidate(PAIRS.name, source), PAIRS).violations)


def again(call: str, hit: str = HIT, before: str = "", after: str = "") -> str:
    """A module whose entry function is reached once more by these lines, and then changes what it takes for a number."""
    lines = "".join(f"    {line}\n" for line in call.splitlines())
    return HEAD.replace("\n\n\ndef", f"\n{before}\n\ndef", 1) + MARGIN + hit + lines + END + after


# ways to reach the entry function with an input where the contract passes a number
REACHED = {
    "by name": again(f"loss({INPUTS}, reference_chosen_logps)"),
    "by keyword": again(f"loss({INPUTS}, beta=reference_chosen_logps)"),
    "by star": again(f"every = [{INPUTS}, reference_chosen_logps]\nloss(*every)"),
    "by a second name": again(f"g = loss\ng({INPUTS}, reference_chosen_logps)"),
    "by a second name of the module": again(f"AGAIN({INPUTS}, reference_chosen_logps)", after="\n\nAGAIN = loss\n"),
    "from a list": again(f"ALL[0]({INPUTS}, reference_chosen_logps)", after="\n\nALL = [loss]\n"),
    "from a dictionary": again(f"ALL['a']({INPUTS}, reference_chosen_logps)", after="\n\nALL = {'a': loss}\n"),
    "through a helper": again(
        "h(d, reference_chosen_logps)", before="\n\ndef h(x, b):\n    return loss(x, x, x, x, b)\n"
    ),
    "through a nested function": again(f"def h(b):\n    return loss({INPUTS}, b)\nh(reference_chosen_logps)"),
    "through a lambda": again(f"(lambda b: loss({INPUTS}, b))(reference_chosen_logps)"),
    "through a lambda of the module": again("F2(d, reference_chosen_logps)", before="F2 = lambda x, b: loss(x, x, x, x, b)"),
    "by map": again("list(map(loss, [d], [d], [d], [d], [reference_chosen_logps]))"),
    "as an argument": again(f"(lambda f: f({INPUTS}, reference_chosen_logps))(loss)"),
    "as a default": again(f"def h(f=loss):\n    return f({INPUTS}, reference_chosen_logps)\nh()"),
    "in a comprehension": again(f"[loss({INPUTS}, r) for r in (reference_chosen_logps,)]"),
    "as a key function": again("sorted([d], key=loss)"),
    "by an augmented assignment": again(f"loss({INPUTS}, reference_chosen_logps)", SUBTRACT),
    "in a closure": again(
        f"loss({INPUTS}, reference_chosen_logps)",
        "    if isinstance(beta, torch.Tensor):\n        (lambda: beta.mul_(0.0))()\n        return beta\n",
    ),
    "under another name inside": again(
        f"loss({INPUTS}, reference_chosen_logps)",
        "    if isinstance(beta, torch.Tensor):\n        b = beta\n        b *= 0\n        return beta\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REACHED)
def test_what_the_source_calls_itself_may_be_given_anything(name: str) -> None:
    assert "which this function did not make" in words_of(REACHED[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("extra.append(1.0)", "calls .append on `extra`"),
        ("extra += [1.0]", "changes in place `extra`"),
        ("extra[0] = 1.0", "sets elements of `extra`"),
        ("extra.sort()", "calls .sort"),
    ],
)
def test_a_list_of_the_module_reaches_no_default(change: str, words: str) -> None:
    head = HEAD.replace("float)", "float, extra=0)").replace("\n\n\ndef", "\nKEPT = [0.0]\n\n\ndef", 1)
    taken = f"    if isinstance(extra, list):\n        {change}\n        return extra\n"
    call = f"    loss({INPUTS}, beta, KEPT)\n"
    assert words in words_of(head + MARGIN + taken + call + END)
    assert words_of(head + MARGIN + call + END) == ""  # to call itself is no fault


def test_a_default_that_lives_on_is_no_number_though_the_contract_passes_one() -> None:
    """The campaign always passes `progress`; who imports the file may leave it out."""
    head = HEAD.replace("float)", "float, progress=[0.0])")
    assert "`progress`" in words_of(head + MARGIN + "    progress += [1.0]\n" + END)
    assert words_of(head.replace("[0.0]", "-0.5") + MARGIN + "    progress *= 2\n" + END) == ""


def test_a_number_that_only_the_contract_passes_may_be_changed() -> None:
    assert words_of(HEAD.replace("float)", "float, k=-1.5)") + MARGIN + "    beta *= 2\n    k += 1\n" + END) == ""


measured = functools.cache(sharing.measure)


def test_whatever_shares_memory_with_its_argument_is_not_taken_for_new() -> None:
    found, _ = measured()
    assert {"torch.as_tensor", "torch.positive", ".float", ".T", ".view", ".unbind", "torch.einsum"} <= found
    taken_for_new = [n for n in sorted(found) for report in uses_of(n) if "did not make" not in report]
    assert taken_for_new == []


def test_nothing_that_is_not_called_in_place_changes_an_argument() -> None:
    assert measured()[1] == set()


def uses_of(name: str) -> list[str]:
    """What the gate says where the result of this name, called with an input, is changed in place."""
    r, short = "reference_chosen_logps", name.rpartition(".")[2]
    texts = (
        [f"{r}.{short}(0)", f"{r}.{short}"]
        if name.startswith(".")
        else [f"{name}({r})", f"{name}([{r}])", f"{name}(0, {r})"]
    )
    return [words_of(body(f"x = {t}\nx.zero_()\nreturn d").source) for t in texts]
