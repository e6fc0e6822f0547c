//! Why a request to the Kubernetes API failed, as one of the bounded words.
//!
//! Owns the one reading of the API server's answers. Never retries.

use shared::reason::Reason;

/// The word for metrics, logs and facts.
pub fn reason(error: &kube::Error) -> Reason {
    match error {
        kube::Error::Api(status) => match status.code {
            404 | 409 => Reason::Conflict,
            401 | 403 => Reason::Forbidden,
            429 => Reason::Throttled,
            400 | 422 => Reason::Invalid,
            504 => Reason::Timeout,
            500.. => Reason::KubernetesUnavailable,
            _ => Reason::Unknown,
        },
        kube::Error::BuildRequest(_) => Reason::Invalid,
        _ => Reason::KubernetesUnavailable,
    }
}

/// The word and what the API server said, for people.
pub fn in_words(error: &kube::Error) -> String {
    let reason = reason(error);
    match error {
        // Its own text repeats the whole answer.
        kube::Error::Api(status) => format!("{reason}: {}", status.message),
        _ => format!("{reason}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(404, Reason::Conflict)]
    #[case(409, Reason::Conflict)]
    #[case(403, Reason::Forbidden)]
    #[case(429, Reason::Throttled)]
    #[case(422, Reason::Invalid)]
    #[case(500, Reason::KubernetesUnavailable)]
    #[case(503, Reason::KubernetesUnavailable)]
    #[case(504, Reason::Timeout)]
    #[case(418, Reason::Unknown)]
    fn an_answer_becomes_a_bounded_reason(#[case] code: u16, #[case] expected: Reason) {
        let status = Status { code, ..Status::default() };
        assert_eq!(reason(&kube::Error::Api(Box::new(status))), expected);
    }
}
