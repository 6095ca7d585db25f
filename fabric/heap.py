"""Keep the heap of this process, where large copies come and go: native/fab_heap.h. Any thread."""

from fabric._native import lib


def keep_heap(largest: int) -> None:
    """Have malloc serve blocks of up to so many bytes (glibc: 32 MiB at most) from its heap, and keep twice that of
    what is freed, in place of asking the kernel for fresh pages: see fab_heap_keep.
    """
    lib.fab_heap_keep(largest)
