"""What hostile pages, files and people send: one table a kind, shared by the tests and counted in docs/security.md.

`python tests/hostile_inputs.py` prints the counts.
"""

# ruff: noqa: RUF001 - that they look alike is what they are for

from __future__ import annotations

from tests.support import hostile_tars

PRIVATE_HOSTS = [
    # IPv4 as libc and browsers read it
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7F.1", "017700000001"),
    *("0177.0.0.1", "0177.0x0.0.1", "00000000000000000177.1", "127.255.255.254", "0.0.0.0", "0", "0x0"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0xa9fea9fe", "2852039166"),
    *("0xa9.0xfe.0xa9.0xfe", "100.64.0.1", "100.100.100.200", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.0.0.192", "192.88.99.1"),
    "168.63.129.16",
    # IPv6, and IPv4 within it
    *(
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:10.0.0.1]",
    ),
    *("[::ffff:0:127.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]"),
    *("[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:7f00:1::]"),
    *("[2001:0:808:808:0:0:f5ff:fffe]", "[2606:4700::5efe:7f00:1]", "[2606:4700::200:5efe:a00:1]"),
    *("[fe80::1]", "[febf::1]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[fd12:3456::1]"),
    *("[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[100::1]"),
    # digits and dots of other scripts, which IDNA makes ASCII
    *("１２７.０.０.１", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "①②⑦.0.0.1", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "１６９.254.169.254"),
    # names
    *("localhost", "LOCALHOST", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ"),
]
"""Hosts that are not on the open internet: refused as `private_address`, never contacted."""

REFUSED_URLS = {
    # schemes
    "file:///etc/passwd": "bad_scheme",
    "FILE:///etc/passwd": "bad_scheme",
    "ftp://public.example/x.jpg": "bad_scheme",
    "data:image/gif;base64,R0lGOD": "bad_scheme",
    "gopher://public.example:70/_x": "bad_scheme",
    "dict://public.example:11211/stat": "bad_scheme",
    "ldap://public.example/": "bad_scheme",
    "jar:http://public.example!/x": "bad_scheme",
    "javascript:alert(1)": "bad_scheme",
    "url:http://127.0.0.1/": "bad_scheme",
    "netdoc:/etc/passwd": "bad_scheme",
    "unix:///var/run/docker.sock": "bad_scheme",
    # no URL, or no host
    "not a url": "bad_url",
    "": "bad_url",
    "http://": "bad_url",
    "http:///x.jpg": "bad_url",
    "http:////127.0.0.1/x": "bad_url",
    "http:127.0.0.1/x": "bad_url",
    "http:/127.0.0.1/x": "bad_url",
    "http:\\\\127.0.0.1\\x": "bad_url",
    "http://[::1/x.jpg": "bad_url",
    "http://[127.0.0.1]/": "bad_url",
    "http://[fe80::1%25eth0]/": "bad_url",
    "http://[fe80::1%eth0]/": "bad_url",
    # user names, and what other readers would take for the host
    "http://user@public.example/x.jpg": "userinfo",
    "http://user:secret@public.example/x.jpg": "userinfo",
    "http://public.example@127.0.0.1/": "userinfo",
    "http://public.example:80@127.0.0.1:80/x": "userinfo",
    "http://[::1]:80@public.example/": "userinfo",
    "http://127.0.0.1\\@public.example/": "userinfo",
    "http://public.example\\@127.0.0.1/": "userinfo",
    "http://public.example%2f@127.0.0.1/": "userinfo",
    "http://public.example%23@127.0.0.1/": "userinfo",
    "http://127.0.0.1\\.public.example/": "bad_url",
    "http://user%40public.example/": "bad_url",
    "http://public.example%2f.evil.example/": "bad_url",
    "http://127%2e0%2e0%2e1/": "bad_url",
    "http://%31%32%37.0.0.1/": "bad_url",
    "http://public.example%00.evil.example/": "bad_url",
    "http://public.example\u2100/x": "bad_url",
    "http://pub lic.example/x": "bad_url",
    "http://<public.example>/": "bad_url",
    # line ends and control characters
    "http://public.example/a b\r\nX-Injected: 1": "bad_url",
    "http://public.example/\r\nHost: 127.0.0.1": "bad_url",
    "http://public.example%0d%0aX:%20y/": "bad_url",
    "http://pub\tlic.example/x": "bad_url",
    "http://pub\nlic.example/x": "bad_url",
    "http://public.example/x\x00y": "bad_url",
    "http://public.example/\x1b]0;owned\x07": "bad_url",
    "http://public.example/\x7f": "bad_url",
    # ports
    "http://public.example:99999/": "bad_url",
    "http://public.example:-1/": "bad_url",
    "http://public.example:+80/": "bad_url",
    "http://public.example:８0/": "bad_url",
    "http://public.example:80:80/": "bad_url",
    "http://public.example:port/": "bad_url",
    "http://public.example%3A22/": "bad_url",
    "http://public.example:0/": "bad_port",
    "http://public.example:22/": "bad_port",
    "http://public.example:25/": "bad_port",
    "http://public.example:81/": "bad_port",
    "https://public.example:993/": "bad_port",
    "http://public.example:2375/": "bad_port",
    "http://public.example:3306/": "bad_port",
    "http://public.example:5432/": "bad_port",
    "http://public.example:6379/": "bad_port",
    "http://public.example:9200/": "bad_port",
    "http://public.example:11211/": "bad_port",
    "http://public.example:27017/": "bad_port",
}
"""URL -> why it is refused, without a look-up."""

REDIRECTS = {
    "file:///etc/passwd": "bad_scheme",
    "ftp://127.0.0.1/x": "bad_scheme",
    "data:image/png;base64,AA": "bad_scheme",
    "gopher://127.0.0.1:6379/_FLUSHALL": "bad_scheme",
    "http://10.0.0.1/x.jpg": "private_address",
    "//10.0.0.1/x.jpg": "private_address",
    "http://169.254.169.254/latest/meta-data/iam": "private_address",
    "http://[fd00:ec2::254]/latest/meta-data": "private_address",
    "http://100.100.100.200/latest/meta-data": "private_address",
    "http://[::ffff:10.0.0.1]/x.jpg": "private_address",
    "http://2852039166/latest/": "private_address",
    "http://0/": "private_address",
    "http://user:secret@127.0.0.1/x.jpg": "userinfo",
    "http://public.example%3A22/": "bad_url",
    "http://127.0.0.1\\.public.example/": "bad_url",
    "http://127.0.0.1:22/": "bad_port",
    "http://127.0.0.1:6379/": "bad_port",
    "http://[::1": "bad_url",
}
"""Where a page that was allowed (127.0.0.0/8) sends us -> why we don't go."""


RAN = "document.documentElement.setAttribute('data-ran','1')"
"""What a script does if it is run."""

TEXTS = [
    # HTML and scripts
    f"<script>{RAN}</script>",
    f"</title></p></pre><script>{RAN}</script>",
    f'"><img src=x onerror="{RAN}">',
    f"'><svg/onload={RAN}>",
    f'<iframe srcdoc="<script>parent.{RAN}</script>">',
    f'<a href="javascript:{RAN}" autofocus onfocus="{RAN}">x</a>',
    f"</script><script>{RAN}</script>",
    f"<!--<script>{RAN}</script>-->]]><script>{RAN}</script>",
    f"</style><script>{RAN}</script><style>",
    f"`${{{RAN}}}` {{{{7*7}}}} {{% raw %}} {{{{ cycler.__init__.__globals__ }}}}",
    f"<math><mtext><table><mglyph><style><img src=x onerror={RAN}>",
    "&lt;b&gt; &amp; &#60;script&#62; &#x3c;",
    f'" onmouseover="{RAN}" style="position:fixed;inset:0" x="',
    f"\u2028{RAN}\u2029",
    # Markdown
    "![x](http://192.0.2.1/pixel.png) [click](javascript:alert(1)) <http://192.0.2.1>",
    "| a | b |\n|---|---|\n| **bold** _it_ ~~no~~ `code` |",
    "# heading\n\n---\n```\nfence\n```",
    "http://192.0.2.1/auto www.evil.example",
    # terminals
    "\x1b]0;owned\x07title",
    "\x1b[2J\x1b[H\x1b[31mred\x1b[0m",
    "\x9b31mred\x9c \x90q\x9c",
    "\x1b]8;;http://192.0.2.1\x07link\x1b]8;;\x07",
    "\x1b]52;c;cm0gLXJmIC8K\x07",
    "over\rwritten\x08\x08\x08 \x7f\x00",
    "[bold red]markup[/] [/nonsense] [link=http://192.0.2.1]x[/link]",
    # directions, widths, half characters
    "\u202egnp.exe\u202c",
    "\u2066isolate\u2069 \u200e\u200f \u061c",
    "zero\u200bwidth\ufeff\u00ad \u2060joiner",
    "tag \U000e0041\U000e0042 \ufff9a\ufffab\ufffb",
    "z\u0335\u0322\u031b" * 20,
    # spreadsheets, shells, formats
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+1\t-1",
    "$(touch /tmp/owned) `id` ; rm -rf / # '\"\\",
    "%s %n %x {0} {a.__class__} $\\frac{1$",
    "a" * 5000,
]
"""Captions, URLs, names of columns and files that would like to be more than text."""


FUZZED = {"images": 200, "films": 30, "captions": 300, "tables": 300, "weights": 200}
"""Damaged files of each kind that every run of the tests tries."""

BY_GRAMMAR = {"caption files": 1_000, "caption entries": 1_000, "rows": 200, "HTTP answers": 300}
"""Inputs of each kind that a grammar writes in every run of the tests."""


def counts() -> dict[str, int]:
    """How many there are of each kind, as docs/security.md says."""
    return {
        "hosts that are not public, in all spellings": len(PRIVATE_HOSTS),
        "URLs refused on sight": len(REFUSED_URLS),
        "redirects": len(REDIRECTS),
        "archives": hostile_tars.COUNT,
        "texts": len(TEXTS),
        **{f"damaged files: {kind}": count for kind, count in FUZZED.items()},
        **{f"by grammar: {kind}": count for kind, count in BY_GRAMMAR.items()},
    }


if __name__ == "__main__":
    for name, count in counts().items():
        print(f"{count:6}  {name}")  # noqa: T201
