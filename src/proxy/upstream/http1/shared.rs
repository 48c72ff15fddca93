//! State shared by the HTTP/1.1 connections of an endpoint.

use std::rc::Rc;

use crate::proxy::upstream::outbox::Outbox;
use crate::proxy::upstream::surplus::SurplusFlag;

use super::read_space::ReadSpace;

/// State shared by the HTTP/1.1 connections of one endpoint in one worker.
#[derive(Debug, Default)]
pub(in crate::proxy::upstream) struct SharedHttp1 {
    pub(super) outbox: Rc<Outbox>,
    pub(super) space: ReadSpace,
    pub(in crate::proxy::upstream) surplus: SurplusFlag,
}

impl SharedHttp1 {
    pub(in crate::proxy::upstream) fn new(outbox: Rc<Outbox>) -> Self {
        Self {
            outbox,
            ..Self::default()
        }
    }
}
