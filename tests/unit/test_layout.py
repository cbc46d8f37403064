"""The layout's one trap, and the documents' links."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_operator_does_not_hide_the_standard_librarys() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
    subprocess.run([sys.executable, "-S", "-c", "import operator; operator.itemgetter"], cwd=ROOT, check=True)


def test_every_relative_link_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
