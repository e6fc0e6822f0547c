//! Addresses that people configure, and hosts of registries in references.
//!
//! Owns what must hold of every text: it is an address, or the problem says where and shows no password; and what the
//! configuration accepts can be connected to.

use agent::config::{AgentConfig, RuntimeConfig};
use controller::config::ControllerConfig;
use daemon::bus::NatsConfig;
use daemon::config::{Problems, Validate};
use shared::image::Reference;

/// One address.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    servers(&text);
    listen(&text);
    socket(&text);
    registry(&text);
}

fn complaints(section: &impl Validate) -> Vec<String> {
    let mut found = Problems::default();
    section.problems(&mut found);
    found.messages()
}

/// Servers of NATS: one bad address is named by its place and leaves the other.
fn servers(text: &str) {
    let urls = vec!["nats://good.example:4222".to_owned(), text.to_owned()];
    let found = complaints(&NatsConfig { urls, ..NatsConfig::default() });
    assert!(found.iter().all(|problem| problem.starts_with("urls[1]: ")), "{found:?}");
    let address = text.parse::<async_nats::ServerAddr>();
    if found.is_empty() {
        assert!(address.is_ok_and(|address| !address.host().is_empty()), "{text:?} is taken and is no server");
        assert!(!text.contains('@'));
    } else if let Ok(address) = address
        && let Some(password) = address.password().filter(|password| password.len() > 3)
    {
        // A short one may stand in our own words.
        assert!(found.iter().all(|problem| !problem.contains(password)), "a password is shown: {found:?}");
    }
}

/// Both processes take the same addresses to listen on.
fn listen(text: &str) {
    let mut agent = AgentConfig::default();
    text.clone_into(&mut agent.admin.listen);
    let mut controller = ControllerConfig::default();
    text.clone_into(&mut controller.admin.listen);
    let is_taken = |found: Vec<String>| !found.iter().any(|problem| problem.starts_with("admin.listen: "));
    let (by_agent, by_controller) = (is_taken(complaints(&agent)), is_taken(complaints(&controller)));
    assert_eq!(by_agent, by_controller, "{text:?} is taken by one process and refused by the other");
    assert_eq!(by_agent, text.parse::<std::net::SocketAddr>().is_ok(), "{text:?}");
}

/// The socket of the runtime.
fn socket(text: &str) {
    let found = complaints(&RuntimeConfig { socket: Some(text.to_owned()), ..RuntimeConfig::default() });
    let path = text.strip_prefix("unix://").unwrap_or(text);
    let is_usable = std::os::unix::net::SocketAddr::from_pathname(path).is_ok() && path.starts_with('/');
    assert_eq!(found.is_empty(), is_usable, "{text:?}: {found:?}");
}

/// The host of a registry: what is read as one is one, with its port, and keeps its case.
fn registry(text: &str) {
    let image = format!("{text}/team/app:1");
    let Ok(reference) = Reference::parse(&image) else { return };
    let domain = reference.domain();
    let (host, port) = domain.rsplit_once(':').filter(|_| !domain.ends_with(']')).unwrap_or((domain, ""));
    assert!(port.bytes().all(|b| b.is_ascii_digit()), "{domain}");
    assert!(!host.contains(['/', '@']) && !host.contains(char::is_whitespace), "{domain}");
    assert!(domain.is_empty() || domain == "docker.io" || text == domain || text.starts_with(&format!("{domain}/")));
    assert_eq!(reference.repository(), format!("{domain}/{}", reference.path()).trim_start_matches('/'));
}
