"""The exported trainer as a script: an option that is accepted is obeyed, or refused in one line."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from discovery.exporters.testing import CONTEXT, HOSTILE, dossier
from discovery.exporters.trl import TrlExporter, card_name, citation
from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS
from tests.support.tiny_llm import pairs, save_model

LRML = known_objectives(PAIRS.name)["lrml"]

# by the script itself
SCRIPT = {
    "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "dataset_streaming",
    "ignore_bias_buffers",
    "model_name_or_path", "model_revision", "dtype", "attn_implementation", "datasets", "streaming", "test_split_size",
    "push_to_hub", "resume_from_checkpoint", "eval_strategy", "output_dir", "model_init_kwargs",
}  # fmt: skip
# by get_peft_config and get_quantization_config, which the script calls
PEFT = {
    "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters",
    "lora_modules_to_save", "lora_task_type", "use_rslora", "use_dora", "load_in_8bit", "load_in_4bit",
    "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage",
}  # fmt: skip
# by TRL's trainer, whose methods run
TRAINER = {
    "trust_remote_code", "router_aux_loss_coef", "disable_dropout", "dataset_num_proc", "max_length", "truncation_mode",
    "pad_to_multiple_of", "precompute_ref_log_probs", "precompute_ref_batch_size", "beta", "activation_offloading",
    "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps", "pad_token",
}  # fmt: skip
REFUSED = {
    "loss_type": "ipo", "loss_weights": "1", "ld_alpha": "0.5", "f_divergence_type": "js_divergence",
    "f_alpha_divergence_coef": "0.4", "label_smoothing": "0.1", "label_smoothing_factor": "0.1", "use_weighting": "true",
    "discopop_tau": "0.1", "padding_free": "true", "do_predict": "true", "include_for_metrics": "loss",
    "batch_eval_metrics": "true",
}  # fmt: skip
# by Trainer of transformers, in whose loop the loss is called
TRANSFORMERS = set("""
    per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps
    optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules gradient_accumulation_steps
    average_tokens_across_devices max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing
    activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend
    torch_compile_mode use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha torch_empty_cache_steps
    auto_find_batch_size logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter
    include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id
    trackio_bucket_id trackio_static_space_id eval_steps eval_delay per_device_eval_batch_size prediction_loss_only
    eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps save_only_model save_strategy
    save_steps save_on_each_node save_total_limit enable_jit_checkpoint hub_token hub_private_repo hub_model_id hub_strategy
    hub_always_push hub_revision load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu accelerator_config parallelism_config
    dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names
    train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers
    ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug skip_memory_metrics do_train do_eval local_rank
