"""What subscribes to a run: any function of a Step. These write a log, or TensorBoard's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp.training.step import Step
from interp.types import InterpError

Listener = Callable[[Step], None]
EVERY = 50


def json_log(path: str | Path) -> Listener:
    """Append every fiftieth step, every warning and the last step to a JSONL file."""
    file = Path(path)

    def listen(step: Step) -> None:
        if step.step % EVERY == 0 or step.notes or step.sae is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(step.record()) + "\n")

    return listen


def tensorboard(folder: str | Path) -> Listener:
    """Write every step's measures for TensorBoard; needs the package `tensorboard`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InterpError("TensorBoard is not installed; `pip install tensorboard` adds it.") from None
    writer: Any = SummaryWriter(str(folder))

    def listen(step: Step) -> None:
        for name, value in step.record().items():
            if isinstance(value, (int, float)) and name not in ("step", "tokens"):
                writer.add_scalar(f"{step.run or 'train'}/{name}", value, step.tokens)
        for note in step.notes:
            writer.add_text(f"{step.run or 'train'}/notes", note, step.tokens)
        if step.sae is not None:
            writer.flush()

    return listen
