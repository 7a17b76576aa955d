//! The client that this machine registered at Postiz, saved with its port beside the credentials. The next login uses it
//! again, so that the list under Settings > Approved Apps does not grow. It holds no secret.

use serde::{Deserialize, Serialize};

use crate::cli::json_file::JsonFile;
use crate::shared::base_url::BaseUrl;

/// A registered client, as the file holds it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegisteredClient {
    pub(super) api_url: String,
    pub(super) client_name: String,
    pub(super) client_id: String,
    /// The port of its callback.
    pub(super) port: u16,
}

impl RegisteredClient {
    /// The saved client, if it is of this Postiz and has this name. A file that cannot be used is ignored, and the next
    /// registration overwrites it.
    pub(super) fn load(file: &JsonFile, api_url: &BaseUrl, name: &str) -> Option<RegisteredClient> {
        let fields = file.load().ok()??;
        let client: RegisteredClient = serde_json::from_value(fields.into()).ok()?;
        let is_of_this_postiz = client.api_url == api_url.as_str();
        (is_of_this_postiz && client.client_name == name && client.port > 0).then_some(client)
    }
}
