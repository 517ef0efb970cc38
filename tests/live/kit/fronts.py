"""Proxies such as nginx in front of a server. Each reuses its connections, and forbids ``/v1``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.tools import tool

__all__ = ["FRONTS", "NGINX", "front"]

#: A configuration of nginx as a plain user in a directory of its own, but for its servers.
NGINX = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  %s
}}
"""
_NGINX = (
    NGINX
    % """
  upstream service {{ server 127.0.0.1:{behind}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location /v1 {{ return 403; }}
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream off;
    }}
  }}
"""
)
_HAPROXY = """
global
  maxconn 512
defaults
  mode http
  timeout connect 10s
  timeout client 30s
  timeout server 30s
  http-reuse always
  retries 0
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
  auto_https off
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
ProxyPass / http://127.0.0.1:{behind}/ keepalive=On flushpackets=on retry=0
"""
_MODULES = "/usr/lib/apache2/modules"

#: A proxy's program, its configuration, and how it is started with it.
FRONTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nginx": (_NGINX, ("-p", "{directory}", "-e", "stderr", "-c")),
    "haproxy": (_HAPROXY, ("-db", "-f")),
    "caddy": (_CADDY, ("run", "--adapter", "caddyfile", "--config")),
    "apache2": (_APACHE, ("-DFOREGROUND", "-f")),
}


@contextlib.contextmanager
def front(name: str, behind: Server, directory: Path, path: str = "/hello") -> Iterator[Server]:
    """A proxy in front of a server, until the end of the block.

    Args:
        name: the program, one of `FRONTS`; the test is skipped where the machine lacks it.
        behind: the server.
        directory: an empty one.
        path: what the server answers once it is there.
    """
    program, port = tool(name), free_port()
    layout, options = FRONTS[name]
    values = {"port": port, "behind": behind.port, "directory": directory, "modules": _MODULES}
    configuration = directory / f"{name}.conf"
    configuration.write_text(layout.format(**values))
    command = [program, *(each.format(**values) for each in options), str(configuration)]
    changes = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    with running(name, command, port, directory, changes, path) as server:
        yield server
