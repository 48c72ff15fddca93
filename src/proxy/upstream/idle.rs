//! Idle HTTP/1.1 connections of one endpoint.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::proxy::deadline_timer::DeadlineTimer;

use super::http1::Http1;

/// Period over which the peak of concurrent exchanges is taken, twice.
const PEAK_WINDOW: Duration = Duration::from_secs(10);

/// Idle connections, the least recently used first. As many as exchanges were recently in flight at once.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    connections: RefCell<VecDeque<Idle>>,
    demand: Cell<Demand>,
    /// Task that closes the connections that end or expire; none before the first idle connection.
    watcher: RefCell<Option<Waker>>,
    /// Time at which the watcher wakes by itself.
    wakes_at: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Http1>,
    expires: Instant,
}

/// Peak of concurrent exchanges, of this window and of the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    current: usize,
    previous: usize,
    window_ends: Option<Instant>,
}

impl Demand {
    /// Begins a new window, with these exchanges in flight, if this one is over.
    fn at(mut self, now: Instant, in_flight: usize) -> Self {
        match self.window_ends {
            Some(ends) if now < ends => return self,
            // A window without any exchange passed between.
            Some(ends) if now >= ends + PEAK_WINDOW => self.previous = 0,
            Some(_) | None => self.previous = self.current,
        }
        self.current = in_flight;
        self.window_ends = Some(now + PEAK_WINDOW);
        self
    }

    fn peak(self) -> usize {
        self.current.max(self.previous).max(1)
    }
}

impl IdleConnections {
    /// Notes the number of exchanges in flight.
    pub(super) fn note_demand(&self, in_flight: usize) {
        let mut demand = self.demand.get();
        if in_flight > demand.current {
            demand.current = in_flight;
            self.demand.set(demand);
        }
    }

    /// Adds a connection that expires after `timeout`, with these exchanges in flight.
    pub(super) fn push(
        self: &Rc<Self>,
        mut connection: Box<Http1>,
        timeout: Duration,
        in_flight: usize,
    ) {
        let now = Instant::now();
        let expires = now + timeout;
        match &*self.watcher.borrow() {
            Some(watcher) => {
                if connection.poll_idle_end(&mut Context::from_waker(watcher)) {
                    return;
                }
                if self
                    .wakes_at
                    .get()
                    .is_none_or(|wakes_at| expires < wakes_at)
                {
                    watcher.wake_by_ref();
                }
            }
            None => self.start_watcher(),
        }
        let demand = self.demand.get().at(now, in_flight);
        self.demand.set(demand);
        let mut connections = self.connections.borrow_mut();
        connections.push_back(Idle {
            connection,
            expires,
        });
        while connections.len() > demand.peak() {
            drop(connections.pop_front());
        }
    }

    /// Takes the most recently used connection.
    pub(super) fn pop(&self) -> Option<Box<Http1>> {
        let mut connections = self.connections.borrow_mut();
        let now = Instant::now();
        while let Some(idle) = connections.pop_back() {
            if now < idle.expires {
                return Some(idle.connection);
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Closes every connection.
    pub(super) fn clear(&self) {
        self.connections.borrow_mut().clear();
    }

    fn start_watcher(self: &Rc<Self>) {
        let connections = Rc::downgrade(self);
        let mut timer = DeadlineTimer::default();
        spawn_local(poll_fn(move |context| {
            poll_watch(&connections, &mut timer, context)
        }));
    }

    /// Closes the connections that have ended or expired, and watches the others.
    fn sweep(&self, context: &mut Context<'_>) {
        let now = Instant::now();
        let mut connections = self.connections.borrow_mut();
        connections
            .retain_mut(|idle| now < idle.expires && !idle.connection.poll_idle_end(context));
    }

    fn next_expiry(&self) -> Option<Instant> {
        let connections = self.connections.borrow();
        connections.iter().map(|idle| idle.expires).min()
    }
}

impl Drop for IdleConnections {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get_mut() {
            // It finds the connections gone.
            watcher.wake_by_ref();
        }
    }
}

fn poll_watch(
    connections: &Weak<IdleConnections>,
    timer: &mut DeadlineTimer,
    context: &mut Context<'_>,
) -> Poll<()> {
    let Some(idle) = connections.upgrade() else {
        return Poll::Ready(());
    };
    let is_known = idle.watcher.borrow().is_some();
    if !is_known {
        *idle.watcher.borrow_mut() = Some(context.waker().clone());
    }
    loop {
        idle.sweep(context);
        let expiry = idle.next_expiry();
        idle.wakes_at.set(expiry);
        match expiry {
            Some(expiry) if timer.elapsed(expiry, context) => {}
            Some(_) | None => return Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_as_many_connections_as_the_peak_of_this_window_and_the_last() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut demand = Demand::default();
        let mut peaks = Vec::new();
        for (seconds, in_flight) in [
            (0, 100),
            (9, 1),
            (11, 3),
            (19, 2),
            (22, 2),
            (60, 1),
            (61, 50),
        ] {
            demand = demand.at(at(seconds), in_flight);
            demand.current = demand.current.max(in_flight);
            peaks.push(demand.peak());
        }
        assert_eq!(peaks, [100, 100, 100, 100, 3, 1, 50]);
    }
}
