"""The configuration of a campaign: one YAML file, checked strictly before anything starts.

Imports nothing heavier than pydantic and PyYAML, so that `discovery --help` stays fast.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from discovery.config_errors import ConfigError, describe
from discovery.config_input import apply_overrides, check_plain, cluster_address, read_yaml, refuse_secrets
from discovery.config_types import Names, Section, Seeds, listed
from evaluators.objectives import default_baselines, known_families, known_objectives
from evaluators.options import nearest
from evaluators.plugins import plugin_names
from sandbox.limits import Limits

FRESH_SEED = 1000  # promotion seeds given as a count start here, away from the search's 0, 1, 2, ...
ENV_PREFIX = "env:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class _Measurement(Section):
    """An evaluator, its options and the metric read from it."""

    evaluator: str = Field(
        description="Evaluator that trains and scores: a registered name or `module:attr`.",
        examples=["preference.enumerable"],
    )
    metric: str | None = Field(
        default=None, description="Metric of that evaluator that ranks; null: the evaluator's primary metric."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the evaluator; it checks them itself when the campaign starts."
    )
    minimum_effect: float | None = Field(
        default=None,
        ge=0,
        description="Smallest difference in the metric worth calling better or worse; null: the metric's own.",
    )


class ObjectiveConfig(_Measurement):
    """What the search optimises."""

    seeds: Seeds = Field(
        default=2, description="Trials per candidate: a count n (seeds 0 to n-1) or a list of seeds.", examples=[2]
    )

    @property
    def seed_list(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


class PromotionConfig(_Measurement):
    """The leading candidates, measured again elsewhere and on seeds that the search never saw."""

    seeds: Seeds = Field(
        default=2,
        description=f"Trials per promoted loss: a count n (seeds {FRESH_SEED} to {FRESH_SEED}+n-1) or a list of seeds.",
        examples=[[1000, 1001]],
    )
    top: int = Field(
        default=2,
        ge=1,
        description="How many of the leading candidates are promoted, of those that may lead (see `baselines`).",
    )
    baselines: Names = Field(
        min_length=1,
        description="Known objectives measured beside them; a promotion without a baseline compares nothing.",
        examples=[["dpo"]],
    )

    @property
    def seed_list(self) -> tuple[int, ...]:
        return tuple(range(FRESH_SEED, FRESH_SEED + self.seeds)) if isinstance(self.seeds, int) else self.seeds


Promotions = Annotated[tuple[PromotionConfig, ...], BeforeValidator(listed)]


class _PluginConfig(Section):
    """`kind` picks the plug-in; every other key of the section is an option of that plug-in."""

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        options = {k: v for k, v in given.items() if k != "kind"}
        return {**({"kind": given["kind"]} if "kind" in given else {}), "options": options}

    def flat(self) -> dict[str, Any]:
        """The section as it is written in the file."""
        return {"kind": self.kind, **self.options}


class ProposerConfig(_PluginConfig):
    """Who proposes losses."""

    kind: str = Field(
        default="evolve",
        description="Proposer: a registered name or `module:attr`. All other keys of this section are its options.",
    )


class StrategyConfig(_PluginConfig):
    """What each proposal builds on."""

    kind: str = Field(
        default="conversation",
        description="Search strategy: a registered name or `module:attr`. All other keys of this section are its options.",
    )


class BudgetConfig(Section):
    """Hard stops: the campaign ends at the first one reached; what is in flight counts."""

    candidates: int | None = Field(
        default=20, ge=0, description="Candidates accepted for training, besides the baselines; null: no limit."
    )
    proposals: int | None = Field(
        default=None,
        ge=0,
        description="Proposals asked for, repairs included; null: ten times `candidates`, no limit if that is null too.",
    )
    wall_s: float | None = Field(
        default=None,
        gt=0,
        description=(
            "Wall-clock seconds of one run after which nothing new is proposed; what is accepted by then is still trained, "
            "and promotions run. A resumed campaign gets them anew; null: no limit."
        ),
    )
    tokens: int | None = Field(default=None, ge=1, description="Prompt and completion tokens together; null: no limit.")
    usd: float | None = Field(
        default=None,
        gt=0,
        description="US dollars for replies; needs the model's prices among the proposer's options; null: no limit.",
    )
    device_hours: float | None = Field(
        default=None,
        gt=0,
        description=(
            "Hours that trials hold workers, added up over all workers and runs, failed trials included; one more candidate "
            "is proposed where it fits at the mean time of a trial. What is accepted is trained, and promotions run; "
            "null: no limit."
        ),
    )

    @model_validator(mode="after")
    def _some_stop(self) -> BudgetConfig:
        if all(limit is None for limit in self.model_dump().values()):
            *first, last = type(self).model_fields
            raise ValueError(f"needs at least one limit: {', '.join(first)} or {last}")
        return self


class ProposalsConfig(Section):
    """How proposals are asked for."""

    in_flight: int = Field(default=4, ge=1, description="Proposals asked for at the same time.")
    max_repairs: int = Field(default=1, ge=0, description="Times a refused or failed proposal may be answered anew.")


class WorkersConfig(Section):
    """Where trials and probes run (Ray)."""

    trial_slots: int = Field(default=2, ge=1, description="Trials running at the same time.")
    probe_workers: int = Field(default=1, ge=1, description="Worker processes for gate and probe.")
    ray_address: Annotated[str | None, AfterValidator(cluster_address)] = Field(
        default=None,
        description="Ray cluster to join, of which this machine is a node: `host:6379`, or `auto`; null: a local Ray.",
    )
    cpus_per_trial: float | None = Field(
        default=None, gt=0, description="CPU cores of a trial worker; null: what the evaluator asks for."
    )
    gpus_per_trial: float | None = Field(
        default=None, ge=0, description="GPUs of a trial worker, fractions allowed; null: what the evaluator asks for."
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        description="Attempts at one trial when the machine fails; a candidate's failure is never retried.",
    )


class LimitsConfig(Section):
    """What a candidate may use."""

    call_s: float = Field(default=5.0, gt=0, description="Wall seconds of one call of the loss.")
    trial_s: float = Field(default=600.0, gt=0, description="Seconds of a whole trial, and of the loss's calls in it.")
    memory_mb: int = Field(default=1024, gt=0, description="Private memory of the loss's process, in MiB.")

    def sandbox(self) -> Limits:
        """The same limits as the sandbox takes them."""
        return Limits(self.call_s, self.trial_s, self.memory_mb)


class PromptsConfig(Section):
    """Jinja2 templates in place of the built-in ones (`discovery/prompts/templates`)."""

    system: str | None = Field(default=None, description="Path of the system template; null: built-in.")
    user: str | None = Field(default=None, description="Path of the user template; null: built-in.")
    repair: str | None = Field(default=None, description="Path of the template that asks for a repair; null: built-in.")


class CampaignConfig(Section):
    """One campaign."""

    name: str = Field(
        default="campaign",
        description="Name in the archive; running it again resumes it. Default: the file's name without its ending.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the search.")
    archive: str = Field(
        default="runs/discovery.db",
        repr=False,  # a URL may hold a password
        description="Archive: an SQLite file, an SQLAlchemy URL, or `env:NAME` for a URL in an environment variable.",
    )
    all_arrays: bool = Field(
        default=False,
        description=(
            "Store every trial's arrays as its evaluator reports them, 197 kB for `preference.enumerable`; false: twenty "
            "points of each curve, averaged over what a trial runs side by side, and where it ends: 17 kB."
        ),
    )
    objective: ObjectiveConfig = Field(description="What the search optimises.")
    baselines: Names | None = Field(
        default=None,
        description=(
            "Known objectives measured first, on the same seeds; null: a few of the task family. Where all of them (those "
            "of promotions too) read scores or soft labels, losses that do lead the campaign; else those that do not."
        ),
    )
    start_from: Names = Field(
        default=(),
        description=(
            "Losses trained first, beside the baselines: loss files, folders of them, candidates in the archive by id or "
            "name, or other campaigns or collections in it. They count towards no budget."
        ),
    )
    promotions: Promotions = Field(
        default=(),
        description="Where the leading candidates are measured again after the search, in this order: a list of sections.",
    )
    proposer: ProposerConfig = Field(default_factory=ProposerConfig, description="Who proposes losses.")
    strategy: StrategyConfig = Field(default_factory=StrategyConfig, description="What each proposal builds on.")
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="Hard stops; the first one reached ends it.")
    proposals: ProposalsConfig = Field(default_factory=ProposalsConfig, description="How proposals are asked for.")
    workers: WorkersConfig = Field(default_factory=WorkersConfig, description="Where trials and probes run.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="What a candidate may use.")
    prompts: PromptsConfig = Field(
        default_factory=PromptsConfig, description="Templates in place of the built-in ones."
    )
    log_dir: str = Field(default="runs", description="Directory of the campaign's log file, `<name>.log`.")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.match(name):
            raise ValueError("takes letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit")
        return name

    @model_validator(mode="after")
    def _fresh_promotions(self) -> CampaignConfig:
        searched = set(self.objective.seed_list)
        for number, promotion in enumerate(self.promotions):
            seen = sorted(searched & set(promotion.seed_list))
            if seen and promotion.evaluator == self.objective.evaluator:
                where = f"promotions.{number}.seeds"
                raise ValueError(f"{where} has {seen[0]}, which the search itself uses; take fresh seeds")
        return self

    def baseline_names(self, contract: str) -> tuple[str, ...]:
        """The baselines by name: those given, or the few of the contract that are measured unless others are."""
        return default_baselines(contract) if self.baselines is None else self.baselines

    def public(self) -> dict[str, Any]:
        """The whole configuration as plain values fit to store and show: passwords in URLs and keys are masked.

        It has the shape of the file, so what is stored can be read back as a configuration.
        """
        from db.redact import redact_secrets, redact_url

        def mask(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: mask(v) for k, v in value.items()}
            if isinstance(value, list):
                return [mask(v) for v in value]
            if isinstance(value, str):
                return redact_secrets(redact_url(value) if "://" in value else value)
            return value

        plain = self.model_dump(mode="json")
        plain["proposer"], plain["strategy"] = self.proposer.flat(), self.strategy.flat()
        masked: dict[str, Any] = mask(plain)
        return masked


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> CampaignConfig:
    """Read and check a campaign file.

    Args:
        path: a YAML file.
        overrides: settings that replace those of the file, each ``a.b=value`` with the value in YAML.

    Raises:
        ConfigError: missing, unreadable, empty or malformed file; unknown key (the nearest is suggested); wrong type or
            range; unknown evaluator, proposer, strategy or baseline; a secret written out; an override without ``=``.
    """
    path = Path(path)
    data = apply_overrides(read_yaml(path), overrides)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem)[:100].strip("-.")
    return make_config(data, default_name=stem or "campaign", source=path.name)


def make_config(data: Mapping[str, Any], default_name: str = "campaign", source: str = "config") -> CampaignConfig:
    """The same from values at hand. `source` names them in messages. Raises ConfigError, as `load_config` does."""
    check_plain(data, source)
    refuse_secrets(data, source)
    given = {"name": default_name, **data}
    archive = given.get("archive")
    if isinstance(archive, str) and archive.startswith(ENV_PREFIX):
        given["archive"] = _from_environment(archive.removeprefix(ENV_PREFIX), source)
    try:
        config = CampaignConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error, CampaignConfig)}") from None
    _check_names(config, source)
    return config


def _from_environment(variable: str, source: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(f"{source}: archive is taken from the environment variable {variable!r}, which is not set")
    return value


def _check_names(config: CampaignConfig, source: str) -> None:
    """Names that can be checked without importing an evaluator (they import torch); the campaign checks the rest."""
    wanted = [
        ("objective.evaluator", "evaluators", config.objective.evaluator),
        ("proposer.kind", "proposers", config.proposer.kind),
        ("strategy.kind", "strategies", config.strategy.kind),
    ]
    wanted += [(f"promotions.{i}.evaluator", "evaluators", p.evaluator) for i, p in enumerate(config.promotions)]
    for path, kind, name in wanted:
        known = plugin_names(kind)
        if ":" not in name and name not in known:
            raise ConfigError(f"{source}: {path}: no {name!r} among the {kind}; {nearest(name, known)}")
    objectives = sorted({name for family in known_families() for name in known_objectives(family)})
    given = [("baselines", config.baselines or ())]
    given += [(f"promotions.{i}.baselines", p.baselines) for i, p in enumerate(config.promotions)]
    for path, names in given:
        for name in names:
            if name not in objectives:
                raise ConfigError(f"{source}: {path}: no known objective {name!r}; {nearest(name, objectives)}")
            if names.count(name) > 1:
                raise ConfigError(f"{source}: {path}: {name!r} is listed twice")
