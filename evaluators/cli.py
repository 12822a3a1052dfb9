"""Command line of the evaluators alone, for a machine without the rest of the project.

    python -m evaluators list
    python -m evaluators run preference.enumerable --objective dpo --seed 0

Exit codes: 0 done, 1 a fault (the objective's or the machine's), 2 bad input. One line on stderr says which.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.base import Evaluator, TrialReport
from evaluators.objectives import known_objective
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin, make_plugin, plugin_names
from evaluators.promises import prepare
from sandbox.candidate import MAX_SOURCE_BYTES, Candidate
from sandbox.contract import Contract
from sandbox.failure import CandidateError, InfrastructureError, PluginError
from sandbox.mend import read_candidate
from sandbox.text import clean_text, one_line

OK, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        code: int = given.command(given)
    except (OptionsError, CandidateError, InfrastructureError, PluginError, KeyboardInterrupt, OSError) as error:
        if given.debug:
            raise
        code, text = _explain(error)
        print(f"{parser.prog}: {text}", file=sys.stderr)
    return code


def _explain(error: BaseException) -> tuple[int, str]:
    if isinstance(error, OptionsError):
        return BAD_INPUT, one_line(str(error), 500)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, (CandidateError, InfrastructureError, PluginError)):
        whose = "the objective failed" if error.failure.kind.candidates_fault else "could not run"
        return FAULT, f"{whose}: {one_line(str(error.failure), 1000)}"
    return FAULT, one_line(f"{type(error).__name__}: {error}", 500)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluators", description="Score one objective on one task.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="check one objective, train with it and print its metrics")
    run.add_argument("evaluator", metavar="NAME", help="an evaluator (see `list`) or module:attr")
    run.add_argument("--objective", required=True, help="a known objective, or a .py file")
    run.add_argument("--seed", type=_seed, default=0, help="0 or more; default 0")
    run.add_argument("--device", help="the same as --set device=...")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an evaluator option; VALUE is JSON or a word"
    )
    run.add_argument("--cache-dir", type=Path, help="where prepared tasks are kept")
    run.add_argument(
        "--unsafe-no-sandbox", action="store_true", help="without the system-call filter, where this machine has none"
    )
    run.add_argument("--json", action="store_true", help="print one JSON object")
    run.add_argument("--debug", action="store_true", help="tracebacks instead of one line")
    run.set_defaults(command=_run)
    measuring = commands.add_parser("measure", help="measure the properties of all known objectives and keep them")
    measuring.add_argument("--debug", action="store_true", help="tracebacks instead of one line")
    measuring.set_defaults(command=_measure)
    listing = commands.add_parser("list", help="evaluators and the objectives known for each")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    listing.add_argument("--debug", action="store_true", help="tracebacks instead of one line")
    listing.set_defaults(command=_list)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is an integer of 0 or more, not {text!r}")
    return int(text)


def _options(given: argparse.Namespace) -> dict[str, Any]:
    """Evaluator options from `--set` and `--device`. Raises OptionsError."""
    options: dict[str, Any] = {}
    for setting in given.set:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise OptionsError(f"--set takes KEY=VALUE, not {setting!r}")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text
    if given.device is not None:
        options["device"] = given.device
    return options


def _objective(contract: Contract, name: str) -> Candidate:
    """A known objective or the text of a file. Raises OptionsError."""
    path = Path(name)
    if path.suffix != ".py" and not path.is_file():
        return known_objective(contract.name, name).candidate
    try:
        with path.open("rb") as file:
            source = file.read(MAX_SOURCE_BYTES + 1)  # the gate refuses what is longer
        return read_candidate(source.decode("utf-8"), contract)
    except OSError as error:
        raise OptionsError(f"cannot read the objective {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionsError(f"the objective {name} is not UTF-8 text (byte {error.start})") from error


def _run(given: argparse.Namespace) -> int:
    from evaluators.trial import run_trial
    from sandbox.check import check_candidate, refusal
    from sandbox.server import OracleServer

    evaluator: Evaluator = make_plugin("evaluators", given.evaluator, _options(given), given.cache_dir)
    candidate = _objective(evaluator.contract, given.objective)
    with OracleServer(given.unsafe_no_sandbox) as server:
        gate, probe = check_candidate(server, candidate, evaluator.contract)
        failure = refusal(gate, probe)
        for note in gate.notes:
            print(f"{one_line(given.objective)}: mended: {note}", file=sys.stderr)
        if failure is not None:
            raise CandidateError(failure)
        prepare(evaluator, None if given.json else lambda text: print(text, file=sys.stderr))
        report = run_trial(server, evaluator, candidate, gate.parameters, given.seed)
    told = {"privileged": list(gate.privileged)}
    print(
        json.dumps(_as_json(evaluator, candidate, report) | told) if given.json else _as_text(evaluator, given, report)
    )
    if gate.privileged and not given.json:
        print(f"privileged: it reads {', '.join(gate.privileged)}, so compare it with losses that do")
    return OK


def _as_json(evaluator: Evaluator, candidate: Candidate, report: TrialReport) -> dict[str, Any]:
    task, timings = evaluator.task, report.timings
    return {
        "evaluator": evaluator.name,
        "version": evaluator.version,
        "task": task.id,
        "options": dict(task.options),
        "candidate": candidate.id,
        "seed": report.seed,
        "primary_metric": evaluator.primary_metric,
        "metrics": [
            {
                "name": m.name,
                "value": m.value,
                "stderr": m.stderr,
                "unit": m.unit,
                "higher_is_better": m.higher_is_better,
            }
            for m in report.metrics
        ],
        "timings": {
            "setup_s": timings.setup_s,
            "train_s": timings.train_s,
            "evaluate_s": timings.evaluate_s,
            "oracle_s": timings.oracle_s,
        },
        "setup": dict(report.setup),
        "device": report.device,
        "threads": report.threads,
        "versions": dict(report.versions),
        "peak_memory_mb": report.peak_memory_mb,
        "oracle_calls": report.oracle_calls,
        "sandbox": report.sandbox,
    }


def _as_text(evaluator: Evaluator, given: argparse.Namespace, report: TrialReport) -> str:
    """An aligned table, the ranking metric first."""
    ordered = sorted(report.metrics, key=lambda m: m.name != evaluator.primary_metric)
    rows = [("metric", "value", "unit")]
    for metric in ordered:
        error = f" +- {metric.stderr:.4f}" if metric.stderr is not None else ""
        rows.append((metric.name, f"{metric.value:.4f}{error}", metric.unit))
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"{n:<{widths[0]}}  {v:>{widths[1]}}  {u}" for n, v, u in rows]
    t = report.timings
    head = f"{evaluator.name}  objective {one_line(given.objective)}  seed {report.seed}  device {report.device}"
    tail = (
        f"setup {t.setup_s:.2f} s, train {t.train_s:.2f} s (oracle {t.oracle_s:.2f} s), evaluate {t.evaluate_s:.2f} s, "
        f"{report.threads} threads, {report.peak_memory_mb:.0f} MB, sandbox: {report.sandbox}"
    )
    return "\n".join([head, *lines, tail])


def _measure(given: argparse.Namespace) -> int:
    from evaluators.objectives import known_contract, known_families
    from evaluators.properties import measure_properties, properties_file, write_properties
    from sandbox.server import OracleServer

    del given
    with OracleServer() as server:
        for name in known_families():
            found = measure_properties(server, known_contract(name))
            write_properties(name, found)
            print(f"{properties_file(name)}: {len(found)} objectives")
    return OK


def _list(given: argparse.Namespace) -> int:
    from evaluators.objectives import known_objectives

    found = {name: load_plugin("evaluators", name) for name in plugin_names("evaluators")}
    if given.json:
        entries = [
            {
                "name": name,
                "summary": e.summary,
                "primary_metric": e.primary_metric,
                "objectives": list(known_objectives(e.contract.name)),
            }
            for name, e in found.items()
        ]
        print(json.dumps(entries))
        return OK
    for name, e in found.items():
        print(f"{name}\n  {clean_text(e.summary)}\n  ranks by {e.primary_metric}")
        print(f"  objectives: {', '.join(known_objectives(e.contract.name))}")
    return OK
