//! Retry budget: limits retries to a share of the requests, so that a failing upstream does not get double the load.

use std::cell::Cell;

/// Cost of one retry, in hundredths.
const RETRY_COST: u32 = 100;

/// Initial balance: ten retries.
const INITIAL_BALANCE: u32 = 10 * RETRY_COST;

/// Limit of the balance: a hundred retries.
const MAX_BALANCE: u32 = 100 * RETRY_COST;

/// Balance of retries. Each request deposits a share of one retry.
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: u32,
    balance: Cell<u32>,
}

impl RetryBudget {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            percent,
            balance: Cell::new(if percent == 0 { 0 } else { INITIAL_BALANCE }),
        }
    }

    /// Deposits the share of one request.
    pub(super) fn deposit(&self) {
        let balance = self.balance.get().saturating_add(self.percent);
        self.balance.set(balance.min(MAX_BALANCE));
    }

    /// Withdraws the cost of one retry. Returns false, and withdraws nothing, if the balance is too low.
    pub(super) fn withdraw(&self) -> bool {
        let Some(left) = self.balance.get().checked_sub(RETRY_COST) else {
            return false;
        };
        self.balance.set(left);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(percent: u32, requests: usize) -> usize {
        let budget = RetryBudget::new(percent);
        let retried = (0..requests).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        retried.count()
    }

    #[test]
    fn allows_the_budget_percentage_and_a_reserve() {
        assert_eq!(retries(20, 1000), 210);
        assert_eq!(retries(100, 1000), 1000);
        assert_eq!(retries(0, 1000), 0);
    }

    #[test]
    fn limits_the_balance() {
        let budget = RetryBudget::new(20);
        for _ in 0..1_000_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100);
    }
}
