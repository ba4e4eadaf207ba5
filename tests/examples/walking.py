"""examples/walkthrough.sh, run against a server."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def walk(url: str, mail: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(ROOT / "examples" / "walkthrough.sh"), url, str(mail)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
