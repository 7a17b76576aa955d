//! Errors of PostgreSQL, and of connecting to it, sorted into retryable and permanent ones.

use std::error::Error as _;

use postgres::error::SqlState;

use crate::server::store::StoreError;

/// A failure, with the SQLSTATE if the server sent one.
pub(super) struct PostgresError {
    pub(super) error: StoreError,
    pub(super) code: Option<SqlState>,
}

impl From<postgres::Error> for PostgresError {
    fn from(error: postgres::Error) -> PostgresError {
        PostgresError {
            error: classify(&error),
            code: error.code().cloned(),
        }
    }
}

impl From<StoreError> for PostgresError {
    fn from(error: StoreError) -> PostgresError {
        PostgresError { error, code: None }
    }
}

/// `Unusable` (permanent) for a bad password, a missing database or schema, a missing privilege or a wrong table; else
/// `Unavailable` (retryable).
pub(super) fn classify(error: &postgres::Error) -> StoreError {
    let text = with_causes(error);
    let Some(code) = error.code() else {
        return StoreError::Unavailable(text);
    };
    let permanent = *code == SqlState::INVALID_PASSWORD
        || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        || *code == SqlState::INVALID_CATALOG_NAME
        || *code == SqlState::INVALID_SCHEMA_NAME
        || code.code().starts_with("42");
    if permanent {
        StoreError::Unusable(text)
    } else {
        StoreError::Unavailable(text)
    }
}

/// The error with its chain of causes: "error connecting to server" alone does not say what to do.
fn with_causes(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        cause = error.source();
    }
    text
}
