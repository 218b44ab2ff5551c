"""What other programs call our keys: somebody who types `batch_size` is told ours, with its meaning.

An alias is never taken silently. A run's configuration has one name for each thing, which the next reader finds.
"""

import difflib
import re
from collections.abc import Collection

from imgcap.config.keys import fields_of
from imgcap.config.section import Section
from imgcap.errors import nearest

# By key, or by a setting of a key. Of an alias of several keys the one in the section that was typed is meant, else the
# first.
ALIASES: dict[str, str] = {
    "name": "run_name experiment_name exp_name project",
    "run_dir": "output_dir out_dir save_dir log_dir work_dir out checkpoint_dir",
    "model.encoder.weights": "pretrained",
    "init_from": "pretrained pretrained_model finetune_from load_from",
    "seed": "random_seed manual_seed",
    "data.shards": "dataset data_dir data_path data_root dataset_path train_data root shard_dir",
    "data.image_size": "img_size resolution crop_size resize",
    "data.workers": "num_workers n_workers dataloader_workers",
    "data.augment": "augmentation aug",
    "data.max_tokens": "max_len max_length max_seq_len max_caption_length max_new_tokens seq_length",
    "data.captions_per_image": "captions_per_img seq_per_img",
    "data.language": "lang",
    "data.cache": "cache_dir",
    "vocab.size": "vocab_size max_vocab",
    "vocab.min_count": "min_freq min_word_freq word_count_threshold freq_threshold",
    "model.encoder.name": "backbone arch cnn encoder_name model_name",
    "model.encoder.train": "freeze freeze_encoder fine_tune_encoder trainable",
    "model.encoder.output_stride": "stride",
    "model.encoder.recompute": "gradient_checkpointing activation_checkpointing",
    "model.decoder.type": "decoder_type model_type",
    "model.decoder.layers": "num_layers n_layers n_layer decoder_layers rnn_layers",
    "model.decoder.embed_dim": "embed_size emb_dim embedding_dim embedding_size word_dim input_encoding_size",
    "model.decoder.hidden_dim": "hidden_size decoder_dim rnn_size lstm_size",
    "model.decoder.attention_dim": "att_dim attention_size att_hid_size",
    "model.decoder.dropout": "dropout drop_prob dropout_rate drop_prob_lm",
    "train.epochs": "num_epochs n_epochs max_epochs num_train_epochs",
    "train.max_steps": "steps num_steps max_iters iterations total_steps",
    "train.global_batch": "batch_size bs batch train_batch_size",
    "eval.batch": "batch_size bs eval_batch_size val_batch_size per_device_eval_batch_size",
    "train.micro_batch": "per_gpu_batch_size per_device_train_batch_size micro_batch_size grad_accum "
    "accumulation_steps gradient_accumulation_steps accumulate_grad_batches",
    "train.precision=fp16": "fp16 half",
    "train.precision=bf16": "bf16 amp mixed_precision use_amp autocast",
    "train.precision=tf32": "tf32",
    "train.precision": "dtype",
    "train.objective": "criterion loss_fn rl scst use_scst",
    "train.objective_from": "self_critical_after scst_after scst_start rl_start",
    "train.self_critical.samples": "scst_num_of_rand train_sample_n num_samples scst_samples",
    "train.self_critical.baseline": "sc_baseline rl_baseline",
    "train.self_critical.reward": "cider_reward_weight bleu_reward_weight reward_type",
    "train.self_critical.temperature": "sample_temperature",
    "train.compile": "torch_compile",
    "train.capture": "cuda_graphs",
    "train.label_smoothing": "smoothing",
    "train.attention_penalty": "alpha_c",
    "train.clip_norm": "grad_clip clip_grad gradient_clip gradient_clip_val clip_grad_norm max_grad_norm max_norm clip",
    "train.ema": "ema_decay model_ema",
    "train.teacher_forcing.start": "teacher_forcing_ratio",
    "train.teacher_forcing.schedule": "scheduled_sampling",
    "train.early_stopping.patience": "patience early_stop",
    "optim.plateau_patience": "patience",
    "train.early_stopping.metric": "monitor metric_for_best_model",
    "optim.lr": "learning_rate base_lr decoder_lr optimizer_lr",
    "optim.encoder_lr": "cnn_lr backbone_lr lr_backbone",
    "optim.weight_decay": "wd l2",
    "optim.schedule": "scheduler lr_scheduler lr_scheduler_type lr_schedule",
    "optim.warmup": "warmup_steps num_warmup_steps warmup_epochs",
    "optim.gamma": "lr_decay lr_gamma",
    "optim.step_every": "step_size",
    "optim.min_lr": "eta_min",
    "eval.beam": "beam_size num_beams beam_width",
    "eval.every": "eval_every eval_steps eval_interval val_every val_interval evaluation_strategy",
    "eval.split": "eval_split val_split",
    "eval.no_repeat_ngram": "no_repeat_ngram_size",
    "checkpoint.every": "save_every save_steps save_interval checkpoint_every",
    "checkpoint.keep": "save_total_limit",
    "log.every": "log_every log_interval logging_steps print_freq",
    "log.wandb": "use_wandb report_to",
    "engine.zero_stage": "zero",
    "engine.name": "strategy backend distributed",
}
# What is no key here, and what does it instead.
ELSEWHERE = {
    "base": "for files only; on the command line name the file by --config",
    "config": "the option --config FILE",
    "gpu": "the option --device, as in --device cuda:1",
    "gpus": "said to the launcher: torchrun --nproc_per_node 4 -m imgcap train",
    "num_gpus": "said to the launcher: torchrun --nproc_per_node 4 -m imgcap train",
    "devices": "said to the launcher: torchrun --nproc_per_node 4 -m imgcap train",
    "world_size": "said to the launcher: torchrun --nproc_per_node 4 -m imgcap train",
    "num_nodes": "said to the launcher: torchrun --nnodes 2 --nproc_per_node 4 -m imgcap train",
    "resume": "the option --resume; without it a run goes on from its last checkpoint anyway",
    "resume_from": "the option --resume PATH; without it a run goes on from its last checkpoint anyway",
    "resume_from_checkpoint": "the option --resume PATH; without it a run goes on from its last checkpoint anyway",
    "ckpt": "the option --resume PATH to go on with a run; init_from=RUN begins a new run with its weights",
    "checkpoint_path": "the option --resume PATH to go on with a run; init_from=RUN begins a new run with its weights",
    "debug": "the option --debug",
    "dry_run": "the option --dry-run",
    "profile": "the option --profile STEPS",
    "overfit": "the option --overfit IMAGES",
    "optimizer": "always AdamW; its rates are optim.lr and optim.encoder_lr",
    "betas": "not to be set: AdamW has 0.9 and 0.999",
    "momentum": "not to be set: AdamW has 0.9 and 0.999",
    "shuffle": "not to be set: the samples of an epoch are drawn anew by seed",
    "pin_memory": "not to be set: it is done where there is a GPU",
}


