from __future__ import annotations

import pytest

from sseflask.web.rate_limits import client_network


@pytest.mark.parametrize(
    ("addresses", "network"),
    [
        (
            [
                "1.2.3.4",
                "1.2.3.4:1111",
                " 1.2.3.4:2222 ",
                '"1.2.3.4"',
                "::ffff:1.2.3.4",
                "[::ffff:1.2.3.4]:80",
                "::FFFF:102:304",
                "64:ff9b::1.2.3.4",
                "2002:102:304:7::9",
                "2001:0:4136:e378:8000:63bf:fefd:fcfb",
            ],
            "1.2.3.4",
        ),
        (
            [
                "2001:db8:0:7::1",
                "2001:DB8:0:7:ffff::",
                "[2001:db8:0:7::2]",
                "[2001:db8:0:7::2]:443",
                '"[2001:db8:0:7::3]:1"',
                "2001:db8:0:7::4%eth0",
            ],
            "2001:db8:0:7::/64",
        ),
        (["::1", "[::1]:9"], "::/64"),
        (["fe80::1%eth0", "fe80::2%25eth1"], "fe80::/64"),
        (
            [
                "",
                None,
                "unknown",
                "_hidden",
                "unix:",
                "1.2.3",
                "001.2.3.4",
                "1.2.3.4.5",
                "[",
                "::x",
                "\uff11.2.3.4",
                "1.2.3.4, 5.6.7.8",
                "x" * 10000,
            ],
            "unknown",
        ),
    ],
)
def test_what_counts_as_one_client(addresses: list[str | None], network: str) -> None:
    assert {each: client_network(each) for each in addresses} == dict.fromkeys(addresses, network)
