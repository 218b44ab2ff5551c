"""The host's part of a self-critical step: captions are drawn, rewarded, and held against a baseline.

Dimensions: B images, S samples of each, K = S and true captions, L words of the longest caption, N images that count.
"""

from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imgcap.config.training import REWARDED, SelfCriticalConfig
from imgcap.data.batch import counts
from imgcap.ranks.collectives import begin_sum_across_ranks, sum_across_ranks
from imgcap.ranks.progress import say
from imgcap.ranks.watchdog import doing
from imgcap.ranks.world import World
from imgcap.training.engines.protocol import Engine, Numbers, Step
from imgcap.training.objectives.base import Objective
from imgcap.training.objectives.self_critical import Drawn, SelfCritical
from imgcap.training.start_model import StartModel
from imgcap.training.watched import Watched
from imgcap.types import EOS, PAD, SOS, Batch, Sampled, StepInputs

if TYPE_CHECKING:
    from imgcap.evaluation.metrics.reward import Rewards

UNTRAINED = 0.05  # a mean reward below it is that of captions which say nothing of their images


class Critic:
    """Turns a step over true captions into one over drawn ones, from step `first` (finished ones) on."""

    def __init__(
        self,
        objective: SelfCritical,
        rewards: "Rewards",
        watched: Watched,
        first: int,
        world: World,
        start: StartModel | None = None,
    ):
        self.objective, self.rewards, self.watched = objective, rewards, watched
        self.first, self.world, self.start = first, world, start

    def has_begun(self, step: int) -> bool:
        """Whether the update after `step` finished ones is a self-critical one."""
        return step >= self.first

    def signed(self, step: int) -> str | None:
        """What scores after `step` steps were trained for; None before any was self-critical."""
        return signed(self.objective.drawing, self.rewards.digest) if step > self.first else None

    def step(self, engine: Engine, true: Step, host: list[Batch], number: int, count_correct: bool) -> Step:
        """Draw captions for the images of a step, the `number`-th from 0, and weigh each by its advantage."""
        on_device = cast(list[Batch], true.micro_batches)
        if self.objective.training:
            self._begin(engine, number)
        doing("drawing captions")
        with engine.weights():
            drawn = [self.objective.draw(batch, number) for batch in on_device]
            sampled = [_sampled(each, batch) for each, batch in zip(drawn, host, strict=True)]
            gone = [None if self.start is None else self.start.divergence(self.objective, each) for each in sampled]
        doing("rewarding captions")
        for place, batch in enumerate(host):
            advantage_BS = self._advantages(batch.image_ids.numpy(), drawn[place], gone[place])
            weights_BS = torch.from_numpy(advantage_BS).float().to(self.world.device)
            sampled[place] = sampled[place]._replace(weights_BK=weights_BS)
        if number == self.first:
            self._warn_of_untrained()
        count = torch.stack([(batch.tokens_BKT[..., 1:] != PAD).sum() for batch in sampled]).sum()
        wait = begin_sum_across_ranks(count)
        tokens = cache(lambda: wait().clamp(min=1))
        if share := self.objective.drawing.cross_entropy:
            factor = share * tokens() / true.tokens()  # `tokens` divides all of it
            pairs = zip(sampled, on_device, strict=True)
            sampled = [_with_true(batch, mine.tokens_BKT, factor, 1 - share) for batch, mine in pairs]
        kind: Hashable = "self_critical", count_correct

        def inputs(batch: Batch | Sampled, numbers: Numbers) -> StepInputs:
            return StepInputs(None, count_correct)

        return true._replace(micro_batches=sampled, tokens=tokens, inputs=inputs, kind=kind)

    def read(self, entropy: float) -> dict[str, float]:
        """Read what was drawn since the last reading, on all ranks; `entropy` is the mean of -log P a token."""
        values = {**self.watched.read(), "sampled/entropy": entropy}
        return values if self.start is not None else {k: v for k, v in values.items() if k != "sampled/kl"}

    def _begin(self, engine: Engine, number: int) -> None:
        """Let the model be as it is when it captions, the same on all ranks, from here on."""
        with engine.whole_model() as whole:
            self.objective.eval()
            if self.start is not None and number == self.first:
                self.start.keep(whole)
            elif self.start is not None:
                self.start.take_up()
        engine.release()  # steps have other inputs now
        if self.world.is_main:
            drawing = self.objective.drawing
            by = " + ".join(f"{weight:g} {name}" for name, weight in drawing.reward.items() if weight)
            say(f"step {number + 1}: self-critical from here on, {drawing.samples} captions an image rewarded by {by}")

    def _advantages(self, ids_B: np.ndarray, drawn: Drawn, gone_BS: Tensor | None) -> np.ndarray:
        """What each caption is worth, (B, S): its reward less its baseline; 0 where an image doesn't count.

        `gone_BS` is how much likelier than at the start each has become, in nats, which `kl` takes off its reward.
        """
        real_B, samples_BSL = counts(ids_B), drawn.samples_BSL.cpu().numpy()
        count, (samples, length) = int(real_B.sum()), samples_BSL.shape[1:]
        advantage_BS = np.zeros((len(ids_B), samples))
        if not count:  # it only fills an epoch's last batch up
            return advantage_BS
        samples_NSL, images_N = samples_BSL[real_B], ids_B[real_B]
        captions, images = [samples_NSL.reshape(-1, length)], [images_N.repeat(samples)]
        if drawn.likeliest_BL is not None:
            captions.append(drawn.likeliest_BL.cpu().numpy()[real_B])
            images.append(images_N)
        rewards = self.rewards(np.concatenate(images), np.concatenate(captions))
        reward_NS, greedy_N = rewards[: count * samples].reshape(count, samples), rewards[count * samples :]
        gone_NS = np.zeros_like(reward_NS) if gone_BS is None else gone_BS.double().cpu().numpy()[real_B]
        worth_NS = reward_NS - (self.objective.drawing.kl or 0.0) * gone_NS
        baseline_NS = others(worth_NS) if drawn.likeliest_BL is None else greedy_N[:, None].repeat(samples, 1)
        advantage_BS[real_B] = worth_NS - baseline_NS
        self.watched.add(samples_NSL, reward_NS, baseline_NS, advantage_BS[real_B], gone_NS)
        return advantage_BS

    def _warn_of_untrained(self) -> None:
        total, count = sum_across_ranks(self.watched.total_reward()).tolist()
        mean = total / max(count, 1)
        if self.world.is_main and mean < UNTRAINED:
            say(
                f"warning: captions drawn at step {self.first + 1} have a reward of {mean:.3f} "
                f"({', '.join(self.objective.drawing.reward)}): the model hardly captions yet, and self-critical "
                "training only sharpens what it can do; train it by cross-entropy first (train.objective_from=10ep, or "
                "init_from a trained run)"
            )


