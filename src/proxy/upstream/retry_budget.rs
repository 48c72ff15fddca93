//! How many requests may be sent twice, so that an upstream in trouble does not get twice as many.

use std::cell::Cell;

/// What a second sending costs.
const PRICE: u32 = 100;

/// What is there at the start: a few failures are no trouble.
const RESERVE: u32 = 10 * PRICE;

/// The most that can be saved up.
const MOST: u32 = 100 * PRICE;

/// Each request pays in a part of a second sending.
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: u32,
    saved: Cell<u32>,
}

impl RetryBudget {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            percent,
            saved: Cell::new(if percent == 0 { 0 } else { RESERVE }),
        }
    }

    /// A request has come.
    pub(super) fn deposit(&self) {
        let saved = self.saved.get().saturating_add(self.percent);
        self.saved.set(saved.min(MOST));
    }

    /// Whether a request may be sent twice.
    pub(super) fn withdraw(&self) -> bool {
        let Some(left) = self.saved.get().checked_sub(PRICE) else {
            return false;
        };
        self.saved.set(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_twice(percent: u32, requests: usize) -> usize {
        let budget = RetryBudget::new(percent);
        let twice = (0..requests).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        twice.count()
    }

    #[test]
    fn of_many_requests_a_part_may_be_sent_twice_and_a_few_at_the_start() {
        assert_eq!(sent_twice(20, 1000), 210);
        assert_eq!(sent_twice(100, 1000), 1000);
        assert_eq!(sent_twice(0, 1000), 0);
    }

    #[test]
    fn good_times_are_saved_up_to_a_bound() {
        let budget = RetryBudget::new(20);
        for _ in 0..1_000_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100);
    }
}
