//! Connections that a worker serves: closed on drain and shutdown, evicted to make room for others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use tokio::task::AbortHandle;

use super::connection::Connection;

/// Connections of one worker.
#[derive(Debug, Default)]
pub(super) struct ServedConnections {
    last_number: Cell<u64>,
    by_number: RefCell<HashMap<u64, Served>>,
    /// Number of evicted connections that are still open.
    evicted: Cell<usize>,
}

#[derive(Debug)]
struct Served {
    connection: Weak<Connection>,
    task: AbortHandle,
}

/// Removes one connection from [`ServedConnections`] on drop.
pub(super) struct ServedConnection {
    pub(super) number: u64,
    served: Rc<ServedConnections>,
}

impl ServedConnections {
    /// Assigns a number to a connection.
    pub(super) fn begin(self: &Rc<Self>) -> ServedConnection {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        ServedConnection {
            number,
            served: Rc::clone(self),
        }
    }

    /// Adds the connection with this number, which `task` serves.
    pub(super) fn add(&self, number: u64, connection: Weak<Connection>, task: AbortHandle) {
        let mut by_number = self.by_number.borrow_mut();
        by_number.insert(number, Served { connection, task });
    }

    /// Closes matching connections after their exchanges in flight.
    pub(super) fn close(&self, predicate: impl Fn(&Connection) -> bool) {
        let by_number = self.by_number.borrow();
        let connections: Vec<_> = by_number
            .values()
            .map(|served| Weak::clone(&served.connection))
            .collect();
        drop(by_number);
        for connection in connections.iter().filter_map(Weak::upgrade) {
            if predicate(&connection) {
                connection.close();
            }
        }
    }

    /// Closes the connections that have waited for a request head longest, `count` at most. Returns their number.
    ///
    /// Without a lingering close, which an idle client could extend: such a connection closes like any idle one, and
    /// clients repeat a request that arrives too late.
    pub(super) fn evict(&self, count: usize) -> usize {
        let mut by_number = self.by_number.borrow_mut();
        let idle = by_number.iter().filter_map(|(number, served)| {
            let since = served.connection.upgrade()?.evictable_since()?;
            Some((since, *number))
        });
        let mut idle: Vec<_> = idle.collect();
        if count < idle.len() {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        for (_, number) in &idle {
            if let Some(served) = by_number.remove(number) {
                served.task.abort();
            }
        }
        self.evicted.set(self.evicted.get() + idle.len());
        idle.len()
    }

    /// Number of evicted connections that are still open, until their tasks run again.
    pub(super) fn evicted(&self) -> usize {
        self.evicted.get()
    }
}

impl Drop for ServedConnection {
    fn drop(&mut self) {
        let served = &self.served;
        if served.by_number.borrow_mut().remove(&self.number).is_none() {
            served.evicted.set(served.evicted.get().saturating_sub(1));
        }
    }
}
