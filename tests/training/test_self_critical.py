"""Self-critical training against REINFORCE by brute force, and what a step makes of drawn captions."""

import itertools

import numpy as np
import pytest
import torch

from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import TrainConfig
from imgcap.data.batch import NO_IMAGE, PADDING
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.ranks.world import World
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.critic import Critic, others, signed
from imgcap.training.engines.protocol import Step, numbers_on
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.training.objectives.self_critical import SelfCritical
from imgcap.training.objectives.thinned import Thinned
from imgcap.training.start_model import FILE, StartModel
from imgcap.training.watched import Watched
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS, UNK, Batch, Sampled, StepInputs

CPU = World(0, 1, 0, torch.device("cpu"))
WORDS, LONGEST, CELLS = 5, 3, 4
V = len(SPECIAL_TOKENS) + WORDS
DECODERS = {
    "attention_lstm": {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "dropout": 0.5},
    "after": {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "query": "after"},
    "lstm": {"type": "lstm", "embed_dim": 8, "hidden_dim": 8},
    "transformer": {"type": "transformer", "width": 8, "heads": 2, "layers": 1, "feedforward": 8, "dropout": 0.5},
}
# Every caption of at most three words; one that ends before has its <eos> drawn, one of three hasn't.
CAPTIONS = [
    words + (EOS,) * (length < LONGEST)
    for length in range(LONGEST + 1)
    for words in itertools.product(range(len(SPECIAL_TOKENS), V), repeat=length)
]


def made(decoder, dtype=torch.float64, **drawing):
    """An objective over a model that prefers some words by far, and a batch of one image's features."""
    torch.manual_seed(3)
    encoder = EncoderConfig(name="resnet18", weights=None)
    captioner = Captioner(ModelConfig.model_validate({"encoder": encoder, "decoder": DECODERS[decoder]}), V).to(dtype)
    for parameter in captioner.decoder.parameters():
        parameter.data.mul_(2.0)
    objective = SelfCritical(captioner, TrainConfig(self_critical=drawing), seed=7, longest=LONGEST).eval()
    features_BPE = torch.randn(1, CELLS, captioner.encoder.width, dtype=dtype)
    return objective, features_BPE


def probabilities(objective, features_BPE, temperature=1.0):
    """P of every caption, one word after another by `step`, with gradient: what sampling is by definition."""
    decoder, found = objective.captioner.decoder, []
    for caption in CAPTIONS:
        state, token_BK, log_prob = decoder.init(features_BPE, 1, LONGEST + 1), torch.tensor([[SOS]]), 0.0
        for word in caption:
            logits_BKV, state, _ = decoder.step(state, token_BK)
            logits_V = logits_BKV[0, 0] / temperature
            logits_V = logits_V.index_fill(0, torch.tensor([PAD, SOS, UNK]), -torch.inf)
            log_prob = log_prob + logits_V.log_softmax(0)[word]
            token_BK = torch.tensor([[word]])
        found.append(log_prob)
    return torch.stack(found).exp()


def gradient(objective, total):
    parameters = list(objective.captioner.decoder.parameters())
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()).to(p) if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
    )


def sampled(features_BPE, weights_C):
    tokens_BKT = torch.full((1, len(CAPTIONS), LONGEST + 1), PAD)
    tokens_BKT[..., 0] = SOS
    for tokens_T, caption in zip(tokens_BKT[0], CAPTIONS, strict=True):
        tokens_T[1 : 1 + len(caption)] = torch.tensor(caption)
    return Sampled(features_BPE, tokens_BKT, weights_C[None])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("decoder", DECODERS)
