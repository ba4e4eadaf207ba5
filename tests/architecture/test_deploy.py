"""What deploy/ and the Dockerfile say is true of the server that they start.

No image is built and no container is started here. What can be shown without: the image's steps,
its health check, every setting that a file names, and nginx and Caddy themselves in front.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cli.command import PASSWORD, WATCHWORD, Folder, Running, clean
from tests.plugin import is_ci
from watchword.presets import standard
from watchword.sources import load

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
HOST = "accounts.example.com"

Say = Callable[[str], None]
pytestmark = pytest.mark.slow


def tool(name: str, package: str) -> str | None:
    """A program, installed if it is missing and this machine lets us; in CI it must be there."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", *command], env=environ, capture_output=True, check=False)
        found = shutil.which(name, path=path)
    return found


@pytest.fixture(scope="module")
def nginx() -> str:
    found = tool("nginx", "nginx-light")
    if found is None:
        pytest.skip("nginx is not here and cannot be installed: its file was not checked")
    return found


@pytest.fixture(scope="module")
def systemd_analyze() -> str:
    found = tool("systemd-analyze", "systemd")
    if found is None:
        pytest.skip("systemd-analyze is not here and cannot be installed: no unit was checked")
    return found


# --- the image ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One instruction of the Dockerfile."""

    stage: int
    word: str
    text: str


def steps() -> list[Step]:
    found: list[Step] = []
    stage = -1
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            stage += word == "FROM"
            found.append(Step(stage, word, " ".join(rest.split())))
    return found


