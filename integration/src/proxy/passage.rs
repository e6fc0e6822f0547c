//! The body of one answer on its way through an HTTP proxy: owns what is done to its bytes and counting them.

use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame};
use tokio::sync::watch;

use super::fault::Fault;
use super::http::Body;
use super::log::Entry;
use super::rules::{RuleId, wait_until_gone};

/// A body on its way, with what is done to it.
pub(super) struct Passage {
    pub(super) body: Body,
    pub(super) entry: Entry,
    pub(super) fault: Option<Fault>,
    pub(super) rule: Option<RuleId>,
    pub(super) active: watch::Receiver<Vec<RuleId>>,
    pub(super) passed: u64,
}

impl Passage {
    /// Its bytes, as the client gets them.
    pub(super) fn stream(mut self) -> impl Stream<Item = Result<Frame<Bytes>>> {
        // Nobody asks for more once all bytes that were announced have come, so the end is looked for in advance.
        self.look_for_end();
        futures::stream::unfold(Some(self), async |passage| {
            let mut passage = passage?;
            match passage.next().await? {
                Ok(data) => Some((Ok(Frame::data(data)), Some(passage))),
                // The connection ends when its body ends in an error.
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes>> {
        let mut data = match self.body.frame().await? {
            Ok(frame) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => return Some(Err(anyhow!("trailers, which nobody here sends"))),
            },
            Err(error) => return Some(Err(error)),
        };
        match self.fault {
            Some(Fault::TruncateAfter(limit)) => {
                let room = usize::try_from(limit.saturating_sub(self.passed)).unwrap_or(usize::MAX);
                if room == 0 {
                    return Some(Err(anyhow!("truncated")));
                }
                data.truncate(room);
            }
            Some(Fault::StallAfter(limit)) if self.passed + data.len() as u64 > limit => {
                wait_until_gone(&mut self.active, self.rule).await;
            }
            Some(Fault::Alter) if self.passed == 0 => {
                let at = data.len() / 2;
                data = data.iter().enumerate().map(|(i, byte)| if i == at { !byte } else { *byte }).collect();
            }
            Some(Fault::Throttle(rate)) => {
                tokio::time::sleep(Duration::from_secs_f64(data.len() as f64 / rate.max(1) as f64)).await;
            }
            _ => {}
        }
        self.passed += data.len() as u64;
        let passed = self.passed;
        self.entry.update(|line| line.bytes = passed);
        self.look_for_end();
        Some(Ok(data))
    }

    fn look_for_end(&mut self) {
        let is_cut_short = matches!(self.fault, Some(Fault::TruncateAfter(limit)) if self.passed >= limit);
        if self.body.is_end_stream() && !is_cut_short {
            self.entry.complete();
        }
    }
}
