"""Run cells in a kernel of IPython, as a notebook does, and print what they print: `python -m tests.run_cells FILE`."""

import json
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(path: str) -> None:
    """Run the cells that a JSON file lists; raise the first error of one."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in json.loads(Path(path).read_text())]
    kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client = NotebookClient(notebook, timeout=50)
    client.create_kernel_manager()
    client.km.kernel_spec.argv = kernel
    client.execute()
    for cell in notebook.cells:
        for output in cell.outputs:
            print(output.get("text", ""), end="", file=sys.stderr if output.get("name") == "stderr" else sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
