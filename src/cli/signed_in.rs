//! Who is signed in: the stored login, else the API key of the environment; and to which API the requests go.

use serde_json::Value;

use crate::cli::context::{Context, Vars};
use crate::cli::credentials::{self, DEFAULT_API_URL, Stored, is_sendable, no_home};
use crate::cli::error::CliError;
use crate::cli::json_file::JsonFile;
use crate::shared::base_url::BaseUrl;
use crate::shared::secret::Secret;

/// The credential in use, and the API that it is sent to.
pub(crate) struct SignedIn {
    pub(crate) secret: Secret<String>,
    pub(crate) api_url: BaseUrl,
    pub(crate) method: SignInMethod,
}

pub(crate) enum SignInMethod {
    /// By `auth:login`.
    Login {
        file: JsonFile,
        organization_id: Option<Value>,
        /// The file names an API URL, which wins over `POSTIZ_API_URL`.
        has_api_url: bool,
    },
    /// By `POSTIZ_API_KEY`.
    ApiKey,
}

impl SignedIn {
    /// The stored login if there is one, else the API key, else an error that names both ways.
    pub(crate) fn find(context: &Context) -> Result<SignedIn, CliError> {
        let file = credentials::find(context)?;
        let stored = match &file {
            Some(file) => Stored::load(file)?,
            None => None,
        };
        match (file, stored, context.vars.text(API_KEY_VARIABLE)) {
            (Some(file), Some(stored), _) => SignedIn::with_login(context, file, stored),
            (_, _, Some(key)) => SignedIn::with_key(context, &key),
            (None, _, None) => Err(no_home()),
            (Some(_), None, None) => Err(CliError::not_signed_in()),
        }
    }

    fn with_login(context: &Context, file: JsonFile, stored: Stored) -> Result<SignedIn, CliError> {
        let api_url = match &stored.api_url {
            Some(url) => BaseUrl::parse(url)
                .map_err(|wrong| file.broken(&format!("its apiUrl `{url}` {wrong}")))?,
            None => api_url_from_environment(context)?,
        };
        if !is_sendable(stored.access_token.expose()) {
            return Err(file.broken("its accessToken holds characters that cannot be sent"));
        }
        Ok(SignedIn {
            secret: stored.access_token,
            api_url,
            method: SignInMethod::Login {
                file,
                organization_id: stored.organization_id,
                has_api_url: stored.api_url.is_some(),
            },
        })
    }

    fn with_key(context: &Context, key: &str) -> Result<SignedIn, CliError> {
        if !is_sendable(key) {
            let message =
                format!("{API_KEY_VARIABLE} holds characters that cannot be sent (a line break?)");
            return Err(CliError::usage(message)
                .hint("copy the key again from Postiz: Settings > Public API"));
        }
        Ok(SignedIn {
            secret: Secret::new(key.to_owned()),
            api_url: api_url_from_environment(context)?,
            method: SignInMethod::ApiKey,
        })
    }

    /// The start of the secret, as much as may be shown: 8 characters, never more than a quarter.
    pub(crate) fn secret_start(&self) -> &str {
        let secret = self.secret.expose();
        let shown = 8.min(secret.len() / 4);
        secret.get(..shown).unwrap_or_default()
    }

    /// The variables that are set and have no effect, each with the reason.
    pub(crate) fn unused_variables(&self, vars: &Vars) -> Vec<(&'static str, &'static str)> {
        let candidates: &[(&str, &str)] = match &self.method {
            SignInMethod::Login { has_api_url, .. } => {
                let all = &[
                    (API_KEY_VARIABLE, "the stored login comes first"),
                    (API_URL_VARIABLE, "the stored login has its own API URL"),
                ];
                if *has_api_url { all } else { &all[..1] }
            }
            SignInMethod::ApiKey => &[(AUTH_SERVER_VARIABLE, "the API key signs in")],
        };
        let is_set = |(name, _): &&(&str, &str)| vars.text(name).is_some();
        candidates.iter().filter(is_set).copied().collect()
    }
}

/// `POSTIZ_API_URL`, else the API of Postiz' cloud.
pub(crate) fn api_url_from_environment(context: &Context) -> Result<BaseUrl, CliError> {
    let named = context.vars.text(API_URL_VARIABLE);
    let url = named.as_deref().unwrap_or(DEFAULT_API_URL);
    url_of_setting(API_URL_VARIABLE, url)
}

/// The URL that the flag or variable `name` holds.
pub(crate) fn url_of_setting(name: &str, url: &str) -> Result<BaseUrl, CliError> {
    BaseUrl::parse(url).map_err(|wrong| CliError::usage(format!("{name} `{url}` {wrong}")))
}

pub(crate) const API_KEY_VARIABLE: &str = "POSTIZ_API_KEY";
pub(crate) const API_URL_VARIABLE: &str = "POSTIZ_API_URL";
pub(crate) const AUTH_SERVER_VARIABLE: &str = "POSTIZ_AUTH_SERVER";