def test_the_gradient_is_that_of_the_expected_reward_by_brute_force(decoder, temperature):
    """Exactly, over all 156 captions: plain REINFORCE, the mean of others in pairs of samples, and greedy."""
    objective, features_BPE = made(decoder, samples=len(CAPTIONS), temperature=temperature, baseline="greedy")
    any_BKT = torch.zeros(1, 1, LONGEST + 2).long()
    drawn = objective.draw(Batch(features_BPE, any_BKT, torch.tensor([1])), 0)  # it says which units are left out
    with objective.thinned.entered():
        prob_C = probabilities(objective, features_BPE, temperature)
    assert float(prob_C.detach().sum()) == pytest.approx(1.0, abs=1e-12) and float(prob_C.detach().max()) > 3 / len(
        CAPTIONS
    )
    reward_C = torch.from_numpy(np.random.default_rng(0).random(len(CAPTIONS)))
    expected = gradient(objective, (prob_C * reward_C).sum())
    prob_C = prob_C.detach()

    greedy = next(n for n, caption in enumerate(CAPTIONS) if likeliest(drawn) == list(caption))
    pairs = np.array(list(itertools.product(range(len(CAPTIONS)), repeat=2)))
    advantage_P2 = torch.from_numpy(reward_C.numpy()[pairs] - others(reward_C.numpy()[pairs]))
    both_P2 = (prob_C[pairs[:, 0]] * prob_C[pairs[:, 1]])[:, None] * advantage_P2 / 2  # the mean of two samples
    in_pairs_C = torch.zeros_like(prob_C).index_add_(0, torch.from_numpy(pairs).flatten(), both_P2.flatten())
    for weights_C in (prob_C * reward_C, in_pairs_C, prob_C * (reward_C - reward_C[greedy])):
        loss = objective(sampled(features_BPE, weights_C), StepInputs())
        torch.testing.assert_close(-gradient(objective, loss.total), expected, rtol=1e-9, atol=1e-12)
    entropy = -(prob_C * prob_C.log()).sum()
    loss = objective(sampled(features_BPE, prob_C), StepInputs())
    assert float(loss.total) == pytest.approx(float(entropy), rel=1e-9)
    assert int(loss.tokens) == sum(map(len, CAPTIONS))


def likeliest(drawn):
    words = drawn.likeliest_BL[0].tolist()[:LONGEST]
    return words[: words.index(EOS) + 1] if EOS in words else words


@pytest.mark.parametrize("decoder", ["attention_lstm", "transformer"])
def test_captions_are_drawn_as_often_as_they_are_likely(decoder):
    objective, features_BPE = made(decoder, samples=50)
    images = 400
    batch = Batch(features_BPE.expand(images, -1, -1), torch.zeros(images, 1, LONGEST + 2).long(), torch.arange(images))
    samples_NL = objective.draw(batch, 5).samples_BSL.flatten(0, 1)
    with torch.no_grad(), objective.thinned.entered():
        prob_C = probabilities(objective, features_BPE).numpy()
    assert not set(samples_NL.unique().tolist()) & {SOS, UNK} and (samples_NL == EOS).sum(1).eq(1).all()
    numbers = {caption + (EOS,) * (EOS not in caption): number for number, caption in enumerate(CAPTIONS)}
    drawn_C = np.zeros(len(CAPTIONS))
    for words in samples_NL.tolist():
        drawn_C[numbers[tuple(word for word in words if word != PAD)]] += 1
    chi_squared = (np.square(drawn_C - len(samples_NL) * prob_C) / (len(samples_NL) * prob_C)).sum()
    assert chi_squared < 155 + 5 * np.sqrt(2 * 155)  # 155 degrees of freedom: five standard deviations


def test_a_draw_depends_on_seed_step_and_image_alone():
    objective, features_BPE = made("attention_lstm", dtype=torch.float32)
    features_BPE = torch.randn(6, *features_BPE.shape[1:])
    ids, none = torch.tensor([9, 4, 7, 1, 12, 5]), torch.zeros(6, 1, LONGEST + 2).long()

    def drawn(places, step=3):
        images = objective.draw(Batch(features_BPE[places], none[places], ids[places]), step).samples_BSL
        return {int(ids[place]): sorted(words.tolist()) for place, words in zip(places, images, strict=True)}

    whole = drawn(range(6))
    assert {**drawn([4, 2]), **drawn([0]), **drawn([5, 1, 3])} == whole
    assert drawn(range(6), step=4) != whole
    objective.seed = 8
    assert drawn(range(6)) != whole


def test_in_a_step_the_decoder_lacks_the_same_units_of_all_captions_and_outside_of_it_none():
    objective, features_BPE = made("transformer", samples=50)
    thinned, tokens_BKT = objective.thinned, sampled(features_BPE, torch.zeros(len(CAPTIONS))).tokens_BKT

    def read():
        decoder = objective.captioner.decoder
        return decoder.read(decoder.init(features_BPE, tokens_BKT.shape[1], LONGEST + 2), tokens_BKT)[0]

    whole, thin = read(), {}
    for step in (1, 2, 1):
        thinned.draw(7, step, CPU.device)
        with thinned.entered():
            first, second = read(), read()
        assert torch.equal(first, second) and not torch.allclose(first, whole), "it is no chance of each reading"
        assert torch.equal(thin.setdefault(step, first), first)
        assert torch.equal(read(), whole), "nothing is left out behind it"
    assert not torch.allclose(thin[1], thin[2])
    kept = [(Thinned(objective.captioner.decoder, True), step) for step in range(100)]
    for each, step in kept:
        each.draw(7, step, CPU.device)
    share = torch.stack([each.kept_ND for each, _ in kept])
    assert set(share.unique().tolist()) == {0.0, 2.0} and abs(float((share == 0).float().mean()) - 0.5) < 0.02
    assert not Thinned(objective.captioner.decoder, False).dropouts


