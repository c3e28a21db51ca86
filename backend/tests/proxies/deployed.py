"""The files of `ops/` for nginx, Caddy and HAProxy, run as they are but for their ports and their certificate."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from ssl import create_default_context

import httpx2
from tests.harness import PATIENCE_SECONDS, free_port
from tests.proxies.programs import run_proxy
from tests.standins.authority import Authority

HOST = "images.example.com"
"""The name in the files."""
FILES = {"nginx": "nginx/nanobanana.conf", "caddy": "caddy/Caddyfile", "haproxy": "haproxy/haproxy.cfg"}

_OPS = Path(__file__).parents[3] / "ops"
# nginx's own file, which includes those of /etc/nginx/conf.d/.
_NGINX = """
pid {folder}/pid; error_log stderr; daemon off; worker_processes 1; master_process off;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
{site}
}}
"""
_CADDY = "{{\n\tadmin off\n\thttp_port {plain}\n\thttps_port {port}\n}}\n{site}"
_WHOLE = {"nginx": _NGINX, "caddy": _CADDY, "haproxy": "{site}"}


class Deployed(httpx2.AsyncHTTPTransport):
    """Connects to a proxy on this machine for every host, from a local address of the client's choice."""

    def __init__(self, authority: Authority, port: int, *, address: str = "127.0.0.1") -> None:
        context = create_default_context(cafile=authority.ca_file)
        super().__init__(verify=context, local_address=address)
        self._port = port

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "sni_hostname": HOST}
        request.url = request.url.copy_with(host="127.0.0.1", port=self._port)  # the header Host is there already
        return await super().handle_async_request(request)

    def client(self) -> httpx2.AsyncClient:
        """A client that has not been used yet."""
        return httpx2.AsyncClient(transport=self, base_url=f"https://{HOST}", timeout=PATIENCE_SECONDS)


@contextmanager
def deployed(name: str, authority: Authority, servers: tuple[int, int], folder: Path) -> Iterator[tuple[int, int]]:
    """Runs this proxy with its file before two servers on these loopback ports. Yields its ports for HTTPS and HTTP."""
    port, plain = free_port(), free_port()
    authority.server(HOST)
    certificate = authority.ca_file.parent / f"{HOST}.pem"
    changes: Mapping[str, Mapping[str, str]] = {
        "nginx": {
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            "/etc/nginx/tls/fullchain.pem": str(certificate),
            "/etc/nginx/tls/privkey.pem": str(certificate),
        },
        "caddy": {f"\n{HOST} {{": f"\n{HOST} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}"},
        "haproxy": {
            "bind :80\n": f"bind 127.0.0.1:{plain}\n",
            "bind :443 ": f"bind 127.0.0.1:{port} ",
            "/etc/haproxy/tls/nanobanana.pem": str(certificate),
        },
    }
    site = (_OPS / FILES[name]).read_text()
    first, second = (f"127.0.0.1:{server}" for server in servers)
    for old, new in {**changes[name], "127.0.0.1:8000": first, "127.0.0.1:8001": second}.items():
        assert old in site, old
        site = site.replace(old, new)
    whole = _WHOLE[name].format(site=site, folder=folder, port=port, plain=plain)
    with run_proxy(name, whole, port=port, folder=folder):
        yield port, plain
