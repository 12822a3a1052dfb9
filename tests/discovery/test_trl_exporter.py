"""The exported trainer against TRL's own losses: the same data, the same steps, the same weights."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from discovery.exporters.base import ExportError
from discovery.exporters.testing import CONTEXT, ExporterConformance, dossier
from discovery.exporters.trl import TrlExporter
from discovery.exporting import Typed, make_export
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from sandbox.contract import Contract, TensorInput
from sandbox.server import OracleServer
from tests.support.tiny_llm import pairs, save_model

KNOWN = known_objectives(PAIRS.name)
NAMES = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
MARGIN = "policy_chosen_logps - reference_chosen_logps - policy_rejected_logps + reference_rejected_logps"
SCHEDULED = f"def loss({NAMES}, progress):\n    return -(1 + progress) * beta * ({MARGIN})\n"
# TRL's name for each; its ipo divides by the completion's length since 0.29
BUILT_IN = {"dpo": "sigmoid", "hinge": "hinge", "ipo": "ipo", "lrml": "discopop"}
# lengths, each response by itself, and a batch that is sorted
ALSO = {n: n for n in ("sigmoid_norm", "nca_pair", "sppo_hard", "apo_zero", "apo_down", "aot", "aot_unpaired")}
STEPS = 20


class TestConformance(ExporterConformance):
    extra_sources = (
        SCHEDULED,
        f"from __future__ import annotations\n\n\ndef loss({NAMES}):\n    return -beta * ({MARGIN})\n",
    )

    def make_exporter(self):
        return TrlExporter()


def load(text: str, path: Path) -> ModuleType:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trl")


@pytest.fixture(scope="module")
def trainers(work) -> dict[str, Any]:
    """`LossTrainer` of each exported loss, imported from its file."""
    sources = {name: KNOWN[name].candidate.source for name in (*BUILT_IN, *ALSO, "kto_pair")} | {"scheduled": SCHEDULED}
    with OracleServer() as server:
        return {
            name: load(
                make_export(TrlExporter(), dossier(name=name, source=source), Typed(), server).export.text,
                work / f"{name}_exported.py",
            ).LossTrainer
            for name, source in sources.items()
        }


@pytest.fixture(scope="module")
def model_folder(work) -> Path:
    return save_model(work / "model")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def offline(monkeypatch, work):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(work / "datasets"))
    monkeypatch.setenv("WANDB_DISABLED", "true")


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)


def trainer_of(
    kind: Any, folder: Path, *, peft: bool = False, options: dict[str, Any] | None = None, **rest: Any
) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig

    settings = {
        "per_device_train_batch_size": 4, "max_steps": STEPS, "learning_rate": 5e-3, "logging_steps": 5, "report_to": [],
        "save_strategy": "no", "use_cpu": True, "bf16": False, "disable_tqdm": True, "seed": 1,
        "gradient_checkpointing": False,
    }  # fmt: skip
    return kind(
        AutoModelForCausalLM.from_pretrained(folder),
        args=DPOConfig(output_dir=str(folder.parent / "out"), **settings | (options or {})),
        train_dataset=Dataset.from_list(pairs(32)),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora() if peft else None,
        **rest,
    )


def train(kind: Any, folder: Path, **rest: Any) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """Trained weights in one vector, and the log."""
    trainer = trainer_of(kind, folder, **rest)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert distance(before, after) > 1e-3  # it has learnt something
    return after, trainer.state.log_history


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in trainer.model.parameters() if p.requires_grad])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


ACCUMULATED = {"options": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2}}
WAYS = {
    "precomputed": {"options": {"precompute_ref_log_probs": True}},
    "half precision": {"options": {"bf16": True}},
    "peft": {"peft": True},
    "peft, precomputed": {"peft": True, "options": {"precompute_ref_log_probs": True}},
    "peft, checkpointed": {"peft": True, "options": {"gradient_checkpointing": True}},
}


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("settings", [{}, ACCUMULATED], ids=["plain", "accumulated"])
def test_twenty_steps_end_where_trl_s_own_loss_ends(name, settings, trainers, model_folder):
    compare(name, settings, trainers, model_folder)


@pytest.mark.parametrize("name", ALSO)
def test_so_do_losses_over_lengths_single_responses_and_sorted_batches(name, trainers, model_folder):
    compare(name, {}, trainers, model_folder)


@pytest.mark.parametrize("way", WAYS)
def test_they_do_so_in_every_way_of_training(way, trainers, model_folder):
    # in half precision a last bit of the loss becomes a visible difference: DPO's form is TRL's own, LRML's is not
    compare("dpo" if way == "half precision" else "lrml", WAYS[way], trainers, model_folder)


def compare(name: str, settings: dict[str, Any], trainers: dict[str, Any], model_folder: Path) -> None:
    from trl import DPOTrainer

    settings = dict(settings)
    options = settings.pop("options", {})
    extra = {"average_log_prob": True} if name == "ipo" else {}
    ours, our_log = train(trainers[name], model_folder, options=options, **settings, **extra)
    theirs, their_log = train(
        DPOTrainer, model_folder, options=options | {"loss_type": [(BUILT_IN | ALSO)[name]]}, **settings
    )
    assert distance(ours, theirs) < 1e-5
    assert [sorted(e) for e in our_log] == [sorted(e) for e in their_log]
    for mine, his in zip(our_log[:-1], their_log[:-1], strict=True):
        for metric in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "entropy"):
            assert mine[metric] == pytest.approx(his[metric], rel=1e-4, abs=1e-5)


def test_the_comparison_can_fail(trainers, model_folder):
    """IPO on sums is another objective than TRL's, and so is DPO at another beta."""
    from trl import DPOTrainer

    sums, _ = train(trainers["ipo"], model_folder)
    averages, _ = train(DPOTrainer, model_folder, options={"loss_type": ["ipo"]})
    assert distance(sums, averages) > 1e-4
    one, _ = train(trainers["dpo"], model_folder)
    other, _ = train(trainers["dpo"], model_folder, options={"beta": 0.101})
    assert distance(one, other) > 1e-5


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("precomputed", [False, True])
def test_a_batch_coupled_loss_sees_the_whole_batch_of_a_step(peft, precomputed, trainers, model_folder):
    def trained(size: int, parts: int) -> tuple[torch.Tensor, float]:
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts,
                   "precompute_ref_log_probs": precomputed}  # fmt: skip
        found, log = train(trainers["kto_pair"], model_folder, peft=peft, options=options)
        return found, log[0]["loss"]

    (whole, loss), (parts, same_loss), (small, _) = trained(8, 1), trained(2, 4), trained(2, 1)
    assert distance(parts, whole) < 1e-5
    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert distance(small, whole) > 1e-3  # what each micro-batch by itself would have come to


