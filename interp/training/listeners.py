"""What subscribes to a run: any function of a Step. These write a log, or TensorBoard's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp import places
from interp.training.step import Step
from interp.types import InterpError

Listener = Callable[[Step], None]
OFTEN, EVERY = 10, 50


def json_log(path: str | Path) -> Listener:
    """Append every tenth step of the first five hundred, then every fiftieth, every warning and the last step to a JSONL file."""
    file = Path(path)

    def listen(step: Step) -> None:
        if step.step % (OFTEN if step.step <= 10 * EVERY else EVERY) == 0 or step.notes or step.sae is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a", encoding="utf-8") as out:
                    out.write(places.strict_json(step.record()) + "\n")
            except OSError as error:
                raise places.disk_error(file, error) from error

    return listen


def cut(path: Path, step: int) -> None:
    """Drop from a log what a run that goes on after `step` writes again: later steps, and the end. A line that a kill
    cut short goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["step"] <= step and not record["finished"]:
            kept.append(line)
    with places.whole_file(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")


def tensorboard(folder: str | Path) -> Listener:
    """Write every step's measures for TensorBoard; needs the package `tensorboard`.

    Raises InterpError when that package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InterpError("TensorBoard is not installed; `pip install tensorboard` adds it.") from None
    writer: Any = None

    def listen(step: Step) -> None:
        nonlocal writer
        # What a run that goes on does again, TensorBoard is to forget.
        writer = writer or SummaryWriter(str(folder), purge_step=step.tokens)
        for name, value in step.record().items():
            if isinstance(value, (int, float)) and name not in ("step", "tokens"):
                writer.add_scalar(f"{step.run or 'train'}/{name}", value, step.tokens)
        for note in step.notes:
            writer.add_text(f"{step.run or 'train'}/notes", note, step.tokens)
        if step.sae is not None:
            writer.flush()

    return listen
