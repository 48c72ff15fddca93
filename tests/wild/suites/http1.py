"""HTTP/1.1 rules of RFC 9110, RFC 9112 and RFC 3986, each with the section that it tests.

Two suites: `parsing` is the plain reading of requests, whole and in fragments, as conformance tests of servers try it;
`rules` is what a server must reject, as scanners for ambiguous parsing try it. A rejected request must not reach the
upstream, and one that a server may accept must arrive with a clear reading.
"""

import itertools

from .gate import running
from .result import Result, run_all
from .wire import Connection, Upstream, outcome

HOST = b"Host: gate.test\r\n"
# A server that cannot respond any more may close the connection.
REJECTED = {"400", "closed"}
_numbers = itertools.count(1)


def get(line: bytes = b"GET {t} HTTP/1.1\r\n", fields: bytes = HOST, body: bytes = b"") -> bytes:
    return line + fields + b"\r\n" + body


def post(fields: bytes, body: bytes, line: bytes = b"POST {t} HTTP/1.1\r\n") -> bytes:
    return line + HOST + fields + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"


def pieces(data: bytes, *at: bytes) -> list[bytes]:
    """Splits the data before each of these texts."""
    found = sorted(data.index(text) for text in at)
    return [data[start:end] for start, end in zip([0, *found], [*found, len(data)])]


# --- parsing ---------------------------------------------------------------------------------------------------------

WHOLE = get(b"GET {t}/in/parts HTTP/1.1\r\n", HOST + b"X-One: first\r\nX-Two: second\r\n")

