"""docs/quickstart.ipynb runs from top to bottom in a fresh kernel."""

import base64
import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
manager = pytest.importorskip("jupyter_client.manager")

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


class ThisPython(manager.AsyncKernelManager):
    """Kernels of the interpreter that runs the tests, whatever is installed for the user."""

    def format_kernel_cmd(self, extra_arguments=None):
        return [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file, *(extra_arguments or [])]


def pictures(cell):
    shown = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(png))) for png in shown]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = {"QUICKSTART_FOLDER": str(tmp_path), "QUICKSTART_IMAGES": "24", "QUICKSTART_STEPS": "2"}
    environment = os.environ | settings | {"OMP_NUM_THREADS": "1"}
    client = nbclient.NotebookClient(notebook, timeout=200, km=ThisPython(kernel_name="python3"))
    client.execute(env=environment, cwd=str(NOTEBOOK.parent))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    curves, sheet, attention = [cell for cell in code if pictures(cell)]
    assert [picture.width > 200 for cell in (curves, sheet, attention) for picture in pictures(cell)] == [True] * 3
    scores = json.loads((tmp_path / "scores.json").read_text())
    told = "".join(output.text for cell in code for output in cell.outputs if output.output_type == "stream")
    assert scores["signature"] in told and "CIDEr" in scores
    assert "error:" not in told and "Traceback" not in told


def test_the_quickstart_is_committed_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
