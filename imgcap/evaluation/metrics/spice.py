"""SPICE (Anderson et al. 2016): pycocoevalcap's jar, where Stanford's models lie beside it.

pycocoevalcap fetches these (400 MB) into its own folder the first time its class is made, which is left to the user.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from imgcap.evaluation.metrics.ptb import PYCOCOEVALCAP, find_java

FOLDER = PYCOCOEVALCAP / "spice"
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
FETCH = "from pycocoevalcap.spice.get_stanford_models import get_stanford_models as get; get()"


def lacking() -> str | None:
    """Say what SPICE needs and is not here, and how to get it; None where it is all there."""
    missing = [path for path in (FOLDER / "lib" / name for name in MODELS) if not path.exists()]
    return f'there is no {missing[0]}; fetch it with: python -c "{FETCH}"' if missing else None


def spice(references: Mapping[int, list[str]], hypotheses: Mapping[int, list[str]]) -> float:
    """Score tokenised captions by SPICE, the mean F-score. Raises RuntimeError where Java fails or skips an image."""
    content = [
        {"image_id": image_id, "test": hypotheses[image_id][0], "refs": group} for image_id, group in references.items()
    ]
    with TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "asked.json", Path(folder) / "answered.json"
        asked.write_text(json.dumps(content), encoding="utf-8")
        command = [find_java(), "-Xmx8G", "-jar", "spice-1.0.jar", str(asked), "-out", str(answered), "-silent"]
        finished = subprocess.run(command, cwd=FOLDER, capture_output=True, check=False)
        if finished.returncode != 0:
            reason = finished.stderr.decode(errors="replace").strip()[-400:]
            raise RuntimeError(f"SPICE's Java failed with exit code {finished.returncode}: {reason}")
        scores = {answer["image_id"]: answer["scores"]["All"]["f"] for answer in json.loads(answered.read_text())}
    if scores.keys() != references.keys():
        raise RuntimeError(f"SPICE scored {len(scores)} images of {len(references)}")
    return sum(map(float, scores.values())) / len(scores)
