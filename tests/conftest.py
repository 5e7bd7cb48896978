"Tests use the project's tools: its root folder, and what the pages become as README and as a site."
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent/"tools"))
