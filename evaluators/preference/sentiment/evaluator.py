"""`preference.sentiment`: the evaluator. Heavy imports wait until something is prepared or run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
    from sandbox.oracle import LossOracle


class SentimentEvaluator:
    """Train a small language model of real reviews towards positive sentiment; measure reward against KL.

    The controlled experiment of Rafailov et al. 2023 (arXiv:2305.18290, section 6.1) and of Lu et al. 2024
    (arXiv:2406.08414, section 5.3). A trial depends on its seed through the pairs it samples, their label
    noise, and the order of batches. All betas and all losses share these, and the responses that policies are scored on.
    """

    name: ClassVar[str] = "preference.sentiment"
    version: ClassVar[int] = 4
    summary: ClassVar[str] = "Controlled sentiment on real IMDb reviews: reward against KL of a small language model."
    contract: ClassVar[Contract] = PAIRS
    primary_metric: ClassVar[str] = "reward_at_kl"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(
            "reward_at_kl",
            True,
            "SFT std",
            "reward at the KL budget of the best beta's policy; the SFT model is 0",
            minimum_effect=0.02,
        ),
        MetricSpec(
            "win_rate_at_kl",
            True,
            "share",
            "the same of the win rate against the SFT model, which is 0.5",
            0.0,
            1.0,
            0.01,
        ),
        MetricSpec(
            "reward_at_kl_sampled",
            True,
            "SFT std",
            "reward_at_kl from responses that each policy drew itself: noisier, and without the pool's weights",
            minimum_effect=0.02,
        ),
        MetricSpec(
            "effective_share",
            True,
            "share",
            "effective share of the pool under the weights of the policies at the KL budget, mean over betas",
            0.0,
            1.0,
        ),
        MetricSpec(
            "refused", False, "share", "betas alive whose weights were refused, so that samples count", 0.0, 1.0
        ),
        MetricSpec("diverged", False, "share", "betas whose loss or policy was no longer a number", 0.0, 1.0),
        MetricSpec(
            "chosen_logp_change",
            True,
            "nats",
            "mean over betas of the chosen log-ratio to the SFT model at the end of training",
        ),
    )
    arrays_doc: ClassVar[Mapping[str, str]] = {
        "beta": "(betas,) the grid; in all arrays NaN marks a policy that diverged",
        "factor": "(betas,) by how much the trained change was scaled to have the KL budget",
        "reward": "(betas,) mean reward there above the SFT model's on the same prompts, in SFT std",
        "reward_stderr": "(betas,) its standard error over prompts",
        "kl": "(betas,) KL there to the SFT model, nats a response",
        "win_rate": "(betas,) how often a response there beats an SFT response to the same prompt, ties half",
        "win_rate_stderr": "(betas,) its standard error over prompts",
        "effective_share": "(betas,) of the pool, also of weights that were refused",
        "refused": "(betas,) 1 where the weights were refused, and reward, KL and win rate come from samples",
        "reward_sampled": "(betas,) the same reward from responses that the policy drew itself",
        "reward_sampled_stderr": "(betas,) its standard error over prompts",
        "kl_sampled": "(betas,) the same KL, exact per token along these responses",
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
            f"{o.label_sharpness:g} * (reward(a) - reward(b))); a trial samples {o.train_pairs} pairs. It trains a "
            f"separate policy for each beta of the grid {', '.join(f'{b:g}' for b in o.betas)}, all with the same loss: "
            f"the output layer, for {o.steps} steps on batches of {o.batch} pairs, with momentum along gradients "
            "of norm 1, so that what only scales a batch's gradient changes nothing. Each policy's change is then scaled "
            f"until its KL to the SFT model is {o.kl_budget:g} nats a response, so that how far training went changes "
            "nothing either. The score is the reward there on "
            f"{o.pool_prompts} held-out openings, best over betas. Of the optional inputs, scores are these rewards, "
            f"lengths are in words, up to {o.response_tokens}, and preference_probability is that of the labelling."
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
            fixed_kl: of the policy that drew half of the pool, before its last scaling.
            sft_share, fixed_share: effective shares of those who drew it.

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

        from evaluators.preference.sentiment.trial import metrics_and_arrays, run_trial

        begin = time.monotonic()
        facts = self.prepare()
        assert self._prepared is not None
        calls, oracle_s = oracle.calls, oracle.wall_s
        setup_s = time.monotonic() - begin
        with torch_threads(self.options.threads):
            outcome = run_trial(self._prepared, self.options, oracle, seed, self._device())
            values, arrays = metrics_and_arrays(outcome, self.options)
        return TrialReport(
            seed=seed,
            metrics=tuple(
                Metric(m.name, values[m.name][0], m.higher_is_better, m.unit, values[m.name][1]) for m in self.metrics
            ),
            arrays=arrays,
            timings=Timings(setup_s, outcome.train_s, outcome.evaluate_s, oracle.wall_s - oracle_s),
            device=self._device().type,
            threads=self.options.threads,
            versions={**versions(), "transformers": transformers.__version__},
            peak_memory_mb=peak_memory_mb(),
            oracle_calls=oracle.calls - calls,
            setup=facts,
        )

    def _device(self) -> torch.device:
        import torch

        if self.options.device == "cuda" and not torch.cuda.is_available():
            raise OptionsError("device is cuda but this process sees no GPU; set device to cpu or auto")
        use_gpu = self.options.device != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if use_gpu else "cpu")
