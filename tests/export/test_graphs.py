"""The graphs of an artefact say what the model says, without torch or without imgcap."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import imgcap
from imgcap.checkpoint.layout import seal_of
from imgcap.decoding.constraints import Constraints
from imgcap.export.artefact import export_run
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.lstm import LSTMDecoder
from imgcap.models.decoders.transformer import TransformerDecoder
from imgcap.models.trained import MANIFEST, load_captioner
from imgcap.shards.sources.registry import SourceOptions, read_source
from imgcap.text.vocabulary import CHARACTERS, Vocabulary
from imgcap.text.written import written
from imgcap.types import PAD, SOS, UNK

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
from imgcap.export.onnx_runner import OnnxCaptioner

DECODERS = {
    "lstm": "model.decoder.type=lstm",
    "attention": "model.decoder={gate: true, layers: 2, output: deep}",
    "transformer": "model.decoder={type: transformer, layers: 2, width: 16, heads: 2, feedforward: 24}",
}


def look_closely(model: Captioner) -> None:
    """Of random weights the image would otherwise hardly move a decoder that sees it once."""
    if isinstance(model.decoder, LSTMDecoder):
        model.decoder.image[-1].weight.mul_(10)
    if isinstance(model.decoder, TransformerDecoder):
        for name, parameter in model.decoder.named_parameters():
            if not name.startswith(("embedding", "output")):
                parameter.add_(torch.randn_like(parameter), alpha=0.5)
        model.decoder.output.weight.mul_(0.5)
        model.decoder.image.weight.mul_(100)


@pytest.fixture(scope="module", params=DECODERS)
def artefact(request: pytest.FixtureRequest, make_run: Callable[..., Path], tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    narrow = ["model.decoder.embed_dim=8", "model.decoder.hidden_dim=12", "model.decoder.attention_dim=6"]
    narrow = [] if request.param == "transformer" else narrow
    run = make_run(folder / "run", DECODERS[request.param], *narrow, edit=look_closely)
    export_run(run, folder / "artefact", onnx=True, programs=True)
    return folder / "artefact"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A hundred of the demo's scenes as files."""
    source = read_source("demo", SourceOptions(limit=100, raw_folder=tmp_path_factory.mktemp("pictures")))
    return [record.path for records in source.splits.values() for record in records]


class Program:
    """A torch program, called as onnxruntime's session of the same graph is."""

    def __init__(self, path: Path, graph: Any):
        self.run_on, self.get_outputs = torch.export.load(path).module(), graph.get_outputs

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            found = self.run_on(*map(torch.from_numpy, inputs.values()))
        return [tensor.numpy() for tensor in found]


@pytest.mark.parametrize("kind", ["onnx", "programs"])
def test_captions_of_the_graphs_equal_torchs(artefact: Path, pictures: list[Path], kind: str) -> None:
    ours, theirs = imgcap.load(artefact, "cpu"), OnnxCaptioner(artefact)
    if kind == "programs":
        theirs.encoder = Program(artefact / "programs" / "encoder.pt2", theirs.encoder)
        theirs.step = Program(artefact / "programs" / "decoder_step.pt2", theirs.step)
    for beam, batch in ((1, 16), (4, 7)):
        expected = ours.caption(pictures, beam)
        found = theirs.caption(pictures, beam, batch)
        assert [text for text, _ in found] == [caption.text for caption in expected]
        scores = torch.tensor([[caption.score, score] for caption, (_, score) in zip(expected, found, strict=True)])
        torch.testing.assert_close(scores[:, 0], scores[:, 1])
    assert len(found) == 100 and len({text for text, _ in found}) > 3, "it says the same of every picture"


@pytest.mark.parametrize("unlike", [{"no_repeat_ngram": 1}, {"min_length": 6, "no_repeat_ngram": 2}])
def test_constraints_of_evaluation_hold_in_both(
    artefact: Path, pictures: list[Path], tmp_path: Path, unlike: dict[str, int]
) -> None:
    """As an artefact of such a run is, of which the graphs are the same."""
    copied = tmp_path / "artefact"
    shutil.copytree(artefact, copied)
    content = json.loads((copied / MANIFEST).read_text())
    content["eval"] |= unlike
    del content["seal"]
    (copied / MANIFEST).write_text(json.dumps({**content, "seal": seal_of(content)}))
    expected, found = imgcap.load(copied, "cpu").caption(pictures), OnnxCaptioner(copied).caption(pictures)
    assert [text for text, _ in found] == [caption.text for caption in expected]
    assert [score for _, score in found] == pytest.approx([caption.score for caption in expected], abs=1e-4)
    free = imgcap.load(artefact, "cpu").caption(pictures)
    assert [caption.text for caption in free] != [caption.text for caption in expected], "they forbid nothing"


