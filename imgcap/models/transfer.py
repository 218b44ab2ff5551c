"""A trained captioner's weights in one that is to go on with another vocabulary.

Dimensions: V vocabulary, D width of a row.
"""

from imgcap.config.model import ModelConfig
from imgcap.models.captioner import Captioner
from imgcap.models.trained import LoadedCaptioner
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import SPECIAL_TOKENS

EMBEDDING, OUTPUT = "decoder.embedding.weight", ("decoder.output.weight", "decoder.output.bias")


def transferred(source: LoadedCaptioner, model: ModelConfig, vocabulary: Vocabulary) -> Captioner:
    """A captioner of `vocabulary` with the weights of `source`; each word that both know keeps its rows.

    A new word's embedding stays as the constructor drew it, at the scale at which trained ones began too. Its logit is
    the mean of the trained words' logits: the softmax then gives it no more than an average word's share, and what was
    learned is hardly disturbed (Hewitt 2021), where a row near 0 would outbid most words that training has pushed down.
    A decoder that ties both has the mean as its embedding too.
    """
    captioner = Captioner(model, len(vocabulary))
    place_of = {word: place for place, word in enumerate(source.vocabulary.words)}
    known = [place for place, word in enumerate(vocabulary.words) if word in place_of]
    known_there = [place_of[vocabulary.words[place]] for place in known]
    weights, fresh = source.model.state_dict(), captioner.state_dict()
    embedded = EMBEDDING if captioner.decoder.output.weight is not captioner.decoder.embedding.weight else None
    for name in (EMBEDDING, *OUTPUT):
        trained = weights[name]
        rows_VD = fresh[name].clone()
        if name != embedded:
            rows_VD[:] = trained[len(SPECIAL_TOKENS) :].mean(0)
        rows_VD[known] = trained[known_there]
        weights[name] = rows_VD
    captioner.load_state_dict(weights)
    return captioner
