"Packaging. Every setting is in `settings.ini`; edit there, not here."
import json
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

statuses = ["1 - Planning", "2 - Pre-Alpha", "3 - Alpha", "4 - Beta",
            "5 - Production/Stable", "6 - Mature", "7 - Inactive"]
pythons = ["3.10", "3.11", "3.12", "3.13"]


class BuildWithReport(build_py):
    "A wheel carries the report's notebook, without its outputs; an editable install reads the one in `nbs/`."
    def run(self):
        super().run()
        if self.editable_mode: return
        notebook = json.loads(Path("nbs/99_report.ipynb").read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code": cell.update(outputs=[], execution_count=None)
        target = Path(self.build_lib)/cfg["lib_name"]/"notebooks"/"99_report.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")


setuptools.setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="MIT",
    license_files=["LICENSE"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    classifiers=[
        f"Development Status :: {statuses[int(cfg['status']) - 1]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        *[f"Programming Language :: Python :: {v}" for v in pythons],
    ],
    packages=[cfg["lib_name"]],
    package_data={cfg["lib_name"]: cfg["package_data"].split()},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={extra: cfg[f"{extra}_requirements"].split() for extra in ("dev", "docs", "hf", "bench")},
    cmdclass={"build_py": BuildWithReport},
    entry_points={"nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"], "console_scripts": [f"{cfg['lib_name']}={cfg['lib_name']}.cli:main"]},
    zip_safe=False,
)
