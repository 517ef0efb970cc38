from __future__ import annotations

from unittest import mock

import pytest

from sseflask.store.sqlite import durability as disk
from tests.service import environment

VOLUME = "/var/lib/sse flask/channels.sqlite3"
MOUNTS = [
    "21 1 0:20 / / rw - overlay overlay rw",
    r"22 21 8:1 / /var/lib/sse\040flask rw shared:1 - ext4 /dev/sda1 rw",
    r"23 22 0:21 / /var/lib/sse\040flask/fast rw - tmpfs tmpfs rw",
]


@pytest.mark.parametrize(
    ("path", "variables", "kept"),
    [
        (":memory:", {"DYNO": "web.1"}, "memory"),
        ("/app/instance/channels.sqlite3", {}, "ephemeral"),
        (VOLUME, {}, "disk"),
        ("/var/lib/sse flask/fast/channels.sqlite3", {}, "ephemeral"),
        (VOLUME, {"FLY_APP_NAME": "app"}, "disk"),
        # No file outlives a deploy there, whatever file system it is on.
        (VOLUME, {"DYNO": "web.1"}, "ephemeral"),
        (VOLUME, {"SSEFLASK_PLATFORM": "cloud_run"}, "ephemeral"),
        (VOLUME, {"DYNO": "web.1", "SSEFLASK_PLATFORM": "none"}, "disk"),
    ],
)
def test_what_keeps_a_file(path: str, variables: dict[str, str], kept: str) -> None:
    with environment(**variables), mock.patch.object(disk, "_mounts", return_value=MOUNTS):
        assert disk.durability_of(path) == kept
