"""Files that deployments are made of, read by what they are for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
import yaml
from compose_spec import PyCompose

from sseflask.config import CLIENT_NAMES, Settings, rows
from sseflask.defaults import LIBRARY
from sseflask.platforms import DETECTING, PLATFORMS
from tests.documents.blocks import blocks
from tests.live.kit.fronts import NGINX
from tests.live.kit.servers import ROOT, environment, free_port
from tests.live.kit.tools import tool

PROXIES = ROOT / "docs" / "proxies"
DOCUMENT = ROOT / "docs" / "deploy.md"
RECIPES = DOCUMENT.read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))

#: How each proxy is asked whether it takes a file; the name of the file comes last.
ASKED = {
    "nginx.conf": ("nginx", "-t", "-p", "{directory}", "-e", "stderr", "-c"),
    "Caddyfile": ("caddy", "validate", "--adapter", "caddyfile", "--config"),
    "haproxy.cfg": ("haproxy", "-c", "-f"),
}


def texts_in(language: str) -> list[str]:
    return [each.text for each in blocks(DOCUMENT) if each.language == language]


def test_every_file_of_a_proxy_is_looked_at() -> None:
    assert {path.name for path in PROXIES.iterdir()} == set(ASKED)
    assert not texts_in("nginx"), "a file can be tested"


@pytest.mark.parametrize("name", ASKED)
def test_a_proxy_takes_its_file(name: str, tmp_path: Path) -> None:
    program, *options = ASKED[name]
    # It may not be allowed to listen on port 80.
    text = (PROXIES / name).read_text().replace(" 80;", f" {free_port()};")
    text = text.replace("bind :80", f"bind :{free_port()}")
    path = tmp_path / name
    path.write_text(NGINX.format() % text if name == "nginx.conf" else text)
    done = subprocess.run(
        [tool(program), *(each.format(directory=tmp_path) for each in options), str(path)],
        env=environment(XDG_DATA_HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"(?i)\[warn\]|\[warning\]|deprecated", done.stderr), done.stderr


def test_caddy_takes_the_domain_and_the_address_of_compose() -> None:
    caddy = COMPOSE["services"]["caddy"]["environment"]
    done = subprocess.run(
        [tool("caddy"), "adapt", "--config", str(PROXIES / "Caddyfile")],
        env=environment(SSEFLASK_SITE="example.org", SSEFLASK_ADDRESS=caddy["SSEFLASK_ADDRESS"]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (server,) = json.loads(done.stdout)["apps"]["http"]["servers"].values()
    assert server["listen"] == [":443"], "with TLS, and the certificate of the domain"
    assert server["routes"][0]["match"] == [{"host": ["example.org"]}]
    assert '"dial":"sseflask:8000"' in done.stdout


def test_the_dockerfile_has_no_findings() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_compose_is_what_its_specification_allows() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert sorted(PyCompose.from_yaml(text).service_names()) == ["caddy", "sseflask"]
    with pytest.raises(ValueError, match="stop_grace"):
        PyCompose.from_yaml(text.replace("stop_grace_period", "stop_grace"))


def test_compose_has_no_findings() -> None:
    """It has none but a few on purpose: the rules, and why."""
    meant = {
        "CL-0005": "the front is for everybody",
        "CL-0007": "Caddy keeps its certificates",
        "CL-0019": "a tag of Caddy's first major version gets its fixes",
        "CL-0026": "how much memory there is depends on the machine",
    }
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("compose-lint")),
            *("--fail-on", "low", "--format", "json"),
            str(ROOT / "compose.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    assert {each["rule_id"] for each in json.loads(done.stdout)["findings"]} <= set(meant)


def test_compose_fits_the_dockerfile_and_the_service() -> None:
    sseflask, caddy = COMPOSE["services"]["sseflask"], COMPOSE["services"]["caddy"]
    grace = Settings.model_fields["grace"].default
    assert int(sseflask["stop_grace_period"].removesuffix("s")) > grace
    (volume,) = sseflask["volumes"]
    name, path = volume.split(":")
    assert name in COMPOSE["volumes"]
    assert f"VOLUME {path}\n" in DOCKERFILE
    port = re.search(r"PORT=(\d+)", DOCKERFILE)
    assert port
    assert caddy["environment"]["SSEFLASK_ADDRESS"] == f"sseflask:{port[1]}"
    caddyfile, *_ = caddy["volumes"]
    assert (ROOT / caddyfile.split(":")[0]).is_file()
    known = {row.name for row in rows()}
    assert set(sseflask["environment"]) <= known


def test_the_recipe_for_fly() -> None:
    (text,) = texts_in("toml")
    made = tomli.loads(text)
    settings = made["env"]
    # By itself Fly sends SIGINT, and SIGKILL after 5 s.
    assert made["kill_signal"] == "SIGTERM"
    assert made["kill_timeout"] > int(settings["SSEFLASK_GRACE"])
    assert settings["PORT"] == str(made["http_service"]["internal_port"])
    keeps(settings, made["mounts"]["destination"])


def test_the_recipe_for_render() -> None:
    (text,) = (each for each in texts_in("yaml") if each.startswith("services:"))
    (service,) = yaml.safe_load(text)["services"]
    (render,) = (each for each in PLATFORMS if each.name == "render")
    assert service["maxShutdownDelaySeconds"] == render.kill
    assert service["startCommand"] == (ROOT / "Procfile").read_text().split(": ")[1].strip()
    settings = {each["key"]: each.get("value", "") for each in service["envVars"]}
    keeps(settings, service["disk"]["mountPath"])


def keeps(settings: dict[str, str], volume: str) -> None:
    """What is kept is on the volume."""
    for name in ("SSEFLASK_CHANNEL_LOG", "SSEFLASK_RUN_LOG"):
        assert settings[name].startswith(f"{volume}/")


def test_every_setting_in_the_recipes_is_one() -> None:
    known = {row.name for row in rows()} | set(CLIENT_NAMES) | set(LIBRARY)
    known |= {"SSEFLASK_SITE", "SSEFLASK_ADDRESS"}
    texts = [RECIPES, DOCKERFILE, (ROOT / "compose.yaml").read_text(encoding="utf-8")]
    texts += [path.read_text() for path in (ROOT / "docs" / "systemd").iterdir()]
    named = {name for text in texts for name in re.findall(r"\bSSEFLASK_[A-Z_]+\b", text)}
    assert named <= known
    assert all(f"`{variable}`" in RECIPES for variable in DETECTING)


def test_the_pythons_of_deployments_are_supported() -> None:
    images = re.findall(r"FROM python:([\d.]+)-slim", DOCKERFILE)
    assert len(images) == 2
    versions = {(ROOT / ".python-version").read_text().strip(), *images}
    supported = (ROOT / "setup.cfg").read_text()
    assert all(f"Programming Language :: Python :: {each}\n" in supported for each in versions)
