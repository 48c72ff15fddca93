//! Space for the start of responses, shared by the connections of an endpoint.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use super::socket::Socket;

/// Size of the space, in bytes: many small responses, and no more than a slow reader of one of them may hold.
const SPACE: usize = 16 * 1024;

/// A connection that waits for a response holds no buffer, and a small response needs no allocation: its bytes are a part
/// of this space.
#[derive(Debug, Default)]
pub(super) struct ReadSpace(RefCell<BytesMut>);

impl ReadSpace {
    /// Reads once, up to `limit` bytes. Returns the bytes, none at the end of the stream.
    pub(super) fn poll_read(
        &self,
        socket: &Socket,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<BytesMut>> {
        let mut space = self.0.borrow_mut();
        if space.capacity() < limit {
            // Reuses the space if all responses in it are gone.
            space.reserve(SPACE);
        }
        ready!(socket.poll_read(&mut space, limit, context))?;
        Poll::Ready(Ok(space.split()))
    }
}
