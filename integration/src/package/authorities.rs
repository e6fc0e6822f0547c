//! The certificates of authorities that an image trusts: owns their format. The set is Mozilla's, as the crate
//! `webpki-root-certs` has it: `Cargo.lock` pins it, so that an image is the same wherever it is built.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Characters of a line of PEM.
const LINE: usize = 64;

/// All of them, one after another.
pub(super) fn pem() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for (number, character) in STANDARD.encode(certificate).chars().enumerate() {
            if number > 0 && number % LINE == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_every_authority() {
        let text = pem();
        let found: Vec<_> = text.split("-----END CERTIFICATE-----\n").filter(|text| !text.is_empty()).collect();
        assert!(found.len() > 100, "{}", found.len());
        for (text, certificate) in found.iter().zip(webpki_root_certs::TLS_SERVER_ROOT_CERTS) {
            let (_, body) = text.split_once("-----BEGIN CERTIFICATE-----\n").unwrap();
            assert!(body.lines().all(|line| line.len() <= LINE));
            assert_eq!(STANDARD.decode(body.replace('\n', "")).unwrap(), certificate.as_ref());
        }
    }
}
