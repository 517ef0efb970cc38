"""nginx with its module nchan, pub/sub in C: a reference for what takes no generator.

python -m benchmarks.servers.nchan 8000 1 becomes nginx on that port with one worker process, all
settings as nchan's documentation has them, limits beyond what a scenario reaches. `/open`
subscribes to a channel that holds one event, `/channel/<name>` to what comes from then on,
`/publish/<name>` takes the data of an event as the body of a POST.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.server_process import wait_until
from benchmarks.stack import Stack

# Where there is no /usr/sbin in the PATH nginx is there nevertheless.
_NGINX = "nginx" if shutil.which("nginx") else "/usr/sbin/nginx"
_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
if not shutil.which(_NGINX):
    raise ImportError("no nginx (Debian: nginx-light)")
if not _MODULE.exists():
    raise ImportError("no nchan module for nginx (Debian: libnginx-mod-nchan)")

STACK = Stack(
    name="nchan",
    title="nginx nchan (C)",
    family="bare",
    command=(sys.executable, "-m", "benchmarks.servers.nchan", "{port}", "1"),
    packages=(),
    programs={"nginx": (_NGINX, "-v"), "nchan": ("dpkg-query", "--show", "libnginx-mod-nchan")},
    routes={
        "open": "/open",
        "subscribe": "/channel/{channel}",
        "resume": "/channel/{channel}",
        "publish": "/publish/{channel}",
    },
)

_CONNECTIONS = 20_000
_START_PATIENCE = 10.0

_CONFIGURATION = """
load_module {module};
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    keepalive_timeout 1h;
    nchan_shared_memory_size 128m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /open {{
            nchan_subscriber eventsource;
            nchan_channel_id open;
            nchan_subscriber_first_message oldest;
        }}
        location ~ ^/channel/([\\w.]+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/publish/([\\w.]+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
        }}
    }}
}}
"""


def main(port: int, workers: int) -> None:
    """Become nginx; a child process publishes the event, and takes the files away at the end."""
    directory = Path(tempfile.mkdtemp(prefix="benchmark-nchan-"))
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            module=_MODULE,
            directory=directory,
            descriptors=descriptors,
            connections=min(_CONNECTIONS, descriptors),
            port=port,
            workers=workers,
        )
    )
    server = os.getpid()
    # Open in nginx's processes: its other end says when the last of them is gone, however it ended.
    gone, alive = os.pipe()
    if os.fork():
        os.set_inheritable(alive, True)
        os.execvp(_NGINX, [_NGINX, "-c", str(configuration), "-p", str(directory)])
    # Out of the session that is killed with the server. nginx reads its files again at a reload.
    os.setsid()
    os.close(alive)
    pid = directory / "nginx.pid"
    wait_until(lambda: pid.exists() or os.getppid() != server, _START_PATIENCE)
    try:
        if os.getppid() == server:
            _publish(port)
    finally:
        os.read(gone, 1)
        shutil.rmtree(directory)


def _publish(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request("POST", "/publish/open", body=b"0")
        status = connection.getresponse().status
    if status not in (201, 202):
        sys.exit(f"nchan: status {status} on publishing")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
