"""How fast a campaign turns over trials when the model and the training cost nothing but time.

    python -m benchmarks.orchestration [--json] [--trials N]

A real HTTP server answers like a language model, with a fixed latency and every reply a distinct loss; the evaluator sleeps.
Everything else is the product: prompts, parsing, gate, probe, fingerprints, archive, Ray. Two trial slots; the first five
trials are not counted. The ideal is the smaller of two rates: slots / trial time, and proposals in flight / latency.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from discovery.campaign import Campaign
from discovery.config import make_config
from discovery.progress import Event

_SLOTS = 2
_CHECKERS = 2
_WARM_UP = 5


@dataclass(frozen=True)
class Setting:
    """One measurement. `at_least` is the target in trials per second, None where it is only a comparison."""

    latency_s: float
    trial_s: float
    in_flight: int
    at_least: float | None


@dataclass(frozen=True)
class Outcome:
    """Trials per second after the warm-up, and the rate that the setting allows (None: no bound but the machine)."""

    setting: Setting
    trials: int
    per_s: float
    ideal: float | None
    met: bool | None


SETTINGS = (
    Setting(2.0, 0.5, 12, 3.6),
    Setting(2.0, 0.5, 2, None),
    Setting(0.2, 0.0, 8, 15.0),
    Setting(0.2, 0.0, 2, None),
)


def measure(setting: Setting, trials: int, folder: Path) -> Outcome:
    """Run one campaign of `trials` candidates against a fresh server."""
    command = [sys.executable, "-m", "tests.support.chat_server", "--port", "0", "--latency", str(setting.latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            base_url = server.stdout.readline().strip()
            times = _run(setting, trials, folder, base_url)
        finally:
            server.terminate()
    counted = times[_WARM_UP:]
    per_s = (len(counted) - 1) / (counted[-1] - counted[0])
    bounds = [setting.in_flight / setting.latency_s] + ([_SLOTS / setting.trial_s] if setting.trial_s else [])
    met = None if setting.at_least is None else per_s >= setting.at_least
    return Outcome(setting, len(times), per_s, min(bounds), met)


def _run(setting: Setting, trials: int, folder: Path, base_url: str) -> list[float]:
    name = f"l{setting.latency_s}-t{setting.trial_s}-n{setting.in_flight}"
    config = make_config(
        {
            "name": name,
            "archive": str(folder / f"{name}.db"),
            "log_dir": str(folder),
            "objective": {
                "evaluator": "benchmarks.sleep_evaluator:SleepEvaluator",
                "options": {"seconds": setting.trial_s},
                "seeds": 1,
            },
            "baselines": ["dpo"],
            "proposer": {"kind": "openai", "base_url": base_url, "model": "stand-in", "api_key_env": None},
            "budget": {"candidates": trials},
            "proposals": {"in_flight": setting.in_flight, "max_repairs": 0},
            "workers": {"trial_slots": _SLOTS, "probe_workers": _CHECKERS},
        }
    )
    times: list[float] = []

    def listen(event: Event) -> None:
        if event.kind == "trial":
            times.append(time.perf_counter())

    Campaign(config, listen).run()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="Campaign throughput with a stand-in model and a sleeping evaluator.")
    parser.add_argument("--trials", type=int, default=60, help="candidates per setting")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent))  # workers import the evaluator
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [measure(s, arguments.trials, Path(folder)) for s in SETTINGS]
    if arguments.json:
        print(json.dumps([asdict(o) for o in outcomes], indent=2))
        return
    print("latency  trial  in flight  trials/s  ideal  share  target")
    for o in outcomes:
        s = o.setting
        share = f"{o.per_s / o.ideal:5.0%}" if o.ideal else "    -"
        target = "-" if s.at_least is None else f">= {s.at_least} {'met' if o.met else 'MISSED'}"
        rates = f"{o.per_s:9.2f} {o.ideal or 0:6.1f}  {share}"
        print(f"{s.latency_s:5.1f} s {s.trial_s:4.1f} s {s.in_flight:10d} {rates}  {target}")


if __name__ == "__main__":
    main()