@pytest.mark.parametrize("min_length", [0, 3])
@pytest.mark.parametrize("no_repeat_ngram", [0, 1, 2, 3])
@pytest.mark.parametrize("unk", [None, True])
def test_it_forbids_what_constraints_do(min_length: int, no_repeat_ngram: int, unk: bool | None) -> None:
    runner, random = OnnxCaptioner.__new__(OnnxCaptioner), np.random.default_rng(3)
    runner.eval = {"min_length": min_length, "no_repeat_ngram": no_repeat_ngram, "unk": unk}
    never = torch.tensor([PAD, SOS] if unk else [PAD, SOS, UNK])
    constraints = Constraints(never, min_length, no_repeat_ngram)
    for step in range(8):
        log_probs_BWV = random.normal(size=(4, 5, 8))
        words_BWL = torch.full((4, 5, 9), PAD)
        words_BWL[..., :step] = torch.from_numpy(random.integers(UNK, 8, (4, 5, step)))
        expected = torch.from_numpy(log_probs_BWV.copy())
        constraints.forbid_(expected, torch.tensor(step), words_BWL)
        runner._forbid(log_probs_BWV, words_BWL[..., :step].numpy())
        assert np.array_equal(log_probs_BWV, expected.numpy())


def test_more_words_than_a_caption_can_have_are_refused(artefact: Path, tmp_path: Path) -> None:
    copied = tmp_path / "artefact"
    shutil.copytree(artefact, copied)
    content = json.loads((copied / MANIFEST).read_text())
    content["eval"]["min_length"] = 8
    (copied / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"eval\.min_length=8 asks for more words than a caption can have, 7"):
        OnnxCaptioner(copied)


def test_its_runner_needs_neither_torch_nor_imgcap(artefact: Path, pictures: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    lines = ["import runpy, sys", "sys.modules['torch'] = sys.modules['imgcap'] = None"]
    lines += ["sys.argv = sys.argv[1:]", "sys.path[0] = sys.argv[0].rpartition('/')[0]"]  # as python FILE has it
    script.write_text("\n".join([*lines, "runpy.run_path(sys.argv[0], run_name='__main__')"]))
    (tmp_path / "no\tpicture.jpg").write_text("no picture")
    command = [sys.executable, str(script), str(artefact / "onnx" / "caption.py"), "--json", "no\tpicture.jpg"]
    ended = subprocess.run([*command, *map(str, pictures[:3])], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "skipped: no\\tpicture.jpg: not an image\n"
    expected = imgcap.load(artefact, "cpu").caption(pictures[:3])
    assert [entry["caption"] for entry in json.loads(ended.stdout)] == [caption.text for caption in expected]


def test_torch_programs_compute_what_the_model_does(artefact: Path) -> None:
    encoder, step = (
        torch.export.load(artefact / "programs" / f"{name}.pt2").module() for name in ("encoder", "decoder_step")
    )
    loaded = load_captioner(artefact)
    model, config = loaded.model, loaded.config
    images_BCHW = torch.randint(0, 256, (5, 3, 48, 48), dtype=torch.uint8)
    token_BW = torch.randint(4, 18, (5, 1))
    with torch.no_grad():
        state = model.decoder.init(model.encode(images_BCHW), 1, config.data.max_tokens + 1)
        logits_BWV, after, _ = model.decoder.step(state, token_BW)
        looked = encoder(images_BCHW)
        found = step(token_BW, *looked)
    of_rows = [tensor for name, tensor in after.tensors().items() if after.axes[name].row is not None]
    expected = (logits_BWV.log_softmax(-1), *of_rows)
    torch.testing.assert_close(tuple(found[: len(expected)]), expected, rtol=1e-4, atol=1e-4)


def test_a_changed_graph_is_found(artefact: Path) -> None:
    graph = artefact / "onnx" / "decoder_step.onnx"
    before = graph.read_bytes()
    graph.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"decoder_step\.onnx has changed"):
        OnnxCaptioner(artefact)
    graph.write_bytes(before)


def test_a_graph_whose_weights_lie_beside_it(artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch writes those of over 1.5 GB."""
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
    out = tmp_path / "artefact"
    export_run(artefact.parent / "run", out, onnx=True)
    beside = out / "onnx" / "encoder.onnx.data"
    given = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype(np.uint8)
    assert OnnxCaptioner(out).captions(given) == OnnxCaptioner(artefact).captions(given)
    data = beside.read_bytes()
    beside.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"encoder\.onnx\.data has changed"):
        OnnxCaptioner(out)


def test_a_beam_of_none_is_refused(artefact: Path) -> None:
    captioner = OnnxCaptioner(artefact)
    for beam in (0, -1):
        with pytest.raises(ValueError, match=f"a beam of {beam} finds nothing; give 1 or more"):
            captioner.captions([np.zeros((48, 48, 3), np.uint8)], beam)


@pytest.mark.parametrize("oov", ["unk", "characters"])
def test_it_reads_words_as_the_vocabulary_does(oov: str) -> None:
    vocabulary = Vocabulary.build({"dog": 2, "ran": 1, "to": 1}, oov=oov)
    runner = OnnxCaptioner.__new__(OnnxCaptioner)
    runner.config = {"data": {"language": "en"}}
    runner.words, runner.spells = vocabulary.words, oov == "characters"
    random = np.random.default_rng(0)
    likely = [vocabulary.words.index(CHARACTERS[0])] * 8 if oov == "characters" else []
    choices = [*(token for token in range(len(vocabulary)) if token != 2), *likely]
    for length in random.integers(0, 12, 300):
        tokens = random.choice(choices, length).tolist()
        assert runner.text(tokens) == written(vocabulary.words_of(tokens))
