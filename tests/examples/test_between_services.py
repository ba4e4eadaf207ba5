"""The example of two services does what its README says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import WATCHWORD, Folder, clean
from tests.examples.walking import ROOT

EXAMPLE = ROOT / "examples" / "between_services"
BLOCKS = re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text("utf-8"), re.DOTALL)

pytestmark = pytest.mark.slow


def said(text: str, folder: Folder) -> list[str]:
    """What a block of the README prints, a line for each call."""
    path = f"{Path(WATCHWORD).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text.replace("curl --silent", "curl --silent --write-out '\\n'")],
        cwd=folder.path,
        env={**clean(folder.environ), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.capability("S1-20")
def test_billing_calls_reports_until_it_is_ended(tmp_path: Path) -> None:
    for file in EXAMPLE.glob("*.py"):
        shutil.copy(file, tmp_path)
    add, billing, reports, calls, end = BLOCKS
    folder = Folder(path=tmp_path)
    assert said(add, folder) == ["Added billing: may call reports"]
    for block, port in ((billing, "8000"), (reports, "8001")):
        assert block.endswith(f"--port {port}\n")
    with folder.running("dev", "reports:app", "--port", "0", "--no-reload") as called:
        environ = {"REPORTS": called.address}
        with folder.running(
            "dev", "billing:app", "--port", "0", "--no-reload", **environ
        ) as calling:
            calls = calls.replace("http://localhost:8000", calling.address)
            calls = calls.replace("http://localhost:8001", called.address)
            total, figures, mine, me = (json.loads(line) for line in said(calls, folder))
            assert total == {"as": "service:billing", "total": 8}
            assert figures == {"for": "service:billing", "figures": [3, 1, 4]}
            assert (mine["status"], mine["code"]) == (403, "forbidden")
            assert (me["status"], me["code"]) == (401, "invalid_token")
            assert said(end, folder) == ["Ended billing"]
            with calling.client() as client:
                assert client.get("/total").status_code != 200
