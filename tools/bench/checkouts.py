"""Other projects' modules, from checkouts of theirs.

Nothing of theirs is in this repository. What today's libraries refuse in their files is replaced as they are read.
"""

import ast
import importlib.util
import pickle
import sys
import types
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from imgcap.errors import UserError
from imgcap.types import EOS, SOS
from tools.bench.decoder import VOCABULARY, WIDTH

IMGCAP_FILE = Path("trainning") / "ImgCap-prototyping" / "ImgCapAttention_prototyping.py"


def show_attend_tell_decoder(checkout: Path, device: torch.device) -> torch.nn.Module:
    classes = execute(checkout / "models.py")
    classes["device"] = device  # which its forward reads as a global
    return classes["DecoderWithAttention"](512, 512, 512, VOCABULARY, WIDTH).to(device)


def imgcap_model(checkout: Path, device: torch.device) -> Any:
    """Load ImgCap's whole model, its ResNet replaced by nothing; `lstm` is the decoder."""
    names = {"nn": torch.nn, "F": torch.nn.functional, "vocab": {"<sos>": SOS, "<eos>": EOS}}
    names["ResNet50"] = torch.nn.Identity
    classes = execute(checkout / IMGCAP_FILE, only=("Attention", "lstm", "ImgCap"), names=names)
    model = classes["ImgCap"](WIDTH, 1024, 2, VOCABULARY, 1024).to(device)
    classes["model"] = model  # their beam search reads it as a global
    return model


def att2in_model(checkout: Path, length: int, device: torch.device) -> torch.nn.Module:
    # Its packages import every model it has, and what those need; only the one module is wanted.
    for package in ("captioning", "captioning.models", "captioning.utils"):
        module = types.ModuleType(package)
        module.__path__ = [str(checkout / package.replace(".", "/"))]
        sys.modules[package] = module
    # It imports six, and does not need it for this.
    if "six" not in sys.modules and importlib.util.find_spec("six") is None:
        moves = types.SimpleNamespace(cPickle=pickle)
        for name, content in (("six", {"moves": moves}), ("six.moves", vars(moves))):
            sys.modules.setdefault(name, types.ModuleType(name)).__dict__.update(content)
    widths = {"input_encoding_size": 512, "rnn_size": 512, "att_hid_size": 512}
    widths |= {"fc_feat_size": WIDTH, "att_feat_size": WIDTH, "vocab_size": VOCABULARY - 1}  # it adds one word
    options = types.SimpleNamespace(**widths, num_layers=1, drop_prob_lm=0.5, max_length=length, vocab={})
    try:
        return importlib.import_module("captioning.models.AttModel").Att2in2Model(options).to(device)
    except ImportError as error:
        raise UserError(f"{checkout} can't be imported from ({error}); is this a checkout of that peer?") from None


def execute(
    path: Path, only: Collection[str] = (), names: dict[str, Any] | None = None, mend: ast.NodeTransformer | None = None
) -> dict[str, Any]:
    """Run a file of a checkout, or only some of its classes and functions, and return its names."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); is this a checkout of that peer?") from None
    if only:
        kinds = (ast.ClassDef, ast.FunctionDef)
        tree.body = [node for node in tree.body if isinstance(node, kinds) and node.name in only]
    if mend:
        tree = ast.fix_missing_locations(mend.visit(tree))
    module = {"__name__": path.stem, "torch": torch} | (names or {})
    exec(compile(tree, str(path), "exec"), module)
    return module
