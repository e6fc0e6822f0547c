//! What runtimes really say. Texts marked `seen` were copied from a run of containerd 2.3.7; the others are from sources
//! and issue reports.

use super::*;

const IMAGE: &str = "reg.example:5000/team/app:1";

fn pull(rest: &str) -> String {
    format!("failed to pull and unpack image \"{IMAGE}\": {rest}")
}

fn resolve(rest: &str) -> String {
    pull(&format!("failed to resolve image: {rest}"))
}

fn head(status: &str) -> String {
    resolve(&format!(
        "unexpected status from HEAD request to http://reg.example:5000/v2/team/app/manifests/1: {status}"
    ))
}

#[test]
fn texts_of_runtimes_become_reasons() {
    use Reason::*;
    let sha = "sha256:b93d118ce4c7f2021d0c1c554a3bfc01b5b782f7bd4ad43e46f12d86fb719dac";
    let layer = format!("{sha}: 500 Internal Server Error");
    #[rustfmt::skip]
    let table: Vec<(Code, String, Reason)> = vec![
        // containerd, transfer service: seen
        (Code::NotFound, resolve(&format!("{IMAGE}: not found")), NotFound),
        (Code::Unknown, head("401 Unauthorized"), Unauthorized),
        (Code::Unknown, head("403 Forbidden\ndenied"), Unauthorized),
        (Code::Unknown, head("429 Too Many Requests"), Throttled),
        (Code::Unknown, head("500 Internal Server Error"), RegistryUnavailable),
        (Code::Unknown, head("503 Service Unavailable"), RegistryUnavailable),
        (Code::Unknown, resolve("pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"), Unauthorized),
        (Code::Unknown, resolve("failed to authorize: failed to fetch anonymous token: Get \"http://127.0.0.1:1/token?scope=%5BREDACTED%5D\": dial tcp 127.0.0.1:1: connect: connection refused"), Network),
        (Code::NotFound, format!("get image config descriptor: no match for platform in manifest {sha}: not found"), NoPlatform),
        (Code::Unknown, pull("short read: expected 173 bytes but got 10: unexpected EOF"), Network),
        (Code::FailedPrecondition, pull(&format!("failed commit on ref \"config-{sha}\": unexpected commit digest {sha}, expected {sha}: failed precondition")), Corrupt),
        (Code::Unknown, pull(&format!("failed to copy: httpReadSeeker: failed open: unexpected status from GET request to http://reg.example:5000/v2/team/app/blobs/{layer}")), RegistryUnavailable),
        (Code::NotFound, pull(&format!("failed to copy: httpReadSeeker: failed open: could not fetch content descriptor {sha} (application/vnd.oci.image.config.v1+json) from remote: not found")), NotFound),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example:5000/v2/team/app/manifests/1\": dial tcp: lookup reg.example on 10.0.0.10:53: no such host"), Network),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example:5000/v2/x/manifests/1\": dial tcp 10.1.2.3:5000: connect: connection refused"), Network),
        (Code::InvalidArgument, "failed to parse image reference \"BAD REF\": invalid reference format: repository name (library/BAD REF) must be lowercase".into(), Invalid),
        // containerd, older and by the local puller
        (Code::NotFound, pull(&format!("failed to resolve reference \"{IMAGE}\": {IMAGE}: not found")), NotFound),
        (Code::Unknown, pull(&format!("failed to resolve reference \"{IMAGE}\": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed")), Unauthorized),
        (Code::Unknown, pull("failed to copy: httpReadSeeker: failed open: unexpected status code https://reg.example/v2/app/blobs/sha256:aa: 429 Too Many Requests - Server message: toomanyrequests: You have reached your unauthenticated pull rate limit."), Throttled),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example/v2/app/manifests/1\": dial tcp 10.1.2.3:443: i/o timeout"), Network),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example/v2/app/manifests/1\": net/http: TLS handshake timeout"), Network),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example/v2/app/manifests/1\": tls: failed to verify certificate: x509: certificate signed by unknown authority"), Network),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example/v2/app/manifests/1\": http: server gave HTTP response to HTTPS client"), Network),
        (Code::Unknown, resolve("failed to do request: Head \"https://reg.example/v2/app/manifests/1\": EOF"), Network),
        (Code::Unknown, resolve("failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://auth.example/token?service=x: 503 Service Unavailable"), RegistryUnavailable),
        (Code::Unknown, resolve("failed to authorize: failed to fetch oauth token: unexpected status from POST request to https://auth.example/token: 401 Unauthorized"), Unauthorized),
        (Code::Unknown, pull(&format!("failed to extract layer {sha}: write /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/3/fs/f: no space left on device: unknown")), NoSpace),
        (Code::FailedPrecondition, pull(&format!("failed commit on ref \"layer-{sha}\": \"layer-{sha}\" failed size validation: 10 != 173: failed precondition")), Corrupt),
        (Code::Unknown, pull(&format!("failed to extract layer {sha}: failed to apply layer: archive/tar: invalid tar header")), Corrupt),
        (Code::NotFound, pull("no match for platform in manifest: not found"), NoPlatform),
        (Code::Cancelled, pull("context canceled"), DeadlineExceeded),
        (Code::Unknown, pull("failed to copy: context deadline exceeded"), DeadlineExceeded),
        (Code::DeadlineExceeded, "context deadline exceeded".into(), DeadlineExceeded),
        (Code::Unknown, pull(&format!("image verifier bindir blocked pull of app with digest {sha} for reason: unsigned")), Policy),
        (Code::Unavailable, "server is not initialized yet".into(), RuntimeUnavailable),
        // CRI-O
        (Code::Unknown, "RegistryUnavailable: pinging container registry reg.example: Get \"https://reg.example/v2/\": dial tcp 10.1.2.3:443: connect: connection refused".into(), Network),
        (Code::Unknown, "RegistryUnavailable: something new".into(), RegistryUnavailable),
        (Code::Unknown, "SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists".into(), Policy),
        (Code::Unknown, "Source image rejected: Running image docker://reg.example/app:1 is rejected by policy.".into(), Policy),
        (Code::Unknown, "short-name \"app\" did not resolve to an alias and no unqualified-search registries are defined in \"/etc/containers/registries.conf\"".into(), ShortName),
        (Code::Unknown, "short-name resolution enforced but cannot prompt without a TTY".into(), ShortName),
        (Code::Unknown, "initializing source docker://reg.example/app:1: reading manifest 1 in reg.example/app: manifest unknown".into(), NotFound),
        (Code::Unknown, "reading manifest 1 in docker.io/team/app: requested access to the resource is denied".into(), Unauthorized),
        (Code::Unknown, "initializing source docker://reg.example/app:1: reading manifest 1 in reg.example/app: toomanyrequests: You have reached your pull rate limit".into(), Throttled),
        (Code::Unknown, "pinging container registry reg.example: received unexpected HTTP status: 502 Bad Gateway".into(), RegistryUnavailable),
        (Code::Unknown, "copying system image from manifest list: choosing image instance: no image found in manifest list for architecture \"riscv64\", variant \"\", OS \"linux\"".into(), NoPlatform),
        (Code::Unknown, "reading manifest 1 in harbor.example/app: StatusCode: 412, \"{\\\"errors\\\":[]}\"".into(), Policy),
        // Nothing known
        (Code::Unknown, pull("the moon is full"), Unknown),
        (Code::Internal, String::new(), Unknown),
        (Code::NotFound, "gone".into(), NotFound),
        (Code::PermissionDenied, "no".into(), Unauthorized),
    ];
    for (code, text, reason) in table {
        assert_eq!(reason_of(code, &text, IMAGE), reason, "{code:?}: {text}");
    }
}

