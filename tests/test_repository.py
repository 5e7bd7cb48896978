"What the repository promises, whatever the notebooks compute."
import json
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser

import pytest
import yaml
from readme import ROOT, render

from tst_mi.cli import LEAVABLE, report_parameters
from tst_mi.perturbations import GRID
from tst_mi.work import _GRID, WORK

NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))


def cells(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_readme_is_the_index():
    for name, content in render().items():
        assert (ROOT/name).read_bytes() == content, f"{name} is not what nbs/index.ipynb gives; run `make readme`"


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)", (ROOT/"README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://") or (ROOT/link).exists(), link


def test_report_has_its_parameters_cell():
    tagged = [c for c in cells(ROOT/"nbs"/"99_report.ipynb") if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    names = re.findall(r"^(\w+) = ", "".join(tagged[0]["source"]), flags=re.M)
    options = report_parameters()
    assert list(options) == names and all(meaning for _, _, meaning in options.values()), "each parameter has a row in the report's table"
    assert names == "dataset seed design max_pairs n_boot alpha margin matchings control_runs placebo_runs perturbation_seeds ig_steps budget leave_out out_dir groups data_dir checkpoint".split()


def test_parts_of_the_report_are_counted_and_can_be_left_out():
    sources = ["".join(c["source"]) for c in cells(ROOT/"nbs"/"99_report.ipynb") if c["cell_type"] == "code"]
    parts = [found[1] for found in (re.match(r"# part: (\w+)\n", source) for source in sources) if found]
    assert parts == list(WORK) and set(LEAVABLE) == set(WORK) - {"heads"} | {"power"}
    assert _GRID == sum(map(len, GRID.values()))   # counted there, defined on a later page
    for name in LEAVABLE: assert sum(f"'{name}' not in left" in source or f"'{name}' in left" in source for source in sources) == 1, name


def test_quarto_settings_resolve_and_list_every_page():
    assert (ROOT/"nbs"/"_quarto.yml").resolve() == ROOT/"_quarto.yml"
    settings = yaml.safe_load((ROOT/"nbs"/"_quarto.yml").read_text())
    assert settings["project"]["type"] == "website"
    for name in settings["metadata-files"]: assert (ROOT/"nbs"/name).exists(), name
    sidebar = yaml.safe_load((ROOT/"nbs"/"sidebar.yml").read_text())["website"]["sidebar"]["contents"]
    listed = [page for entry in sidebar for page in (entry["contents"] if isinstance(entry, dict) else [entry])]
    assert sorted(listed) == [p.name for p in NOTEBOOKS]


def test_settings_that_nbdev_needs():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    settings = config["DEFAULT"]
    assert "tags" in settings["allowed_cell_metadata_keys"].split()
    assert settings["update_pyproject"] == "False" and settings["custom_sidebar"] == "True"
    assert not (ROOT/"pyproject.toml").exists()
    pins = (ROOT/"constraints.txt").read_text()
    for name in ("torch==2.13.0", "nbdev==2.4.14"): assert name in pins


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_fit_to_read(path):
    assert path.stat().st_size <= 300_000, "over 300 KB"
    page = cells(path)
    assert re.match(r"# .+\n\n> .+", "".join(page[0]["source"])), "a page opens with its title and one sentence"
    assert len({c["id"] for c in page}) == len(page)
    for cell in page:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("#| default_exp"):
            assert cell["source"], "an empty cell"
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", f"warnings or progress bars in the output of: {source[:80]}"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_export_cells_stand_between_prose_and_examples(path):
    exports = [("".join(c["source"])).startswith("#| export") for c in cells(path)]
    assert not any(a and b for a, b in zip(exports[1:], exports[2:])), "two export cells in a row"


def test_pages_have_names_of_their_own():
    "On the site a page has no number: two of one name would be one page."
    names = [re.sub(r"^\d\d_", "", path.stem) for path in NOTEBOOKS]
    assert len(set(names)) == len(names)


def page_numbers():
    "module -> number of the page that makes it"
    pattern = re.compile(r"File to edit: \.\./nbs/(\d\d)_")
    found = {path: pattern.search(path.read_text(encoding="utf-8")) for path in (ROOT/"tst_mi").glob("*.py")}
    return {path.stem: int(page[1]) for path, page in found.items() if page}


def imported(path):
    "Modules of the project that a module imports, at its top or inside functions."
    source = path.read_text(encoding="utf-8")
    inside = re.findall(r"^ *from (?:\.|tst_mi\.)(\w+) import", source, re.M)
    whole = re.findall(r"^ *from (?:\.|tst_mi) import (.+)$", source, re.M)
    return inside + [name.strip() for names in whole for name in names.split(",")]


def test_modules_import_only_from_lower_pages():
    numbers = page_numbers()
    assert len(numbers) > 20
    upwards = [(module, other) for module in numbers for other in imported(ROOT/"tst_mi"/f"{module}.py")
               if other in numbers and numbers[other] >= numbers[module]]
    assert not upwards, upwards


def test_wheel_builds_and_imports_without_nbdev(tmp_path):
    import shutil
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE"): shutil.copy(ROOT/name, tmp_path)
    shutil.copytree(ROOT/"tst_mi", tmp_path/"tst_mi", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path/"nbs").mkdir()
    shutil.copy(ROOT/"nbs"/"99_report.ipynb", tmp_path/"nbs")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path/"wheel", tmp_path], check=True)
    wheel, = (tmp_path/"wheel").glob("tst_mi-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path/"site")
    assert not (tmp_path/"tst_mi"/"notebooks").exists() and not (ROOT/"tst_mi"/"notebooks").exists(), "the report's notebook is copied into the wheel only"
    assert "tst_mi = tst_mi.cli:main" in next((tmp_path/"site").glob("*.dist-info/entry_points.txt")).read_text()
    shipped, source = (cells(p) for p in (tmp_path/"site"/"tst_mi"/"notebooks"/"99_report.ipynb", ROOT/"nbs"/"99_report.ipynb"))
    assert [c["source"] for c in shipped] == [c["source"] for c in source] and not any(c.get("outputs") for c in shipped)
    modules = [p.stem for p in (tmp_path/"site"/"tst_mi").glob("*.py") if not p.stem.startswith("_")]
    assert len(modules) >= 9
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path/'site')!r})
for name in ("nbdev", "execnb"): sys.modules[name] = None
import importlib
for name in {modules!r}: importlib.import_module("tst_mi." + name)
import tst_mi
assert tst_mi.__file__.startswith({str(tmp_path)!r}), tst_mi.__file__
from tst_mi.cli import main, report_notebook
assert main(["--version"]) == main(["report", "--help"]) == main(["train", "--help"]) == 0 and report_notebook().parent.name == "notebooks"
from tst_mi.model import predict
from tst_mi.training import model_for
model, data, info = model_for("JapaneseVowels")
assert info["same_data"] and (predict(model, data.X_test).argmax(1) == data.y_test).mean() == info["test_accuracy"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
