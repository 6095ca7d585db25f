"""Show a progress bar, by tqdm: an extra, so that whoever wants no bar needs no tqdm."""

from collections.abc import Iterable
from typing import Any


def progress_bar(
    items: Iterable[Any] | None = None, *, total: int | None = None, unit: str = "tasks", description: str | None = None
) -> Any:
    """Make a bar: iterate over it in place of `items`, or, without those, tell it of progress by `update(count)`.

    In both cases `close()` takes it down, which iterating to the end does too. It draws where tqdm.auto does: in the
    notebook, or on stderr.

    Raises:
        ImportError: tqdm is not installed; the message says which extra has it. Raised here, not at the first item.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install 'shm-fabric[progress]'") from None
    return tqdm(items, total=total, unit=f" {unit}", desc=description, unit_scale=True)
