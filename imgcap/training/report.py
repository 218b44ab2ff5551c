"""What an evaluation during training leaves behind: scores, pictures and result files."""

from pathlib import Path

from imgcap.evaluation.results import Evaluation, write_results
from imgcap.pictures.attention import draw_attention
from imgcap.pictures.sheet import draw_sheet
from imgcap.training.monitor.curves import draw_curves
from imgcap.training.monitor.writers import Monitor

SHOWN_SCORES = ("CIDEr", "BLEU-4", "METEOR")  # above a sheet, those that were computed


def report_evaluation(
    run: Path, monitor: Monitor, evaluation: Evaluation, step: int, epoch: int, language: str
) -> None:
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
    cards = [(example.image, example.caption, example.references) for example in evaluation.examples]
    sheet = draw_sheet(cards, *_headings(run.name, evaluation, step))
    sheet.save(folder / f"{split}-{step:08d}.png")
    monitor.image(f"{split}/samples", sheet, step)
    for example in evaluation.examples[:1]:
        if example.attention_LP is not None:
            words, attention_LP, grid = example.words, example.attention_LP, example.grid
            file = f"{example.file} ({run.name}, {split}, step {step:,})"
            picture = draw_attention(example.image, words, attention_LP, grid, example.caption, file, language)
            picture.save(folder / f"{split}-attention-{step:08d}.png")
            monitor.image(f"{split}/attention", picture, step)


def _headings(run: str, evaluation: Evaluation, step: int) -> tuple[str, str]:
    scores = [f"{name} {evaluation.scores[name]:.3f}" for name in SHOWN_SCORES if name in evaluation.scores]
    about = f"{' · '.join(scores)} over {len(evaluation.captions):,} images. " if scores else ""
    return (
        f"{run}, split {evaluation.split}, step {step:,}",
        f"{about}Bold: the model's caption; below it, what people wrote.",
    )
