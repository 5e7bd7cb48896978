"README.md is nbs/index.ipynb: same text, links that work from the top folder, pictures beside the notebooks."
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent


def slug(heading: str) -> str:
    "The anchor that pandoc, and so Quarto and nbdev's links, gives a heading."
    kept = re.sub(r"[^\w\s.-]", "", heading.lower())
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", kept.strip())) or "section"


def render() -> dict:
    "Relative path -> content, of README.md and its pictures."
    nb = nbformat.read(ROOT/"nbs"/"index.ipynb", as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    text, resources = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](nbs/\1", text)
    text = re.sub(r" *!\[png\]\((output_\w+\.png)\) *", r"![Head importance on JapaneseVowels](nbs/images/\1)", text)
    text = re.sub(r"\n(\s*\n)+", "\n\n", text).strip() + "\n"
    return {"README.md": text.encode(), **{f"nbs/images/{name}": data for name, data in resources["outputs"].items()}}


if __name__ == "__main__":
    for name, content in render().items():
        path = ROOT/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(path.relative_to(ROOT))
