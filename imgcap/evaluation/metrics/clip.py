"""CLIPScore and RefCLIPScore: captions as CLIP sees them (Hessel et al. 2021, https://arxiv.org/abs/2104.08718).

Dimensions: N pictures or texts, E width of CLIP's embeddings.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import torch
from torch import Tensor
from torch.nn.functional import normalize

from imgcap.config.evaluation import ClipConfig
from imgcap.errors import UserError, nearest, needs, reason_of
from imgcap.files.durable import sha256_of
from imgcap.pictures.opening import decode

PROMPT = "A photo depicts "  # before captions and references alike
WEIGHT = 2.5
DIGITS = 4  # the last bits of an embedding depend on how many threads shared it


def clip_score(cosine: float) -> float:
    """CLIPScore, 0 to 2.5, of the cosine between a caption and its picture."""
    return WEIGHT * max(cosine, 0.0)


def ref_clip_score(score: float, cosines: Iterable[float]) -> float:
    """RefCLIPScore: the harmonic mean of a CLIPScore and the greatest cosine between caption and references, or 0."""
    most_alike = max([0.0, *cosines])
    return 2 * score * most_alike / (score + most_alike) if most_alike else 0.0


class ClipScorer:
    """Scores the captions of some images at a time. What it made of their pictures and references it keeps.

    Raises `UserError` where open_clip is missing, or has no such network, or the weights aren't that network's.
    """

    def __init__(self, config: ClipConfig, metrics: Collection[str], device: torch.device):
        needs(next(iter(metrics)), "open_clip")
        import open_clip

        assert config.weights is not None
        self.metrics, self._device = metrics, device
        if config.model not in open_clip.list_models():
            near = nearest(config.model, open_clip.list_models())
            raise UserError(f"eval.clip.model={config.model} is no network of open_clip; the nearest is {near}")
        if not config.weights.is_file():
            raise UserError(f"eval.clip.weights={config.weights} is no file; name the weights of {config.model}")
        try:
            with torch.random.fork_rng(devices=[]):  # a run draws the same with this metric and without
                model, self._preprocess = open_clip.create_model_from_pretrained(
                    config.model, str(config.weights.absolute()), precision="fp32"
                )
            self._tokenise = open_clip.get_tokenizer(config.model)
        except Exception as error:  # of open_clip, torch and safetensors
            others = "Error(s) in loading state_dict" in str(error)
            reason = "its tensors are another network's" if others else reason_of(error)
            raise UserError(
                f"eval.clip.weights={config.weights} can't be read as {config.model} ({reason}); name "
                "open_clip's weights of eval.clip.model, as .safetensors or a state dict of torch.save"
            ) from None
        self._model = model.eval().requires_grad_(False).to(device)
        self._name = f"{config.model}@{sha256_of(config.weights)[:12]}"
        self._known: dict[Hashable, tuple[Tensor, tuple[Tensor, ...]]] = {}

    def signed(self) -> dict[str, str]:
        """What a score's signature says: the network, the sha256 of its weights, what it does to pictures."""
        how = self._model.visual.preprocess_cfg
        height, width = how["size"] if isinstance(how["size"], Sequence) else (how["size"],) * 2
        mean, std = (" ".join(f"{value:.4f}" for value in how[name]) for name in ("mean", "std"))
        seen = f"{height}x{width} {how['interpolation']} {how['resize_mode']} mean {mean} std {std}"
        return {"clip": self._name, "clip_input": seen, "open_clip": metadata.version("open_clip_torch")}

    def scores(
        self, key: Hashable, pictures: Iterable[bytes], captions: Sequence[str], references: Sequence[list[str]]
    ) -> list[dict[str, float]]:
        """Score a caption of each image. `key` stands for these very images: known ones' files aren't read again."""
        if not captions:
            return []
        if key not in self._known:
            groups = references if "RefCLIPScore" in self.metrics else [[] for _ in captions]
            texts_NE = self._texts([text for group in groups for text in group])
            self._known[key] = self._pictures(pictures), texts_NE.split([len(group) for group in groups])
        pictures_NE, references_NE = self._known[key]
        found = []
        for picture_E, caption_E, own_NE in zip(pictures_NE, self._texts(captions), references_NE, strict=True):
            score = clip_score(float(picture_E @ caption_E))
            scores = {"CLIPScore": score, "RefCLIPScore": ref_clip_score(score, (own_NE @ caption_E).tolist())}
            found.append({name: round(scores[name], DIGITS) for name in self.metrics})
        return found

    def means(self, images: Collection[dict[str, float]]) -> dict[str, float]:
        """Average the scores of images, as `scores` gave them."""
        return {name: round(sum(own[name] for own in images) / len(images), DIGITS) for name in self.metrics}

    def _pictures(self, files: Iterable[bytes]) -> Tensor:
        """Encode pictures of any size as unit vectors (N, E), on the CPU."""
        with ThreadPoolExecutor() as pool:  # Pillow's work is done outside of Python's lock
            ready = list(pool.map(lambda file: self._preprocess(decode(file)), files))
        return self._encoded(self._model.encode_image, torch.stack(ready))

    def _texts(self, captions: Sequence[str]) -> Tensor:
        """Encode texts, cut to what CLIP takes, as unit vectors (N, E), on the CPU."""
        return self._encoded(self._model.encode_text, self._tokenise([PROMPT + caption for caption in captions]))

    def _encoded(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, enabled=False):
            return normalize(encode(inputs.to(self._device)), dim=-1).cpu()
