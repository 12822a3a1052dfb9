"""What a process could be told from another by: addresses in texts, and the order of sets."""

from __future__ import annotations

import pytest
import torch

from evaluators.preference.contract import PAIRS
from sandbox.allowlist import ATTRIBUTES, DOTTED, KEEPERS, MODULES
from sandbox.candidate import Candidate
from sandbox.elementwise import is_elementwise
from sandbox.failure import FailureKind
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.probe import probe
from sandbox.server import OracleServer
from tests.support.losses import HEAD, MARGIN, body

TEXTS = {
    "of a helper": "def h(x):\n    return x\nt = f'{h}'\nreturn d * len(t)",
    "of a function of torch": "t = f'{torch.add!r}'\nreturn d * len(t)",
    "of a built-in, as ASCII": "t = f'{F.softplus!a}'\nreturn d * len(t)",
    "of a lambda": "t = str(lambda x: x)\nreturn d * len(t)",
    "of a bound method": "t = f'{d.sum}'\nreturn d * len(t)",
    "of an iterator": "t = f'{(x for x in (1,))}'\nreturn d * len(t)",
    "of a map": "t = str(map(abs, [1]))\nreturn d * len(t)",
    "of a list": "t = str([torch.add])\nreturn d * len(t)",
    "of a tuple that grew": "t = (1,)\nt += (torch.add,)\nreturn d * len(f'{t}')",
    "of a shape that grew": "s = d.shape\ns += (torch.add,)\nreturn d * len(f'{s}')",
    "of a list that was filled later": "x = d.tolist()\nx.append(torch.add)\nreturn d * len(f'{x}')",
    "of an argument": "def h(x):\n    return len(f'{x}')\nreturn d * h(torch.add)",
    "of a name that may be one": "x = 1\nif beta > 1:\n    x = torch.add\nreturn d * len(f'{x}')",
    "of a choice": "x = torch.add if beta > 1 else 2\nreturn d * len(f'{x}')",
    "of a loop's variable": "for f in (torch.add, torch.sub):\n    d = d * len(f'{f}')\nreturn d",
    "of a walrus": "t = f'{(x := torch.add)}'\nreturn d * len(t)",
    "of an error": "t = str(ValueError(torch.add))\nreturn d * len(t)",
    "of a tensor": "t = f'{d}'\nreturn d * len(t)",
    "with %": "t = '%s' % torch.add\nreturn d * len(t)",
    "with % and several": "t = '%s %s' % (1, torch.add)\nreturn d * len(t)",
    "with % in a name": "t = '%s'\nreturn d * len(t % torch.add)",
    "with % out of an f-string": "t = f'%{beta}s' % torch.add\nreturn d * len(t)",
    "with % out of a format": "t = f'{0:%>1}s'\nreturn d * len(t % torch.add)",
    "with % by addition": "t = ('%' + 's') % torch.add\nreturn d * len(t)",
    "with % from a helper": "def h(t, x):\n    return t % x\nreturn d * len(h('%s', torch.add))",
    "by a key": "return d * sorted([1, 2], key=lambda x: f'{x}')[0]",
    "of a list that a comparison looks at": "return d * len(f'{[torch.add] == [1]}')",
    "by a default": "def h(x=torch.add):\n    return len(f'{x}')\nreturn d * h()",
}
SETS = {
    "of texts": "return d * len(list({'a', 'b'})[0])",
    "of functions": "return list({torch.sin, torch.cos})[0](d)",
    "of tensors": "return list({d, d * 2})[0]",
    "of tuples": "for a, b in {('x', 1), ('y', 2)}:\n    d = d * b\nreturn d",
    "of None": "for a in {None, 1, 2}:\n    d = d * 2 if a else d + 1\nreturn d",
    "made by a call": "return d * len(list(set(['a', 'b']))[0])",
    "frozen": "return d * len(list(frozenset(('a', 'b')))[0])",
    "made in a loop": "return d * len(list({w for w in ('a', 'b')})[0])",
    "by map": "return d * len(list(list(map(set, [['a', 'b']]))[0])[0])",
    "by another name": "s = set\nreturn d * len(list(s(['a', 'b']))[0])",
    "of a dictionary's keys": "k = {'a': 1, 'b': 2}.keys()\nreturn d * len(list(k - {1})[0])",
    "of a dictionary's items": "for a, b in {'a': 1, 'b': 2}.items() - {1}:\n    d = d * b\nreturn d",
    "of keys, by a method's name": "k = {'a': 1, 'b': 2}.keys\nreturn d * len(list(k() - {1})[0])",
    "of NaN": "return d * list({math.nan, 1.0, 2.0})[0]",
    "of a made NaN": "return d * list({float('nan'), 1.0})[0]",
    "of a sum that may be NaN": "return d * list({1e308 * 10 - 1e308 * 10, 1.0})[0]",
    "of a quotient's product": "return d * list({2 / 1 * beta, 1.0})[0]",
    "of a tensor's elements": "return d * len(list(set((d * float('nan')).tolist())))",
    "of an element": "return d * list({d.sum().item(), 1.0})[0]",
    "of roots": "return d * list({math.sqrt(beta), math.fsum([beta])})[0]",
    "frozen, of NaN": "return d * list(frozenset([math.nan, 1.0]))[0]",
    "of keys, the larger of two": "k = max({'a': 1}.keys(), {'a': 1}.keys())\nreturn d * len(list(k - {1})[0])",
    "of keys, as an argument": "def h(k):\n    return list(k - {1})\nreturn d * len(h({'a': 1}.keys()))",
}
ADDED = {
    "a text": "s = {1}\ns.add('a')\nreturn d * len(list(s))",
    "a function": "s = set([1, 2])\ns.add(torch.add)\nreturn list(s)[0](d, d)",
    "by map": "s = {1}\nt = list(map(s.add, ['a', 'b']))\nreturn d * len(list(s))",
    "by the method's name": "s = {k for k in range(3)}\nput = s.add\nput('a')\nreturn d * len(list(s))",
    "in a helper": "def h(s, x):\n    s.add(x)\n    return list(s)\nreturn d * len(h({1}, 'a'))",
    "a NaN": "s = {1.0}\ns.add(math.nan)\nreturn d * list(s)[0]",
}
# modules that keep what they are given where something else is expected
KEPT = [
    "return d * len(f'{torch.nn.Softmax(dim=lambda: torch.add).dim()}')",
    "return d * len(f'{torch.nn.GaussianNLLLoss(eps=torch.add).eps}')",
    "return d * len(f'{torch.nn.PoissonNLLLoss(True, False, None, torch.add).eps}')",
    "torch.nn.LogSoftmax(lambda: reference_chosen_logps).dim().mul_(0.0)\nreturn d",
    "kept = [1]\ntorch.nn.Softmin(dim=lambda: kept).dim().append(2)\nreturn d",
    "assert beta > 9, torch.nn.Softmax(dim=lambda: reference_chosen_logps).dim().mul_(0.0)\nreturn d",
    "every = [lambda: reference_chosen_logps]\ntorch.nn.Softmax(*every).dim().mul_(0.0)\nreturn d",
]
HONEST = [
    "if beta < 0:\n    raise ValueError(f'beta {beta:.3f} for {d} by {F.softplus}')\nreturn d",
    "assert beta > 0, '%s is no beta, %r' % (beta, d)\nreturn d",
    "n = d.shape[0]\nname = f'{n}-{d.dtype}-{d.dim()}-{float(d.mean()):.2f}-{beta!r}'\nreturn d * len(name)",
    "k = 'soft' if beta > 1 else 'hard'\nweights = {'hard_1': 2.0, 'soft_1': 3.0}\nreturn d * weights[f'{k}_1']",
    "t = 'about %.2f at %d' % (beta, len(d))\nreturn d * len(t)",
    "def h(x, period):\n    return x % period\nreturn h(d, 2.0) + 7 % 3",
    "kind = 'a'\nif kind in {'a', 'b'}:\n    d = d * 2\nreturn d * len({'x', 'y'})",
    "for k in {1, 2, 3}:\n    d = d + k\nreturn d * sum(set(range(3))) * sum({k * k for k in range(3)})",
    "t = {'a': 1.0, 'b': 2.0}\nfor k, v in t.items():\n    d = d * v\nreturn d * len(t.keys())",
    "t = {2: 1.0, 1: 2.0}\nreturn d * sum([v for _, v in sorted(t.items())]) * max(t.keys())",
    "'''100% smooth'''\nreturn d",
    "assert isinstance(beta, (set, float))\nreturn d",
    "seen = {0}\nfor k in range(3):\n    seen.add(k + 1)\nreturn d * len(list(seen))",
    "if beta in {0.1, 0.5}:\n    d = d.add(1.0)\nreturn d.add(torch.ones_like(d))",
    "for k in {0.5, 1.5, -2.0}:\n    d = d * k\nreturn d * sum(set(d.detach().long().tolist()))",
    "both = torch.stack([beta * d, torch.zeros_like(d)], dim=1)\nreturn -torch.nn.LogSoftmax(dim=-1)(both)[:, 0]",
]


