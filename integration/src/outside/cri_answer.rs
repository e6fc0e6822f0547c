//! Answers of the container runtime.
//!
//! Owns what must hold of every answer and of every text of an error: a list loses nothing but what cannot be read, a
//! text becomes one of the bounded reasons, and no name of an image decides which.

use agent::cri::proto::{Image, ImageFsInfoResponse, ImageStatusResponse, ListImagesResponse};
use agent::cri::{CriError, error::reason_of, list, observe};
use node_plan::fact::{RuntimeImage, digest_in};
use prost::Message as _;
use shared::image::Reference;
use shared::reason::{Class, Reason};
use tonic::{Code, Status};

/// A name that no text holds by chance.
const STRANGER: &str = "stranger.invalid/zzz/yyy:0";

/// The first line says what answers: `list`, `status` or `disk`, then comes protobuf; or `error <code> <image>`, then
/// comes the text of the status.
pub fn check(data: &[u8]) {
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let first = String::from_utf8_lossy(data.get(..end).unwrap_or_default());
    let body = data.get(end + 1..).unwrap_or_default();
    let mut words = first.split(' ');
    match words.next() {
        Some("list") => listed(body),
        Some("status") => {
            if let Ok(answer) = ImageStatusResponse::decode(body) {
                list::held(answer).iter().for_each(is_sound);
            }
        }
        Some("disk") => {
            if let Ok(answer) = ImageFsInfoResponse::decode(body) {
                assert!(observe::mountpoint(answer).is_none_or(|path| !path.as_os_str().is_empty()));
            }
        }
        Some("error") => {
            let code = words.next().and_then(|code| code.parse::<i32>().ok()).map_or(Code::Unknown, Code::from_i32);
            refused(code, words.next().unwrap_or_default(), &String::from_utf8_lossy(body));
        }
        _ => {}
    }
}

fn listed(body: &[u8]) {
    let Ok(answer) = ListImagesResponse::decode(body) else { return };
    let readable = answer.images.iter().filter(|image| std::str::from_utf8(&image.id).is_ok()).count();
    let images = list::images(answer);
    assert_eq!(images.len(), readable, "nothing but what cannot be read is left out");
    images.iter().for_each(is_sound);

    // Whatever came before it, a good image is found.
    let good = Image { id: b"good".to_vec(), repo_tags: vec![STRANGER.into()], size: 7, ..Image::default() };
    let mut more = body.to_vec();
    more.extend(ListImagesResponse { images: vec![good] }.encode_to_vec());
    let Ok(answer) = ListImagesResponse::decode(more.as_slice()) else { return };
    let found = list::images(answer).pop();
    assert_eq!(found.map(|image| (image.runtime_id, image.repo_tags)), Some(("good".into(), vec![STRANGER.into()])));
}

fn is_sound(image: &RuntimeImage) {
    for name in &image.repo_digests {
        if let Some(digest) = digest_in(name) {
            assert!(name.ends_with(&digest.to_string()), "{name} has another digest than {digest}");
        }
    }
    for name in &image.repo_tags {
        if let Ok(reference) = Reference::parse(name) {
            assert_eq!(Reference::parse(&reference.canonical()).map(|r| r.key()), Ok(reference.key()));
        }
    }
}

fn refused(code: Code, image: &str, text: &str) {
    let error = CriError::new("PullImage", image, &Status::new(code, text));
    let reason = error.reason();
    assert!(Reason::ALL.iter().any(|(known, _)| *known == reason));
    super::is_short_line(&error.to_string());
    assert!(reason != Reason::Throttled || error.class() == Class::Throttled);
    let CriError::Refused { .. } = error else { return };
    assert_eq!(reason, reason_of(code, text, image), "the same text has one reason");
    // Only a reference is ever asked for, and one is no part of what runtimes say themselves.
    let is_reference = Reference::parse(image).is_ok_and(|r| r.canonical() == image && image.contains('/'));
    if is_reference && !text.contains(STRANGER) {
        let renamed = text.replace(image, STRANGER);
        assert_eq!(reason_of(code, &renamed, STRANGER), reason, "the name {image} decides in {text:?}");
    }
}
