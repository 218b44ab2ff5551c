"""Caption metrics equal to pycocoevalcap's: BLEU, METEOR, ROUGE-L, CIDEr, SPICE, and diversity."""
