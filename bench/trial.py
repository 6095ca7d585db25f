"""One trial in a process of its own: `python -m bench.trial SPEC FILE` (started by the harness, not by hand).

SPEC is JSON: `call` ("module:function"), `options` (its keyword arguments), `cpus` (how many to keep, or
null), `limit_s`. What the function returns, or how it failed, is written to FILE as JSON; what it prints goes
to the harness's log.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.sample import Sample, WrongAnswerError


def run(call: str, options: dict[str, Any]) -> dict[str, Any]:
    """Call "module:function" with options; return its sample as a dict, or {"failed": why, "wrong": bool}."""
    module, _, function = call.partition(":")
    try:
        sample: Sample = getattr(importlib.import_module(module), function)(**options)
    except WrongAnswerError as error:
        return {"failed": f"wrong answer: {error}", "wrong": True}
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}", "wrong": False}
    return asdict(sample)


def main(arguments: list[str]) -> int:
    """Run the trial that the arguments name; return the exit status (1: it failed, the file says why)."""
    spec = json.loads(arguments[0])
    if spec["cpus"]:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["cpus"]])
    # Just before the harness kills it, a trial that hangs says where.
    faulthandler.dump_traceback_later(spec["limit_s"] * 0.95)
    answer = run(spec["call"], spec["options"])
    faulthandler.cancel_dump_traceback_later()
    Path(arguments[1]).write_text(json.dumps(answer))
    return 1 if "failed" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
