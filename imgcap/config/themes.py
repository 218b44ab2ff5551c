"""Where a reader looks for a key: the themes of the reference, in the order in which they are needed."""

from typing import NamedTuple


class Theme(NamedTuple):
    """A chapter of the reference, with the keys that begin with one of `keys`, unless another theme names more."""

    title: str
    about: str
    keys: tuple[str, ...]


START_HERE = (
    "data.shards",
    "data.image_size",
    "data.max_tokens",
    "vocab.min_count",
    "model.encoder.name",
    "model.encoder.train",
    "train.epochs",
    "train.global_batch",
    "train.micro_batch",
    "train.precision",
    "train.early_stopping.patience",
    "optim.lr",
    "eval.beam",
    "data.workers",
)
THEMES = (
    Theme("The run", "Its name, its folder, and where it begins.", ("",)),
    Theme("Data", "Which pictures and captions a model learns from.", ("data",)),
    Theme(
        "Reading data",
        "How they reach the GPU: loader processes, cached features, sets behind an address, streams of tars. See "
        "[data-at-scale.md](data-at-scale.md).",
        (
            *("data.workers", "data.features", "data.cache", "data.cache_gb", "data.block"),
            *("data.mode", "data.stream", "data.stream_epoch", "data.stream_buffer", "data.pipes"),
        ),
    ),
    Theme("Vocabulary", "Which words the model knows.", ("vocab",)),
    Theme("Encoder", "The network that looks at the picture.", ("model.encoder",)),
    Theme("Decoder", "The network that writes the caption.", ("model.decoder",)),
    Theme(
        "Training length and batch",
        "How long a run trains, when it stops early, and on how many images at a time.",
        ("train", "train.epochs", "train.max_steps", "train.global_batch", "train.micro_batch", "train.early_stopping"),
    ),
    Theme("Learning rate", "AdamW's rates over the run.", ("optim",)),
    Theme(
        "Loss and regularisation",
        "What a step minimises, and what keeps a model from learning its captions by heart; see also "
        "`model.decoder.dropout`, `data.augment` and `optim.weight_decay`.",
        (
            *("train.label_smoothing", "train.attention_penalty", "train.clip_norm", "train.ema"),
            "train.teacher_forcing",
        ),
    ),
    Theme(
        "Self-critical training",
        "Training for the score that captions get. See [self-critical.md](self-critical.md).",
        ("train.objective", "train.objective_from", "train.self_critical"),
    ),
    Theme(
        "Fine-tuning",
        "Going on from a trained model, and training the encoder later than the decoder. See "
        "[finetuning.md](finetuning.md); `model.encoder.train` says what trains from the first step on.",
        ("init_from", "vocab.adapt", "train.unfreeze", "optim.encoder_lr", "optim.layer_decay"),
    ),
    Theme(
        "Precision and speed",
        "Device, arithmetic, compilation, and memory for time.",
        ("device", "train.precision", "train.compile", "train.capture", "model.encoder.recompute"),
    ),
    Theme(
        "Evaluation and decoding",
        "What is scored on the way, and how captions are searched. What decoding can do beyond these keys is in "
        "[decoding.md](decoding.md).",
        ("eval",),
    ),
    Theme("Checkpoints", "When a run is saved. See [reliability.md](reliability.md).", ("checkpoint",)),
    Theme("Logging", "Where the numbers go, beside the run's `metrics.jsonl`.", ("log",)),
    Theme("Clusters", "How a step runs on many GPUs. See [clusters.md](clusters.md).", ("engine",)),
)


def theme_of(key: str) -> Theme:
    """The theme that names a key, or the most of its beginning."""

    def named(theme: Theme) -> int:
        return max((len(name) for name in theme.keys if f"{key}.".startswith(f"{name}." if name else "")), default=-1)

    return max(THEMES, key=named)


def place_of(key: str) -> tuple[int, int]:
    """Where a key stands: the number of its theme, and its place among the names of that."""
    theme = theme_of(key)
    names = [place for place, name in enumerate(theme.keys) if name and f"{key}.".startswith(f"{name}.")]
    return THEMES.index(theme), max(names, key=lambda place: len(theme.keys[place]), default=0)
