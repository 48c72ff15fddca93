//! Generated responses, parsed by the gate and by hyper's client.

use fastrand::Rng;

use claimgate::proxy::upstream::http1::response_head::RequestKind;

use crate::fuzz_corpus::invariants::response::{End, compare};

/// Responses of a normal run.
const COUNT: u64 = 20_000;

/// Law: a response that the gate accepts, hyper accepts with the same status, fields, content and trailers.
///
/// `CLAIMGATE_TEST_RESPONSES=1000000 cargo test --test it response_parsing::` generates a million.
#[test]
fn hyper_reads_every_accepted_response_alike() {
    let count = std::env::var_os("CLAIMGATE_TEST_RESPONSES");
    let count = count.map_or(COUNT, |it| it.to_str().unwrap().parse().unwrap());
    let (mut accepted, mut accepted_by_hyper, mut with_content, mut with_trailers) = (0, 0, 0, 0);
    let mut faults = std::collections::BTreeMap::new();
    for seed in 0..count {
        let mut generator = Generator(Rng::with_seed(seed));
        let (kind, response) = generator.response();
        let (reading, is_accepted_by_hyper) = compare(kind, seed, &response);
        accepted_by_hyper += u64::from(is_accepted_by_hyper);
        with_content += u64::from(!reading.content.is_empty());
        with_trailers += u64::from(reading.trailers.is_some());
        match reading.end {
            End::Complete => accepted += 1,
            End::Incomplete => *faults.entry("Incomplete".to_owned()).or_insert(0) += 1,
            End::Fault(fault) => {
                let fault = format!("{fault:?}");
                let name = fault.split(' ').next().unwrap().to_owned();
                *faults.entry(name).or_insert(0) += 1;
            }
        }
    }
    eprintln!(
        "{count} responses: {accepted} accepted, {accepted_by_hyper} by hyper; {with_content} with content, \
         {with_trailers} with trailers; {faults:#?}"
    );
    // A generator of garbage would prove nothing, nor would one without faults.
    assert!(accepted * 10 > count * 3, "{accepted} accepted");
    assert!(accepted * 10 < count * 8, "{accepted} accepted");
    assert!(
        accepted_by_hyper > accepted,
        "hyper is the laxer of the two"
    );
    assert!(with_content * 4 > count, "{with_content} with content");
    assert!(with_trailers * 100 > count, "{with_trailers} with trailers");
    assert_eq!(faults.len(), 21, "a kind of fault is missing: {faults:#?}");
}

struct Generator(Rng);

impl Generator {
    fn response(&mut self) -> (RequestKind, Vec<u8>) {
        let kind = RequestKind {
            is_head: self.is_one_in(8),
            is_upgrade: self.is_one_in(8),
        };
        let mut response = Vec::new();
        while self.is_one_in(8) {
            let status = ["100 Continue", "103 Early Hints", "102", "199 "];
            let status = self.pick(&status);
            response.extend(format!("HTTP/1.1 {status}\r\n").bytes());
            self.fields(&mut response);
            response.extend(b"\r\n");
        }
        self.exchange(&mut response);
        if self.is_one_in(8) {
            self.exchange(&mut response);
        }
        if self.is_one_in(3) {
            for _ in 0..=self.0.u8(..3) {
                self.mutate(&mut response);
            }
        }
        (kind, response)
    }

