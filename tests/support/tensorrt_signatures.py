"""What real TensorRT modules have: members and parameters, to compare fakes with.

Of ``tensorrt_rtx`` itself, and of the stubs of TensorRT 10 (PyPI: tensorrt-stubs, whose folder
EDGECOUNT_TENSORRT_STUBS names: installed into the environment it would look like TensorRT).
"""

import ast
import inspect
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import pytest

# Parameters of each overload by member; None for a property.
Members = Dict[str, Optional[List[List[str]]]]


def stubs(classes: Sequence[str]) -> Dict[str, Members]:
    """Members of these classes of TensorRT 10; skips the test where there are no stubs."""
    folder = os.environ.get("EDGECOUNT_TENSORRT_STUBS")
    if not folder:
        pytest.skip(
            "set EDGECOUNT_TENSORRT_STUBS to a folder made by: pip install --no-deps --target "
            "FOLDER tensorrt-stubs"
        )
    text = Path(folder, "tensorrt_bindings", "tensorrt.pyi").read_text(encoding="utf-8")
    # Class by class, since other parts of the stubs are no valid Python.
    parts = re.split(r"(?m)^(?=class )", text)
    wanted = re.compile(rf"class ({'|'.join(classes)})\W")
    found = [_parsed(part) for part in parts if wanted.match(part)]
    return {node.name: members_of_stub(node) for node in found if isinstance(node, ast.ClassDef)}


def _parsed(text: str) -> ast.stmt:
    """A class; a method whose signature is no valid Python is left without parameters."""
    try:
        return ast.parse(text).body[0]
    except SyntaxError as error:
        lines = text.splitlines()
        number = (error.lineno or 0) - 1
        shortened = re.sub(r"\(.*$", "(self) -> None:", lines[number])
        if shortened == lines[number]:
            raise
        lines[number] = shortened
        return _parsed("\n".join(lines))


def members_of_binding(real: Any) -> Members:
    """Of a class of pybind11, which writes its signatures into the documentation."""
    found: Members = {}
    for name in dir(real):
        member = inspect.getattr_static(real, name)
        if isinstance(member, property):
            found[name] = None
        elif callable(getattr(real, name, None)):
            found[name] = signatures(name, getattr(real, name).__doc__ or "")
    return found


def signatures(name: str, documentation: str) -> List[List[str]]:
    lines = re.findall(rf"(?m)^(?:\d+\. )?{name}\((.*)\) -> ", documentation)
    return [[p for p in re.findall(r"(?:^|, )(\w+): ", line) if p != "self"] for line in lines]


def members_of_stub(node: ast.ClassDef) -> Members:
    found: Members = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            found[item.target.id] = None
        if not isinstance(item, ast.FunctionDef):
            continue
        decorators = {d.id for d in item.decorator_list if isinstance(d, ast.Name)}
        if "property" in decorators:
            found[item.name] = None
            continue
        known = found.setdefault(item.name, [])
        if known is not None:
            known.append([a.arg for a in item.args.args if a.arg != "self"])
    return found
