//! Whose credential it is, as Postiz says (`GET /me`).

use serde_json::Value;

use crate::cli::api::Api;
use crate::cli::call::Call;
use crate::cli::context::Context;

/// The organisation and the person that a credential belongs to.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) organization_id: Option<String>,
    pub(crate) organization: Option<String>,
    /// `None` for an API key, which belongs to no person.
    pub(crate) person: Option<String>,
}

impl Account {
    /// Asks Postiz, once. Nothing is known where it does not answer: up to v2.23.0 it has no `/me`.
    pub(crate) fn ask(api: &Api, context: &mut Context) -> Account {
        let answer = Call::get(&["me"]).and_then(|call| api.json(context, &call.once()));
        let me = answer.map(|json| json.value()).unwrap_or_default();
        let text = |value: &Value| Some(value.as_str()?.to_owned()).filter(|text| !text.is_empty());
        Account {
            organization_id: text(&me["organization"]["id"]),
            organization: text(&me["organization"]["name"]),
            person: text(&me["user"]["name"]),
        }
    }

    /// The organisation for people: its name, else the ID that the login brought.
    pub(crate) fn organization_or(&self, stored_id: Option<&Value>) -> String {
        match (&self.organization, stored_id) {
            (Some(name), _) => name.clone(),
            (None, None | Some(Value::Null)) => "unknown".to_owned(),
            (None, Some(Value::String(id))) => id.clone(),
            (None, Some(other)) => other.to_string(),
        }
    }
}
