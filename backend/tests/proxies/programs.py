"""The proxies before the server and its database in the tests: real ones, installed where that is possible.

python -m tests.proxies.programs            # ends with 1 where none is there
python -m tests.proxies.programs install    # installs what is missing first; ends with a sentence where it cannot
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.harness import free_port, looks, port_is_open

_PACKAGES = {
    "nginx": "nginx-light",
    "caddy": "caddy",
    "haproxy": "haproxy",
    "pgbouncer": "pgbouncer",
    "systemd-analyze": "systemd",
}
_INSTALL = ["apt-get", "install", "-q", "-y", "--no-install-recommends"]

# As an operator who serves WebSockets elsewhere on the same host has it, without a buffer for what callers send.
_NGINX = """
pid {folder}/pid; error_log stderr; daemon off; worker_processes 1; master_process off;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream server {{ server 127.0.0.1:{server}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_request_buffering off; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""
_CADDY = """
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{server}
}}
"""
# As the others do by themselves, it sends a GET again whose connection the server was just closing.
_HAPROXY = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  http-reuse always
  retry-on conn-failure empty-response
listen proxy
  bind 127.0.0.1:{port}
  http-request disable-l7-retry unless METH_GET
  server server 127.0.0.1:{server}
"""

_COMMANDS: dict[str, tuple[str, Callable[[Path], Sequence[str]]]] = {
    "nginx": (_NGINX, lambda file: ["nginx", "-p", str(file.parent), "-c", str(file)]),
    "caddy": (_CADDY, lambda file: ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]),
    "haproxy": (_HAPROXY, lambda file: ["haproxy", "-db", "-f", str(file)]),
}


def found() -> Sequence[str]:
    """The names of those that are on this machine and speak HTTP."""
    return [name for name in _COMMANDS if program(name)]


def program(name: str) -> str | None:
    """The path of this program, where it is installed."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


@contextmanager
def proxy(name: str, *, server: int, folder: Path) -> Iterator[int]:
    """The loopback port on which this proxy passes requests on to the port `server`, until the block ends."""
    port = free_port()
    with run_proxy(name, _COMMANDS[name][0].format(port=port, server=server, folder=folder), port=port, folder=folder):
        yield port


@contextmanager
def run_proxy(name: str, configuration: str, *, port: int, folder: Path) -> Iterator[None]:
    """Runs this proxy with a configuration in which it listens on the port. Its file and its log are in the folder."""
    file = folder / "configuration"
    file.write_text(configuration)
    environment = {"PATH": f"{os.defpath}:/usr/sbin", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(_COMMANDS[name][1](file), env=environment, stdout=log, stderr=log)
    try:
        for _ in looks():
            if port_is_open(port) or process.poll() is not None:
                break
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait()


def install(packages: Mapping[str, str] = _PACKAGES) -> None:
    """Debian's packages of the programs that are missing. Raises SystemExit with a sentence where it cannot."""
    missing = [package for name, package in packages.items() if not program(name)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"Only root on a Debian installs them here. Install {', '.join(missing)}, and run this again.")
    # Nothing of theirs is started: an installed service would listen on the ports of the whole machine.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["apt-get", "update", "-q"], [*_INSTALL, *missing]):
        subprocess.run(command, env=environment, check=False)
    if not all(program(name) for name in packages):
        raise SystemExit(f"apt-get could not install {', '.join(missing)}.")


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    sys.exit(not found())