def others(reward_NS: np.ndarray) -> np.ndarray:
    """The mean reward of an image's other samples (Luo 2020), which doesn't depend on a sample's own words."""
    return (reward_NS.sum(1, keepdims=True) - reward_NS) / (reward_NS.shape[1] - 1)


def signed(drawing: SelfCriticalConfig, digest: str) -> str:
    """Say in one word what a model was trained for, for signatures.

    >>> signed(SelfCriticalConfig(), "0123456789abcdef")
    'self_critical,samples=5,baseline=others,CIDEr=1,eos,references=0123456789ab'
    """
    parts = ["self_critical", f"samples={drawing.samples}", f"baseline={drawing.baseline}"]
    parts += [f"{name}={drawing.reward[name]:g}" for name in REWARDED if drawing.reward.get(name)]
    parts += ["eos"] if drawing.end_token else ["no-eos"]
    parts += [f"temperature={drawing.temperature:g}"] if drawing.temperature != 1 else []
    parts += [] if drawing.dropout else ["no-dropout"]
    parts += [f"cross_entropy={drawing.cross_entropy:g}"] if drawing.cross_entropy else []
    parts += [f"kl={drawing.kl:g}"] if drawing.kl else []
    return ",".join([*parts, f"references={digest[:12]}"])


def to_measure(objective: Objective, batch: Batch) -> Batch | Sampled:
    """What a step over these images is computed on, for what it takes: drawn captions, each worth 1, in their time.

    They are as long as can be: what a step takes may follow their length, and that the model's state.
    """
    if not isinstance(objective, SelfCritical) or objective.training:
        return batch
    sampled = _sampled(objective.draw(batch, 0), batch)
    one = torch.ones((), device=sampled.weights_BK.device)
    tokens_BKT = torch.where(sampled.tokens_BKT == PAD, EOS, sampled.tokens_BKT)
    sampled = sampled._replace(tokens_BKT=tokens_BKT, weights_BK=torch.ones_like(sampled.weights_BK))
    return _with_true(sampled, batch.tokens_BKT, one, 1.0) if objective.drawing.cross_entropy else sampled


def _sampled(drawn: Drawn, host: Batch) -> Sampled:
    """Lay drawn captions out as tokens to be predicted, worth nothing yet.

    An <eos> behind the longest caption is certain: left out.
    """
    tokens_BST = F.pad(drawn.samples_BSL[..., :-1], (1, 0), value=SOS)
    real_B = torch.from_numpy(counts(host.image_ids.cpu().numpy())).to(tokens_BST.device)
    tokens_BST = tokens_BST.masked_fill(~real_B[:, None, None], PAD)
    return Sampled(drawn.images_BCHW, tokens_BST, torch.zeros(tokens_BST.shape[:2], device=tokens_BST.device))


def _with_true(sampled: Sampled, tokens_BKT: Tensor, weight: Tensor, share: float) -> Sampled:
    """Put the true captions behind the drawn ones, whose weights have this share of the sum."""
    true_BK = weight.float().expand(tokens_BKT.shape[:2])
    return sampled._replace(
        tokens_BKT=torch.cat([F.pad(sampled.tokens_BKT, (0, 1), value=PAD), tokens_BKT], dim=1),
        weights_BK=torch.cat([sampled.weights_BK * share, true_BK], dim=1),
    )