PARSING = [
    # RFC 9112 section 2.2: a server reads as many octets as the message has, however they arrive.
    ("9112 2.2: method in two fragments", pieces(WHOLE, b"ET "), {"200"}),
    ("9112 2.2: target in two fragments", pieces(WHOLE, b"parts "), {"200"}),
    ("9112 2.2: target in three fragments", pieces(WHOLE, b"/in", b"parts "), {"200"}),
    ("9112 2.2: version in two fragments", pieces(WHOLE, b"P/1.1"), {"200"}),
    ("9112 2.2: request line and fields apart", pieces(WHOLE, b"Host"), {"200"}),
    ("9112 2.2: CR and LF of the request line apart", pieces(WHOLE, b"\nHost"), {"200"}),
    ("9112 2.2: line end of the request line apart", pieces(WHOLE, b"\r\nHost"), {"200"}),
    ("9112 2.2: field name in two fragments", pieces(WHOLE, b"-One"), {"200"}),
    ("9112 2.2: field value in two fragments", pieces(WHOLE, b"rst\r\n"), {"200"}),
    ("9112 2.2: colon apart", pieces(WHOLE, b": first"), {"200"}),
    ("9112 2.2: last line end in two fragments", pieces(WHOLE, b"\n\r\n"), {"200"}),
    ("9112 2.2: one octet at a time", [bytes([octet]) for octet in WHOLE.replace(b"{t}", b"/open/octets")], {"200"}),
    ("9112 2.2: empty line before the request line", b"\r\n" + WHOLE, {"200"}),
    ("9112 3: no version (HTTP/0.9)", b"GET {t}\r\n" + HOST + b"\r\n", REJECTED),
    ("9112 3: no target", b"GET HTTP/1.1\r\n" + HOST + b"\r\n", REJECTED),
    ("9112 3: no method", b" {t} HTTP/1.1\r\n" + HOST + b"\r\n", REJECTED),
    ("9112 2.3: version HTTP/9.9", get(b"GET {t} HTTP/9.9\r\n"), REJECTED | {"505"}),
    ("9112 2.3: lower-case version name", get(b"GET {t} http/1.1\r\n"), REJECTED),
    ("9112 2.3: version without a minor number", get(b"GET {t} HTTP/1\r\n"), REJECTED | {"505"}),
    ("9112 3.2: no Host", b"GET {t} HTTP/1.1\r\n\r\n", {"400"}),
    ("9112 3.2: two Host fields", get(fields=HOST + HOST), {"400"}),
    ("9112 5: field without a colon", get(fields=HOST + b"X-One\r\n"), REJECTED),
    ("9112 5.1: space in a field name", get(fields=HOST + b"X One: first\r\n"), REJECTED),
    ("9110 5.5: empty field value", get(fields=HOST + b"X-One:\r\n"), {"200"}),
    ("9110 5.5: control character in a field value", get(fields=HOST + b"X-One: a\x01b\r\n"), REJECTED),
    ("9110 10.1.1: Expect: 100-continue", post(b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"ab"), {"200"}),
    ("9112 6.2: body by Content-Length", post(b"Content-Length: 5\r\n", b"hello"), {"200"}),
    ("9112 6.2: body in fragments", pieces(post(b"Content-Length: 5\r\n", b"hello"), b"hello"), {"200"}),
    ("9112 7.1: body in chunks", post(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"), {"200"}),
    ("9110 8.6: negative Content-Length", post(b"Content-Length: -5\r\n", b"hello"), REJECTED),
    ("9110 8.6: Content-Length below -2^63", post(b"Content-Length: -99999999999999999999\r\n", b"hello"), REJECTED),
    ("9110 8.6: Content-Length in words", post(b"Content-Length: five\r\n", b"hello"), REJECTED),
    ("9112 6.3: Content-Length and Transfer-Encoding",
     post(b"Content-Length: 5\r\n" + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"), REJECTED | {"200"}),
]

# --- rules -----------------------------------------------------------------------------------------------------------

_LONG = b"a" * 100_000
_HOSTS = {
    "empty": b"", "two values": b"a.test, b.test", "user information": b"user@gate.test", "path": b"gate.test/x",
    "space": b"gate test", "two ports": b"gate.test:1:2", "port in letters": b"gate.test:http",
    "port above 65535": b"gate.test:65536", "port alone": b":80", "two dots": b"..", "empty brackets": b"[]",
    "not an address in brackets": b"[zz]", "open bracket": b"[::1", "fragment": b"gate.test#x", "query": b"gate.test?x",
    "backslash": b"gate\\test", "NUL": b"gate\x00test", "not ASCII": b"g\xc3\xa4te.test", "invalid escape": b"gate%zztest",
    "quote": b'"gate.test"', "angle brackets": b"<gate.test>", "negative port": b"gate.test:-1",
}
_TARGETS = {
    "fragment": b"{t}#x", "space": b"{t} x", "tab": b"{t}\tx", "not ASCII": b"{t}\xc3\xa9", "backslash": b"{t}\\x",
    "NUL": b"{t}\x00", "DEL": b"{t}\x7f", "invalid escape": b"{t}%zz", "truncated escape": b"{t}%4", "lone percent": b"{t}%",
    "encoded NUL": b"{t}%00", "encoded line end": b"{t}%0d%0a", "encoded slash": b"{t}%2fx", "dot segments": b"{t}/../x",
    "encoded dot segments": b"{t}/%2e%2e/x", "double encoding": b"{t}%252fx", "double slash": b"/{t}", "no slash": b"x{t}",
    "overlong UTF-8": b"{t}%c0%ae", "angle bracket": b"{t}<x", "quote": b'{t}"', "caret": b"{t}^", "brace": b"{t}{",
    "dot segment with parameter": b"{t}/..;/x", "asterisk": b"*", "authority form": b"gate.test:80",
    "absolute form with user information": b"http://user@gate.test{t}", "absolute form without a host": b"http://{t}",
    "absolute form of another scheme": b"ftp://gate.test{t}", "absolute form, fragment alone": b"http://gate.test#x",
    "absolute form, https on plaintext": b"https://gate.test{t}",
}
_LENGTHS = {
    "plus sign": b"+5", "hexadecimal": b"0x5", "leading zero": b"05", "two equal values": b"5, 5", "two values": b"5, 6",
    "empty": b"", "decimal point": b"5.0", "exponent": b"5e0", "space inside": b"5 5", "above 2^64": b"18446744073709551621",
    "letter after": b"5a", "comma after": b"5,", "negative zero": b"-0", "NUL": b"5\x00", "full-width digit": "５".encode(),
    "underscore": b"5_0", "semicolon": b"5;x",
}
_CODINGS = {
    "identity": b"identity", "gzip alone": b"gzip", "chunked twice": b"chunked, chunked", "gzip after chunked": b"chunked, gzip",
    "unknown": b"x-chunked", "empty": b"", "quoted": b'"chunked"', "letter after": b"chunkedx", "vertical tab": b"\x0bchunked",
    "NUL": b"chunked\x00", "parameter": b"chunked;x", "comma alone": b",", "space inside": b"chun ked", "cow": b"cow",
}
_CHUNKS = {
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n", "negative size": b"-5\r\nhello\r\n0\r\n\r\n", "plus sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "size in letters": b"z\r\nhello\r\n0\r\n\r\n", "empty size": b"\r\nhello\r\n0\r\n\r\n", "size above 2^64": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"3\r\nhello\r\n0\r\n\r\n", "no line end after the data": b"5\r\nhello0\r\n\r\n",
    "LF after the data": b"5\r\nhello\n0\r\n\r\n", "CR after the size": b"5\rhello\r\n0\r\n\r\n", "LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n", "NUL in the size": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "underscore in the size": b"0_5\r\nhello\r\n0\r\n\r\n", "size without hexadecimal digits": b";x\r\nhello\r\n0\r\n\r\n",
    "two line ends after the data": b"5\r\nhello\r\n\r\n0\r\n\r\n", "trailer without a colon": b"5\r\nhello\r\n0\r\nX-Trailer\r\n\r\n",
    "space in a trailer name": b"5\r\nhello\r\n0\r\nX Trailer: x\r\n\r\n", "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
}
# Invalid syntax of a chunk line that cannot change a boundary: the gate writes the chunks anew.
_HARMLESS_CHUNKS = {
    "extension": b"5;a=b\r\nhello\r\n0\r\n\r\n", "quoted extension": b'5;a="b c"\r\nhello\r\n0\r\n\r\n', "leading zeros": b"005\r\nhello\r\n0\r\n\r\n",
    "empty extension": b"5;\r\nhello\r\n0\r\n\r\n", "invalid extension": b"5;bad[=x\r\nhello\r\n0\r\n\r\n", "space after the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "upper-case size": b"A\r\n0123456789\r\n0\r\n\r\n", "trailer": b"5\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n",
}
_NAMES = {
    "space before the colon": b"X-One : a", "tab before the colon": b"X-One\t: a", "empty name": b": a", "NUL": b"X\x00One: a",
    "not ASCII": b"X-\xc3\x84: a", "parenthesis": b"X(One): a", "slash": b"X/One: a", "at sign": b"X@One: a", "bracket": b"[X]: a",
    "brace": b"{X}: a", "quote": b'"X": a', "comma": b"X,One: a", "semicolon": b"X;One: a", "equals": b"X=One: a", "backslash": b"X\\One: a",
    "control character": b"X\x0bOne: a", "DEL": b"X\x7fOne: a", "space before Content-Length's colon": b"Content-Length : 5",
    "space before the first field": b" X-One: a", "continuation line": b"X-One: a\r\n b", "continuation with a tab": b"X-One: a\r\n\tb",
}
_VALUES = {
    "NUL": b"a\x00b", "CR": b"a\rb", "escape": b"a\x1bb", "DEL": b"a\x7fb", "backspace": b"a\x08b", "vertical tab": b"a\x0bb", "form feed": b"a\x0cb",
}
_ENDS = {
    "LF after the request line": b"GET {t} HTTP/1.1\n" + HOST + b"\r\n", "CR after the request line": b"GET {t} HTTP/1.1\r" + HOST + b"\r\n",
    "CR CR LF": b"GET {t} HTTP/1.1\r\r\n" + HOST + b"\r\n", "space before the version": b"GET {t}  HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab instead of a space": b"GET\t{t}\tHTTP/1.1\r\n" + HOST + b"\r\n", "space after the version": b"GET {t} HTTP/1.1 \r\n" + HOST + b"\r\n",
    "space before the method": b" GET {t} HTTP/1.1\r\n" + HOST + b"\r\n", "NUL in the method": b"G\x00T {t} HTTP/1.1\r\n" + HOST + b"\r\n",
    "slash in the method": b"GET/ {t} HTTP/1.1\r\n" + HOST + b"\r\n", "text after the version": b"GET {t} HTTP/1.1x\r\n" + HOST + b"\r\n",
    "version HTTP/1.2": b"GET {t} HTTP/1.10\r\n" + HOST + b"\r\n", "version HTTP/2.0": b"GET {t} HTTP/2.0\r\n" + HOST + b"\r\n",
    "version HTTP/01.1": b"GET {t} HTTP/01.1\r\n" + HOST + b"\r\n", "version with a comma": b"GET {t} HTTP/1,1\r\n" + HOST + b"\r\n",
    "binary octets": bytes(range(128, 192)) * 4 + b"\r\n\r\n", "TLS ClientHello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "form feed before the version": b"GET {t}\x0cHTTP/1.1\r\n" + HOST + b"\r\n",
}

RULES = [
    *((f"9110 7.2, 3986 3.2: Host with {name}", get(fields=b"Host: " + host + b"\r\n"), {"400", "closed"}) for name, host in _HOSTS.items()),
    ("9112 3.2: two different Host fields", get(fields=HOST + b"Host: other.test\r\n"), {"400"}),
    ("9112 3.2: Host differs from the absolute form", get(b"GET http://other.test{t} HTTP/1.1\r\n"), {"200", "400", "421"}),
    ("9112 3.2: absolute form without Host", b"GET http://gate.test{t} HTTP/1.1\r\n\r\n", {"400"}),
    ("9112 3.2: absolute form", get(b"GET http://gate.test{t} HTTP/1.1\r\n"), {"200"}),
    ("9112 3.2: HTTP/1.0 without Host", b"GET {t} HTTP/1.0\r\n\r\n", {"200"}),
    ("9112 3.2: HTTP/1.0 with an invalid Host", b"GET {t} HTTP/1.0\r\nHost: a b\r\n\r\n", REJECTED),
    ("9112 3.2: HTTP/1.0 with two Host fields", b"GET {t} HTTP/1.0\r\n" + HOST + HOST + b"\r\n", {"400"}),
    *((f"9112 3.2, 3986 3.3: target with {name}", get(b"GET " + target + b" HTTP/1.1\r\n"), REJECTED | {"421"}) for name, target in _TARGETS.items()),
    ("9110 9.3.6: CONNECT", get(b"CONNECT gate.test:80 HTTP/1.1\r\n"), {"400", "405", "501", "closed"}),
    ("9110 9.3.8: TRACE", get(b"TRACE {t} HTTP/1.1\r\n"), {"405", "501"}),
    ("9110 9.3.7: OPTIONS *", get(b"OPTIONS * HTTP/1.1\r\n"), {"200", "204", "405"}),
    ("9110 9.1: a method is case-sensitive", get(b"get {t} HTTP/1.1\r\n"), {"200", "400", "405", "501"}),
    ("9110 9.1: a long method", get(b"A" * 10_000 + b" {t} HTTP/1.1\r\n"), REJECTED | {"405", "501", "414", "431"}),
    ("9110 4.1: a long target", get(b"GET {t}" + _LONG + b" HTTP/1.1\r\n"), {"414", "431", "400", "closed"}),
    ("9110 5.4: a long field", get(fields=HOST + b"X-One: " + _LONG + b"\r\n"), {"431", "400", "closed"}),
    ("9110 5.4: a long field name", get(fields=HOST + _LONG + b": a\r\n"), {"431", "400", "closed"}),
    ("9110 5.4: many fields", get(fields=HOST + b"".join(b"X-%d: a\r\n" % number for number in range(2000))), {"431", "400", "closed"}),
    *((f"9110 8.6: Content-Length with {name}", post(b"Content-Length: " + length + b"\r\n", b"hello"), REJECTED | {"200"} if name in ("leading zero", "two equal values") else REJECTED)
      for name, length in _LENGTHS.items()),
    ("9110 8.6: Content-Length twice, equal", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), REJECTED | {"200"}),
    ("9112 6.3: Content-Length twice, different", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"), REJECTED),
    ("9110 15.5.14: Content-Length above the limit", post(b"Content-Length: 99999999999\r\n", b"hello"), {"413"}),
    *((f"9112 6.1: Transfer-Encoding with {name}", post(b"Transfer-Encoding: " + coding + b"\r\n", b"5\r\nhello\r\n0\r\n\r\n"), REJECTED | {"501"})
      for name, coding in _CODINGS.items()),
    ("9112 6.1: Transfer-Encoding in upper case", post(b"Transfer-Encoding: CHUNKED\r\n", b"5\r\nhello\r\n0\r\n\r\n"), {"200"}),
    ("9112 6.1: Transfer-Encoding in HTTP/1.0", post(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", b"POST {t} HTTP/1.0\r\n"), REJECTED),
    ("9112 6.1: two Transfer-Encoding fields", post(CHUNKED + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"), REJECTED),
    ("9112 6.3: Transfer-Encoding, then Content-Length", post(CHUNKED + b"Content-Length: 5\r\n", b"5\r\nhello\r\n0\r\n\r\n"), REJECTED | {"200"}),
    *((f"9112 7.1: chunk with {name}", post(CHUNKED, body), REJECTED) for name, body in _CHUNKS.items()),
    *((f"9112 7.1: chunk with {name}", post(CHUNKED, body), REJECTED | {"200"}) for name, body in _HARMLESS_CHUNKS.items()),
    *((f"9110 5.1, 9112 5: field name with {name}", get(fields=HOST + line + b"\r\n"), REJECTED) for name, line in _NAMES.items()),
    *((f"9110 5.5: field value with {name}", get(fields=HOST + b"X-One: " + value + b"\r\n"), REJECTED) for name, value in _VALUES.items()),
    *((f"9112 2.2, 3: {name}", data, REJECTED | {"200"} if name == "LF after the request line" else REJECTED | {"505"}) for name, data in _ENDS.items()),
    ("9110 10.1.1: another expectation", get(fields=HOST + b"Expect: a-miracle\r\n"), {"417", "200", "400"}),
    ("9110 10.1.1: Expect without a body", get(fields=HOST + b"Expect: 100-continue\r\n"), {"200"}),
    ("9110 7.8: Upgrade to an unknown protocol", get(fields=HOST + b"Connection: upgrade\r\nUpgrade: foo\r\n"), {"200"}),
    ("9113 3.1: Upgrade: h2c is not followed", get(fields=HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), {"200"}),
    ("9110 7.6.1: Connection names the identity header", get(fields=HOST + b"Connection: x-user-id\r\n"), {"400"}),
    ("9110 7.6.1: Connection names Host", get(fields=HOST + b"Connection: host\r\n"), {"400"}),
    ("9110 14.2: an invalid Range is forwarded", get(fields=HOST + b"Range: bytes=9-1\r\n"), {"200"}),
    ("9110 9.3.1: GET with a body", get(fields=HOST + b"Content-Length: 5\r\n", body=b"hello"), {"200"}),
    ("9110 9.3.1: GET with a chunked body", get(fields=HOST + CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), {"200"}),
    ("9110 9.3.2: HEAD", get(b"HEAD {t} HTTP/1.1\r\n"), {"200"}),
]

LISTEN = 'header_timeout = "3s"\nbody_timeout = "3s"\nidle_timeout = "3s"'


def _check(port: int, upstream: Upstream):
    def check(case) -> str:
        name, data, expected = case
        target = b"/open/%d" % next(_numbers)
        parts = [part.replace(b"{t}", target) for part in ([data] if isinstance(data, bytes) else data)]
        method = parts[0].split(b" ")[0].decode("latin-1")
        found = outcome(port, parts, method, seconds=15)
        if found not in expected:
            return f"{found}, expected {' or '.join(sorted(expected))}"
        if not expected & {"200", "204"} and upstream.seen(target.decode()):
            return f"{found}, but the request reached the upstream"
        return ""
    return check


def _run(cases) -> list[Result]:
    upstream = Upstream()
    with running(upstream.port, LISTEN) as gate:
        results = run_all(cases, _check(gate.port, upstream))
        with Connection(gate.port) as client:
            client.send(get().replace(b"{t}", b"/open/after"))
            if client.response() is None:
                results.append(Result("serves the next client", "no response"))
        results += [Result("what reaches the upstream is clear", repr(head)) for head in upstream.invalid]
    upstream.stop()
    return results


def parsing() -> list[Result]:
    return _run(PARSING)


def rules() -> list[Result]:
    return _run(RULES)