    /// Appends a head and a body.
    fn exchange(&mut self, response: &mut Vec<u8>) {
        let version = self.mostly(
            "HTTP/1.1",
            &["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "ICY"],
        );
        let status = self.mostly(
            "200 OK",
            &[
                "201 Created",
                "204 No Content",
                "304 Not Modified",
                "404 Not Found",
                "404",
                "500 ",
                "999 Request denied",
                "101 Switching Protocols",
                "099 Early",
                "2000 OK",
                " 200 OK",
                "200 Zo\u{eb}",
                "200\tOK",
                "600 \t",
            ],
        );
        response.extend(format!("{version} {status}\r\n").bytes());
        self.fields(response);
        let mut content: Vec<u8> = Vec::new();
        for _ in 0..self.0.usize(..40) {
            content.extend(self.pick(&[
                &b"a"[..],
                b"0",
                b"\r\n",
                b"HTTP/1.1 200 OK\r\n",
                b"\xff",
                b"{}",
            ]));
        }
        match self.0.u8(..8) {
            0..4 => {
                let length = content.len();
                let length = self.mostly(
                    &format!("{length}"),
                    &[
                        &format!("00{length}"),
                        &format!("+{length}"),
                        &format!("-{length}"),
                        "",
                        &format!("{length}, {length}"),
                        &format!("{length} "),
                        &format!("{length}0"),
                        "18446744073709551616",
                        "18446744073709551613",
                        "999999999999999999",
                        "0x1",
                        "00000000000000000000000001",
                        "1 1",
                        "0",
                    ],
                );
                let name = self.mostly(
                    "Content-Length",
                    &[
                        "content-length",
                        "CONTENT-LENGTH",
                        "Content-Length ",
                        "Content_Length",
                    ],
                );
                let line = format!("{name}: {length}\r\n");
                response.extend(line.bytes());
                if self.is_one_in(24) {
                    response.extend(line.bytes());
                }
                if self.is_one_in(24) {
                    response.extend(b"Transfer-Encoding: chunked\r\n");
                }
                self.fields(response);
                response.extend(b"\r\n");
                response.extend(content);
            }
            4..7 => {
                let coding = self.mostly(
                    "chunked",
                    &[
                        "Chunked",
                        "gzip, chunked",
                        "chunked, chunked",
                        "identity",
                        "",
                        "chunked;q=1",
                        "xchunked",
                        "chunked,",
                    ],
                );
                response.extend(format!("Transfer-Encoding: {coding}\r\n").bytes());
                if self.is_one_in(24) {
                    response.extend(b"Transfer-Encoding: chunked\r\n");
                }
                self.fields(response);
                response.extend(b"\r\n");
                self.chunks(&content, response);
            }
            _ => {
                response.extend(b"\r\n");
                response.extend(content);
            }
        }
    }

    fn chunks(&mut self, mut content: &[u8], response: &mut Vec<u8>) {
        while !content.is_empty() {
            let size = self.0.usize(1..=content.len());
            let (chunk, rest) = content.split_at(size);
            content = rest;
            let size = self.mostly(
                &format!("{size:x}"),
                &[
                    &format!("{size:X}"),
                    &format!("0{size:x}"),
                    &format!("{size:016x}"),
                    &format!("{size:017x}"),
                    &format!(" {size:x}"),
                    &format!("{size:x} "),
                    &format!("+{size:x}"),
                    &format!("0x{size:x}"),
                    "",
                    "ffffffffffffffff",
                    "10000000000000000",
                ],
            );
            response.extend(size.bytes());
            self.extension(response);
            response.extend(self.mostly("\r\n", &["\n", "\r", "\r\r\n"]).bytes());
            response.extend(chunk);
            response.extend(
                self.mostly("\r\n", &["\n", "\r", "", "\r\r\n", " \r\n"])
                    .bytes(),
            );
        }
        response.extend(
            self.mostly("0", &["00", "000000000000000000", "", "-0"])
                .bytes(),
        );
        self.extension(response);
        response.extend(self.mostly("\r\n", &["\n", "\r"]).bytes());
        if self.is_one_in(4) {
            self.fields(response);
        }
        response.extend(self.mostly("\r\n", &["\n", "\r", ""]).bytes());
    }

    fn extension(&mut self, response: &mut Vec<u8>) {
        if self.is_one_in(12) {
            let long = format!(";{}", "x".repeat(1100));
            let extension = self.mostly(
                ";a=b",
                &[
                    ";",
                    " ; a",
                    "\t;a=\"b;c\"",
                    " ",
                    ";\0",
                    ";a\rb",
                    ";a\nb",
                    " a",
                    &long,
                ],
            );
            response.extend(extension.bytes());
        }
    }

    fn fields(&mut self, response: &mut Vec<u8>) {
        if self.is_one_in(400) {
            let count = self.0.usize(250..260);
            response.extend(b"a: b\r\n".repeat(count));
        }
        if self.is_one_in(800) {
            let size = self.0.usize(65_400..65_600);
            response.extend(format!("a: {}\r\n", "b".repeat(size)).bytes());
        }
        for _ in 0..self.0.usize(..4) {
            let line = self.pick(&[
                "Date: Fri, 27 Nov 2026 15:00:00 GMT",
                "Server: uvicorn",
                "Content-Type: application/json",
                "Set-Cookie: a=1",
                "set-cookie: b=2",
                "X-Empty:",
                "x-padded: \t a b \t",
                "Connection: keep-alive",
                "Connection: close",
                "Connection: x, Close",
                "Keep-Alive: timeout=5, max=99",
                "Keep-Alive: max=0",
                "Vary: *",
                "ETag: \"a\"",
                "!#$%&'*+-.^_`|~09: 1",
                "Upgrade: websocket",
                "Trailer: x",
                "TE: trailers",
            ]);
            response.extend(line.bytes());
            if self.is_one_in(100) {
                let odd: &[&[u8]] = &[
                    b"\r\n folded",
                    b"\r\n\tfolded",
                    b"\r\nno colon",
                    b"\r\nspace : 1",
                    b"\r\n: no name",
                    b"\r\n\x80: 1",
                    b"\x80\xff",
                    b"\0",
                    b"\x7f",
                    b"\r",
                    b"\n",
                    b"\r\r",
                    b"\n\r",
                ];
                response.extend(self.pick(odd));
            }
            response.extend(b"\r\n");
        }
    }

    /// Changes, removes, inserts or repeats some bytes.
    fn mutate(&mut self, response: &mut Vec<u8>) {
        let at = self.0.usize(..=response.len());
        let end = response.len().min(at + self.0.usize(1..8));
        match self.0.u8(..6) {
            0 => response.truncate(at),
            1 => drop(response.drain(at..end)),
            2 => {
                let repeated = response[at..end].to_vec();
                drop(response.splice(at..at, repeated));
            }
            3 => {
                if let Some(byte) = response.get_mut(at) {
                    *byte ^= 1 << self.0.u8(..8);
                }
            }
            4 => {
                let inserted: &[&[u8]] = &[
                    b"\r",
                    b"\n",
                    b"\r\n",
                    b"\n\n",
                    b" ",
                    b"\t",
                    b":",
                    b";",
                    b",",
                    b"\0",
                    b"0",
                    b"9",
                    b"a",
                    b"\x80",
                    b"\r\n\r\n",
                ];
                let inserted = self.pick(inserted).to_vec();
                drop(response.splice(at..at, inserted));
            }
            _ => {
                // The first line end after the place.
                if let Some(found) = response[at..].windows(2).position(|it| it == b"\r\n") {
                    response.remove(at + found + self.0.usize(..2));
                }
            }
        }
    }

    /// Returns the usual text, and one time in 16 another.
    fn mostly(&mut self, usual: &str, others: &[&str]) -> String {
        let text = if self.is_one_in(16) {
            self.pick(others)
        } else {
            usual
        };
        text.to_owned()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.usize(..from.len())]
    }

    fn is_one_in(&mut self, count: u32) -> bool {
        self.0.u32(..count) == 0
    }
}
