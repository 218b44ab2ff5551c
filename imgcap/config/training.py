"""The sections `train` and `optim`: how long and in what precision a model trains, and how fast."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from imgcap.config.section import Count, Duration, Fraction, Off, On, Positive, Section
from imgcap.errors import nearest

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
REWARDED = ("CIDEr", *BLEU)  # scores that can be computed of thousands of captions a second


class TeacherForcingConfig(Section):
    """Scheduled sampling: how often the decoder reads the true word, from `start` to `end` over the run."""

    schedule: Literal["constant", "linear", "exponential", "inverse_sigmoid"] = Field(
        "constant", description="shape of the way from start to end; constant stays at start"
    )
    start: Fraction = Field(1.0, description="probability of reading the true word at the first step")
    end: Fraction = Field(1.0, description="probability of reading the true word at the last step")
    sampling: Literal["in_turn", "two_pass"] = Field(
        "in_turn", description="a word of the model's own follows what it has read, or (two_pass) the true words"
    )


class EarlyStoppingConfig(Section):
    """When an evaluation counts as better, and when to stop waiting for one."""

    metric: Literal["CIDEr", "BLEU-4", "loss"] = Field(
        "CIDEr", description="score that chooses the best checkpoint, stops early and drives schedule=plateau"
    )
    patience: Count = Field(0, description="evaluations in a row without improvement that end the run; 0: never")
    min_delta: NonNegativeFloat = Field(0.0, description="gain below which a score counts as no better")


class SelfCriticalConfig(Section):
    """Self-critical training (Rennie et al. 2017): how captions are drawn, rewarded, and held against a baseline."""

    samples: Positive = Field(5, description="captions drawn for each image in a step")
    baseline: Literal["others", "greedy"] = Field(
        "others", description="what a caption's reward is held against: the mean of the image's other samples, or the "
        "reward of the likeliest words"
    )  # fmt: skip
    reward: dict[str, NonNegativeFloat] = Field(
        {"CIDEr": 1.0}, description="weights of the scores that are rewarded: CIDEr (that is CIDEr-D), BLEU-1 to BLEU-4"
    )
    end_token: bool = Field(
        True, description="count <eos> as a word in the reward; without it captions learn to end in `with a`"
    )
    temperature: PositiveFloat = Field(1.0, description="divides the logits that captions are drawn from")
    dropout: bool = Field(
        True, description="leave units of the decoder out, by its own dropout, the same ones of a whole step's captions"
    )
    cross_entropy: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the cross-entropy of the true captions in what is minimised"
    )
    kl: NonNegativeFloat | None = Field(
        None, description="factor of the divergence from the model it began with, taken off the rewards; 0: only "
        "watched; null: neither"
    )  # fmt: skip

    @model_validator(mode="after")
    def _check(self) -> "SelfCriticalConfig":
        if self.baseline == "others" and self.samples < 2:
            raise ValueError(
                "one sample has no others to be held against; set samples to 2 or more, or baseline=greedy"
            )
        for score in self.reward:
            if score not in REWARDED:
                known = ", ".join(REWARDED)
                raise ValueError(
                    f"reward.{score} is no score that can be rewarded; the nearest is "
                    f"{nearest(score, REWARDED)!r} (there are {known})"
                )
        if not any(self.reward.values()):
            raise ValueError("reward gives no score a weight; set reward.CIDEr=1")
        return self


class TrainConfig(Section):
    """The training loop: its length, batches, precision and loss."""

    epochs: Positive = Field(20, description="passes over the train split")
    max_steps: Positive | None = Field(None, description="steps at which the run ends, if sooner than its epochs")
    global_batch: Positive = Field(32, description="images of a step, over all ranks")
    micro_batch: Positive | None = Field(
        None, description="images of a forward pass on one rank; null: its whole share, without accumulation"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of training and evaluation; the weights stay float32"
    )
    objective: Literal["cross_entropy", "self_critical"] = Field(
        "cross_entropy", description="what is minimised; self_critical: captions that score badly (init_from a model)"
    )
    objective_from: Duration = Field(
        "0", description="time at which self_critical begins; cross_entropy is minimised before"
    )
    self_critical: SelfCriticalConfig = SelfCriticalConfig()
    compile: Annotated[Literal["auto", "off", "default", "reduce-overhead", "max-autotune"], Off] = Field(
        "auto", description="torch.compile of encoder and decoder in such a mode; auto: of the encoder, on a GPU"
    )
    capture: Annotated[Literal["auto", "on", "off"], Off, On] = Field(
        "auto", description="launch the whole step on a GPU as one CUDA graph; auto: wherever that can be"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of a target's probability that is spread over the vocabulary"
    )
    attention_penalty: NonNegativeFloat = Field(
        0.0, description="weight of the doubly stochastic attention loss (Xu et al. 2015, equation 14)"
    )
    clip_norm: PositiveFloat | None = Field(
        5.0, description="largest norm of the whole gradient; null: it is not clipped"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of a moving average of the weights, which is then evaluated; null: none"
    )
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    unfreeze: dict[str, Duration] = Field(
        {}, description="when the encoder begins to train from a stage to its end, for engine.name=ddp"
    )


class OptimConfig(Section):
    """AdamW, and its learning rate over the run."""

    lr: PositiveFloat = Field(4e-4, description="learning rate of the decoder")
    encoder_lr: PositiveFloat | None = Field(None, description="learning rate of the encoder; null: the same as lr")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="learning rate of each stage of the encoder, as a share of the next one's; 1: all the same"
    )
    weight_decay: NonNegativeFloat = Field(
        0.01, description="decay of matrices and convolutions; biases, norms and embeddings have none"
    )
    schedule: Literal["constant", "cosine", "step", "plateau"] = Field(
        "cosine", description="course of the learning rates after the warm-up"
    )
    warmup: Duration = Field("0", description="time in which the learning rates rise linearly to their full height")
    min_lr: Fraction = Field(0.0, description="share of lr below which cosine, step and plateau do not go")
    step_every: Duration = Field("5ep", description="time between two cuts by schedule=step")
    gamma: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="factor on the learning rates at each cut by schedule=step or plateau"
    )
    plateau_patience: Count = Field(
        2, description="evaluations without improvement that schedule=plateau lets pass before a cut"
    )