def test_a_batch_coupled_loss_refuses_dropout(trainers, model_folder):
    with pytest.raises(ValueError, match="disable_dropout"):
        trainer_of(trainers["kto_pair"], model_folder, options={"disable_dropout": False})


def test_progress_runs_from_zero_to_one(trainers, model_folder):
    from transformers import TrainerCallback

    trainer = trainer_of(trainers["scheduled"], model_folder)
    seen = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            seen.append(trainer._progress())

    trainer.add_callback(Watch())
    trainer.train()
    assert seen == pytest.approx([i / (STEPS - 1) for i in range(STEPS)])


@pytest.mark.parametrize("name", ["dpo", "kto_pair"])
def test_evaluation_reports_trl_s_metrics(name, trainers, model_folder):
    from datasets import Dataset

    trainer = trainer_of(
        trainers[name], model_folder, options={"max_steps": 2}, eval_dataset=Dataset.from_list(pairs(8, 1))
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_loss"] > 0
    assert {"eval_rewards/chosen", "eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/chosen"} <= set(found)


@pytest.mark.parametrize(
    "option",
    [{"loss_type": ["ipo"]}, {"label_smoothing": 0.1}, {"ld_alpha": 0.5}, {"use_weighting": True},
     {"f_divergence_type": "js_divergence"}, {"label_smoothing_factor": 0.1}, {"discopop_tau": 0.1},
     {"padding_free": True}, {"f_alpha_divergence_coef": 0.1}],
)  # fmt: skip
def test_settings_of_trl_s_own_losses_are_refused(option, trainers, model_folder):
    with pytest.raises(ValueError, match=next(iter(option))):
        trainer_of(trainers["dpo"], model_folder, options=option)


def test_what_the_docstring_says_about_batches_depends_on_the_loss():
    plain = TrlExporter().export(dossier(), CONTEXT).text
    coupled = TrlExporter().export(dossier(source=KNOWN["kto_pair"].candidate.source), CONTEXT)
    assert "depends on that example alone" in plain
    assert "get_batch_samples" not in plain
    assert "depends on that example alone" in coupled.text  # the stored probe says so
    unknown = replace(dossier(source=KNOWN["kto_pair"].candidate.source), probe=None)
    assert "Examples of a batch influence each other" in TrlExporter().export(unknown, CONTEXT).text


UNPAIRED = Contract(
    "test.unpaired", "loss", "Single responses.",
    (TensorInput("policy_logps", "", -80.0, -1.0, True), TensorInput("reference_logps", "", -80.0, -1.0),
     TensorInput("desirable", "", 0.0, 1.0, dtype="bool")),
)  # fmt: skip


def test_a_loss_for_single_responses_says_what_the_trainer_lacks():
    source = "def loss(policy_logps, reference_logps, desirable):\n    return -policy_logps\n"
    unpaired = replace(dossier(source=source), contract=UNPAIRED)
    with pytest.raises(
        ExportError, match=r"no policy_logps, reference_logps, desirable.*takes single responses"
    ) as error:
        TrlExporter().export(replace(unpaired, gate=replace(unpaired.gate, parameters=UNPAIRED.required)), CONTEXT)
    assert "\n" not in str(error.value)


def test_inputs_are_looked_up_by_name(server):
    def rich(extra: str, body: str) -> Any:
        from sandbox.gate import check_source

        made = dossier(source=f"def loss({NAMES}, {extra}):\n    return {body}\n")
        return replace(made, gate=check_source(made.entry.candidate, PAIRS))

    lengths = rich(
        "chosen_length, rejected_length",
        "beta * (policy_rejected_logps / rejected_length - policy_chosen_logps / chosen_length)",
    )
    text = make_export(TrlExporter(), lengths, Typed(), server).export.text
    assert "chosen_length=chosen_tokens," in text
    assert "rejected_length=rejected_tokens," in text
    for extra in ("chosen_score", "preference_probability", "running_log_ratio"):
        with pytest.raises(ExportError, match=f"no {extra}, which a_loss"):
            TrlExporter().export(rich(extra, f"-beta * {extra} * ({MARGIN})"), CONTEXT)


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


def test_a_name_of_the_file_itself_is_refused():
    source = f"def main(x):\n    return x\n\n\ndef loss({NAMES}):\n    return -main(beta) * ({MARGIN})\n"
    with pytest.raises(ExportError, match="defines main"):
        TrlExporter().export(dossier(source=source), CONTEXT)


def test_the_file_is_plain_and_parses():
    coupled = f"def loss({NAMES}):\n    d = {MARGIN}\n    return -beta * (d - d.mean().detach())\n"
    text = TrlExporter().export(replace(dossier(source=coupled), probe=None), CONTEXT).text
    assert "get_batch_samples" in text
    assert max(map(len, text.splitlines())) <= 120
    names = [n.name for n in ast.parse(text).body if isinstance(n, (ast.ClassDef, ast.FunctionDef))]
    assert names[:2] == ["loss", "LossTrainer"]
    assert names[-1] == "main"


@pytest.mark.slow
def test_the_file_is_a_script(trainers, model_folder, work):
    data = work / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs(8)), encoding="utf-8")
    command = [sys.executable, work / "lrml_exported.py", "--model_name_or_path", model_folder, "--dataset_name", data,
               "--output_dir", work / "script", "--max_steps", 2, "--beta", 0.2, "--use_cpu", "--bf16", "false",
               "--report_to", "none", "--use_peft", "--lora_target_modules", "q_proj", "v_proj"]  # fmt: skip
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (work / "script" / "adapter_model.safetensors").is_file()


