//! Boundaries of WebSocket frames (RFC 6455 section 5.2). The payload is not read.

/// Close code "going away": the client may reconnect (RFC 6455 section 7.4.1).
pub(super) const GOING_AWAY: u16 = 1001;

/// Close code "policy violation": the client may not continue (RFC 6455 section 7.4.1).
pub(super) const POLICY_VIOLATION: u16 = 1008;

/// Size limit of the reason in a close frame, in bytes.
const MAX_REASON: usize = 123;

/// Position in a stream of frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Frames {
    header: [u8; 10],
    /// Header bytes read, without the mask.
    known: usize,
    /// Remaining bytes of mask and payload; none while the header is incomplete.
    rest: Option<u64>,
}

impl Frames {
    /// Returns true if no frame is incomplete.
    pub(super) fn is_between(self) -> bool {
        self.known == 0
    }

    /// Advances over these bytes.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.advance_some(bytes);
            bytes = bytes.get(count..).unwrap_or_default();
        }
    }

    /// Number of these bytes that belong to the incomplete frame.
    pub(super) fn rest_of_frame(mut self, bytes: &[u8]) -> usize {
        let mut count = 0;
        while !self.is_between() && count < bytes.len() {
            count += self.advance_some(bytes.get(count..).unwrap_or_default());
        }
        count
    }

    /// Advances over at least one byte, and at most to the end of the frame.
    fn advance_some(&mut self, bytes: &[u8]) -> usize {
        match (self.rest, bytes.first()) {
            (Some(rest), _) => {
                let count = usize::try_from(rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
                self.rest = Some(rest - count as u64);
                self.reset_if_complete();
                count
            }
            (None, Some(byte)) => {
                if let Some(byte_in_header) = self.header.get_mut(self.known) {
                    *byte_in_header = *byte;
                }
                self.known += 1;
                self.rest = self.rest_after_header();
                self.reset_if_complete();
                1
            }
            (None, None) => 0,
        }
    }

    fn reset_if_complete(&mut self) {
        if self.rest == Some(0) {
            *self = Self::default();
        }
    }

    /// Size of mask and payload; none while the header is incomplete.
    fn rest_after_header(&self) -> Option<u64> {
        let [_, second, extended @ ..] = self.header;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let payload = match (second & 0x7f, self.known) {
            (_, 0 | 1) | (126, ..4) | (127, ..10) => return None,
            (126, _) => {
                let [high, low, ..] = extended;
                u64::from(u16::from_be_bytes([high, low]))
            }
            (127, _) => u64::from_be_bytes(extended),
            (size, _) => u64::from(size),
        };
        Some(payload.saturating_add(mask))
    }
}

/// Close frame. A frame to a server is masked, here with zeros: masking protects against scripts that choose the bytes on
/// the wire, and these bytes are the gate's own.
pub(super) fn close(code: u16, reason: &str, masked: bool) -> Vec<u8> {
    let reason = reason
        .get(..reason.len().min(MAX_REASON))
        .unwrap_or_default();
    let size = u8::try_from(2 + reason.len()).unwrap_or(2);
    let mut frame = vec![0x88, size | if masked { 0x80 } else { 0 }];
    if masked {
        frame.extend([0; 4]);
    }
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: usize, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(bit | u8::try_from(payload).unwrap()),
            126..0x1_0000 => {
                frame.push(bit | 0x7e);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(bit | 0x7f);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; payload + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn finds_the_end_of_frames_of_every_size() {
        for masked in [false, true] {
            let sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];
            let stream: Vec<u8> = sizes.iter().flat_map(|size| frame(*size, masked)).collect();
            for piece in [1, 2, 3, 7, 4096, stream.len()] {
                let (mut frames, mut position, mut ends) = (Frames::default(), 0, Vec::new());
                for bytes in stream.chunks(piece) {
                    let mut bytes = bytes;
                    while !bytes.is_empty() {
                        let count = frames.advance_some(bytes);
                        position += count;
                        bytes = &bytes[count..];
                        if frames.is_between() {
                            ends.push(position);
                        }
                    }
                }
                let mut expected = Vec::new();
                for size in sizes {
                    let before = expected.last().copied().unwrap_or(0);
                    expected.push(before + frame(size, masked).len());
                }
                assert_eq!(ends, expected, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_rest_of_a_frame_excludes_the_next_frame() {
        let first = frame(300, true);
        let stream = [first.clone(), frame(5, true)].concat();
        assert_eq!(Frames::default().rest_of_frame(&stream), 0);
        for split in 1..first.len() {
            let mut frames = Frames::default();
            frames.advance(&stream[..split]);
            assert!(!frames.is_between(), "{split}");
            assert_eq!(frames.rest_of_frame(&stream[split..]), first.len() - split);
        }
    }

    #[test]
    fn a_frame_of_the_maximum_size_never_ends() {
        let mut frames = Frames::default();
        frames.advance(&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]);
        frames.advance(&[0; 10_000]);
        assert!(!frames.is_between());
    }

    #[test]
    fn a_close_frame_has_a_code_and_a_reason() {
        assert_eq!(close(1008, "no", false), [0x88, 4, 3, 240, b'n', b'o']);
        let masked = close(1001, "", true);
        assert_eq!(masked, [0x88, 0x82, 0, 0, 0, 0, 3, 233]);
        assert_eq!(close(1008, &"x".repeat(200), false).len(), 127);
    }
}
