//! Spinner on standard error while a command waits for another machine.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames of the spinner, each shown for [`INTERVAL`].
const FRAMES: [char; 8] = ['⠋', '⠙', '⠸', '⠴', '⠦', '⠇', '⠏', '⠟'];

const INTERVAL: Duration = Duration::from_millis(100);

/// Erases the line of the cursor.
const ERASE: &str = "\r\u{1b}[2K";

/// Spinner that turns until it is dropped. Shows nothing if standard error is no terminal, or within the first interval.
#[derive(Debug)]
pub(super) struct Spinner(Option<(Sender<()>, JoinHandle<()>)>);

impl Spinner {
    pub(super) fn start(text: impl Display) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let text = text.to_string();
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut frames = FRAMES.iter().cycle();
            let mut is_shown = false;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let frame = frames.next().unwrap_or(&' ');
                let _closed = write!(stderr(), "{ERASE}{frame} {text}");
                is_shown = true;
            }
            if is_shown {
                let _closed = write!(stderr(), "{ERASE}");
            }
        });
        Self(Some((stop, thread)))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            let _stopped = thread.join();
        }
    }
}