def ignored(name: str) -> bool:
    """What .dockerignore keeps from the builder; the last line that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = name.split("/")
        if (
            pattern in {"*", name}
            or name.startswith(f"{pattern}/")
            or (line.startswith("**/") and any(fnmatch(part, pattern) for part in parts))
        ):
            verdict = not line.startswith("!")
    return verdict


@pytest.mark.capability("S0-120")
def test_the_image_runs_without_root_and_without_a_secret_in_it() -> None:
    every = steps()
    last = max(step.stage for step in every)
    final = {step.word: step.text for step in every if step.stage == last}
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", final["USER"])
    assert json.loads(final["ENTRYPOINT"]) == ["watchword"]
    assert final["EXPOSE"] == "8000"
    assert final["FROM"].endswith("-slim")
    for step in every:
        assert step.word not in {"ADD", "ARG"}, "nothing from elsewhere, nothing by the side"
        if step.word == "ENV":
            assert not re.search(r"secret|password|token|key", step.text, re.IGNORECASE)
        if step.word == "COPY" and "--from=" not in step.text:
            assert step.stage < last, "sources stay behind"
            for name in step.text.split()[:-1]:
                assert (ROOT / name).exists()
                assert not ignored(name), f"{name} does not reach the builder"
    for name in (".git", ".venv", "data", "data/secret", ".watchword/secret", "deploy/secrets"):
        assert ignored(name), f"{name} reaches the builder"
    assert ignored("src/watchword/__pycache__/app.cpython-311.pyc")


def test_the_wheel_is_made_from_what_the_image_copies(tmp_path: Path) -> None:
    for step in steps():
        if step.word == "COPY" and "--from=" not in step.text:
            for name in step.text.split()[:-1]:
                if (ROOT / name).is_dir():
                    leave = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
                else:
                    shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "wheels", "."],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "wheels").glob("watchword-*.whl")
    inside = {
        Path(name).relative_to("watchword")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("watchword/")
    }
    ours = {
        path.relative_to(ROOT / "src" / "watchword")
        for path in (ROOT / "src" / "watchword").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == ours


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The server that the image's command starts, in production, behind a proxy on this machine."""
    (command,) = (json.loads(step.text) for step in steps() if step.word == "CMD")
    here = tmp_path_factory.mktemp("server")
    given = {"--port": "0", "--host": "127.0.0.1", "--data": str(here / "data")}
    for name, value in given.items():
        command[command.index(name) + 1] = value
    mail = here / "mail"
    environ = {
        "WATCHWORD_PUBLIC_URL": f"https://{HOST}",
        "WATCHWORD_TRUSTED_PROXIES": "127.0.0.1/32",
        "WATCHWORD_MAIL": f"file:{mail}",
        "WATCHWORD_MAIL__ALLOW_PLAIN": "true",
    }
    log = here / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [WATCHWORD, *command],
            cwd=here,
            env=clean(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = Running(process=process, log=log)
    try:
        until = time.monotonic() + 60
        while not (found := re.search(r"listens on (http://\S+)", running.said())):
            assert process.poll() is None, running.said()
            assert time.monotonic() < until, running.said()
            time.sleep(0.1)
        running.address = found[1]
        wait_for(running.address + "/healthz")
        yield running
    finally:
        running.end()


def wait_for(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            httpx.get(url, timeout=5)
        except httpx.TransportError:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return


@pytest.mark.capability("S0-120")
def test_the_health_check_of_the_image_tells_a_server_from_none(server: Running) -> None:
    (check,) = (step.text for step in steps() if step.word == "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    at = server.address.removeprefix("http://")

    def asked(address: str) -> int:
        script = command[2].replace("127.0.0.1:8000", address)
        assert script != command[2]
        done = subprocess.run(
            [sys.executable, *command[1:2], script], capture_output=True, check=False
        )
        return done.returncode

    assert asked(at) == 0
    assert asked(f"127.0.0.1:{free_port()}") != 0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# --- compose --------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8")))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What deploy/secrets.sh makes."""
    made = tmp_path / "secrets"
    run_secrets(made, MAIL="smtp://ada:hunter2@mail.example.com:587")
    return made


def run_secrets(folder: Path, *, status: int = 0, **environ: str) -> None:
    done = subprocess.run(
        ["sh", str(DEPLOY / "secrets.sh")],
        env={**clean(environ), "SECRETS": str(folder), "WATCHWORD": WATCHWORD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_the_secrets_are_made_once_and_no_one_else_on_the_machine_reads_them(
    secrets: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_text("utf-8") for path in secrets.iterdir()}
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert before["postgres_password"].strip() in before["database"]
    assert len(set(before.values())) == len(before)
    run_secrets(secrets, MAIL="smtp://elsewhere.example.com")
    assert {path.name: path.read_text("utf-8") for path in secrets.iterdir()} == before
    run_secrets(tmp_path / "others", status=2)


def test_compose_names_settings_that_there_are_and_files_that_are_made(secrets: Path) -> None:
    file = compose()
    for name, secret in file["secrets"].items():
        assert (secrets / Path(secret["file"]).name).is_file(), name
    for name in ("watchword", "worker"):
        service = file["services"][name]
        environ: dict[str, str] = dict(service["environment"])
        environ["WATCHWORD_PUBLIC_URL"] = re.sub(
            r"\$\{DOMAIN:\?[^}]*\}", HOST, environ["WATCHWORD_PUBLIC_URL"]
        )
        mounted = secrets.parent / name
        mounted.mkdir()
        for each in service["secrets"]:
            shutil.copy(secrets / each, mounted)
        assert "postgres_password" not in service["secrets"]
        assert environ["WATCHWORD_SECRETS_DIR"] == "/run/secrets"
        environ["WATCHWORD_SECRETS_DIR"] = str(mounted)
        loaded = load({}, standard(), environ=environ)
        assert loaded.core.public_url == f"https://{HOST}"
        assert loaded.core.database.startswith("postgresql://watchword:")
        assert loaded.core.background is (name == "worker")
        assert all(
            each.value == "***"
            for each in loaded.report
            if each.key.endswith("secret") and each.source.startswith("secrets directory")
        )
        for word in service["command"]:
            assert isinstance(word, str)
        assert parses([str(word) for word in service["command"]])


def parses(command: list[str]) -> bool:
    """Does the command line take these options?"""
    import typer  # noqa: PLC0415

    from watchword.cli.app import app  # noqa: PLC0415

    group = cast("Any", typer.main.get_command(app))
    chosen = group.commands[command[0]]
    with chosen.make_context(command[0], list(command[1:])) as context:
        return bool(context.params)


def test_compose_lets_in_nobody_but_through_the_proxy() -> None:
    file = compose()
    services, networks = file["services"], file["networks"]
    assert [name for name, each in services.items() if "ports" in each] == ["caddy"]
    assert networks["inside"]["internal"]
    assert networks["front"]["internal"]
    for name in ("postgres", "redis"):
        assert services[name]["networks"] == ["inside"]
    assert "inside" not in services["caddy"]["networks"]
    for name in ("watchword", "worker"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
    caddy = ip_address(services["caddy"]["networks"]["front"]["ipv4_address"])
    (pool,) = networks["front"]["ipam"]["config"]
    trusted = services["watchword"]["environment"]["WATCHWORD_TRUSTED_PROXIES"]
    assert list(ip_network(trusted)) == [caddy], "one proxy is believed, and nobody else"
    assert caddy in ip_network(pool["subnet"])
    assert caddy not in ip_network(pool["ip_range"]), "another service might get its address"
    for each in services.values():
        assert re.search(r":\d", each["image"]) or each["image"] == "watchword"
    redis = services["redis"]["command"]
    assert redis[redis.index("--maxmemory-policy") + 1] == "noeviction"
    assert redis[redis.index("--appendfsync") + 1] == "always"


# --- systemd --------------------------------------------------------------------------------


def test_the_unit_is_one_that_systemd_takes_and_keeps_closed(
    systemd_analyze: str, tmp_path: Path, say: Say
) -> None:
    text = (DEPLOY / "watchword.service").read_text("utf-8")
    unit = tmp_path / "watchword.service"
    unit.write_text(text.replace("/opt/watchword/bin/watchword", WATCHWORD), "utf-8")
    verified = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert "watchword.service" not in verified.stderr, verified.stderr
    rated = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr
    level = re.search(r"exposure level for watchword.service: (\S+)", rated.stdout)
    assert level is not None
    say(f"deploy/watchword.service: systemd rates its exposure {level[1]} of 10")
    assert level[1] in (ROOT / "docs" / "deploy.md").read_text("utf-8")


def test_the_unit_names_settings_that_there_are(tmp_path: Path) -> None:
    lines = (DEPLOY / "watchword.service").read_text("utf-8").splitlines()
    pairs = [line.partition("=")[::2] for line in lines if "=" in line and line[0] != "#"]
    environ = dict(value.split("=", 1) for name, value in pairs if name == "Environment")
    assert environ.pop("WATCHWORD_SECRETS_DIR") == "%d"
    for name, value in pairs:
        if name == "LoadCredential":
            text = "sqlite:///app.db" if value.startswith("database:") else "console:"
            (tmp_path / value.partition(":")[0]).write_text(text)
    load({}, standard(), environ={**environ, "WATCHWORD_SECRETS_DIR": str(tmp_path)})
    (start,) = (value for name, value in pairs if name == "ExecStart")
    assert parses(shlex.split(start)[1:])


# --- proxies --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fullchain.pem and privkey.pem, signed by itself."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


@contextmanager
def proxy(
    command: list[str], port: int, log: Path, *, environ: dict[str, str] | None = None
) -> Generator[None]:
    """A proxy that listens; ended afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 30
        while True:
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < until, log.read_text("utf-8", "replace")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                break
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def through(certificate: Path, port: int, peer: str) -> httpx.Client:
    """A client at this address that takes the proxy for accounts.example.com."""
    trust = ssl.create_default_context(cafile=str(certificate / "fullchain.pem"))
    client = httpx.Client(
        base_url=f"https://127.0.0.1:{port}",
        headers={"Host": HOST},
        transport=httpx.HTTPTransport(verify=trust, local_address=peer),
        timeout=30,
    )

    def named(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = HOST

    client.event_hooks = {"request": [named]}
    return client


SPOOFED = {
    "X-Forwarded-For": "203.0.113.77",
    "Forwarded": "for=203.0.113.77;proto=https",
    "X-Real-IP": "203.0.113.77",
    "X-Forwarded-Host": "evil.example.com",
    "X-Forwarded-Proto": "http",
    "X-Request-ID": "spoofed-spoofed-spoofed",
}


def check_through_proxy(server: Running, client: httpx.Client, peer: str) -> None:
    """What a proxy in front must do: say who asks, and keep to itself what is not for strangers."""
    for path in ("/metrics", "/readyz", "/healthz"):
        assert client.get(path).status_code == 404
    answer = client.get("/.well-known/jwks.json", headers=SPOOFED)
    assert answer.status_code == 200, answer.text
    assert "max-age" in answer.headers["strict-transport-security"]
    email = f"{peer.replace('.', '-')}@example.com"
    made = Folder(path=server.log.parent).script(
        *("users", "create", email, "--password-stdin", "--data", str(server.log.parent / "data")),
        stdin=f"{PASSWORD}\n",
    )
    assert made.returncode == 0, made.stderr
    entered = client.post(
        "/auth/login",
        json={"email": email, "password": PASSWORD, "transport": "cookie"},
        headers=SPOOFED,
    )
    assert entered.status_code == 200, entered.text
    cookies = entered.headers.get_list("set-cookie")
    assert any(each.startswith("__Host-session=") and "Secure" in each for each in cookies)
    listed = client.get("/auth/sessions", headers=SPOOFED)
    assert listed.status_code == 200, listed.text
    (session,) = listed.json()["items"]
    assert session["address"] == peer, "the client's own address, whatever it says of itself"
    refused = client.get("/auth/nothing-here", headers=SPOOFED).json()
    assert "spoofed" not in refused.get("request_id", "")


def test_nginx_in_front_says_who_asks_and_nothing_that_they_claim(
    nginx: str, server: Running, certificate: Path, tmp_path: Path
) -> None:
    plain, tls = free_port(), free_port()
    site = (DEPLOY / "nginx.conf").read_text("utf-8")
    site = site.replace("/etc/ssl/accounts.example.com", str(certificate))
    site = site.replace(
        "server 127.0.0.1:8000;", f"server {server.address.removeprefix('http://')};"
    )
    site = re.sub(r"\n *listen \[::\]:.*", "", site)  # no two free ports of one number
    site = site.replace("listen 80;", f"listen 127.0.0.1:{plain};")
    site = site.replace("listen 443 ", f"listen 127.0.0.1:{tls} ")
    (tmp_path / "site.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"daemon off; worker_processes 1; pid {tmp_path}/pid; error_log stderr;\n"
        f"{'user root;' if os.geteuid() == 0 else ''}\n"
        f"events {{}} http {{ access_log off; {temporary} include {tmp_path}/site.conf; }}\n"
    )
    command = [nginx, "-p", str(tmp_path), "-e", "stderr", "-c", str(conf)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr, checked.stderr
    with proxy(command, tls, tmp_path / "log"):
        with through(certificate, tls, "127.0.0.9") as client:
            check_through_proxy(server, client, "127.0.0.9")
        answer = httpx.get(
            f"http://127.0.0.1:{plain}/auth/me?x=1", headers={"Host": "evil.example"}
        )
        assert answer.status_code == 301
        assert answer.headers["location"] == f"https://{HOST}/auth/me?x=1"


def test_caddy_in_front_says_who_asks_and_nothing_that_they_claim(
    server: Running, certificate: Path, tmp_path: Path, say: Say
) -> None:
    caddy = tool("caddy", "caddy")
    if caddy is None:
        say("caddy is not here and cannot be installed: deploy/Caddyfile was not checked")
        return
    tls, plain, admin = free_port(), free_port(), free_port()
    file = (DEPLOY / "Caddyfile").read_text("utf-8")
    assert "\ttls " not in file
    address = "{$DOMAIN:localhost} {\n"
    assert address in file
    file = file.replace(
        address, f"{HOST}:{tls} {{\n\ttls {certificate}/fullchain.pem {certificate}/privkey.pem\n"
    )
    options = f"{{\n\tadmin 127.0.0.1:{admin}\n\thttp_port {plain}\n\thttps_port {tls}\n}}\n"
    (tmp_path / "Caddyfile").write_text(options + file)
    environ = {
        **os.environ,
        "UPSTREAM": server.address.removeprefix("http://"),
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    named = ["--adapter", "caddyfile", "--config"]
    checked = subprocess.run(
        [caddy, "validate", *named, str(DEPLOY / "Caddyfile")],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    with (
        proxy(
            [caddy, "run", *named, str(tmp_path / "Caddyfile")],
            tls,
            tmp_path / "log",
            environ=environ,
        ),
        through(certificate, tls, "127.0.0.8") as client,
    ):
        check_through_proxy(server, client, "127.0.0.8")


# --- what docs/deploy.md says ---------------------------------------------------------------


def test_the_backup_of_sqlite_that_the_docs_name_holds_everybody(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    (script,) = re.findall(r"^python3 -c '([^']+)'", text, re.MULTILINE)
    folder = Folder(path=tmp_path)
    made = folder.run("users", "create", "ada@example.com", "--password-stdin", stdin=PASSWORD)
    assert made.returncode == 0, made.stderr
    arguments = ["data/watchword.db", "backup.db"]
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, check=True)
    listed = folder.run("users", "list", "--json", "--database", "sqlite:///backup.db")
    assert "ada@example.com" in listed.stdout
    assert folder.run("migrate", "--plan", "--database", "sqlite:///backup.db").returncode == 0


def test_the_page_of_deployment_names_settings_and_files_that_there_are() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    known = {each.env for each in load({}, standard(), environ={}).report}
    known |= {"WATCHWORD_SECRETS_DIR", "WATCHWORD_CONFIG", "WATCHWORD_MAIL"}
    for variable in set(re.findall(r"WATCHWORD_[A-Z_]+", text)):
        assert variable in known or variable.removesuffix("_FILE") in known, variable
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / link).exists(), link
    for name in re.findall(r"`(deploy/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name == "deploy/", name
    if is_ci():
        assert tool("nginx", "nginx-light"), "the proxies were not checked"
