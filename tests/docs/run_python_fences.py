"""Run the Python examples of a Markdown file: `python -m tests.docs.run_python_fences FILE`.

A process of its own per file, so that an example finds the world as its reader does. Tracebacks
name the file and line of the example.
"""

import ast
import asyncio
import inspect
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.docs.fences import fences


def main(file: Path) -> None:
    """Run the blocks in order, in one namespace, and those that await in one event loop."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    with asyncio.Runner() as runner:
        for fence in fences(file):
            if not fence.is_a("python"):
                continue
            # Empty lines in front put each statement into the line it has in the file.
            source = "\n" * (fence.line - 1) + fence.text
            code = compile(source, str(file), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(FunctionType(code, namespace)())
            else:  # not in a loop: the example may call asyncio.run() itself
                exec(code, namespace)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
