"""What CONTRIBUTING says of the code's form and no linter holds."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "litestage"
LONGEST = 60
"""Lines of a function; programs of a GPU may have more."""


def test_functions_are_short() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST
        and not any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    assert not found
