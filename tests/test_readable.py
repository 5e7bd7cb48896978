"Is the library written to be read? Every export cell keeps to a measure."
import ast
import json

import pytest
from readme import ROOT

WIDTH, LINES, NODES = 110, 45, 180
NODES_PER_LINE = 8  # of a module, at most
EXAMPLES = .78  # share of export cells, of all but a page's last, that an example follows before the next one


def code_cells(path):
    "(id, source, exported) of each code cell of a notebook."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [(c["id"], "".join(c["source"])) for c in cells if c["cell_type"] == "code"]
    return [(i, source, source.startswith("#| export")) for i, source in code]


def nodes(tree):
    "Statements and expressions."
    return sum(isinstance(n, (ast.stmt, ast.expr)) for n in ast.walk(tree))


def packed(node):
    "Is it an assignment of several values at once: `a, b = x, y`?"
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def nested(node):
    "Is it a conditional expression inside another?"
    return isinstance(node, ast.IfExp) and any(isinstance(n, ast.IfExp) for n in ast.walk(node) if n is not node)


def faults(source):
    "What is wrong with an export cell."
    tree, lines = ast.parse(source), source.splitlines()
    found = []
    if len(lines) > LINES + 1: found.append(f"{len(lines) - 1} lines")
    if nodes(tree) > NODES: found.append(f"{nodes(tree)} nodes")
    if max(map(len, lines)) > WIDTH: found.append(f"{max(map(len, lines))} wide")
    if any(packed(n) for n in ast.walk(tree)): found.append("a packed assignment")
    if any(nested(n) for n in ast.walk(tree)): found.append("a conditional inside another")
    return found


def code_lines(text):
    "Lines of a module that hold code: neither empty, nor a comment, nor part of a docstring."
    docs = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr): continue
        if isinstance(body[0].value, ast.Constant): docs.update(range(body[0].lineno, body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return [line for i, line in lines if line.strip() and not line.lstrip().startswith("#") and i not in docs]


PAGES = [p for p in sorted((ROOT/"nbs").glob("*.ipynb")) if any(exported for *_, exported in code_cells(p))]
MODULES = [p for p in sorted((ROOT/"tst_mi").glob("*.py")) if p.name not in ("__init__.py", "_modidx.py")]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_export_cells_are_code_that_is_read_as_code(path):
    wrong = {cell: faults(source) for cell, source, exported in code_cells(path) if exported}
    assert not any(wrong.values()), {cell: what for cell, what in wrong.items() if what}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_modules_are_not_dense(path):
    text = path.read_text(encoding="utf-8")
    density = nodes(ast.parse(text))/len(code_lines(text))
    assert density <= NODES_PER_LINE


def test_examples_stand_between_export_cells():
    followed = []
    for path in PAGES:
        exported = [e for *_, e in code_cells(path)]
        followed += [not after for before, after in zip(exported, exported[1:]) if before]
    assert sum(followed)/len(followed) >= EXAMPLES


def test_the_measure_finds_what_it_is_for():
    assert faults("a, b = 1, 2") == ["a packed assignment"] and faults("a = 1 if x else 2 if y else 3") == ["a conditional inside another"]
    assert faults("x = 1" + " "*110) == ["115 wide"] and faults("\n".join(["x = 1"]*60)) == ["59 lines"]
    assert faults("f(" + "a + b, "*60 + ")") == ["183 nodes", "423 wide"] and not faults("a = b = 1\nc, d = f(x)")
