"The docs site without Quarto: nbdev prepares the pages, Sphinx renders them. `python tools/docs.py [folder]`; `make docs` calls it."
import ast
import inspect
import os
import re
import shutil
import sys
from importlib import import_module
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import yaml
import ziamath
from docutils.nodes import SkipNode, section
from fastcore.docments import DocmentTbl
from latex2mathml.converter import convert
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from nbformat.v4 import new_markdown_cell
from readme import ROOT, slug
from sphinx.application import Sphinx

TAGS = {"echo: false": "remove-input", "output: false": "remove-output", "include: false": "remove-cell", "code-fold: true": "hide-input"}


def sections() -> dict:
    "Section -> its notebooks' stems, in the order of the sidebar; pages without a section, as the landing page, under None."
    contents = yaml.safe_load((ROOT/"nbs"/"sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    found = {}
    for entry in contents:
        name, pages = (entry["section"], entry["contents"]) if isinstance(entry, dict) else (None, [entry])
        found.setdefault(name, []).extend(Path(page).stem for page in pages)
    return found


def relink(text: str) -> str:
    "Links to notebooks, and nbdev's to the deployed site, lead to this site's pages: `10_model.ipynb` is `model.html`."
    host = re.escape(get_config().doc_host + get_config().doc_baseurl)
    text = re.sub(rf"\[(`_\w+`)\]\({host}[^)]+\)", r"\1", text)   # what is private has no entry
    text = re.sub(rf"\]\({host}/(\w+)\.html", r"](\1.ipynb", text)
    text = re.sub(r"\]\(\d+[a-z]?_(\w+\.ipynb)", r"](\1", text)
    text = re.sub(r"\[\[([^]]+)\]\([^)]+\)\]\(", r"[\1](", text)   # a link that nbdev put into a link
    return re.sub(r"\]\((?:\w+\.ipynb)?#[^)]+\)", lambda m: m[0].lower(), text)


def is_shown(cell) -> bool: return cell.cell_type == "code" and "\nshow_doc(" in cell.source


def signature(module: str, cell):
    "What `show_doc` gave, as heading, link to the source, signature, docstring and the table of docments."
    text = cell.outputs[0].data["text/markdown"]
    source, name, code, doc = re.fullmatch(r"---\n\n(?:\[source\]\((\S+?)\)\{.*?\}\n\n)?### (\S+)\n\n```python\n(.+?)\n```\s*(.*)", text, flags=re.S).groups()
    thing = import_module(module)
    for part in re.search(r"show_doc\(([\w.]+)", cell.source)[1].split("."): thing = getattr(thing, part)
    meanings = {key: found["docment"] for key, found in DocmentTbl(thing).dm.items() if isinstance(found["docment"], str)}
    for line in inspect.getsource(thing).splitlines() if meanings else ():   # docments knows one parameter a line, and no **options
        if line.startswith(")"): break
        before, _, comment = line.partition(" # ")
        for parameter in re.findall(r"(\w+)(?=\s*[:,])", before) if comment else (): meanings.setdefault(parameter, comment)
    definition, table = ast.parse(code + "\n    ...").body[0], ""
    if meanings:   # the types move into the table
        rows = [(node.arg, node.annotation, meanings.get(node.arg)) for node in ast.walk(definition) if isinstance(node, ast.arg)]
        if "return" in meanings or ast.unparse(definition.returns or []) not in ("", "None"): rows.append(("*returns*", definition.returns, meanings.get("return")))
        table = "| | type | meaning |\n|---|---|---|\n" + "\n".join(row(*each) for each in rows)
        for node in ast.walk(definition):
            if isinstance(node, ast.arg): node.annotation = None
        definition.returns = None
    code = ast.unparse(definition).removeprefix("def ").partition(":\n")[0]
    doc = relink(doc.replace("*Call self as a function.*", ""))   # fastcore's word for no docstring
    parts = f"### {name}", f"{{.source}}\n[source]({source})" if source else "", f"{{.signature}}\n```python\n{code}\n```", doc, f"{{.docments}}\n{table}" if table else ""
    return new_markdown_cell("\n\n".join(filter(None, parts)))


def row(name: str, annotation, meaning) -> str:
    "A row of the table of docments; what Markdown would read as a mark is escaped."
    kind = re.sub(r"\b\w+\.", "", ast.unparse(annotation)) if annotation else ""
    kind, meaning = (re.sub(r"([*|])", r"\\\1", text) for text in (kind, meaning or ""))
    return f"| {name} | {kind} | {meaning} |"


def code_cell(cell, folded: bool):
    "A code cell with Quarto's directives as MyST-NB's tags."
    directives = re.findall(r"^#\| *(.+?) *$", cell.source, flags=re.M)
    cell.metadata["tags"] = [*(TAGS[d] for d in directives if d in TAGS), *(["hide-input"] if folded else [])]
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
    for output in cell.outputs:
        if "text/markdown" in output.get("data", {}): output.data["text/markdown"] = relink(output.data["text/markdown"])
    return cell


def page(path: Path):
    "A notebook that nbdev has processed, as MyST reads it: its name on the site, and the notebook."
    nb = nbformat.read(path, as_version=4)
    front = yaml.safe_load(nb.cells[0].source.strip().strip("-"))
    name = Path(front["output-file"]).stem
    folded = any("parameters" in cell.metadata.get("tags", []) for cell in nb.cells)   # a run: its results are what is read
    cells = [new_markdown_cell(f"# {front['title']}\n\n{{.subtitle}}\n{front['description']}")]
    for shown, group in groupby(nb.cells[2:], is_shown):
        if shown: cells += [signature(f"{get_config().lib_name}.{name}", cell) for cell in reversed(list(group))]   # nbdev puts the last first
        else: cells += [code_cell(cell, folded) if cell.cell_type == "code" else new_markdown_cell(relink(cell.source)) for cell in group]
    nb.cells, nb.metadata = cells, {"kernelspec": nb.metadata["kernelspec"], "language_info": {"name": "python"}}
    return name, nb


def write_sources(processed: Path, folder: Path):
    "Sphinx's sources: the pages under the names of the site, the landing page with the tables of contents."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pages = {name: [page(processed/f"{stem}.ipynb") for stem in stems] for name, stems in sections().items()}
    index = dict(pages[None])["index"]
    for name, found in pages.items():
        listed = "\n".join("self" if stem == "index" else stem for stem, _ in found)
        caption = f":caption: {name}\n" if name else ""
        index.cells.append(new_markdown_cell(f"```{{toctree}}\n:hidden:\n{caption}\n{listed}\n```"))
    for found in pages.values():
        for stem, nb in found: nbformat.write(nb, folder/f"{stem}.ipynb")
    static = folder/"_static"
    static.mkdir()
    shutil.copy(ROOT/"nbs"/"site.css", static)
    shutil.copy(Path(ziamath.__file__).parent/"fonts"/"STIXTwoMath-Regular.ttf", static)


def mathml(self, node):
    "A formula as MathML, which needs no script and no network. What the converter does not know is an error."
    block = node.tagname == "math_block"
    markup = convert(node.astext(), display="block" if block else "inline").replace("&#x0005E;", "&#x002C6;")   # a hat, not a caret
    try: ElementTree.fromstring(markup)
    except ElementTree.ParseError: markup = "\\"
    if "\\" in markup: raise ValueError(f"latex2mathml cannot convert {node.astext()!r}; write it with simpler commands")
    self.body.append(f'<div class="formula">{markup}</div>' if block else markup)
    raise SkipNode


def keep_anchors(app, doctree):
    "Headings can be reached under pandoc's anchors (`cache_dir`) beside Sphinx's own (`cache-dir`)."
    for node in doctree.findall(section):
        if node.get("slug") and node["slug"] not in node["ids"]: node["ids"].append(node["slug"])


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(mathml, None), block_renderers=(mathml, None))
    app.connect("doctree-read", keep_anchors)


def build(out: Path):
    "Render the site, and put it in the place of `out` when it is complete; a warning is an error."
    config, work = get_config(), proc_nbs(n_workers=min(4, os.cpu_count()), force=True)
    write_sources(work, work/"site")
    settings = dict(
        project=config.title, author=config.author, copyright=config.copyright, extensions=["myst_nb", __name__],
        html_theme="furo", html_title=config.title, html_static_path=["_static"], html_css_files=["site.css"],
        html_math_renderer="mathml", html_copy_source=False, html_show_sphinx=False, html_use_index=False, html_show_search_summary=False, smartquotes=False,
        nb_execution_mode="off", nb_render_markdown_format="myst", nb_code_prompt_show="Code", nb_code_prompt_hide="Code",
        myst_enable_extensions=["dollarmath", "attrs_block"], myst_heading_anchors=4, myst_heading_slug_func="readme.slug")
    app = Sphinx(work/"site", None, work/"html", work/"doctrees", "html", confoverrides=settings, status=None, warningiserror=True)
    app.build()
    if app.statuscode: sys.exit("mend what the warnings above name; no site was made")
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(work/"html", out)


if __name__ == "__main__":
    os.chdir(ROOT)
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT/"_docs").absolute())
    print("Read _docs/index.html" if len(sys.argv) == 1 else f"Read {sys.argv[1]}/index.html")
