"""The limits of platforms and proxies for streams, and the settings that fit them.

Imported by gunicorn's arbiter: the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sseflask.defaults import LIBRARY
from sseflask.errors import ConfigError

SETTING = "SSEFLASK_PLATFORM"
#: The value that switches the detection off.
NONE = "none"

#: The number of heartbeats within a limit on silence: two may be late.
HEARTBEATS = 3


@dataclass(frozen=True)
class Proxy:
    """The limits of a proxy, in seconds; ``None`` for no limit.

    Args:
        source: the documentation of its limits.
        first_byte: the time in which a response must begin.
        idle: the silence after which it cuts a stream.
        total: the age at which it cuts a stream.
        reuse: how long a connection may be idle and still be used for the next request.
    """

    title: str
    source: str
    first_byte: float | None = None
    idle: float | None = None
    total: float | None = None
    reuse: float | None = None


@dataclass(frozen=True)
class Platform:
    """A platform on which the service may run.

    Args:
        name: the value of ``SSEFLASK_PLATFORM``.
        variable: a variable that the platform sets in the environment of each process.
        kill: seconds between SIGTERM and SIGKILL.
        proxies: the number of its entries in ``X-Forwarded-For``; ``None`` if not documented.
        volumes: whether a file can outlive a deploy.
    """

    name: str
    variable: str
    proxy: Proxy
    kill: float
    proxies: int | None = None
    volumes: bool = True

    def is_of(self, environment: Mapping[str, str]) -> bool:
        named = environment.get(SETTING)
        return named == self.name if named else bool(environment.get(self.variable))

    @property
    def grace(self) -> int:
        """Seconds that streams have to end; the rest is gunicorn's."""
        return int(self.kill * 5 / 6)

    @property
    def keepalive(self) -> int | None:
        """Seconds for which a connection stays open between requests.

        Longer than the platform reuses it: otherwise a request may arrive while the connection is
        closed, and the client gets an error.
        """
        return int(self.proxy.reuse) + 5 if self.proxy.reuse else None


#: Proxies that are not part of a platform.
PROXIES = (
    Proxy("nginx", "https://nginx.org/en/docs/http/ngx_http_proxy_module.html", 60, 60),
    Proxy(
        "AWS ALB",
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/"
        "application-load-balancers.html",
        60,
        60,
        reuse=60,
    ),
    Proxy(
        "Cloudflare",
        "https://developers.cloudflare.com/fundamentals/reference/connection-limits/",
        100,
        100,
    ),
    Proxy(
        "Azure App Service",
        "https://learn.microsoft.com/en-us/troubleshoot/azure/app-service/web-apps-performance-faqs",
        230,
        230,
    ),
)

#: In the order of the detection.
PLATFORMS = (
    Platform(
        "heroku",
        "DYNO",
        Proxy("Heroku", "https://devcenter.heroku.com/articles/http-routing", 30, 55, reuse=90),
        kill=30,
        # "X-Forwarded-For: the originating IP address of the client", which the router appends.
        proxies=1,
        volumes=False,
    ),
    Platform("render", "RENDER", Proxy("Render", "https://render.com/docs/web-services"), kill=30),
    Platform(
        "fly",
        "FLY_APP_NAME",
        Proxy("Fly", "https://fly.io/docs/reference/configuration/", 60, 60),
        kill=5,
        # The last one is the app's own address, the one before it the client's.
        proxies=2,
    ),
    Platform(
        "cloud_run",
        "K_SERVICE",
        Proxy("Cloud Run", "https://cloud.google.com/run/docs/container-contract", total=300),
        kill=10,
        proxies=1,
        # Only network file systems can be mounted, on which SQLite's write-ahead log does not work.
        volumes=False,
    ),
    Platform(
        "railway",
        "RAILWAY_ENVIRONMENT_ID",
        Proxy(
            "Railway",
            "https://docs.railway.com/networking/public-networking/specs-and-limits",
            total=900,
            reuse=60,
        ),
        kill=30,
    ),
)
NAMES = tuple(each.name for each in PLATFORMS)
#: The variables by which platforms are detected.
DETECTING = tuple(each.variable for each in PLATFORMS)

_ALL = (*(each.proxy for each in PLATFORMS), *PROXIES)
#: The shortest limits in seconds: a stream below both is cut by none of these.
SHORTEST_FIRST_BYTE = min(each.first_byte for each in _ALL if each.first_byte)
SHORTEST_IDLE = min(each.idle for each in _ALL if each.idle)


def detected_by(environment: Mapping[str, str]) -> str | None:
    """The variable by which the platform is detected; none if the operator has named one."""
    if environment.get(SETTING):
        return None
    return next((each for each in DETECTING if environment.get(each)), None)


def detect(environment: Mapping[str, str]) -> Platform | None:
    """The platform that the operator names, or that a variable shows; may raise `ConfigError`."""
    found = next((each for each in PLATFORMS if each.is_of(environment)), None)
    named = environment.get(SETTING)
    if found is None and named and named != NONE:
        raise ConfigError(
            f"{SETTING}={named[:80]!r} is not allowed: there is no such platform "
            f"(allowed: {', '.join((*NAMES, NONE))})"
        )
    return found


def loses_files(environment: Mapping[str, str]) -> bool:
    """Whether no file outlives a deploy on this platform."""
    return any(each.is_of(environment) and not each.volumes for each in PLATFORMS)


def settings_for(platform: Platform) -> dict[str, int | float | str]:
    """The settings that a platform's limits decide.

    Streams are rotated a little before the platform cuts them: they end properly, and their clients
    resume.
    """
    proxy = platform.proxy
    found: dict[str, int | float | str] = {SETTING: platform.name, "SSEFLASK_GRACE": platform.grace}
    if proxy.idle:
        found["SSEFLASK_HEARTBEAT"] = min(LIBRARY["SSEFLASK_HEARTBEAT"], proxy.idle / HEARTBEATS)
    if proxy.total:
        found["SSEFLASK_LIFETIME"] = int(proxy.total * 14 / 15)
    if platform.proxies is not None:
        found["SSEFLASK_TRUSTED_PROXIES"] = platform.proxies
    return found