class Longer:
    """Rewards a caption for its words, and of images with odd numbers for none."""

    digest = "f" * 64

    def __call__(self, images_N, captions_NL):
        assert (images_N >= 0).all(), "what doesn't count isn't scored"
        return (captions_NL >= len(SPECIAL_TOKENS)).sum(1) * (images_N % 2 == 0).astype(float)


class Engine:
    """What a critic asks of an engine, of a model that is all here."""

    released = 0

    def __init__(self, model):
        from contextlib import nullcontext

        self.weights, self.whole_model = nullcontext, lambda: nullcontext(model)

    def release(self):
        self.released += 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("decoder", DECODERS)
def test_log_probs_are_those_that_captions_are_drawn_by(decoder, temperature):
    objective, features_BPE = made(decoder, samples=len(CAPTIONS), temperature=temperature)
    found_BS = objective.log_probs(sampled(features_BPE, torch.zeros(len(CAPTIONS))))
    expected_C = probabilities(objective, features_BPE, temperature).log()
    torch.testing.assert_close(found_BS[0], expected_C.detach(), rtol=1e-9, atol=1e-9)


def test_what_has_become_likelier_than_at_the_start_is_rewarded_less(tmp_path):
    def started(kl):
        objective, _ = made("attention_lstm", samples=4, kl=kl)
        twin, _ = made("attention_lstm", samples=4, kl=kl)
        twin.captioner.decoder.output.bias.data.zero_()  # other weights, until they are kept
        watched = Watched(Vocabulary([*SPECIAL_TOKENS, *"abcde"]), "en", CPU.device)
        critic = Critic(objective.train(), Longer(), watched, 0, CPU, StartModel(twin, tmp_path))
        judged(objective, [2, 8], critic)
        assert critic.read(0.0)["sampled/kl"] == 0, "nothing is trained yet"
        objective.captioner.decoder.output.bias.data[4] += 1.0  # the word 4 becomes likelier
        return objective, critic

    for kl in (0.5, 0.0):  # 0 only watches
        objective, critic = started(kl)
        (batch,) = judged(objective, [2, 8], critic, number=1)[1].micro_batches
        start, _ = made("attention_lstm", samples=4)
        start.thinned = Thinned(start.captioner.decoder, True)
        start.thinned.draw(7, 1, CPU.device)
        gone_BS = objective.log_probs(batch) - start.log_probs(batch)
        worth_BS = (batch.tokens_BKT >= len(SPECIAL_TOKENS)).sum(-1) - kl * gone_BS
        expected_BS = worth_BS - (worth_BS.sum(1, keepdim=True) - worth_BS) / 3
        torch.testing.assert_close(batch.weights_BK, expected_BS.float())
        assert critic.read(0.0)["sampled/kl"] == pytest.approx(float(gone_BS.mean()), rel=1e-5)
        assert gone_BS.abs().max() > 0.1


def test_a_start_model_that_is_gone_is_named(tmp_path):
    objective, _ = made("lstm", dtype=torch.float32, kl=0.1)
    watched = Watched(Vocabulary([*SPECIAL_TOKENS, *"abcde"]), "en", CPU.device)
    for content in (None, b"", b"no weights"):
        if content is not None:
            (tmp_path / FILE).write_bytes(content)
        critic = Critic(objective.train(), Longer(), watched, 0, CPU, StartModel(made("lstm")[0], tmp_path))
        with pytest.raises(UserError, match=f"{FILE}.* can't be read .*train.self_critical.kl needs it"):
            judged(objective, [2], critic, number=3)


