use super::*;

/// Decoded body: content, trailers if any, and the bytes after it.
#[derive(Debug, PartialEq)]
struct Body {
    content: Vec<u8>,
    trailers: Option<Vec<(String, String)>>,
    rest: Vec<u8>,
}

/// Decodes pieces of a body, then the end of the connection.
fn decode_pieces<'a>(
    length: BodyLength,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Body, ResponseFault> {
    let (mut decoder, mut buffer) = (BodyDecoder::new(length), BytesMut::new());
    let (mut content, mut trailers) = (Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => {
                    assert!(!data.is_empty());
                    content.extend_from_slice(&data);
                }
                Decoded::Trailers(fields) => {
                    assert!(decoder.is_complete());
                    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                        (name.to_string(), value.to_str().unwrap().to_owned())
                    };
                    trailers = Some(fields.iter().map(text).collect());
                }
                Decoded::Complete => {
                    assert!(decoder.is_complete());
                    break;
                }
                Decoded::NeedsMore => break,
            }
        }
    }
    decoder.end_of_input()?;
    assert!(decoder.is_complete());
    Ok(Body {
        content,
        trailers,
        rest: buffer.to_vec(),
    })
}

/// Decodes a body as a whole, byte by byte, and in pieces of three bytes: always the same.
fn decode(length: BodyLength, text: impl AsRef<[u8]>) -> Result<Body, ResponseFault> {
    let text = text.as_ref();
    let whole = decode_pieces(length, std::iter::once(text));
    for step in [1, 3] {
        let pieces = decode_pieces(length, text.chunks(step));
        assert_eq!(pieces, whole, "{} in pieces of {step}", text.escape_ascii());
    }
    whole
}

fn chunked(text: impl AsRef<[u8]>) -> Result<Body, ResponseFault> {
    decode(BodyLength::Chunked, text)
}

fn body(content: &str, rest: &str) -> Body {
    Body {
        content: content.into(),
        trailers: None,
        rest: rest.into(),
    }
}

#[test]
fn decodes_a_body_of_known_length() {
    let three = BodyLength::Exact(3);
    assert_eq!(decode(three, "abc"), Ok(body("abc", "")));
    assert_eq!(decode(three, "abcHTTP"), Ok(body("abc", "HTTP")));
    assert_eq!(decode(three, "ab"), Err(ResponseFault::IncompleteBody));
    assert_eq!(decode(three, ""), Err(ResponseFault::IncompleteBody));
    for empty in [BodyLength::Exact(0), BodyLength::Empty] {
        assert_eq!(decode(empty, "HTTP"), Ok(body("", "HTTP")));
    }
}

#[test]
fn decodes_a_body_until_the_connection_closes() {
    assert_eq!(decode(BodyLength::UntilClose, "abc"), Ok(body("abc", "")));
    assert_eq!(decode(BodyLength::UntilClose, ""), Ok(body("", "")));
}

#[test]
fn a_body_of_known_length_is_complete_with_its_last_byte() {
    let mut decoder = BodyDecoder::new(BodyLength::Exact(5));
    assert_eq!(decoder.size_hint().exact(), Some(5));
    let mut buffer = BytesMut::from("abc");
    decoder.decode(&mut buffer).unwrap();
    assert_eq!(decoder.size_hint().exact(), Some(2));
    assert!(!decoder.is_complete());
    buffer.extend_from_slice(b"de");
    decoder.decode(&mut buffer).unwrap();
    assert_eq!(decoder.size_hint().exact(), Some(0));
    assert!(decoder.is_complete());
}

#[test]
fn the_size_of_a_body_without_a_length_is_unknown() {
    for length in [BodyLength::Chunked, BodyLength::UntilClose] {
        let hint = BodyDecoder::new(length).size_hint();
        assert_eq!((hint.lower(), hint.upper()), (0, None));
    }
}

#[test]
fn data_is_not_copied_from_the_buffer() {
    let mut buffer = BytesMut::from("abcdef");
    let start = buffer.as_ptr();
    let mut decoder = BodyDecoder::new(BodyLength::Exact(4));
    let Decoded::Data(data) = decoder.decode(&mut buffer).unwrap() else {
        panic!("no data");
    };
    assert_eq!(data.as_ptr(), start);
}