def meant_by(key: str, section: type[Section], place: str) -> str:
    """Say which key is meant by one that there isn't: by its name elsewhere, its place here, or its spelling."""
    fields = fields_of(section)
    leaf = key.rpartition(".")[2]
    if best := _known_as(key, fields):
        meaning = fields[best.partition("=")[0]].description
        return f"`{key}` {place} is `{best}` here" + (f" ({meaning})" if meaning else "")
    if (instead := _ELSEWHERE.get(_bare(leaf))) and "run_dir" in fields:
        return f"`{key}` {place} is no key; it is {instead}"
    by_leaf = difflib.get_close_matches(leaf, [name.rpartition(".")[2] for name in fields], n=1, cutoff=0.8)
    same_leaf = [name for name in fields if name.rpartition(".")[2] in by_leaf]
    return f"unknown key {key} {place}; the nearest valid one is {nearest(key, same_leaf or fields)}"


def instead_of_option(option: str, section: type[Section]) -> str | None:
    """Say what to write for an option such as `--learning-rate`, which a key or something else stands for."""
    fields, name = fields_of(section), option.lstrip("-").partition("=")[0]
    if found := [name] if name in fields else _meanings(name, fields):
        value = option.partition("=")[2] or "VALUE"
        settings = " or ".join(key if "=" in key else f"{key}={value}" for key in found)
        return f"there is no option --{name}; keys are written without dashes: {settings}"
    instead = _ELSEWHERE.get(_bare(name), "")
    return f"there is no option --{name}; it is {instead}" if instead and f"--{name}" not in instead else None


def aliases_of(key: str) -> list[str]:
    """List what others call a key."""
    return [alias for name, aliases in ALIASES.items() if name.partition("=")[0] == key for alias in aliases.split()]


def _known_as(key: str, fields: Collection[str]) -> str | None:
    """The key, or the setting of one, that somebody means who calls it so."""
    found = _meanings(key, fields) or _meanings(key.rpartition(".")[2], fields)
    return max(found, key=lambda name: _common(name, key)) if found else None


def _meanings(name: str, fields: Collection[str]) -> list[str]:
    """The keys that others call so; else the one here whose last part it is."""
    aliased = [key for key in _BY_BARE_NAME.get(_bare(name), []) if key.partition("=")[0] in fields]
    own = [key for key in fields if _bare(key.rpartition(".")[2]) == _bare(name)]
    return aliased or (own if len(own) == 1 else [])


def _bare(name: str) -> str:
    """Write a name without what people write differently: batch_size, batch-size, batchSize."""
    return re.sub("[-_. ]", "", name).lower()


def _common(name: str, typed: str) -> int:
    """The number of sections from the top that two names share."""
    pairs = list(zip(name.split(".")[:-1], typed.split(".")[:-1], strict=False))
    return next((number for number, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs))


_BY_BARE_NAME: dict[str, list[str]] = {}
for _key, _aliases in ALIASES.items():
    for _alias in _aliases.split():
        _BY_BARE_NAME.setdefault(_bare(_alias), []).append(_key)
_ELSEWHERE = {_bare(name): instead for name, instead in ELSEWHERE.items()}
