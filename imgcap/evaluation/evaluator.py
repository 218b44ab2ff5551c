"""Score a model on a split, on any number of ranks, with the same result to the last digit.

Batches are composed alike for every world size and each is computed by one rank; rank 0 puts them in order,
scores them once and tells the others.

Dimensions: B images, K captions an image, T tokens, V vocabulary, P grid cells, E encoder width,
L tokens of a caption.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch

from imgcap.config.data import DataConfig
from imgcap.config.decoding import DecodeOptions
from imgcap.config.evaluation import BY_CLIP, EvalConfig
from imgcap.data.dataset import EvalDataset
from imgcap.data.loader import reading
from imgcap.decoding.generate import generate
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.errors import UserError
from imgcap.evaluation.batches import EvalBatch, FixedBatches
from imgcap.evaluation.metrics.clip import ClipScorer
from imgcap.evaluation.metrics.diversity import TrainCaptions, diversity
from imgcap.evaluation.metrics.languages import as_scored, fitting, tokeniser_name
from imgcap.evaluation.metrics.scorers import score_images
from imgcap.evaluation.results import Evaluation, Example
from imgcap.evaluation.signature import parts_decided_by, signature
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.forcing import unroll
from imgcap.models.encoders.base import Encoder
from imgcap.models.losses import caption_loss
from imgcap.models.precision import autocast
from imgcap.pictures.opening import decode
from imgcap.ranks.collectives import broadcast_object, gather_objects, sum_across_ranks
from imgcap.ranks.memory import batch_that_fits, within_memory
from imgcap.ranks.progress import Progress
from imgcap.ranks.watchdog import doing
from imgcap.ranks.world import World
from imgcap.shards.identity import SetIdentity
from imgcap.shards.reader import ShardReader
from imgcap.text.vocabulary import Vocabulary
from imgcap.text.written import written

EXAMPLES = 12  # images that a sample sheet shows
LOSS_DIGITS = 6  # the last bits of a float32 product depend on how many threads shared it

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Decoded:
    """Captions and sums that a rank hands in for one batch; a damaged image has no entry."""

    number: int
    file_names: dict[int, str]
    words: dict[int, list[str]]  # of each image's caption
    references: dict[int, list[str]]
    cross_entropy: float
    tokens: int
    damaged: int
    clip: dict[int, dict[str, float]]  # of each image, where it was asked for
    examples: list[Example]


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """A result, or how getting it failed: in a form that one rank can tell another."""

    result: Result | None
    mistake: str | None = None
    fault: str | None = None

    def unwrap(self) -> Result:
        if self.mistake is not None:
            raise UserError(self.mistake)
        if self.fault is not None:
            raise RuntimeError(self.fault)
        assert self.result is not None
        return self.result


class EvaluationStopped(Exception):
    """A rank was asked to stop while it evaluated."""


class Evaluator:
    """Captions the first `limit` images of a split (none: all) with beam search and scores them.

    With `train`, the split that the model learned from, it also tells which share of the captions is new. `objective`
    is what the model was trained for, where that wasn't cross-entropy alone.
    """

    def __init__(
        self,
        reader: ShardReader,
        vocabulary: Vocabulary,
        data: DataConfig,
        config: EvalConfig,
        world: World,
        split: str,
        precision: str = "fp32",
        limit: int | None = None,
        train: ShardReader | None = None,
        objective: str | None = None,
    ):
        self.reader, self.vocabulary, self.data, self.config = reader, vocabulary, data, config
        self.world, self.split, self.precision = world, split, precision
        self.objective = objective
        self.language = reader.manifest.settings.language
        self.metrics = fitting(config.metrics, self.language)
        by_clip = [name for name in BY_CLIP if name in self.metrics]
        self.clip = ClipScorer(config.clip, by_clip, world.device) if by_clip else None
        self.train = TrainCaptions(train) if train is not None else None
        self.dataset = EvalDataset(reader, vocabulary, data)
        count = min(len(reader), limit or len(reader))
        if not count:
            raise UserError(f"split {split} of {reader.place} has no images; build it from more, or name another")
        self.batches = FixedBatches(count, config.batch, world.rank, world.world_size)

    @property
    def options(self) -> DecodeOptions:
        """How captions are searched. Self-critical training never draws <unk>, so nothing keeps it unlikely there."""
        unk = self.objective is None if self.config.unk is None else self.config.unk
        return DecodeOptions.like_evaluation(self.config, unk=unk)

    def run(self, model: Captioner, asked_to_stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Evaluate a model on all ranks: decode, gather, score. A failure on one is raised on all of them.

        The model is left in the mode in which it came. Raises `EvaluationStopped` on all ranks, after the batch at
        hand, where one of them is asked to stop.
        """
        if self.dataset.features and self.dataset.features.encoder_sha256 != model.encoder.sha256():
            raise UserError(
                f"the features in {self.reader.place} are not of this model's encoder; set data.features=false to read "
                "the pictures"
            )
        was_training = model.training
        model.eval()
        doing("evaluating")
        count, label = self.batches.count, f"evaluating {self.split}"
        try:
            with Progress(count, label, enabled=self.world.is_main, stays=False) as progress:
                mine = self._decode_all(model, asked_to_stop, progress)
                everyone = gather_objects(mine)
                doing("scoring")
                progress.stage("scoring")
                scored = _attempt(lambda: self._score(everyone, model.encoder)) if everyone is not None else None
                evaluation = broadcast_object(_without_examples(scored)).unwrap()
                return scored.unwrap() if scored is not None else evaluation
        finally:
            model.train(was_training)

    @torch.no_grad()
    def _decode_all(
        self, model: Captioner, asked_to_stop: Callable[[], bool], progress: Progress
    ) -> _Outcome[list[_Decoded]]:
        """Decode this rank's batches; all ranks take equal steps and agree after each whether to go on."""
        decoded: list[_Decoded] = []
        with reading(self.batches.loader(self.dataset, self.data.workers, self.world.device.type == "cuda")) as batches:
            for number in self.batches.numbers:
                outcome = _attempt(lambda: self._decode_within_memory(model, next(batches)))
                if outcome.result is not None and self.batches.real(number):
                    decoded.append(outcome.result)
                votes = torch.tensor([outcome.result is None, asked_to_stop()], dtype=torch.int32)
                failed, asked = sum_across_ranks(votes.to(self.world.device)).tolist()
                if failed:
                    return _Outcome(decoded) if outcome.result else _Outcome(None, outcome.mistake, outcome.fault)
                if asked:
                    raise EvaluationStopped
                progress.advance(min(self.batches.batch * self.world.world_size, self.batches.count - progress.done))
        return _Outcome(decoded)

    def _decode_within_memory(self, model: Captioner, batch: EvalBatch) -> _Decoded:
        def explain() -> str:
            return batch_that_fits(
                lambda size: self._decode(model, batch.first(size)),
                len(batch.images_BCHW),
                self.world.device,
                "caption and score",
                "eval.batch",
            )

        return within_memory(lambda: self._decode(model, batch), explain)

    def _decode(self, model: Captioner, batch: EvalBatch) -> _Decoded:
        """Encode a batch once, for its captions and for its loss."""
        device = self.world.device
        with autocast(device, self.precision):
            features_BPE = model.encode(batch.images_BCHW.to(device, non_blocking=True))
            tokens_BKT = batch.tokens_BKT.to(device, non_blocking=True)
            readout_BKTR, _ = unroll(model.decoder, features_BPE, tokens_BKT)
            loss = caption_loss(readout_BKTR, model.decoder.output, tokens_BKT, label_smoothing=0.0)
            first, longest = batch.number == 0, self.data.max_tokens  # the first batch's images are the examples
            found = generate([model.decoder], [features_BPE], self.options, self.vocabulary, longest, attention=first)
        words = [self.vocabulary.words_of(tokens) for tokens in found.tokens_BL.tolist()]
        kept = [place for place in range(batch.real) if batch.sound[place]]
        return _Decoded(
            number=batch.number,
            file_names={batch.image_ids[place]: batch.file_names[place] for place in kept},
            words={batch.image_ids[place]: words[place] for place in kept},
            references={batch.image_ids[place]: batch.references[place] for place in kept},
            cross_entropy=float(loss.cross_entropy),
            tokens=int(loss.tokens),
            damaged=batch.real - len(kept),
            clip=self._scored_by_clip(batch, words, kept),
            examples=self._examples(model, batch, found, kept) if first else [],
        )

    def _scored_by_clip(self, batch: EvalBatch, words: list[list[str]], kept: list[int]) -> dict[int, dict[str, float]]:
        if self.clip is None:
            return {}
        indices = self.batches.indices(batch.number)
        found = self.clip.scores(
            tuple(indices[place] for place in kept),
            (self.reader.read(indices[place]).jpeg for place in kept),
            [as_scored(words[place], self.language) for place in kept],
            [batch.references[place] for place in kept],
        )
        return {batch.image_ids[place]: scores for place, scores in zip(kept, found, strict=True)}

    def _examples(self, model: Captioner, batch: EvalBatch, hypotheses: Hypotheses, kept: list[int]) -> list[Example]:
        examples, looked_BLP = [], hypotheses.attention_BLP
        if looked_BLP is not None:
            looked_BLP = looked_BLP[..., model.encoder.leading :]
        for place in kept[:EXAMPLES]:
            words = int(hypotheses.lengths_B[place]) - 1  # without <eos>
            sample = self.reader.read(place)  # batch 0 holds the first images of the split
            examples.append(
                Example(
                    image_id=batch.image_ids[place],
                    file=sample.file_name,
                    image=decode(sample.jpeg, self.data.image_size),
                    caption=written(self.vocabulary.words_of(hypotheses.tokens_BL[place].tolist()), self.language),
                    references=batch.references[place],
                    words=[self.vocabulary.words[token] for token in hypotheses.tokens_BL[place, :words].tolist()],
                    attention_LP=None if looked_BLP is None else looked_BLP[place, :words].float().cpu().numpy(),
                    grid=model.encoder.grid(self.data.image_size),
                )
            )
        return examples

    def _score(self, everyone: list[_Outcome[list[_Decoded]]], encoder: Encoder) -> Evaluation:
        """Put the batches of all ranks in order and score them."""
        decoded = sorted((batch for outcome in everyone for batch in outcome.unwrap()), key=lambda batch: batch.number)
        words = {image_id: caption for batch in decoded for image_id, caption in batch.words.items()}
        captions = {image_id: as_scored(caption, self.language) for image_id, caption in words.items()}
        references = {image_id: group for batch in decoded for image_id, group in batch.references.items()}
        names = {image_id: name for batch in decoded for image_id, name in batch.file_names.items()}
        damaged = sum(batch.damaged for batch in decoded)
        tokens = sum(batch.tokens for batch in decoded)
        of_words = [name for name in self.metrics if name not in BY_CLIP]
        scored = score_images(captions, references, of_words, self.language)
        by_clip = {image_id: own for batch in decoded for image_id, own in batch.clip.items()}

        def image(image_id: int) -> dict[str, Any]:
            return {"image_id": image_id, "image": names[image_id]}

        return Evaluation(
            split=self.split,
            scores=scored.scores | (self.clip.means(by_clip.values()) if self.clip else {}),
            loss=round(sum(batch.cross_entropy for batch in decoded) / max(tokens, 1), LOSS_DIGITS),
            signature=signature(
                tokeniser_name(self.language),
                shards=SetIdentity.of(self.reader),
                split=self.split,
                images=len(references),
                references=sum(len(group) for group in references.values()),
                skipped=damaged or None,  # images that can't be read
                **parts_decided_by(self.options, self.data, self.precision),
                objective=self.objective,
                **encoder.signed(),
                **(self.clip.signed() if self.clip else {}),
            ),
            captions=[{**image(image_id), "caption": caption} for image_id, caption in captions.items()],
            images=[
                {**image(image_id), **each, **by_clip.get(image_id, {})} for image_id, each in scored.images.items()
            ],
            diversity=diversity(words.values(), self.language, self.train),
            examples=[example for batch in decoded for example in batch.examples],
        )


def _attempt(work: Callable[[], Result]) -> _Outcome[Result]:
    """Do the work; a failure becomes a value, so that this rank still meets the others."""
    try:
        return _Outcome(work())
    except UserError as error:
        return _Outcome(None, mistake=str(error))
    except Exception:
        return _Outcome(None, fault=traceback.format_exc())


def _without_examples(scored: _Outcome[Evaluation] | None) -> _Outcome[Evaluation]:
    """Scores as rank 0 sends them to the others: pictures stay with it."""
    if scored is None or scored.result is None:
        return scored or _Outcome(None)
    return _Outcome(replace(scored.result, examples=[]))