#[test]
fn names_chosen_by_others_do_not_decide() {
    for image in [
        "docker.io/acme/unauthorized:500",
        "no-space.example/x509:429",
        "reg.example/short-name:401",
        "reg.example/toomanyrequests:1",
        "reg.example/connection-refused:404",
    ] {
        let text = format!(
            "failed to pull and unpack image \"{image}\": failed to resolve image: unexpected status from HEAD request to \
             https://reg.example/v2/short-name/toomanyrequests/manifests/404: 503 Service Unavailable"
        );
        assert_eq!(reason_of(Code::Unknown, &text, image), Reason::RegistryUnavailable, "{text}");
        let text = format!("failed to resolve image: {image}: not found");
        assert_eq!(reason_of(Code::NotFound, &text, image), Reason::NotFound, "{text}");
    }
}

#[test]
fn numbers_that_are_no_status_do_not_decide() {
    assert_eq!(http_status("size 500 of 404: expected 429 bytes"), None);
    assert_eq!(http_status("connect to 10.0.0.1:500: no"), None);
    assert_eq!(http_status("_: 500 internal server error"), Some(500));
    assert_eq!(http_status("unexpected head status code 404: 404 not found"), Some(404));
    assert_eq!(http_status("statuscode: 403, <html>"), Some(403));
    assert_eq!(http_status("received 200 expected: 200"), None);
}

#[test]
fn no_text_panics() {
    for text in ["", "\"", "\"\"\"", "é\u{0}\"https://", "https://", ": ", "\\\"\\\""] {
        let _ = (reason_of(Code::Unknown, text, ""), reason_of(Code::Unknown, text, text));
    }
}

#[test]
fn a_status_of_the_peer_is_no_broken_connection() {
    let refused = CriError::new("PullImage", IMAGE, &Status::unavailable("server is not initialized yet"));
    assert!(matches!(refused, CriError::Refused { reason: Reason::RuntimeUnavailable, .. }), "{refused:?}");
    let no_cri = CriError::new("Version", "", &Status::unimplemented("unknown service runtime.v1.RuntimeService"));
    assert!(no_cri.to_string().contains("`runtime.socket`"), "{no_cri}");
    assert_eq!(no_cri.reason(), Reason::RuntimeUnavailable);
}

#[test]
fn what_a_registry_answers_is_shown_short_on_one_line_and_without_its_password() {
    let text = pull(&format!("GET https://user:S3CR3T@reg.example/v2/: 403 Forbidden\n{}", "denied ".repeat(5_000)));
    let error = CriError::new("PullImage", IMAGE, &Status::unknown(text));
    assert_eq!(error.reason(), Reason::Unauthorized);
    let shown = error.to_string();
    assert!(shown.contains("https://…@reg.example/v2/: 403 Forbidden\\ndenied"), "{shown}");
    assert!(shown.chars().count() < 900 && !shown.contains('\n'), "{shown}");
}
