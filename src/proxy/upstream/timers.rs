//! Timers that exchanges take turns with: a timer stays registered with the runtime after its exchange, so that most
//! exchanges register none.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Context;

use tokio::time::Instant;

use crate::proxy::deadline_timer::DeadlineTimer;

/// Timers without an exchange. As many as exchanges were in flight at once.
#[derive(Debug, Default)]
pub(super) struct Timers(RefCell<Vec<DeadlineTimer>>);

/// Timer of one exchange, returned on drop.
#[derive(Debug)]
pub(super) struct ExchangeTimer {
    timer: DeadlineTimer,
    timers: Rc<Timers>,
}

impl Timers {
    pub(super) fn take(self: &Rc<Self>) -> ExchangeTimer {
        ExchangeTimer {
            timer: self.0.borrow_mut().pop().unwrap_or_default(),
            timers: Rc::clone(self),
        }
    }
}

impl ExchangeTimer {
    /// See [`DeadlineTimer::elapsed`].
    pub(super) fn elapsed(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        self.timer.elapsed(deadline, context)
    }
}

impl Drop for ExchangeTimer {
    fn drop(&mut self) {
        // An elapsed timer is registered nowhere.
        if self.timer.is_set() {
            let timer = std::mem::take(&mut self.timer);
            self.timers.0.borrow_mut().push(timer);
        }
    }
}
