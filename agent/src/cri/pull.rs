//! A pull.
//!
//! Owns `PullImage` and the look afterwards: `image_ref` in its answer means different things in different versions
//! (kubernetes.md 1.1), so what is there now is asked of `ImageStatus`.

use std::collections::HashMap;
use std::time::Duration;

use node_plan::fact::RuntimeImage;

use super::client::{Client, within};
use super::error::CriError;
use super::proto;

/// Tells whose pull it is to whoever watches the runtime.
const ANNOTATION: &str = "warm-images.dev/warm";
/// The sandbox's name; there is no such pod.
const SANDBOX: &str = "warm-images";

/// What a pull ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the runtime holds under the reference.
    pub image: RuntimeImage,
    /// The id of what it held before; somebody else may have pulled it since the last list.
    pub before: Option<String>,
}

impl Client {
    /// Pulls exactly this reference and returns what the runtime holds under it afterwards. Dropping the future, or
    /// reaching `deadline`, drops the call; runtimes then stop the pull and keep the layers that are complete.
    pub async fn pull(&self, reference: &str, deadline: Duration) -> Result<Pulled, CriError> {
        let before = self.image_status(reference).await?.map(|image| image.runtime_id);
        let request = self.request(reference);
        within(deadline, "PullImage", reference, self.images().pull_image(request)).await?;
        let image = self.image_status(reference).await?;
        image.map(|image| Pulled { image, before }).ok_or_else(|| CriError::Absent { image: reference.to_owned() })
    }

    fn request(&self, reference: &str) -> proto::PullImageRequest {
        let spec = proto::ImageSpec {
            image: reference.to_owned(),
            user_specified_image: reference.to_owned(),
            ..Default::default()
        };
        let sandbox = proto::PodSandboxConfig {
            metadata: Some(proto::PodSandboxMetadata {
                name: SANDBOX.to_owned(),
                uid: self.settings.sandbox_uid.clone(),
                namespace: self.settings.sandbox_namespace.clone(),
                attempt: 0,
            }),
            annotations: HashMap::from([(ANNOTATION.to_owned(), "true".to_owned())]),
        };
        proto::PullImageRequest { image: Some(spec), sandbox_config: Some(sandbox) }
    }
}
