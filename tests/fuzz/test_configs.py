"""Configurations with something wrong: read, or refused in a line that names the file or the key."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import Changed, changed_bytes, changed_json, check_line, fuzz

from imgcap.config.load import as_yaml, load_config
from imgcap.config.run import Config
from imgcap.config.shipped import config_file
from imgcap.errors import UserError
from imgcap.training.sweep.spec import load_sweep

SWEEP = b"""\
base: demo
objective: CIDEr
trials: 3
parameters:
  optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
  model.decoder.dropout: [0.3, 0.5]
"""


@pytest.mark.parametrize("target", ["configuration", "whole configuration", "sweep"])
def test_a_configuration_with_something_wrong(target: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = {
        "configuration": config_file(Path("flickr8k")).read_bytes(),
        "whole configuration": as_yaml(load_config(None, [])).encode(),
        "sweep": SWEEP,
    }[target]

    def check(changed: Any) -> None:
        if isinstance(changed, Changed):
            path.write_bytes(changed.data)
        else:
            path.write_text(yaml.safe_dump(changed[0]), encoding="utf-8", errors="surrogatepass")
        try:
            read = load_sweep(path) if target == "sweep" else load_config(path)
        except UserError as error:
            check_line(" ".join(str(error).split()))
            return
        if isinstance(read, Config):
            again = tmp_path / "again.yaml"
            again.write_text(as_yaml(read))
            assert load_config(again) == read

    path.write_bytes(text)
    check((yaml.safe_load(text), ()))
    fuzz(target, changed_bytes(text) | changed_json(yaml.safe_load(text)), check)