def words_of(lines: str) -> str:
    return "\n".join(str(v) for v in check_source(body(lines), PAIRS).violations)


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_made_of_numbers_and_texts(name: str) -> None:
    words = words_of(TEXTS[name])
    assert "may hold an address" in words or "a text with %" in words, words


@pytest.mark.parametrize("name", SETS)
def test_no_order_of_a_set_is_seen_but_of_numbers(name: str) -> None:
    words = words_of(SETS[name])
    assert any(w in words for w in ("a set of something else", "as a value")), words


@pytest.mark.parametrize("name", ADDED)
def test_nothing_but_whole_numbers_is_added_to_a_set(name: str) -> None:
    assert "beside a set" in words_of(ADDED[name])


@pytest.mark.parametrize("lines", KEPT)
def test_modules_keep_numbers_only(lines: str) -> None:
    assert "of something else than numbers" in words_of(lines)


def test_a_module_that_keeps_something_is_no_value() -> None:
    assert "`torch.nn.Softmax` as a value" in words_of("m = torch.nn.Softmax\nm(lambda: d).dim().mul_(0.0)\nreturn d")


def test_all_modules_are_known_that_keep_something_under_an_available_name() -> None:
    found = set()
    for dotted in (n for n in DOTTED if n.startswith("torch.nn.") and n.count(".") == 2 and n not in MODULES):
        made = getattr(torch.nn, dotted.rpartition(".")[2])()
        kept = {*vars(made), *dict(made.named_buffers()), *dict(made.named_parameters())} & ATTRIBUTES
        found |= {dotted} if kept else set()
    assert found == KEEPERS


