"""What an evaluation during training leaves behind: scores, pictures and result files."""

from pathlib import Path

from imgcap.evaluation.results import Evaluation, write_results
from imgcap.pictures.attention import draw_attention
from imgcap.pictures.sheet import draw_sheet
from imgcap.training.monitor.curves import draw_curves
from imgcap.training.monitor.writers import Monitor


def report_evaluation(run: Path, monitor: Monitor, evaluation: Evaluation, step: int, epoch: int) -> None:
    """Log the scores, write the result files and draw curves, a captioned sheet and attention; rank 0 only."""
    if not monitor.enabled:
        return
    split = evaluation.split
    scores = {f"{split}/{name}": value for name, value in evaluation.scores.items()}
    monitor.scalars(step, epoch, scores | {f"{split}/loss": evaluation.loss})
    write_results(run, evaluation, step)
    draw_curves(run / "metrics.jsonl", run / "curves.png")
    if not evaluation.examples:
        return
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    sheet = draw_sheet([(example.image, example.caption, example.references) for example in evaluation.examples])
    sheet.save(folder / f"{split}-{step:08d}.png")
    monitor.image(f"{split}/samples", sheet, step)
    for example in evaluation.examples[:1]:
        if example.attention_LP is not None:
            picture = draw_attention(example.image, example.words, example.attention_LP, example.grid)
            picture.save(folder / f"{split}-attention-{step:08d}.png")
            monitor.image(f"{split}/attention", picture, step)
