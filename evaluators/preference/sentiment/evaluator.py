"""`preference.sentiment`: the evaluator. Heavy imports wait until something is prepared or run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evaluators.base import (
    Calls,
    Metric,
    MetricSpec,
    Resources,
    Task,
    Timings,
    TrialReport,
    canonical_json,
    default_cache_dir,
)
from evaluators.measure import peak_memory_mb, torch_threads, versions
from evaluators.options import OptionsError, options_dict, parse_options
from evaluators.preference.contract import PAIRS
from evaluators.preference.sentiment.options import SentimentOptions
from sandbox.contract import Contract

if TYPE_CHECKING:
    import torch

    from evaluators.preference.sentiment.data import Source
    from evaluators.preference.sentiment.preparation import Prepared
    from evaluators.preference.sentiment.trial import Clock, Curves, Scores
    from sandbox.oracle import LossOracle


class SentimentEvaluator:
    """Train a small language model of real reviews towards positive sentiment; measure reward against KL.

    The controlled experiment of Rafailov et al. 2023 (arXiv:2305.18290, section 6.1) and of Lu et al. 2024
    (arXiv:2406.08414, section 5.3). A trial depends on its seed through the subset of pairs, their label
    noise, the order of batches, and the sampling noise of the evaluation. All betas of a trial share these.
    """

    name: ClassVar[str] = "preference.sentiment"
    version: ClassVar[int] = 2
    summary: ClassVar[str] = "Controlled sentiment on real IMDb reviews: reward against KL of a small language model."
    contract: ClassVar[Contract] = PAIRS
    primary_metric: ClassVar[str] = "reward_at_kl"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(
            "reward_at_kl",
            True,
            "SFT std",
            "height of the reward-KL frontier at the KL budget; the SFT model is 0",
            minimum_effect=0.02,
        ),
        MetricSpec(
            "win_rate_at_kl",
            True,
            "share",
            "the same frontier of the win rate against the SFT model, which is 0.5",
            0.0,
            1.0,
            0.01,
        ),
        MetricSpec(
            "final_reward",
            True,
            "SFT std",
            "mean over betas of the final policy's reward above the SFT model's",
            minimum_effect=0.02,
        ),
        MetricSpec("final_kl", False, "nats", "mean over betas of the final policy's KL to the SFT model", 0.0),
        MetricSpec(
            "chosen_logp_change",
            True,
            "nats",
            "mean over betas of the chosen log-ratio to the SFT model at the end",
        ),
    )
    arrays_doc: ClassVar[Mapping[str, str]] = {
        "beta": "(betas,) the grid",
        "reward": "(betas,) mean reward of the final policy above the SFT model's on the same prompts, in SFT std",
        "reward_stderr": "(betas,) its standard error over prompts",
        "kl": "(betas,) KL of the final policy to the SFT model in nats a response, exact per token along sampled responses",
        "kl_stderr": "(betas,) its standard error over prompts",
        "kl_log_ratio": "(betas,) plain Monte-Carlo estimate of the same KL: mean log-ratio of the sampled responses",
        "kl_log_ratio_stderr": "(betas,) its standard error over prompts",
        "win_rate": "(betas,) how often the policy's response beats an SFT response to the same prompt, ties half",
        "win_rate_stderr": "(betas,) its standard error over prompts",
        "curve_loss": "(betas, steps) mean loss of the batch",
        "curve_margin": "(betas, steps) mean of chosen minus rejected log-ratio to the SFT model, nats, before the step",
        "curve_chosen": "(betas, steps) mean log-ratio of the chosen response to the SFT model, nats, before the step",
        "flipped": "(1,) share of training pairs whose label noise prefers the response with the lower reward",
    }
    Options: ClassVar[type[SentimentOptions]] = SentimentOptions

    def __init__(self, options: Mapping[str, Any] | None = None, cache_dir: Path | None = None) -> None:
        """Raises OptionsError for unknown or ill-typed options."""
        self.options = parse_options(SentimentOptions, options, self.name)
        self._cache_dir = cache_dir or default_cache_dir()
        self._prepared: Prepared | None = None

    @cached_property
    def _source(self) -> Source:
        from evaluators.preference.sentiment.data import Source

        return Source(self.options)

    @property
    def task(self) -> Task:
        """The exact task. Raises OptionsError if its data cannot be found."""
        return Task(self.name, self.version, options_dict(self.options), self._source.provenance)

    @property
    def calls(self) -> Calls:
        """As `run` makes them: one batch at each beta."""
        return Calls(self.options.batch, self.options.betas)

    @property
    def task_description(self) -> str:
        o = self.options
        return (
            f"A transformer language model of width {o.width} with {o.layers} layers, first trained on real reviews (the "
            f"SFT model, which is the reference), continues openings of {o.prompt_tokens} words by up to "
            f"{o.response_tokens} words. The reward is the log-odds of positive sentiment by a classifier "
            "of whole reviews, in deviations over "
            f"SFT responses. Each pair is two SFT responses, labelled with P(a preferred to b) = sigmoid("
            f"{o.label_sharpness:g} * (reward(a) - reward(b))); a trial trains on {o.train_pairs} pairs. It trains a "
            f"separate policy for each beta of the grid {', '.join(f'{b:g}' for b in o.betas)}, all with the same loss: "
            f"{o.steps} steps of Adam on batches of {o.batch} pairs, peak learning rate {o.lr:g} with warm-up and linear "
            f"decay, gradients clipped to the norm {o.clip_norm:g}. The final policies answer {o.eval_prompts} held-out "
            "openings; their rewards and KLs to the SFT model make a reward-KL frontier over the betas, whose height is "
            f"read at a KL of {o.kl_budget:g} nats a response. Of the optional inputs, scores are these rewards, lengths "
            f"are in words, up to {o.response_tokens}, and preference_probability is that of the labelling."
        )

    @property
    def resources(self) -> Resources:
        """One core, and a GPU only if `device` is `cuda`: with `auto` a worker takes one if it sees one."""
        return Resources(cpus=float(self.options.threads), gpus=float(self.options.device == "cuda"), memory_mb=2560)

    def prepare(self, progress: Callable[[str], None] | None = None) -> Mapping[str, float]:
        """Load the shared preparation from the cache, or make it; at once if this instance has it already.

        Returns:
            reward_accuracy: of the classifier on whole held-out texts; reward_accuracy_openings: on their first words only.
            sft_held_out_nats: per word, on held-out windows of the kind that the model was trained on; sft_parameters.
            sft_log_odds_mean, sft_log_odds_std: what a reward of 0 and the unit of reward are in log-odds.
            sft_reward, sft_reward_stderr: of the SFT responses to the held-out prompts.

        Raises:
            OptionsError: data, an extra, the device or a writable cache is missing; too few texts for what is asked.
        """
        if self._prepared is None:
            from evaluators.disk_cache import load_or_build
            from evaluators.preference.sentiment.preparation import Prepared, build, cache_values

            tell = progress or (lambda _: None)
            device = self._device()
            source = self._source
            values = cache_values(self.options, source.provenance.sha256, device)
            key = hashlib.sha256(canonical_json(values).encode()).hexdigest()[:32]
            with torch_threads(self.options.prepare_threads):
                folder = self._cache_dir / self.name / key
                stored = load_or_build(folder, lambda: build(self.options, source.load(), device, tell).stored(), tell)
            self._prepared = Prepared.from_stored(stored)
        return dict(self._prepared.facts)

    def run(self, oracle: LossOracle, seed: int) -> TrialReport:
        """One trial. Raises CandidateError, InfrastructureError, or OptionsError from a first `prepare`."""
        import transformers

        from evaluators.preference.sentiment.trial import run_betas

        begin = time.monotonic()
        facts = self.prepare()
        assert self._prepared is not None
        calls, oracle_s = oracle.calls, oracle.wall_s
        setup_s = time.monotonic() - begin
        with torch_threads(self.options.threads):
            results = list(run_betas(self._prepared, self.options, oracle, seed, self._device()))
            metrics, arrays = self._summary([r[0] for r in results], [r[1] for r in results], seed)
        clocks: list[Clock] = [r[2] for r in results]
        train_s, evaluate_s = sum(c.train_s for c in clocks), sum(c.evaluate_s for c in clocks)
        timings = Timings(setup_s, train_s, evaluate_s, oracle.wall_s - oracle_s)
        return TrialReport(
            seed=seed,
            metrics=metrics,
            arrays={**arrays, "flipped": np.array([results[0][3]])},
            timings=timings,
            device=self._device().type,
            threads=self.options.threads,
            versions={**versions(), "transformers": transformers.__version__},
            peak_memory_mb=peak_memory_mb(),
            oracle_calls=oracle.calls - calls,
            setup=facts,
        )

    def _summary(
        self, curves: list[Curves], scores: list[Scores], seed: int
    ) -> tuple[tuple[Metric, ...], dict[str, np.ndarray[Any, Any]]]:
        from evaluators.preference.sentiment.trial import frontier_stderr, frontier_value, standard_error

        gain, win = np.stack([s.gain for s in scores]), np.stack([s.win for s in scores])  # (betas, prompts)
        kl, log_ratio = np.stack([s.kl for s in scores]), np.stack([s.log_ratio for s in scores])
        budget = self.options.kl_budget
        chosen = np.array([c.chosen_change for c in curves])
        last = max(1, self.options.steps // 10)  # the end of training: one batch alone is noisy
        values: dict[str, tuple[Any, Any]] = {
            "reward_at_kl": (frontier_value(kl, gain, budget), frontier_stderr(kl, gain, budget, seed)),
            "win_rate_at_kl": (
                0.5 + frontier_value(kl, win - 0.5, budget),
                frontier_stderr(kl, win - 0.5, budget, seed),
            ),
            "final_reward": (gain.mean(), standard_error(gain.mean(0))),
            "final_kl": (kl.mean(), standard_error(kl.mean(0))),
            "chosen_logp_change": (chosen[:, -last:].mean(), None),
        }
        metrics = tuple(
            Metric(m.name, float(value), m.higher_is_better, m.unit, None if stderr is None else float(stderr))
            for m, (value, stderr) in ((m, values[m.name]) for m in self.metrics)
        )
        measured = {"reward": gain, "kl": kl, "kl_log_ratio": log_ratio, "win_rate": win}
        arrays = {"beta": np.array(self.options.betas), **{name: x.mean(1) for name, x in measured.items()}}
        arrays |= {f"{name}_stderr": standard_error(x) for name, x in measured.items()}
        arrays |= {
            "curve_loss": np.array([c.loss for c in curves]),
            "curve_margin": np.array([c.margin for c in curves]),
            "curve_chosen": chosen,
        }
        return metrics, arrays

    def _device(self) -> torch.device:
        import torch

        if self.options.device == "cuda" and not torch.cuda.is_available():
            raise OptionsError("device is cuda but this process sees no GPU; set device to cpu or auto")
        use_gpu = self.options.device != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if use_gpu else "cpu")