""".split())  # fmt: skip  # noqa: SIM905


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    save_model(folder / "model")
    data = folder / "data"
    data.mkdir()
    for split, seed in (("train", 0), ("test", 1)):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs(8, seed)), encoding="utf-8")
    (folder / "lrml.py").write_text(
        TrlExporter()
        .export(dossier("lrml_found", source=known_objectives(PAIRS.name)["lrml"].candidate.source), CONTEXT)
        .text,
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def script(work) -> ModuleType:
    spec = importlib.util.spec_from_file_location("lrml_script", work / "lrml.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def offline(monkeypatch, work):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(work / "cache"))
    monkeypatch.setenv("WANDB_DISABLED", "true")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


USUAL = {
    "max_steps": 1, "use_cpu": "true", "bf16": "false", "report_to": "none", "per_device_train_batch_size": 2,
    "gradient_checkpointing": "false", "save_strategy": "no", "disable_tqdm": "true",
}  # fmt: skip


@pytest.fixture
def main(monkeypatch, script, work):
    """Runs the script with options: their values, None for an option without one. The trainer that it made."""

    def _main(output: Path, data: bool = True, **options: Any) -> Any:
        made: list[Any] = []
        start = script.LossTrainer.__init__

        def watched(self: Any, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            start(self, *args, **kwargs)

        given = {"model_name_or_path": work / "model", "output_dir": output, **USUAL}
        given |= {"dataset_name": work / "data"} if data else {}
        words = [w for name, value in (given | options).items() for w in words_of(name, value)]
        monkeypatch.setattr(sys, "argv", ["lrml.py", *words])
        with monkeypatch.context() as patch:
            patch.setattr(script.LossTrainer, "__init__", watched)
            script.main()
        return made[0]

    return _main


def words_of(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    return [f"--{name}", *([str(v) for v in value] if isinstance(value, list) else [str(value)])]


def saved(folder: Path) -> set[torch.dtype]:
    from safetensors.torch import load_file

    return {t.dtype for t in load_file(folder / "model.safetensors").values()}


def groups() -> tuple[type, ...]:
    from trl import DatasetMixtureConfig, DPOConfig, ModelConfig, ScriptArguments

    return ScriptArguments, DPOConfig, ModelConfig, DatasetMixtureConfig


def test_it_is_decided_what_becomes_of_each_option():
    """A new release of TRL or transformers with an option that nobody has thought about fails here."""
    decided = [SCRIPT, PEFT, TRAINER, set(REFUSED), TRANSFORMERS]
    names = {f.name for group in groups() for f in dataclasses.fields(group)}
    assert sum(map(len, decided)) == len(set().union(*decided))
    assert names - set().union(*decided) == set()
    assert set().union(*decided) - names == set()


def refusal(capsys: Any, run: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_no_effect_is_refused(name, main, capsys, tmp_path):
    assert name in refusal(capsys, lambda: main(tmp_path / "out", **{name: REFUSED[name]}))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_so_is_an_option_without_the_one_that_it_belongs_to(script, main, capsys, tmp_path):
    values = {
        "lora_target_modules": ["q_proj"], "lora_target_parameters": ["x"], "lora_modules_to_save": ["x"],
        "lora_task_type": "SEQ_CLS", "use_rslora": "true", "use_dora": "true", "load_in_8bit": "true",
        "load_in_4bit": "true", "bnb_4bit_quant_type": "fp4", "use_bnb_nested_quant": "true",
        "bnb_4bit_quant_storage": "uint8", "dataset_streaming": "true", "streaming": "true", "test_split_size": 0.5,
        "lora_dropout": 0.5, "dataset_config": "x",
    }  # fmt: skip
    for needed, names in script._NEEDS.items():
        for name in names:
            value = values.get(name, 3)
            extra = {"use_peft": "true"} if needed == "load_in_4bit" else {}
            if needed == "dataset_name":
                config = tmp_path / "mixture.yaml"
                config.write_text(yaml.safe_dump({"datasets": [{"path": "nowhere"}]}), encoding="utf-8")
                said = refusal(capsys, lambda: main(tmp_path, data=False, config=config, **{name: value}))  # noqa: B023
            else:
                said = refusal(capsys, lambda: main(tmp_path, **{name: value}, **extra))  # noqa: B023
            assert f"--{name} has no effect without" in said
            assert needed in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model_name_or_path": None}, "which model?"),
        ({"dataset_name": None}, "which data?"),
        ({"model_revision": "v2"}, "--model_revision v2 has no effect on a folder"),
        ({"model_name_or_path": "nobody/nothing"}, "huggingface.co"),
        ({"dataset_train_split": "validation"}, "no split 'validation'; it has train, test"),
        ({"dataset_test_split": "train"}, "evaluation needs --eval_strategy"),
        ({"dataset_name": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"use_peft": "true", "load_in_4bit": "true"}, "need"),
        ({"use_peft": "true", "load_in_8bit": "true"}, "need"),
        ({"use_peft": "true", "load_in_8bit": "true", "load_in_4bit": "true"}, "8 bit and 4 bit"),
        ({"attn_implementation": "nonsense"}, "nonsense"),
        ({"dtype": "float7"}, "float7"),
        ({"learning_rte": "1"}, "learning_rte"),
        ({"model_init_kwargs": '{"dtype": "float16"}', "dtype": "bfloat16"}, "dtype is 'bfloat16' by its option"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(options, said, main, capsys, tmp_path):
    assert said in refusal(capsys, lambda: main(tmp_path / "out", **options))


def test_the_model_is_loaded_and_saved_as_asked(main, tmp_path):
    trainer = main(
        tmp_path / "half", dtype="bfloat16", attn_implementation="eager", eval_strategy="steps", eval_steps=1
    )
    assert saved(tmp_path / "half") == {torch.bfloat16}
    assert trainer.model.config._attn_implementation == "eager"
    assert trainer.ref_model.config._attn_implementation == "eager"
    assert any("eval_loss" in entry for entry in trainer.state.log_history)
    card = (tmp_path / "half" / "README.md").read_text(encoding="utf-8")
    assert "trained with lrml_found, a loss from objective-discovery (candidate " in card
    assert "@misc{objective_discovery_" in card
    assert "DPO" not in card
    assert "Direct Preference" not in card
    assert "dpo" not in card.replace("proposed", "")
    assert "- objective-discovery" in card


def test_float32_and_sdpa_are_other_models(main, tmp_path):
    trainer = main(tmp_path / "full", attn_implementation="sdpa")
    assert saved(tmp_path / "full") == {torch.float32}
    assert trainer.model.config._attn_implementation == "sdpa"
    main(tmp_path / "by_kwargs", model_init_kwargs='{"dtype": "float16"}', learning_rate=0)
    assert saved(tmp_path / "by_kwargs") == {torch.float16}


def test_streamed_data_trains_adapters(main, tmp_path):
    trainer = main(
        tmp_path / "lora", dataset_streaming="true", use_peft="true", lora_r=3, lora_target_modules=["q_proj", "v_proj"]
    )
    from datasets import IterableDataset

    assert isinstance(trainer.train_dataset, IterableDataset)
    adapter = json.loads((tmp_path / "lora" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["r"], sorted(adapter["target_modules"])) == (3, ["q_proj", "v_proj"])


def test_a_mixture_of_data_is_mixed_and_split(main, work, tmp_path):
    config = tmp_path / "mixture.yaml"
    both = [{"path": str(work / "data"), "split": split} for split in ("train", "test")]
    config.write_text(yaml.safe_dump({"datasets": both, "test_split_size": 0.25, "beta": 0.3}), encoding="utf-8")
    trainer = main(tmp_path / "mixed", data=False, config=config, eval_strategy="steps", eval_steps=1)
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (12, 4)
    assert trainer.beta == 0.3


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_losses_break_out_of_nothing(text):
    made = dossier(name=f"x{text}]($y{{}}\\", proposer=f"}},\n note={{{text}", campaign=text + "x")
    name, cited = card_name(made), citation(made, CONTEXT)
    assert "\n" not in name
    for mark in '`[]<>$\\{}|*"':
        assert mark not in name
    assert cited.count("{") == cited.count("}") == 4
    assert len(cited.splitlines()) == 7
    namespace: dict[str, Any] = {}
    text_of_file = TrlExporter().export(made, CONTEXT).text
    exec(f"name = {name!r}", namespace)
    assert repr(name)[1:-1] in text_of_file


def test_a_published_loss_names_its_paper():
    made = dossier("lrml", source=LRML.candidate.source, origin="known")
    assert "published" in card_name(made)
    assert "Lu et al" in citation(made, CONTEXT)
