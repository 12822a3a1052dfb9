"""Record what TRL's losses compute, in two of its versions, each in an environment of its own.

    python tests/evaluators/vectors/make_trl_vectors.py FOLDER

FOLDER receives one virtual environment per version (1 GB each; reused if it is there). The recorded inputs and outputs go
to `trl_vectors.npz` beside this file. Nothing of TRL is copied: its own functions run, on stand-ins for what they need of
a trainer and a model.

0.28.0 is the last version with `dpo_loss` as a function of log-probs. Later versions compute losses inside
`_compute_loss`, from the log-probs of tokens, which a stand-in model returns: all of a response's on its first token, so
that their sum is exact in any precision.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from recording import BETAS, DTYPES, PAIRS, Recorder, tensors  # beside this file

HERE = Path(__file__).resolve().parent
PACKAGES = {  # by version of TRL; torch first, so that its index decides which build it is
    "0.28.0": (("torch==2.13.0", "numpy==2.4.6"), ("trl==0.28.0", "transformers==4.57.6", "datasets==4.8.5")),
    "1.16.0": (("torch==2.13.0", "numpy==2.4.6"), ("trl==1.16.0", "transformers==5.24.0")),
}


def main() -> None:
    if sys.argv[1:2] == ["--record"]:
        record(sys.argv[2], Path(sys.argv[3]))
        return
    folder = Path(sys.argv[1])
    arrays: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    for version, steps in PACKAGES.items():
        python = folder / f"trl-{version}" / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / f"trl-{version}"], check=True)
            for packages in steps:
                subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        part = folder / f"{version}.npz"
        subprocess.run([python, __file__, "--record", version, part], check=True)
        with np.load(part) as found:
            records += json.loads(bytes(found["records"]))
            arrays |= {name: found[name] for name in found.files if name != "records"}
    arrays["records"] = np.frombuffer(json.dumps(records).encode(), np.uint8)
    np.savez_compressed(HERE / "trl_vectors.npz", **arrays)
    size = (HERE / "trl_vectors.npz").stat().st_size
    print(f"{len(records)} records, {size / 1024:.0f} KiB")


def record(version: str, path: Path) -> None:
    import trl

    assert trl.__version__ == version, trl.__version__
    recorder = Recorder(version)
    for kind in ("random", "extreme"):
        for dtype in DTYPES:
            for beta in BETAS:
                (record_old if version == "0.28.0" else record_new)(recorder, kind, dtype, beta)
    record_refusals(recorder)
    recorder.save(path)


def leaves(given: dict[str, Any], *names: str) -> list[Any]:
    return [given[name].clone().requires_grad_(True) for name in names]


def accelerator() -> Any:
    return SimpleNamespace(device="cpu", use_distributed=False, gather_for_metrics=lambda x: x, gather=lambda x: x)


# --- 0.28: losses are functions of log-probs

OLD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sigmoid", {}),
    ("sigmoid", {"label_smoothing": 0.1}),
    ("sigmoid", {"f_divergence": "js_divergence"}),
    ("sigmoid", {"f_divergence": "alpha_divergence", "alpha": 0.5}),
    ("sigmoid", {"f_divergence": "alpha_divergence", "alpha": 1.0}),
    ("robust", {"label_smoothing": 0.1}),
    ("hinge", {}),
    ("ipo", {}),
    ("exo_pair", {}),  # label_smoothing is 0 and silently becomes 0.001
    ("nca_pair", {}),
    ("sppo_hard", {}),
    ("aot", {}),
    ("aot_unpaired", {}),
    ("apo_zero", {}),
    ("apo_down", {}),
    ("discopop", {}),
)


def old_stub(beta: float, settings: dict[str, Any]) -> Any:
    from trl.trainer.dpo_config import FDivergenceConstants, FDivergenceType
    from trl.trainer.utils import RunningMoments

    kind = FDivergenceType(settings.get("f_divergence", "reverse_kl"))
    return SimpleNamespace(
        accelerator=accelerator(),
        reference_free=False,
        f_divergence_type=kind,
        f_divergence_params={FDivergenceConstants.ALPHA_DIVERGENCE_COEF_KEY: settings.get("alpha", 1.0)},
        label_smoothing=settings.get("label_smoothing", 0.0),
        beta=beta,
        running=RunningMoments(accelerator()),
        args=SimpleNamespace(discopop_tau=0.05),
        loss_type="",
    )


def record_old(recorder: Recorder, kind: str, dtype: str, beta: float) -> None:
    from trl import DPOTrainer
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    given = tensors(kind, dtype)

    def pair_loss(stub: Any, loss_type: str) -> dict[str, Any]:
        chosen, rejected = leaves(given, "chosen", "rejected")
        losses = DPOTrainer.dpo_loss(stub, chosen, rejected, given["ref_chosen"], given["ref_rejected"], loss_type)[0]
        losses.mean().backward()
        return {"losses": losses, "chosen_gradient": chosen.grad, "rejected_gradient": rejected.grad}

    for loss_type, settings in OLD:
        recorder.add(loss_type, dtype, kind, beta, settings, **pair_loss(old_stub(beta, settings), loss_type))
    stub = old_stub(beta, {})
    for before in (1.5, -0.25):  # rewards of two earlier batches move the running mean
        import torch

        stub.running.update(torch.tensor(before))
    found = pair_loss(stub, "bco_pair")
    recorder.add("bco_pair", dtype, kind, beta, {"running_mean": stub.running.mean}, **found)

    lengths = given["chosen_length"], given["rejected_length"]
    for loss_type, alpha, averaged in (("sigmoid", 0.0, False), ("simpo", 0.0, True), ("simpo", 0.25, True)):
        chosen, rejected = leaves(given, "chosen", "rejected")
        stub = SimpleNamespace(
            alpha=alpha, loss_type=loss_type, simpo_gamma=0.25 * beta, beta=beta, label_smoothing=0.0,
            accelerator=accelerator(),
        )  # fmt: skip
        sides = (chosen / lengths[0], rejected / lengths[1]) if averaged else (chosen, rejected)
        losses = CPOTrainer.cpo_loss(stub, *sides)[0]
        losses.mean().backward()
        grads = {"chosen_gradient": chosen.grad, "rejected_gradient": rejected.grad}
        recorder.add(f"cpo_{loss_type}", dtype, kind, beta, {"alpha": alpha}, losses=losses, **grads)
    chosen, rejected = leaves(given, "chosen", "rejected")
    stub = SimpleNamespace(beta=beta, accelerator=accelerator())
    odds = ORPOTrainer.odds_ratio_loss(stub, chosen / lengths[0], rejected / lengths[1])[0]
    odds.mean().backward()
    grads = {"chosen_gradient": chosen.grad, "rejected_gradient": rejected.grad}
    recorder.add("odds_ratio", dtype, kind, beta, {}, losses=odds, **grads)
    record_unpaired_old(recorder, given, kind, dtype, beta)


def record_unpaired_old(recorder: Recorder, given: dict[str, Any], kind: str, dtype: str, beta: float) -> None:
    import torch
    from trl.experimental.bco import BCOTrainer
    from trl.experimental.kto import KTOTrainer
    from trl.trainer.utils import RunningMoments

    for loss_type in ("kto", "apo_zero_unpaired"):
        chosen, rejected = leaves(given, "chosen", "rejected")
        stub = SimpleNamespace(
            calculate_KL=loss_type == "kto", loss_type=loss_type, beta=beta, accelerator=accelerator(),
            desirable_weight=1.0, undesirable_weight=1.0,
        )  # fmt: skip
        losses, _, _, kl = KTOTrainer.kto_loss(
            stub, chosen, rejected, given["kl"], given["ref_chosen"], given["ref_rejected"], given["ref_kl"]
        )
        losses.mean().backward()
        grads = {"chosen_gradient": chosen.grad, "rejected_gradient": rejected.grad}
        recorder.add(loss_type, dtype, kind, beta, {}, losses=losses, kl=float(kl), **grads)
    chosen, rejected = leaves(given, "chosen", "rejected")
    stub = SimpleNamespace(beta=beta, running=RunningMoments(accelerator()), match_underlying_distribution=False)
    stub.running.update(torch.tensor([0.5, -1.0, 2.0]))
    losses = BCOTrainer.bco_loss(stub, chosen, rejected, given["ref_chosen"], given["ref_rejected"], None, None)[0]
    losses.mean().backward()
    grads = {"chosen_gradient": chosen.grad, "rejected_gradient": rejected.grad}
    recorder.add("bco", dtype, kind, beta, {"running_mean": stub.running.mean}, losses=losses, **grads)


# --- 1.x: losses are inside `_compute_loss`

NEW: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sigmoid", {}),
    ("sigmoid", {"label_smoothing": 0.1}),  # which it ignores here
    ("sigmoid", {"f_divergence": "forward_kl"}),
    ("sigmoid", {"f_divergence": "js_divergence"}),
    ("sigmoid", {"f_divergence": "alpha_divergence", "alpha": 0.5}),
    ("sigmoid", {"use_weighting": True}),
    ("robust", {"label_smoothing": 0.1}),
    ("hinge", {}),
    ("ipo", {}),  # of log-ratios per token
    ("exo_pair", {"label_smoothing": 0.001}),
    ("nca_pair", {}),
    ("bco_pair", {}),
    ("sppo_hard", {}),
    ("aot", {}),
    ("aot_unpaired", {}),
    ("apo_zero", {}),
    ("apo_down", {}),
    ("discopop", {}),
    ("sigmoid_norm", {}),
    ("sft", {}),
)


class FirstTokens:
    """A stand-in model: each response's log-prob is all on its first token.

    `spread` is the log of the sum of squared probabilities that weighting subtracts, on the same token.
    """

    def __init__(self, logps: Any, lengths: Any, spread: float = 0.0) -> None:
        import torch

        self.training = False
        width = int(lengths.max())
        self.mask = (torch.arange(width)[None] < lengths[:, None]).long()
        first = (torch.arange(width)[None] == 0).to(logps.dtype)
        self.log_probs = logps[:, None] * first
        self.squares = torch.full((len(lengths), width), spread, dtype=logps.dtype) * first
        self.prompted = torch.cat([torch.zeros(len(lengths), 1, dtype=torch.long), self.mask], 1)

    def __call__(self, **_: Any) -> Any:
        import torch

        nothing = torch.zeros_like(self.log_probs)
        return SimpleNamespace(
            log_probs=self.log_probs, log_sum_sq_probs=self.squares, entropy=nothing, mean_logits=nothing,
            is_top1=nothing.bool(),
        )  # fmt: skip


def record_new(recorder: Recorder, kind: str, dtype: str, beta: float) -> None:
    import torch
    from trl import DPOTrainer

    given = tensors(kind, dtype)
    lengths = torch.cat([given["chosen_length"], given["rejected_length"]])
    for loss_type, settings in NEW:
        if settings.get("f_divergence") == "alpha_divergence" and dtype == "float64":
            continue  # it has no bound for the exponent in this precision
        (logps,) = leaves({"both": torch.cat([given["chosen"], given["rejected"]])}, "both")
        model = FirstTokens(logps, lengths, spread=-200.0 if settings.get("use_weighting") else 0.0)
        stub = SimpleNamespace(
            model=model, accelerator=accelerator(), aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
            f_divergence_type=settings.get("f_divergence", "reverse_kl"), f_alpha_divergence_coef=settings.get("alpha"),
            loss_types=[loss_type], loss_weights=[1.0], beta=beta, label_smoothing=settings.get("label_smoothing", 0.0),
            use_weighting=settings.get("use_weighting", False), args=SimpleNamespace(discopop_tau=0.05),
            _metrics={"eval": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
        )  # fmt: skip
        inputs = {
            "input_ids": model.prompted,
            "attention_mask": torch.ones_like(model.prompted),
            "completion_mask": model.prompted,
            "ref_chosen_logps": given["ref_chosen"],
            "ref_rejected_logps": given["ref_rejected"],
        }
        loss = DPOTrainer._compute_loss(stub, model, inputs, False)
        loss.backward()
        chosen, rejected = logps.grad.chunk(2)
        recorder.add(
            loss_type, dtype, kind, beta, settings, mean=loss, chosen_gradient=chosen, rejected_gradient=rejected
        )
    record_unpaired_new(recorder, given, kind, dtype, beta)


def record_unpaired_new(recorder: Recorder, given: dict[str, Any], kind: str, dtype: str, beta: float) -> None:
    import torch
    from trl import KTOTrainer

    lengths = torch.cat([given["chosen_length"], given["rejected_length"]])
    for loss_type in ("kto", "apo_zero_unpaired"):
        (logps,) = leaves({"both": torch.cat([given["chosen"], given["rejected"]])}, "both")
        model = FirstTokens(logps, lengths)
        stub = SimpleNamespace(
            model=model, accelerator=accelerator(), aux_loss_enabled=False, precompute_ref_logps=True,
            calculate_KL=loss_type == "kto", loss_type=loss_type, beta=beta, desirable_weight=1.0, undesirable_weight=1.0,
            _compute_kl_logps=lambda *_: given["kl"], _metrics={"eval": defaultdict(list)}, _total_train_tokens=0,
            _tp_size=1,
        )  # fmt: skip
        inputs = {
            "input_ids": model.prompted,
            "attention_mask": torch.ones_like(model.prompted),
            "completion_mask": model.prompted,
            "label": torch.arange(2 * PAIRS) < PAIRS,
            "ref_logps": torch.cat([given["ref_chosen"], given["ref_rejected"]]),
            "ref_KL_logps": given["ref_kl"],
        }
        loss = KTOTrainer._compute_loss(stub, model, inputs, False)
        loss.backward()
        chosen, rejected = logps.grad.chunk(2)
        kl = float((given["kl"] - given["ref_kl"]).mean().clamp(min=0)) if loss_type == "kto" else 0.0
        recorder.add(
            loss_type, dtype, kind, beta, {}, mean=loss, kl=kl, chosen_gradient=chosen, rejected_gradient=rejected
        )


def record_refusals(recorder: Recorder) -> None:
    """What this version says to exo_pair without smoothing, and to kto_pair, when a configuration or a loss asks for it."""
    if recorder.version == "0.28.0":
        stub = old_stub(0.1, {})
        from trl import DPOTrainer

        given = tensors("random", "float64")
        logps = [given[n] for n in ("chosen", "rejected", "ref_chosen", "ref_rejected")]
        DPOTrainer.dpo_loss(stub, *logps, "exo_pair")
        recorder.add("exo_pair", "float64", "refusal", 0.1, {"label_smoothing": 0.0}, became=stub.label_smoothing)
        try:
            DPOTrainer.dpo_loss(stub, *logps, "kto_pair")
        except ValueError as error:
            recorder.add("kto_pair", "float64", "refusal", 0.1, {}, refused=str(error)[:80])
        return
    from trl import DPOConfig, DPOTrainer

    for loss_type in ("exo_pair", "kto_pair"):
        with tempfile.TemporaryDirectory() as folder:
            config = DPOConfig(loss_type=loss_type, output_dir=folder, report_to=[], use_cpu=True)
            try:
                tiny_training(DPOTrainer, config)
            except ValueError as error:
                recorder.add(loss_type, "float64", "refusal", 0.1, {"label_smoothing": 0.0}, refused=str(error)[:80])


def tiny_training(trainer: Any, config: Any) -> None:
    """Make a trainer of a tiny random model and take one loss with it."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "a": 3, "b": 4}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), num_key_value_heads=1, **sizes))
    rows = Dataset.from_list([{"prompt": "a", "chosen": " a b", "rejected": " b"}] * 2)
    reference = LlamaForCausalLM(model.config)
    made = trainer(model=model, ref_model=reference, args=config, train_dataset=rows, processing_class=tokenizer)
    made.compute_loss(made.model, next(iter(made.get_train_dataloader())))


if __name__ == "__main__":
    main()