def judged(objective, ids, critic=None, number=0):
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "a", "dog", "with", ".", "runs"])
    critic = critic or Critic(objective, Longer(), Watched(vocabulary, "en", CPU.device), 0, CPU)
    width = objective.captioner.encoder.width
    features_BPE = torch.randn(len(ids), CELLS, width, generator=torch.Generator().manual_seed(1))
    tokens_BKT = torch.tensor([[[SOS, 4, 5, 8, EOS], [SOS, 5, EOS, PAD, PAD]]]).repeat(len(ids), 1, 1)
    tokens_BKT[[number for number, each in enumerate(ids) if each in (NO_IMAGE, PADDING)]] = PAD
    batch = Batch(features_BPE, tokens_BKT, torch.tensor(ids))
    true = (tokens_BKT[..., 1:] != PAD).sum()
    step = Step([batch], numbers_on(CPU.device, 0, 1.0, 1.0), lambda: true, lambda b, n: StepInputs(), False, list)
    engine = Engine(objective.captioner)
    return critic, critic.step(engine, step, [batch], number, True), step


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_each_caption_weighs_what_its_reward_is_above_the_baseline(baseline):
    objective, _ = made("attention_lstm", dtype=torch.float32, baseline=baseline, samples=4)
    critic, step, _ = judged(objective.train(), [2, 3, NO_IMAGE, 8, PADDING])
    (batch,) = step.micro_batches
    assert not objective.training and step.kind == ("self_critical", True)
    assert batch.tokens_BKT.shape == (5, 4, LONGEST + 1)
    assert (batch.tokens_BKT[[2, 4]] == PAD).all() and (batch.weights_BK[[1, 2, 4]] == 0).all()
    words_BK = (batch.tokens_BKT >= len(SPECIAL_TOKENS)).sum(-1)[[0, 3]].double()
    if baseline == "others":
        expected = words_BK - (words_BK.sum(1, keepdim=True) - words_BK) / 3
    else:
        images = judged(objective, [2, 3, NO_IMAGE, 8, PADDING])[2].micro_batches[0]
        greedy_BL = objective.draw(images, 0).likeliest_BL
        expected = words_BK - (greedy_BL >= len(SPECIAL_TOKENS)).sum(1)[[0, 3], None]
    torch.testing.assert_close(batch.weights_BK[[0, 3]].double(), expected, rtol=1e-6, atol=1e-6)
    assert int(step.tokens()) == int((batch.tokens_BKT[..., 1:] != PAD).sum())
    values = critic.read(1.5)
    assert values["sampled/reward"] == pytest.approx(float(words_BK.sum()) / 12) and values["sampled/entropy"] == 1.5
    assert values["sampled/advantage"] == pytest.approx(float(expected.square().sum() / 12) ** 0.5, rel=1e-5)


def test_a_micro_batch_that_only_fills_up_is_worth_nothing():
    objective, _ = made("attention_lstm", dtype=torch.float32)
    critic, step, _ = judged(objective, [PADDING, PADDING])
    (batch,) = step.micro_batches
    assert (batch.tokens_BKT == PAD).all() and not batch.weights_BK.any() and int(step.tokens()) == 1
    assert float(objective(batch, StepInputs()).total) == 0 and critic.read(0.0)["sampled/length"] == 0


def test_a_share_of_cross_entropy_is_mixed_in_each_by_its_own_tokens():
    share = 0.3
    mixed, _ = made("transformer", cross_entropy=share)
    mixed.smoothing = 0.1
    alone, _ = made("transformer")
    _, step, true = judged(mixed, [2, 4, NO_IMAGE])
    _, plain, _ = judged(alone, [2, 4, NO_IMAGE])
    found = gradient(mixed, mixed(step.micro_batches[0], step.inputs(None, None)).total / step.tokens())
    self_critical = gradient(alone, alone(plain.micro_batches[0], StepInputs()).total / plain.tokens())
    train = TrainConfig(label_smoothing=0.1)
    with alone.thinned.entered():
        cross_entropy = CrossEntropy(alone.captioner, train)(true.micro_batches[0], StepInputs()).total / true.tokens()
    expected = (1 - share) * self_critical + share * gradient(alone, cross_entropy)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_what_is_watched_is_counted_by_hand():
    vocabulary = Vocabulary([*SPECIAL_TOKENS, "a", "dog", "with", ".", "runs"])  # 4 to 8
    watched = Watched(vocabulary, "en", CPU.device)
    captions = [[4, 5, 8, 7, EOS], [4, 5, 6, 4, EOS], [4, 5, 4, 5, 4, 5, EOS], [EOS]]  # fine, "with a", repeats, none
    samples_NSL = np.array([[each + [PAD] * (7 - len(each)) for each in captions]])
    rewards, baselines = np.array([[4.0, 2.0, 0.0, 2.0]]), np.full((1, 4), 1.0)
    watched.add(samples_NSL, rewards, baselines, rewards - baselines, np.array([[0.5, 0.0, -0.25, 0.75]]))
    values = watched.read()
    assert values["sampled/kl"] == 1 / 4
    assert values["sampled/bad_endings"] == 2 / 4 and values["sampled/repeats"] == 1 / 4
    assert values["sampled/length"] == 14 / 4 and values["sampled/reward"] == 2.0
    pairs = {(4, 5), (5, 8), (8, 7), (5, 6), (6, 4), (5, 4)}
    assert values["sampled/distinct_2"] == len(pairs) / (3 + 3 + 5)
    assert values["sampled/reward_spread"] == 2**0.5 and values["sampled/advantage"] == (12 / 4) ** 0.5
    assert "sampled/bad_endings" not in Watched(vocabulary, "fi", CPU.device).read()
    assert watched.read()["sampled/reward"] == 0, "reading begins anew"


