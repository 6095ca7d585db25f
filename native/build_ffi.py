"""Join the hand-written declarations (what Python may do) with the C headers (how it is done)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

ffi = FFI()
ffi.cdef((HERE / "fab_native.cdef.h").read_text(encoding="utf-8"))
ffi.set_source(
    "fabric._native",
    '#include "fab_native.h"',
    include_dirs=[str(HERE)],
    depends=[str(header) for header in sorted(HERE.glob("*.h"))],  # an edited header rebuilds
    libraries=["pthread"],
    extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
)
