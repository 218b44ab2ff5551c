"""What a run shows of itself: numbers, curves, captioned sheets, attention and progress."""

from imgcap.monitor.attention import draw_attention
from imgcap.monitor.curves import draw_curves
from imgcap.monitor.progress import Progress
from imgcap.monitor.samples import draw_sheet
from imgcap.monitor.writers import Monitor

__all__ = ["Monitor", "Progress", "draw_attention", "draw_curves", "draw_sheet"]
