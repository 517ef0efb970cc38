"""Proxies of others on this machine, each told to keep ``/v1`` from everybody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.live.servers import Server, free_port, running

__all__ = ["FRONTS", "front"]

_HAPROXY = """
defaults
  mode http
  timeout connect 10s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port}
  http-request deny if {{ path_beg /v1 }}
  default_backend service
backend service
  server service 127.0.0.1:{behind}
"""
_CADDY = """
{{
  admin off
}}
http://127.0.0.1:{port} {{
  @v1 path /v1 /v1/*
  respond @v1 403
  reverse_proxy 127.0.0.1:{behind}
}}
"""
_APACHE = """
ServerRoot {directory}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {directory}/apache.pid
ErrorLog /dev/stderr
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
DefaultRuntimeDir {directory}
<Location /v1>
  Require all denied
</Location>
ProxyPass / http://127.0.0.1:{behind}/
"""
_MODULES = "/usr/lib/apache2/modules"

#: A proxy's program, its configuration, and how it is started with it.
FRONTS: dict[str, tuple[str, list[str]]] = {
    "haproxy": (_HAPROXY, ["-db", "-f"]),
    "caddy": (_CADDY, ["run", "--adapter", "caddyfile", "--config"]),
    "apache2": (_APACHE, ["-DFOREGROUND", "-f"]),
}


@contextlib.contextmanager
def front(program: str, behind: Server, directory: Path) -> Iterator[Server]:
    """A proxy in front of a server, until the end of the block.

    Args:
        program: the path of one of `FRONTS`.
        behind: the server.
        directory: an empty one.
    """
    port, name = free_port(), Path(program).name
    layout, options = FRONTS[name]
    configuration = directory / f"{name}.conf"
    configuration.write_text(
        layout.format(port=port, behind=behind.port, directory=directory, modules=_MODULES)
    )
    command = [program, *options, str(configuration)]
    changes = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    with running(name, command, port, directory, changes, "/healthz") as server:
        yield server
