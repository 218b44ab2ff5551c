"""Runs that nobody trained: small models with random, sharp weights, so that what they say depends on the picture."""

import torch

from imgcap.checkpoint.save import save_checkpoint
from imgcap.config.load import as_yaml, load_config
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.forcing import unroll
from imgcap.text.vocabulary import Vocabulary

ENCODER = "model.encoder={name: resnet18, weights: none, output_stride: 16}"
DECODER = "model.decoder={embed_dim: 8, hidden_dim: 12, attention_dim: 6}"


def save_run(folder, words, *settings, seed=1, step=1, state=None, edit=lambda captioner: None):
    """Write a run folder with one checkpoint, of this state; `settings` override those above, `edit` the weights."""
    folder.mkdir(exist_ok=True)
    config, vocabulary = load_config(None, [ENCODER, DECODER, *settings]), Vocabulary.build(dict.fromkeys(words, 1))
    torch.manual_seed(seed)
    captioner = Captioner(config.model, len(vocabulary))
    with torch.no_grad():
        captioner.decoder.output.weight.mul_(60)
        edit(captioner)
    (folder / "config.yaml").write_text(as_yaml(config))
    vocabulary.save(folder / "vocab.json")
    save_checkpoint(folder / "checkpoints", step, captioner.state_dict(), {}, state or {}, keep=1, best=True)
    return folder


def predict(decoder, features_BPE, tokens_BKT, forcing=None):
    """Logits_BKTV of all steps at once, and attention_BKTP."""
    readout_BKTR, attention_BKTP = unroll(decoder, features_BPE, tokens_BKT, forcing)
    return decoder.output(readout_BKTR), attention_BKTP
