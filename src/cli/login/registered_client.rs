//! The client that this machine registered at Postiz, kept beside the credentials with its port: used again by the next
//! login, so that the list under Settings > Approved Apps does not grow. It holds no secret.

use serde_json::Map;

use crate::cli::json_file::JsonFile;
use crate::shared::base_url::BaseUrl;

/// A client at the Postiz of one API URL, under one name.
pub(super) struct RegisteredClient {
    pub(super) id: String,
    /// Its callback's.
    pub(super) port: u16,
}

impl RegisteredClient {
    /// Where the client is kept whose logins end in `file`.
    pub(super) fn file_beside(file: &JsonFile) -> JsonFile {
        file.beside(".client")
    }

    /// The client that is kept, if it is of this Postiz and has this name. A file that cannot be used is none: the next
    /// registration writes it anew.
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
