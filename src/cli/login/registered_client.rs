//! The client that this machine registered at Postiz, saved with its port beside the credentials. The next login uses it
//! again, so that the list under Settings > Approved Apps does not grow. It holds no secret.

use serde_json::Map;

use crate::cli::json_file::JsonFile;
use crate::shared::base_url::BaseUrl;

/// A registered client.
pub(super) struct RegisteredClient {
    pub(super) id: String,
    /// The port of its callback.
    pub(super) port: u16,
}

impl RegisteredClient {
    /// The file for the client, beside the credentials in `file`.
    pub(super) fn file_beside(file: &JsonFile) -> JsonFile {
        file.beside(".client")
    }

    /// The saved client, if it is of this Postiz and has this name. A file that cannot be used is ignored, and the next
    /// registration overwrites it.
    pub(super) fn load(
        client_file: &JsonFile,
        api_url: &BaseUrl,
        name: &str,
    ) -> Option<RegisteredClient> {
        let fields = client_file.load().ok()??;
        let text = |field: &str| fields.get(field)?.as_str();
        if text("apiUrl")? != api_url.as_str() || text("clientName")? != name {
            return None;
        }
        let port = fields.get("port")?.as_u64()?;
        Some(RegisteredClient {
            id: text("clientId")?.to_owned(),
            port: u16::try_from(port).ok().filter(|port| *port > 0)?,
        })
    }

    pub(super) fn save(
        &self,
        client_file: &JsonFile,
        api_url: &BaseUrl,
        name: &str,
    ) -> std::io::Result<()> {
        let mut fields = Map::new();
        fields.insert("apiUrl".into(), api_url.as_str().into());
        fields.insert("clientName".into(), name.into());
        fields.insert("clientId".into(), self.id.as_str().into());
        fields.insert("port".into(), self.port.into());
        client_file.save(fields)
    }
}