WORKER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.set_num_threads(1)
from tests.discovery import test_trl_exporter as t
parts, processes = int(sys.argv[1]), int(sys.argv[2])
kind = t.load(Path({file!r}).read_text(), Path({file!r})).LossTrainer
options = {{"per_device_train_batch_size": 8 // processes // parts, "gradient_accumulation_steps": parts}}
options |= {{"ddp_backend": "gloo"}} if processes > 1 else {{}}
trainer = t.trainer_of(kind, Path({model!r}), options=options)
trainer.train()
if trainer.accelerator.is_main_process:
    torch.save(t.weights(trainer), {out!r} + f"/{{processes}}_{{parts}}.pt")
"""


@pytest.mark.slow
def test_a_batch_coupled_loss_sees_the_batches_of_all_processes(trainers, model_folder, work):
    root = Path(__file__).parents[2]
    worker = work / "worker.py"
    worker.write_text(
        WORKER.format(root=str(root), tests=str(root / "tests"), file=str(work / "kto_pair_exported.py"),
                      model=str(model_folder), out=str(work))
    )  # fmt: skip
    for parts, processes in ((1, 1), (1, 2), (2, 2)):
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr",
            "127.0.0.1",
            "--nproc-per-node",
            str(processes),
        ]
        command = [sys.executable, *(launch if processes > 1 else []), str(worker), str(parts), str(processes)]
        environment = {**os.environ, "HF_DATASETS_CACHE": str(work / f"d{parts}{processes}")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    whole = torch.load(work / "1_1.pt")
    assert distance(torch.load(work / "2_1.pt"), whole) < 1e-5
    assert distance(torch.load(work / "2_2.pt"), whole) < 1e-5