@pytest.mark.parametrize("lines", HONEST)
def test_what_is_the_same_everywhere_is_accepted(lines: str) -> None:
    assert words_of(lines) == ""


def test_module_level_and_defaults_are_read_too() -> None:
    for kept in ("K = f'{torch.add}'", "K = str(abs)", "K = list({'a', 'b'})", "K = lambda x: f'{x}'"):
        source = HEAD.replace("\n\n\ndef", f"\n{kept}\n\n\ndef", 1) + MARGIN + "    return d\n"
        assert not check_source(Candidate(PAIRS.name, source), PAIRS).accepted, kept
    source = (
        HEAD.replace("\n\n\ndef", "\nSCALE = 2\nK = f'{SCALE:.1f}'\n\n\ndef", 1) + MARGIN + "    return d * float(K)\n"
    )
    assert check_source(Candidate(PAIRS.name, source), PAIRS).accepted


def test_formatting_is_no_arithmetic_of_each_example_by_itself() -> None:
    text = "    s = 1.0 if '%s' % h < '<function h at 0x7f' else 2.0\n"
    head = HEAD.replace("\n\n\ndef", "\n\n\ndef h(x):\n    return x\n\n\ndef", 1)
    assert is_elementwise(head + MARGIN + "    return h(d)\n", PAIRS)
    assert not is_elementwise(head + MARGIN + text + "    return d * s\n", PAIRS)


# the gate aside: what it might overlook
ADDRESS = "    p = int(f'{torch.add}'[-13:-1], 16)\n    return -F.logsigmoid(beta * d * (1 + 1e-6 * (p % 99991)))\n"
ORDER = (
    "    words = [*{'soft', 'hard', 'wide', 'long', 'flat', 'deep', 'cold', 'warm', 'thin', 'tall'}]\n"
    "    place = sum(k for k, w in enumerate(words) if w in ('soft', 'wide', 'flat', 'cold', 'thin'))\n"
    "    first = 1.0 * place + 0.1 * (words[0] < words[1]) + 0.2 * (words[2] < words[3]) + 0.4 * (words[4] < words[5])\n"
    "    return -F.logsigmoid(beta * d * (1 + 0.01 * first))\n"
)


@pytest.mark.parametrize("lines", [ADDRESS, ORDER], ids=["address", "order"])
def test_what_differs_between_two_servers_is_seen_before_training(lines: str, server: OracleServer) -> None:
    head = HEAD.replace("\n\n\ndef", "\n\n\ndef h(x):\n    return x\n\n\ndef", 1)
    candidate = Candidate(PAIRS.name, head + MARGIN + lines)
    failure = probe(server, candidate, PAIRS, PAIRS.required).failure
    assert failure is not None
    assert failure.kind is FailureKind.CONTRACT
    assert "in another process" in failure.message


def test_servers_of_campaigns_order_sets_alike(server: OracleServer) -> None:
    """Each worker has one of its own, and a search must not depend on which of them a candidate comes to."""
    inputs = {n: -20 + torch.arange(8.0).unsqueeze(0) for n in PAIRS.required[:4]}
    candidate = Candidate(PAIRS.name, HEAD + MARGIN + ORDER)
    answers = []
    with OracleServer() as another:
        for running in (server, another):
            with LossOracle(running, candidate, PAIRS, PAIRS.required) as oracle:
                answers.append(oracle.evaluate(inputs, {"beta": [0.1]}).losses)
    assert torch.equal(*answers)


def test_the_other_server_starts_once_and_ends_with_its_owner() -> None:
    with OracleServer() as own:
        apart = own.apart()
        assert own.apart() is apart
        apart.start()
        assert apart._current is not None
        pid, process = apart._current.pid, apart._current
        assert process.alive
    assert not process.alive, pid