def test_what_is_watched_goes_on_where_it_was_saved():
    watched, resumed = (Watched(Vocabulary([*SPECIAL_TOKENS, *"abcde"]), "en", CPU.device) for _ in range(2))
    for part in (watched, resumed):
        numbers = np.array([[1.0, 3.0]]), np.array([[2.0, 2.0]]), np.array([[-1.0, 1.0]]), np.array([[0.1, 0.2]])
        part.add(np.array([[[4, 5, EOS], [6, EOS, PAD]]]), *numbers)
    resumed.load_state(watched.state(is_main=True), is_main=True)
    other_rank = Watched(Vocabulary([*SPECIAL_TOKENS, *"abcde"]), "en", CPU.device)
    other_rank.load_state(watched.state(is_main=True), is_main=False)
    assert resumed.sums.tolist() == watched.sums.tolist() and not other_rank.sums.any()
    assert resumed.read() == watched.read()
    older = torch.arange(1.0, len(watched.sums))  # of a checkpoint from before there was `kl`
    resumed.load_state(older, is_main=True)
    assert resumed.sums.tolist() == [*older.tolist(), 0.0]


def test_a_signature_says_what_a_model_was_trained_for():
    objective, _ = made("lstm", dtype=torch.float32)
    critic, *_ = judged(objective, [2])
    said = "self_critical,samples=5,baseline=others,CIDEr=1,eos,references=ffffffffffff"
    assert critic.signed(0) is None and critic.signed(1) == said
    section = {"end_token": False, "reward": {"CIDEr": 1, "BLEU-4": 0.5}, "kl": 0.1}
    said = "self_critical,samples=5,baseline=others,CIDEr=1,BLEU-4=0.5,no-eos,kl=0.1,references=ab"
    assert signed(TrainConfig(self_critical=section).self_critical, "ab") == said
    assert "kl" not in signed(TrainConfig(self_critical={"kl": 0}).self_critical, "ab"), "it only watches"


def test_an_untrained_model_is_warned_of_by_its_reward(capsys):
    class Nothing(Longer):
        def __call__(self, images_N, captions_NL):
            return np.full(len(images_N), 0.01)

    objective, _ = made("lstm", dtype=torch.float32)
    watched = Watched(Vocabulary([*SPECIAL_TOKENS, *"abcde"]), "en", CPU.device)
    judged(objective, [2], Critic(objective, Nothing(), watched, 4, CPU), number=4)
    assert (
        "captions drawn at step 5 have a reward of 0.010 (CIDEr): the model hardly captions" in capsys.readouterr().err
    )
    judged(objective, [2], Critic(objective, Nothing(), watched, 4, CPU), number=5)
    judged(objective, [2], Critic(objective, Longer(), watched, 5, CPU), number=5)
    assert "hardly" not in capsys.readouterr().err


def test_equal_objectives_are_signed_alike():
    mixed = [{"CIDEr": 1, "BLEU-4": 0.5}, {"BLEU-4": 0.5, "CIDEr": 1}]
    first, second = (signed(TrainConfig(self_critical={"reward": reward}).self_critical, "f" * 64) for reward in mixed)
    assert first == second and ",CIDEr=1,BLEU-4=0.5,eos," in first
