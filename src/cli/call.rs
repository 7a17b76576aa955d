//! One request to the Postiz API, before it is sent.

use serde_json::Value;
use ureq::http::Method;

use crate::cli::error::CliError;
use crate::cli::http::Pace;
use crate::shared::percent;

pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query under the API URL, encoded.
    pub(crate) path: String,
    pub(crate) body: Option<String>,
    pub(crate) pace: Pace,
    /// It is not retried.
    pub(crate) once: bool,
}

impl Call {
    /// A request under `/public/v1`. Each of `segments` is one segment of the path, and is encoded.
    pub(crate) fn new(method: Method, segments: &[&str]) -> Result<Call, CliError> {
        let mut path = String::from("/public/v1");
        for segment in segments {
            if matches!(*segment, "" | "." | "..") {
                return Err(CliError::usage(format!("`{segment}` is not an ID")));
            }
            path.push('/');
            path.extend(percent::encode(segment));
        }
        Ok(Call::verbatim(method, &path, None))
    }

    pub(crate) fn get(segments: &[&str]) -> Result<Call, CliError> {
        Call::new(Method::GET, segments)
    }

    /// A request whose path and query the user wrote.
    pub(crate) fn verbatim(method: Method, path: &str, body: Option<String>) -> Call {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Call {
            method,
            path: format!("{slash}{path}"),
            body,
            pace: Pace::Usual,
            once: false,
        }
    }

    /// Without a time limit for the answer, unless the user set one.
    pub(crate) fn slow(mut self) -> Call {
        self.pace = Pace::Slow;
        self
    }

    /// With `name=value` in the query, if there is a value.
    pub(crate) fn query<'a>(mut self, name: &str, value: impl Into<Option<&'a str>>) -> Call {
        if let Some(value) = value.into() {
            let separator = if self.path.contains('?') { "&" } else { "?" };
            self.path.extend([separator, name, "="]);
            self.path.extend(percent::encode(value));
        }
        self
    }

    pub(crate) fn body(mut self, json: impl Into<String>) -> Call {
        self.body = Some(json.into());
        self
    }

    pub(crate) fn once(mut self) -> Call {
        self.once = true;
        self
    }

    /// The ID of the channel at `index` in the body of a new post.
    pub(crate) fn channel_of_post(&self, index: usize) -> Option<String> {
        let body: Value = serde_json::from_str(self.body.as_deref()?).ok()?;
        let id = &body["posts"][index]["integration"]["id"];
        id.as_str().map(str::to_owned)
    }
}
