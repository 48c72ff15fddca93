"""HPACK (RFC 7541): literals out, everything in."""

# Code lengths of appendix B by symbol, the last one for the end of the string: "A" is 5 bits, "Z" is 30 bits. The code
# is canonical: shorter codes first, and equal lengths in the order of the symbols.
_LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCK"
    "GJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWVZ"
)
_STATIC = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"),
    *((":status", status) for status in ("200", "204", "206", "304", "400", "404", "500")), ("accept-charset", ""), ("accept-encoding", "gzip, deflate"),
    *((name, "") for name in (
        "accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control content-disposition content-encoding "
        "content-language content-length content-location content-range content-type cookie date etag expect expires from host if-match "
        "if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate "
        "proxy-authorization range referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via "
        "www-authenticate").split()),
]


def _codes() -> dict[tuple[int, int], int]:
    """Symbol by length and code."""
    lengths = [ord(letter) - ord("A") + 5 for letter in _LENGTHS]
    code = previous = 0
    found = {}
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - previous
        found[length, code] = symbol
        code, previous = code + 1, length
    return found


_CODES = _codes()


def unhuffman(data: bytes) -> bytes:
    text, length, code = bytearray(), 0, 0
    for byte in data:
        for bit in range(7, -1, -1):
            length, code = length + 1, code << 1 | byte >> bit & 1
            if (symbol := _CODES.get((length, code))) is not None:
                text.append(symbol)
                length = code = 0
    return bytes(text)


def integer(value: int, prefix: int, flags: int = 0) -> bytes:
    """RFC 7541 section 5.1."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([flags | value])
    out, value = [flags | limit], value - limit
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def string(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode("latin-1")
    return integer(len(data), 7) + data


def literal(name: str | bytes, value: str | bytes) -> bytes:
    """Literal field without indexing (RFC 7541 section 6.2.2)."""
    return b"\x00" + string(name) + string(value)


def encode(fields) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


class Decoder:
    """Decoder of one connection."""

    def __init__(self):
        self.table: list[tuple[str, str]] = []
        self.size = 4096

    def decode(self, data: bytes) -> list[tuple[str, str]]:
        self.data, self.at, fields = data, 0, []
        while self.at < len(data):
            first = data[self.at]
            if first & 0x80:
                fields.append(self._entry(self._integer(7)))
            elif first & 0xE0 == 0x20:
                self.size = self._integer(5)
                self._evict()
            else:
                indexed = first & 0x40
                index = self._integer(6 if indexed else 4)
                name = self._entry(index)[0] if index else self._string()
                fields.append((name, self._string()))
                if indexed:
                    self.table.insert(0, fields[-1])
                    self._evict()
        return fields

    def _evict(self):
        while sum(len(name) + len(value) + 32 for name, value in self.table) > self.size:
            self.table.pop()

    def _entry(self, index: int) -> tuple[str, str]:
        return _STATIC[index - 1] if index <= len(_STATIC) else self.table[index - len(_STATIC) - 1]

    def _integer(self, prefix: int) -> int:
        limit = (1 << prefix) - 1
        value = self.data[self.at] & limit
        self.at += 1
        shift = 0
        while value >= limit:
            byte = self.data[self.at]
            self.at += 1
            value += (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        return value

    def _string(self) -> str:
        huffman = self.data[self.at] & 0x80
        size = self._integer(7)
        data = self.data[self.at:self.at + size]
        self.at += size
        return (unhuffman(data) if huffman else data).decode("latin-1")
