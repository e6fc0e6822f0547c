//! What a proxy in front of a runtime is told to do to some calls: rules as data. Carrying them out is the proxy's.

use std::time::Duration;

use tonic::Code;

use super::lie::Lie;

/// What happens to a call.
#[derive(Clone, Debug)]
pub enum CriFault {
    /// It reaches the runtime that much later.
    Delay(Duration),
    /// It is answered with this code and message; the runtime never sees it.
    Status(Code, String),
    /// No answer until the rule is taken away or the caller gives up; then it goes on as if nothing had been.
    Hang,
    /// The answer breaks off after so many bytes of its body, without a status.
    TruncateAfter(usize),
    /// The answer says something else than the runtime did.
    Lie(Lie),
}

/// A fault and the calls it is for.
#[derive(Clone, Debug)]
pub struct CriRule {
    method: Option<String>,
    image: Option<String>,
    left: Option<u32>,
    fault: CriFault,
}

impl CriRule {
    /// For calls of this method (without its service), as in `PullImage`.
    pub fn new(method: &str, fault: CriFault) -> Self {
        Self { method: Some(method.into()), image: None, left: None, fault }
    }

    /// For every answer that tells of images.
    pub fn lie(lie: Lie) -> Self {
        Self { method: None, image: None, left: None, fault: CriFault::Lie(lie) }
    }

    /// Only for calls that name this image.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.image = Some(image.into());
        self
    }

    /// Only for the first so many calls.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }

    /// The fault if the rule is for this call; counts down if it is.
    pub(super) fn takes(&mut self, method: &str, image: &str) -> Option<CriFault> {
        let fits = self.left != Some(0)
            && match &self.method {
                Some(wanted) => wanted == method,
                None => Lie::is_about(method),
            }
            && self.image.as_ref().is_none_or(|wanted| wanted == image);
        if fits && let Some(left) = &mut self.left {
            *left -= 1;
        }
        fits.then(|| self.fault.clone())
    }
}
