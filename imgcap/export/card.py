"""The model card of an artefact: what it is, how to use it, its scores and what it says of some pictures."""

from collections.abc import Mapping
from typing import Any

from imgcap.config.model import AttentionLSTMConfig, TransformerConfig
from imgcap.evaluation.signature import parts_of
from imgcap.evaluation.table import SCALE, shown
from imgcap.models.trained import LoadedCaptioner
from imgcap.shards.identity import SetIdentity

_HEADER = """\
---
library_name: imgcap
pipeline_tag: image-to-text
language: {language}
tags: [image-captioning]
---
# {name}

An image-captioning model, trained with imgcap; this is its checkpoint of step {step:,}.

- encoder: {encoder}, for pictures of {size} × {size} pixels
- decoder: {decoder}
- {parameters:,} parameters, {words:,} entries in the vocabulary
- trained on {trained_on}

## Use

```python
import imgcap

captioner = imgcap.load("{name}")  # this folder, or user/name on the hub
for caption in captioner.caption(["photo.jpg", "other.png"]):
    print(caption.text, caption.score)
```
```
imgcap caption {name} photo.jpg folder/
{evaluate}
```
By default it searches with {beam} beams, a length penalty of {penalty:g} and at most {longest} words.
"""


def model_card(
    name: str, loaded: LoadedCaptioner, scores: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, int]
) -> str:
    """Write a model card: Markdown, with the header that the hub reads.

    `pictures` are files beside it, with the step that each shows.
    """
    config = loaded.config
    decoder = config.model.decoder
    query = f", attention {decoder.query} the recurrence" if isinstance(decoder, AttentionLSTMConfig) else ""
    wide = decoder.width if isinstance(decoder, TransformerConfig) else decoder.hidden_dim
    own = loaded.trained_on.for_others() if loaded.trained_on else None
    header = _HEADER.format(
        name=name,
        language=config.data.language,
        encoder=config.model.encoder.name,
        decoder=f"{decoder.type} ({wide} wide{query})",
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        words=len(loaded.vocabulary),
        size=config.data.image_size,
        step=loaded.step,
        trained_on=own or "a set that its run didn't note",
        evaluate=_evaluate(name, own, _split(scores)),
        beam=config.eval.beam,
        penalty=config.eval.length_penalty,
        longest=config.data.max_tokens,
    )
    return "\n".join([header, *_scores(scores), *_pictures(pictures, loaded.step)])


def _evaluate(name: str, own: SetIdentity | None, split: str) -> str:
    """Write the command that scores the model on its own set, where that is known."""
    if own is None:
        return f"imgcap evaluate {name} data.shards=DIR --split {split}"
    return (
        f"imgcap evaluate {name} --split {split}    # finds {own} in {' or '.join(own.places())}; else data.shards=DIR"
    )


def _split(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A split of the model's own set that it was scored on, test before others; test where there is none."""
    own = [parts_of(of["signature"]).get("split", "test") for of in scores.values() if "trained_on" not in of]
    return "test" if "test" in own or not own else own[0]


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not scores:
        return ["## Scores", "", "Not measured yet.", ""]
    names = list(
        dict.fromkeys(name for of in scores.values() for name, value in of.items() if isinstance(value, float))
    )
    table = [["split", *names], ["---"] * (len(names) + 1)]
    table += [[label, *(shown(of[name]) if name in of else "–" for name in names)] for label, of in scores.items()]
    rows = [f"| {' | '.join(cells)} |" for cells in table]
    signatures = [f"- {label}: `{of['signature']}`" for label, of in scores.items()]
    told = f"{SCALE} The loss is in nats a token. Scores compare where their signatures are equal:"
    return ["## Scores", "", *rows, "", told, "", *signatures, ""]


def _pictures(pictures: Mapping[str, int], step: int) -> list[str]:
    lines = ["## Samples", ""] if pictures else []
    for path, drawn in pictures.items():
        label = path.rpartition("/")[2].removesuffix(".png")
        of = "" if drawn == step else f", as of step {drawn:,}"
        lines += [f"![{label}{of}]({path})", "", f"*{label}{of}*", ""]
    return lines
