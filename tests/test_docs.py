"The pages lead to one another, and render to a site that needs no network."
import re
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from readme import ROOT, slug

NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))


def prose(path) -> str:
    "What a notebook says: its Markdown, and Markdown that its code displays; without code and formulas."
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown": found.append(cell.source)
        else: found += (output.data["text/markdown"] for output in cell.get("outputs", []) if "text/markdown" in output.get("data", {}))
    return re.sub(r"^```.*?^```|\$\$.*?\$\$", "", "\n".join(found), flags=re.S | re.M)


def anchors(path):
    return {slug(heading) for heading in re.findall(r"^#+ +(.+?)\s*$", prose(path), flags=re.M)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_between_pages_resolve(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`|\$[^$\n]*\$", "", prose(path))):
        if link.startswith("https://"): continue
        page, _, anchor = link.partition("#")
        target = ROOT/"nbs"/page if page else path
        assert target.is_file(), f"no such page: {link}"
        # within a page Jupyter keeps capitals (`#Terms`), Quarto and the other pages' links do not
        if anchor: assert (anchor if page else anchor.lower()) in anchors(target), f"{link} is none of {sorted(anchors(target))}"


def test_anchors_are_those_of_pandoc():
    for heading, anchor in [("The cache", "the-cache"), ("3. Do intervals cover?", "do-intervals-cover"), ("To and from PyTorch's own layers", "to-and-from-pytorchs-own-layers"), ("`pick`, `kl`", "pick-kl")]:
        assert slug(heading) == anchor


class Site(HTMLParser):
    "Ids of a page, its links, and what a browser loads with it."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs: self.ids.add(attrs["id"])
        if tag == "a" and attrs.get("href"): self.links.add(attrs["href"])
        elif tag == "link": self.loads.add(attrs.get("href"))
        elif tag != "a" and attrs.get("src"): self.loads.add(attrs["src"])


def test_site_renders(tmp_path):
    for name in ("sphinx", "furo", "myst_nb", "ziamath"): pytest.importorskip(name, reason="`make docs` installs what renders the site")
    done = subprocess.run([sys.executable, ROOT/"tools"/"docs.py", tmp_path/"site"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    import docs
    pages = {path.name: Site(path) for path in (tmp_path/"site").glob("*.html")}
    listed = [re.sub(r"^\d+[a-z]?_", "", stem) + ".html" for stems in docs.sections().values() for stem in stems]
    for name in listed:
        page = pages[name]
        assert [other for other in listed if other in page.links or other == name] == listed, f"{name}: the sidebar is not complete"
        for link in page.links:
            if link.startswith("https://"): continue
            target, _, anchor = link.partition("#")
            assert (target or name) in pages and (not anchor or anchor in pages[target or name].ids), f"{name}: {link} leads nowhere"
        for source in page.loads: assert not re.match(r"https?:|//", source), f"{name} loads {source}"
    for path in (tmp_path/"site").rglob("*.css"): assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path
    assert "<math" in (tmp_path/"site"/"metrics.html").read_text(encoding="utf-8")
    assert any("searchindex.js" in source for source in pages["search.html"].loads)
