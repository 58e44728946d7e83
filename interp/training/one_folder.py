"""Work that lies in a folder needs nothing of its processes but that all of them see that folder."""

import os
from contextlib import suppress
from pathlib import Path

from interp import places
from interp.objects import is_url, shown
from interp.training.grid import Grid
from interp.training.parallel import joined
from interp.types import InterpError


def see_the_same(place: str | Path) -> bool:
    """Whether torchrun began several processes, all of which see the same folder (made if need be and left as it was).

    They need nothing else of each other to share work that lies there. Raises InterpError, on all of them, when they do not, and
    for a URL, which nobody can hold.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    if is_url(place):
        raise InterpError(
            f"several processes share work by locks in a folder, and {shown(str(place))} has none; name a folder that all of them "
            "see, or do it in one process, without torchrun."
        )
    folder = Path(place)
    with joined():
        ranks, mark, made = Grid(1), folder, not folder.exists()
        if ranks.leads:
            places.check_writable(folder)
            mark = folder / f".seen-{os.urandom(8).hex()}"
            mark.touch()
        name = Path(ranks.told(str(mark.absolute()))).name
        apart = ranks.agree(not (folder / name).exists())
        if ranks.leads:
            mark.unlink()
            if made:
                with suppress(OSError):
                    folder.rmdir()
        ranks.wait()
    if apart:
        raise InterpError(
            f"the processes do not see the same folder {folder}: what the first of them writes there, another does not find. Give "
            "all of them the same one; on several machines, one that all of these have in common (a network file system)."
        )
    return True
