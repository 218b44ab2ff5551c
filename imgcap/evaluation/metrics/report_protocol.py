"""The scores as the ImgCap report counts them, so that its table can be set beside ours.

It departs from what others report, each time in a way that changes the numbers:
- every caption of an image is a case of its own, with this one reference;
- captions are spaCy's tokens in lower case, punctuation among them, written as its decoder writes them: `<sos>` is a
  word, and `<eos>` hangs on the last word ("<sos> a dog .<eos>");
- candidates and references change places in CIDEr, so that candidates decide how much a word weighs.
Its splits, by caption and not by image, can't be had from the captions alone.
"""

from collections.abc import Mapping

from imgcap.evaluation.metrics.bleu import bleu
from imgcap.evaluation.metrics.cider import CiderReferences
from imgcap.evaluation.metrics.scorers import check_images
from imgcap.text.tokeniser import Tokeniser


def score_as_imgcap(
    hypotheses: Mapping[int, str], references: Mapping[int, list[str]], tokeniser: Tokeniser
) -> dict[str, float]:
    """Score BLEU-1 to BLEU-4 and CIDEr as the ImgCap report does. Raises UserError as `score_images` does."""
    check_images(hypotheses, references)
    cases = [(hypotheses[image_id], reference) for image_id, group in references.items() for reference in group]
    candidates = {case: [_written(caption, tokeniser)] for case, (caption, _) in enumerate(cases)}
    truths = {case: [_written(caption, tokeniser)] for case, (_, caption) in enumerate(cases)}
    corpus, _, _ = bleu(truths, candidates)
    scores = {f"BLEU-{n}": value for n, value in enumerate(corpus, start=1)}
    return scores | {"CIDEr": float(CiderReferences(candidates).scores(truths).mean())}


def _written(caption: str, tokeniser: Tokeniser) -> str:
    return "".join(["<sos>", *(f" {token}" for token in tokeniser(caption)), "<eos>"])
