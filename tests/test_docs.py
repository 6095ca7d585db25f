"""The pages in docs/: each example runs as it stands, in a process of its own, and says what it is said to say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    pytest.param(page, found[1], id=f"{page.stem}-{number}")
    for page in PAGES
    for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
]


def test_every_page_has_an_example():
    assert PAGES
    assert [page.name for page in PAGES if not BLOCK.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(("page", "source"), EXAMPLES)
def test_an_example_of_a_page_runs_without_a_word_of_complaint(page, source, tmp_path):
    script = tmp_path / f"{page.stem}_example.py"  # a page may be called like a module, such as queue
    script.write_text(source, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    missing = re.search(r"No module named '(\w+)'", done.stderr)
    if missing and missing[1] != "fabric":
        pytest.skip(f"{missing[1]} is not installed: {page.name} is NOT TESTED (scripts/neighbours installs it)")
    assert (done.returncode, done.stderr) == (0, "")