#[test]
fn decodes_chunks() {
    for (text, content, rest) in [
        ("0\r\n\r\n", "", ""),
        ("0\r\n\r\nHTTP", "", "HTTP"),
        ("3\r\nabc\r\n0\r\n\r\n", "abc", ""),
        (
            "3\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n",
            "abc0123456789",
            "",
        ),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
        ("0000000000000003\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("3;a\r\nabc\r\n0;b=c\r\n\r\n", "abc", ""),
        ("3 ; a=\"b\"\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("3  \r\nabc\r\n0\t\r\n\r\n", "abc", ""),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", ""),
    ] {
        assert_eq!(chunked(text), Ok(body(content, rest)), "{text:?}");
    }
}

#[test]
fn rejects_an_invalid_chunk_size() {
    for line in [
        "",
        " 3",
        "\t3",
        "+3",
        "-3",
        "0x3",
        "3h",
        "g",
        ";a",
        "3 a",
        "3,3",
        "3.0",
        "00000000000000003",
        "\u{663}",
        "3_0",
    ] {
        let fault = chunked(format!("{line}\r\nabc\r\n0\r\n\r\n")).unwrap_err();
        assert_eq!(fault, ResponseFault::ChunkSize, "{line:?}");
    }
    let largest = chunked("ffffffffffffffff\r\nabc");
    assert_eq!(largest, Err(ResponseFault::IncompleteBody));
}

#[test]
fn rejects_a_line_of_a_chunked_body_that_does_not_end_with_crlf() {
    for text in [
        "3\nabc\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
        "0\r\na: 1\n\r\n",
        "0\r\na: 1\r\n\n",
        "0\r\n\n",
        "0\r\na: 1\nb: 2\r\n\r\n",
    ] {
        assert_eq!(chunked(text), Err(ResponseFault::BareLineFeed), "{text:?}");
    }
    for text in ["3\r\nabc\rx0\r\n\r\n", "0\r\n\rx"] {
        assert_eq!(
            chunked(text),
            Err(ResponseFault::BareCarriageReturn),
            "{text:?}"
        );
    }
    for text in ["3\r\r\nabc\r\n0\r\n\r\n", "3\rx\r\nabc\r\n0\r\n\r\n"] {
        assert!(chunked(text).is_err(), "{text:?}");
    }
}

#[test]
fn rejects_content_beyond_the_size_of_its_chunk() {
    for text in [
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc3\r\n",
    ] {
        assert_eq!(chunked(text), Err(ResponseFault::ChunkEnd), "{text:?}");
    }
}

#[test]
fn rejects_a_control_character_in_a_chunk_extension() {
    for text in [
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "3;a\x7f\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
    ] {
        assert_eq!(
            chunked(text),
            Err(ResponseFault::ChunkExtension),
            "{text:?}"
        );
    }
    assert!(chunked(b"3;a=\xeb\tb\r\nabc\r\n0\r\n\r\n").is_ok());
}

#[test]
fn limits_chunk_extensions() {
    let chunk = |line: usize| format!("1;{}\r\na\r\n", "x".repeat(line - 4));
    let end = "0\r\n\r\n";
    assert!(chunked(chunk(MAX_CHUNK_LINE) + end).is_ok());
    let too_long = Err(ResponseFault::ChunkExtensionsTooLong);
    assert_eq!(chunked(chunk(MAX_CHUNK_LINE + 1) + end), too_long);
    // 1,021 bytes of extension in each.
    let chunks = |count| chunk(MAX_CHUNK_LINE).repeat(count) + end;
    assert!(chunked(chunks(16)).is_ok());
    assert_eq!(chunked(chunks(17)), too_long);
}

#[test]
fn limits_a_chunk_size_line_without_an_end() {
    let mut decoder = BodyDecoder::new(BodyLength::Chunked);
    let mut buffer = BytesMut::from(&b"1".repeat(MAX_CHUNK_LINE)[..]);
    let fault = decoder.decode(&mut buffer).unwrap_err();
    assert_eq!(fault, ResponseFault::ChunkExtensionsTooLong);
}

#[test]
fn rejects_a_chunked_body_without_its_end() {
    let text = "3;a\r\nabc\r\n0\r\na: 1\r\n\r\n";
    for end in 0..text.len() {
        let fault = chunked(&text[..end]).unwrap_err();
        assert_eq!(fault, ResponseFault::IncompleteBody, "{:?}", &text[..end]);
    }
}

#[test]
fn decodes_trailers() {
    let decoded = chunked("1\r\na\r\n0\r\nx-a: 1\r\nX-B:\r\nx-a: 2 \r\n\r\nHTTP").unwrap();
    let fields = [("x-a", "1"), ("x-a", "2"), ("x-b", "")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(decoded.trailers.as_deref(), Some(&fields[..]));
    assert_eq!(decoded.rest, b"HTTP");
}

#[test]
fn rejects_invalid_trailers() {
    for (line, expected) in [
        ("a : 1", ResponseFault::FieldName),
        (" a: 1", ResponseFault::FieldName),
        ("a: 1\r\n b", ResponseFault::FieldName),
        ("a", ResponseFault::FieldName),
        ("a: \0", ResponseFault::FieldValue),
        ("a: b\rc", ResponseFault::FieldValue),
    ] {
        assert_eq!(
            chunked(format!("0\r\n{line}\r\n\r\n")),
            Err(expected),
            "{line:?}"
        );
    }
}

#[test]
fn limits_trailers() {
    let fields = |count| format!("0\r\n{}\r\n", "a: 1\r\n".repeat(count));
    assert!(chunked(fields(MAX_RESPONSE_FIELDS)).is_ok());
    let fault = chunked(fields(MAX_RESPONSE_FIELDS + 1)).unwrap_err();
    assert_eq!(fault, ResponseFault::TooManyFields);

    let section = |size: usize| format!("0\r\na: {}\r\n\r\n", "b".repeat(size - 7));
    assert!(chunked(section(MAX_RESPONSE_HEAD_BYTES - 1)).is_ok());
    let fault = chunked(section(MAX_RESPONSE_HEAD_BYTES)).unwrap_err();
    assert_eq!(fault, ResponseFault::TooLong);
}

#[test]
fn leaves_content_out_of_debug_output() {
    let data = Decoded::Data(Bytes::from_static(b"secret"));
    assert_eq!(format!("{data:?}"), "Data(6 bytes)");
}
